// See thread.h.
#include "winsock/thread.h"

#include <pthread.h>

#include "winsock/native.h"
#include "winsock/operation.h"
#include "winsock/port.h"

namespace loopfast::winsock {

constinit thread_local DWORD last_error = 0;
constinit thread_local Thread* current_thread = nullptr;

namespace {

std::atomic<uint64_t> next_id{1};
pthread_key_t key;
pthread_once_t key_made = PTHREAD_ONCE_INIT;

void thread_ended(void* pointer) {
    auto* const thread = static_cast<Thread*>(pointer);
    current_thread = thread;  // what ends with it may ask who the thread is
    const bool kept = thread->end();
    thread->set();
    if (!kept)
        close_handle(thread->handle(), Kind::kThread);
    current_thread = nullptr;
    pthread_setspecific(key, nullptr);
    thread->let_go();
}

void make_key() { pthread_key_create(&key, thread_ended); }

}  // namespace

Thread& make_thread() {
    pthread_once(&key_made, make_key);
    auto* const thread = new Thread;
    if (open_handle(thread) == 0)
        abort();  // as many threads as there are handles
    thread->keep();
    current_thread = thread;
    pthread_setspecific(key, thread);
    return *thread;
}

Thread::Thread() : Waitable(kKind, true, false), id(next_id.fetch_add(1, std::memory_order_relaxed)) {}

Thread::~Thread() {
    if (wake_fd >= 0)
        native::close(wake_fd);
    while (spare != nullptr) {
        Operation* const operation = spare;
        spare = operation->next;
        delete operation;
    }
}

Ref<Thread> find_thread(HANDLE handle) {
    if (handle == GetCurrentThread())
        return Ref<Thread>::to(&this_thread());
    return find<Thread>(handle);
}

bool Thread::queue(Routine* routine) {
    {
        Hold hold(routines_lock_);
        if (ended_)
            return false;
        routine->next = nullptr;
        if (last_ != nullptr)
            last_->next = routine;
        else
            first_ = routine;
        last_ = routine;
        has_routines_.store(true, std::memory_order_seq_cst);
        // Under the lock: a thread that ended has no eventfd.
        if (polling.load(std::memory_order_seq_cst) != 0)
            native::event_signal(wake_fd);
    }
    waiter.call();
    return true;
}

bool Thread::run_routines() {
    if (!has_routines())
        return false;
    bool any = false;
    for (;;) {
        Routine* routine;
        {
            Hold hold(routines_lock_);
            routine = first_;
            if (routine == nullptr) {
                has_routines_.store(false, std::memory_order_seq_cst);
                return any;
            }
            first_ = routine->next;
            if (first_ == nullptr)
                last_ = nullptr;
        }
        any = true;
        const LPWSAUSERAPC function = routine->function;
        const DWORD_PTR context = routine->context;
        if (routine->allocated)
            delete routine;
        function(context);
    }
}

bool Thread::can_be_woken() {
    if (wake_fd < 0)
        wake_fd = native::event_create();
    return wake_fd >= 0;
}

bool Thread::give_up_handle() {
    Hold hold(routines_lock_);
    handed_out_ = false;
    return ended_;
}

bool Thread::end() {
    Routine* routine;
    bool kept;
    {
        Hold hold(routines_lock_);
        ended_ = true;
        kept = handed_out_;
        routine = first_;
        first_ = last_ = nullptr;
        has_routines_.store(false, std::memory_order_relaxed);
    }
    while (routine != nullptr) {
        Routine* const next = routine->next;
        if (routine->allocated)
            delete routine;
        else
            give_back(reinterpret_cast<Operation*>(routine->context));
        routine = next;
    }
    if (port != nullptr)
        port->dissociate(*this);
    cancel_of_thread(id);
    return kept;
}

}  // namespace loopfast::winsock
