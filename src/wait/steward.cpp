// See steward.h.
#include "wait/steward.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/hidden.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/own_thread.h"
#include "base/ready.h"
#include "link/identity.h"
#include "table/table.h"
#include "wait/impatience.h"

namespace loopfast {

namespace {

constexpr uint64_t kCall = ~uint64_t{0};  ///< no slot and generation are this
constexpr int kMostErrands = 64;
constexpr int kRetryMilliseconds = 2;
/// Taking bytes back needs a buffer of 16 KiB; what is not touched costs nothing.
constexpr size_t kStackSize = 256 * 1024;

/// A direction that has ended for the program while bytes of it still have to go into the kernel: they are
/// sent through a descriptor of ours, and then comes the end.
struct Errand {
    Stream* stream = nullptr;
    int fd = -1;
    bool shut_down = false;  ///< the program called shutdown and may still receive; else it closed
};

// Under `duty`, but for what the thread itself needs to wait.
FamilyLock duty;
bool running = false;
bool retired = false;
std::atomic<bool> leave_duty{false};
int set = -1;
int call = -1;
pthread_t thread;
FamilyLock errands_lock;
Errand errands[kMostErrands];
std::atomic<int> errand_count{0};
bool errands_are_inherited = false;  ///< by a process that is forked now
std::atomic<int> unfinished{0};      ///< streams whose bytes the kernel did not take yet, at the last round

/// A peer let go of its link: take back what it left. @return false when the kernel's buffers are full.
bool see_to(uint32_t slot, uint32_t generation) {
    Stream& stream = stream_at(slot);
    // Pairs with the one in attend_stream: what was there when the link was registered is seen.
    Hold hold(descriptor_lock(slot));
    const int fd = stream.descriptor.load(std::memory_order_relaxed);
    if (fd < 0 || stream.generation.load(std::memory_order_relaxed) != generation)
        return true;
    Watching watching(stream);
    if (!watching.alive() || stream.state() != State::kFused)
        return true;
    // Somebody may have closed the descriptor where we do not see it; then the number means something else. A
    // question that the kernel did not answer, for want of memory, is asked again.
    const uint64_t cookie = cookie_of(fd);
    if (cookie != stream.cookie)
        return cookie != 0 || sys::fcntl(fd, F_GETFD) == -EBADF;
    stream.link_down.store(true, std::memory_order_relaxed);
    forget_kernel_readiness(stream);
    if (peer_left(stream, fd))
        return return_to_kernel(stream, fd);
    const int ready = ready_now(fd, POLLRDHUP);
    return ready >= 0 && (ready & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void run_all_errands() {
    Hold hold(errands_lock);
    for (Errand& errand : errands) {
        if (errand.stream == nullptr || !return_to_kernel(*errand.stream, errand.fd))
            continue;
        if (errand.shut_down)
            sys::shutdown(errand.fd, SHUT_WR);
        close_hidden(errand.fd);
        Stream& stream = *errand.stream;
        errand = {};
        stop_watching(stream);
        errand_count.fetch_sub(1, std::memory_order_relaxed);
    }
}

/// Streams whose peer left and whose bytes the kernel did not take at once, by the data of their events. The
/// thread's own. Of more than these the rest waits for their programs' next calls.
constexpr int kMostUnfinished = 1024;
uint64_t unfinished_streams[kMostUnfinished];

void see_to_all(const epoll_event* events, int count) {
    int left = unfinished.load(std::memory_order_relaxed);
    int kept = 0;
    const auto look = [&](uint64_t data) {
        if (!see_to(static_cast<uint32_t>(data), static_cast<uint32_t>(data >> 32)) && kept < kMostUnfinished)
            unfinished_streams[kept++] = data;
    };
    for (int i = 0; i < left; ++i)
        look(unfinished_streams[i]);
    for (int i = 0; i < count; ++i) {
        uint64_t calls;
        if (events[i].data.u64 == kCall)
            sys::read(call, &calls, sizeof calls);
        else
            look(events[i].data.u64);
    }
    unfinished.store(kept, std::memory_order_relaxed);
}

/// Bytes are held back, or were lately (MSG_MORE, stream/held.cpp), or a ring with TCP_USER_TIMEOUT is full:
/// then the thread looks at the clock, so that who holds some back seldom has to wake it.
std::atomic<bool> minding{false};
std::atomic<bool> minds{false};  ///< there is a thread that would
constexpr int kMindMilliseconds = 50;
constexpr int kQuietRounds = 40;

/// @return whether there is something to be minded.
bool look_after_all() {
    const bool held = show_overdue(stream_at);
    return leave_full_rings() || held;
}

void mind_all() {
    static int quiet = 0;  // the thread's own
    if (look_after_all()) {
        quiet = 0;
        return;
    }
    if (++quiet < kQuietRounds)
        return;
    quiet = 0;
    // Dekker with mind(): say it, then look.
    minding.store(false, std::memory_order_seq_cst);
    if (look_after_all())
        minding.store(true, std::memory_order_seq_cst);
}

void* serve(void*) {
    become_own_thread();
    while (!leave_duty.load(std::memory_order_acquire)) {
        epoll_event events[32];
        const bool more = unfinished.load(std::memory_order_relaxed) != 0 ||
                          errand_count.load(std::memory_order_relaxed) != 0;
        const bool minded = minding.load(std::memory_order_seq_cst);
        const int count = sys::epoll_pwait(set, events, 32,
                                           more     ? kRetryMilliseconds
                                           : minded ? kMindMilliseconds
                                                    : -1,
                                           nullptr);
        see_to_all(events, count);
        if (minding.load(std::memory_order_seq_cst))
            mind_all();
        if (errand_count.load(std::memory_order_relaxed) != 0)
            run_all_errands();
    }
    return nullptr;
}

void call_steward() {
    const uint64_t one = 1;
    sys::write(call, &one, sizeof one);
}

/// Something was remembered that has to be shown in time. Dekker, both with a thread that is about to sleep
/// for good and with stop_steward(): that was stored before, and these words are looked at after.
bool mind() {
    if (!minds.load(std::memory_order_seq_cst))
        return false;
    if (!minding.load(std::memory_order_seq_cst) && !minding.exchange(true, std::memory_order_seq_cst))
        call_steward();
    return true;
}

/// What the thread would have shown: all that is held, on the list or not, since who is in the middle of
/// showing it may be gone in a moment.
void mind_no_more() {
    minds.store(false, std::memory_order_seq_cst);
    minding.store(false, std::memory_order_seq_cst);
    forget_full_rings();
    for_each_stream([](Stream& stream) {
        if (const Watching watching(stream); watching.alive())
            show_held(stream);
    });
}

bool open_set() {
    if (set >= 0)
        return true;
    const int made = sys::epoll_create(EPOLL_CLOEXEC);
    const long event = sys::call(SYS_eventfd2, 0, EFD_NONBLOCK | EFD_CLOEXEC);
    set = made < 0 ? -1 : hide(made);
    call = event < 0 ? -1 : hide(static_cast<int>(event));
    epoll_event entry{EPOLLIN, {}};
    entry.data.u64 = kCall;
    if (set >= 0 && call >= 0 && sys::epoll_ctl(set, EPOLL_CTL_ADD, call, &entry) == 0)
        return true;
    close_hidden(set);
    close_hidden(call);
    set = call = -1;
    return false;
}

/// `duty` is held.
bool start() {
    if (running)
        return true;
    if (retired || !open_set())
        return false;
    leave_duty.store(false, std::memory_order_relaxed);
    running = start_thread(serve, nullptr, kStackSize, &thread);
    minds.store(running, std::memory_order_seq_cst);
    LOOPFAST_LOG("steward %s", running ? "on duty" : "cannot be had");
    return running;
}

void attend_stream(Stream& stream) {
    if (in_borrowed_memory())
        return;
    if (!duty.lock())
        return;
    { Hold seen(descriptor_lock(stream.slot)); }  // pairs with the one in see_to
    int result = 0;
    if (start()) {
        epoll_event event{EPOLLRDHUP | EPOLLET, {}};
        event.data.u64 = uint64_t{stream.generation.load(std::memory_order_relaxed)} << 32 | stream.slot;
        const int link = stream.link.load(std::memory_order_relaxed);
        result = sys::insisting([&] { return sys::epoll_ctl(set, EPOLL_CTL_ADD, link, &event); });
    } else if (!retired && set < 0) {
        result = -ENOMEM;
    }
    // Where there is no thread to be had it is enough to find that out once; for want of memory or
    // descriptors the next send or sleep asks again.
    if (result != -ENOMEM && result != -ENOSPC)
        stream.attended.store(steward_on_duty.load(std::memory_order_relaxed), std::memory_order_relaxed);
    duty.unlock();
}

bool accept_errand(Stream& stream, int fd, bool shut_down) {
    Hold hold(duty);
    if (!start())
        return false;
    Hold also(errands_lock);
    for (Errand& errand : errands) {
        if (errand.stream != nullptr)
            continue;
        const int hidden = hide_copy(fd);
        if (hidden < 0)
            return false;
        stream.waiters.fetch_add(1, std::memory_order_seq_cst);  // Dekker with release_mapping
        errand = {&stream, hidden, shut_down};
        errand_count.fetch_add(1, std::memory_order_relaxed);
        call_steward();
        return true;
    }
    return false;
}

void forked() {
    // The thread is the parent's, and so are its errands. The epoll set would be shared with it.
    duty.reset();
    errands_lock.reset();
    // Without a set there was no steward to take any on.
    const bool some = set >= 0 || errands_are_inherited;
    for (Errand* place = errands; some && place != errands + kMostErrands; ++place) {
        Errand& errand = *place;
        if (errands_are_inherited) {
            // Counted anew, as the stream's other counts are.
            if (errand.stream != nullptr && errand.stream->local_refs.load(std::memory_order_relaxed) != 0)
                errand.stream->waiters.fetch_add(1, std::memory_order_relaxed);
            continue;
        }
        close_hidden(errand.fd);
        errand = {};
    }
    if (!errands_are_inherited)
        errand_count.store(0, std::memory_order_relaxed);
    unfinished.store(0, std::memory_order_relaxed);
    close_hidden(set);
    close_hidden(call);
    set = call = -1;
    running = false;
    mind_no_more();
    steward_on_duty.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

void connect_steward() {
    steward_hooks.attend = attend_stream;
    steward_hooks.send_the_rest = accept_errand;
    steward_hooks.mind = mind;
    connect_impatience(mind);
    table_hooks.steward_forked = forked;
}

bool stop_steward() {
    Hold hold(duty);
    if (!running || in_borrowed_memory())
        return false;
    leave_duty.store(true, std::memory_order_release);  // pairs with the acquire in serve()
    call_steward();
    pthread_join(thread, nullptr);
    running = false;
    mind_no_more();
    // The set stays, with the links in it: the next steward finds what came meanwhile.
    return true;
}

void retire_steward() {
    if (in_borrowed_memory())
        return;  // a child of vfork ends: the steward, and the word, are its parent's
    stop_steward();
    retired = true;
}

bool finish_stewardship(int64_t patience) {
    const auto unfinished_business = [] {
        return running && (errand_count.load(std::memory_order_relaxed) |
                           unfinished.load(std::memory_order_relaxed)) != 0;
    };
    if (!unfinished_business() || in_borrowed_memory())
        return true;
    const int64_t deadline = deadline_after(patience);
    while (unfinished_business()) {
        if (time_left(deadline) == 0)
            return false;
        sys::sleep_ns(1'000'000);
    }
    return true;
}

void bequeath_errands(bool on) { errands_are_inherited = on; }

bool run_errands() {
    run_all_errands();
    return errand_count.load(std::memory_order_relaxed) == 0;
}

}  // namespace loopfast
