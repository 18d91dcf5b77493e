// See apart.h.
#include "base/apart.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include <atomic>
#include <cstdint>

#include "base/alive.h"
#include "base/copy.h"
#include "base/hidden.h"
#include "base/lock.h"
#include "base/syscall.h"

namespace loopfast {

namespace {

/// More than one meets by accident; as many threads as may be stuck at once.
constexpr int kMostThreads = 16;
constexpr int kMostWaiting = 1024;
constexpr size_t kStackSize = 64 * 1024;

FamilyLock queue_lock;
int waiting[kMostWaiting];
std::atomic<int> waiting_count{0};
std::atomic<int> threads{0};

void close_it(int fd) {
    if (is_hidden(fd))
        close_hidden(fd);
    else
        sys::close(fd);
}

bool put(int fd) {
    if (!queue_lock.lock())
        return false;
    const int count = waiting_count.load(std::memory_order_relaxed);
    if (count < kMostWaiting) {
        waiting[count] = fd;
        // seq_cst: Dekker with the end of work().
        waiting_count.store(count + 1, std::memory_order_seq_cst);
    }
    queue_lock.unlock();
    return count < kMostWaiting;
}

int take() {
    if (!queue_lock.lock())
        return -1;
    const int count = waiting_count.load(std::memory_order_relaxed);
    const int fd = count > 0 ? waiting[count - 1] : -1;
    if (count > 0)
        waiting_count.store(count - 1, std::memory_order_relaxed);
    queue_lock.unlock();
    return fd;
}

/// Counts a thread in. @return false when there are enough.
bool enter() {
    if (threads.fetch_add(1, std::memory_order_seq_cst) < kMostThreads)
        return true;
    threads.fetch_sub(1, std::memory_order_seq_cst);
    return false;
}

void close_waiting() {
    for (int fd = take(); fd >= 0; fd = take())
        close_it(fd);
}

void* work(void*) {
    sys::call(SYS_prctl, PR_SET_NAME, sys::word("loopfast"));
    faults_reach_handler = true;  // they do not, see start(); it touches no memory of the program's
    // Counted out first, then a look once more: who adds one finds room for a thread, or is found.
    do {
        close_waiting();
        threads.fetch_sub(1, std::memory_order_seq_cst);
    } while (waiting_count.load(std::memory_order_seq_cst) != 0 && enter());
    return nullptr;
}

/// One more thread, unless there are enough.
bool start() {
    if (!enter())
        return true;
    pthread_attr_t attributes;
    bool made = pthread_attr_init(&attributes) == 0;
    if (made) {
        // All signals are for the program's threads; libc's own as well.
        const uint64_t all = ~uint64_t{0};
        uint64_t before = 0;
        sys::call(SYS_rt_sigprocmask, SIG_SETMASK, sys::word(&all), sys::word(&before), sizeof all);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, kStackSize);
        pthread_t thread;
        made = pthread_create(&thread, &attributes, work, nullptr) == 0;
        pthread_attr_destroy(&attributes);
        sys::call(SYS_rt_sigprocmask, SIG_SETMASK, sys::word(&before), 0, sizeof before);
    }
    if (!made)
        threads.fetch_sub(1, std::memory_order_seq_cst);
    return made;
}

}  // namespace

void close_apart(int fd) {
    if (fd < 0)
        return;
    const int owner = owner_process.load(std::memory_order_relaxed);
    if (owner != 0 && owner != sys::getpid()) {
        close_it(fd);  // a child of vfork: its parent has it as well
        return;
    }
    if (!put(fd))
        close_it(fd);
    else if (!start() && threads.load(std::memory_order_seq_cst) == 0)
        close_waiting();
}

bool apart_is_full() { return threads.load(std::memory_order_relaxed) >= kMostThreads; }

void apart_after_fork_in_child() {
    // The threads are the parent's, and so is what waits for them; the copies here are nobody's last ones.
    queue_lock.reset();
    threads.store(0, std::memory_order_relaxed);
    if (waiting_count.load(std::memory_order_relaxed) != 0)
        close_waiting();
}

}  // namespace loopfast
