// See steward.h.
#include "wait/steward.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "base/clock.h"
#include "base/hidden.h"
#include "base/lock.h"
#include "base/log.h"
#include "link/identity.h"
#include "link/link.h"
#include "table/table.h"

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
int call = -1;  ///< a timer: rings at once when somebody calls, or when young streams are due
pthread_t thread;
thread_local bool on_duty_here = false;  ///< this is the steward
FamilyLock errands_lock;
Errand errands[kMostErrands];

/// The setup of a young connection and its first message want the same processors, and somebody waits for the
/// message: a setup gets the steward's help after this time. Connections that are short cost him nothing.
constexpr long kYouth = 100'000;
/// Streams whose setup has begun, or has come further by itself, by the data of their events.
constexpr uint32_t kMostYoung = 1024;
FamilyLock young_lock;
uint64_t young[kMostYoung];
uint32_t young_count = 0;
std::atomic<int> errand_count{0};
std::atomic<int> unfinished{0};  ///< streams whose bytes the kernel did not take yet, at the last round

/// A peer let go of its link: take back what it left. @return false when the kernel's buffers are full.
bool take_what_was_left(Stream& stream, int fd) {
    Watching watching(stream);
    if (!watching.alive() || stream.state() != State::kFused)
        return true;
    if (!hung_up(stream.link.load(std::memory_order_relaxed)))
        return true;  // a bell, that came before only hang-ups were asked for
    stream.link_down.store(true, std::memory_order_relaxed);
    forget_kernel_readiness(stream);
    if (peer_left(stream, fd))
        return return_to_kernel(stream, fd);
    const int ready = sys::ready_now(fd, POLLRDHUP);
    return ready >= 0 && (ready & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

uint64_t data_of(const Stream& stream) {
    return uint64_t{stream.generation.load(std::memory_order_relaxed)} << 32 | stream.slot;
}

/// @return 0 or -errno.
int watch(const Stream& stream, int fd, uint32_t events) {
    epoll_event event{events | EPOLLRDHUP | EPOLLET, {}};
    event.data.u64 = data_of(stream);
    const int result = sys::insisting([&] { return sys::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event); });
    return result == -EEXIST ? sys::epoll_ctl(set, EPOLL_CTL_MOD, fd, &event) : result;
}

/// Something came on the offer or the link of a stream. @return false when it has to be seen to again.
bool see_to(uint32_t slot, uint32_t generation) {
    Stream& stream = stream_at(slot);
    // Pairs with the one in attend_stream: what was there when the link was registered is seen. While it is
    // held the descriptor is not closed: the program's close comes before our step or after it.
    Hold hold(descriptor_lock(slot));
    const int fd = stream.descriptor.load(std::memory_order_relaxed);
    if (fd < 0 || stream.generation.load(std::memory_order_relaxed) != generation)
        return true;
    // Somebody may have closed the descriptor where we do not see it; then the number means something else. A
    // question that the kernel did not answer, for want of memory, is asked again.
    const uint64_t cookie = cookie_of(fd);
    if (cookie != stream.cookie)
        return cookie != 0 || sys::fcntl(fd, F_GETFD) == -EBADF;
    if (!stream.fused() || !stream.out_in_ring()) {
        const bool done = carry_on(stream, fd);
        if (stream.guided.load(std::memory_order_relaxed) >= kMostGuided)
            for (const int watched : {stream.offer.load(std::memory_order_relaxed),
                                      stream.pending_link.load(std::memory_order_relaxed),
                                      stream.link.load(std::memory_order_relaxed)})
                if (watched >= 0)
                    watch(stream, watched, 0);  // it wakes us no more
        if (stream.state() != State::kFused)
            return done;
    }
    return take_what_was_left(stream, fd);
}

bool take_young(uint64_t& data) {
    Hold hold(young_lock);
    if (young_count == 0)
        return false;
    data = young[--young_count];
    return true;
}

/// @return whether it still needs help.
bool watch_young(uint32_t slot, uint32_t generation) {
    Stream& stream = stream_at(slot);
    Hold hold(descriptor_lock(slot));  // as in see_to
    if (stream.descriptor.load(std::memory_order_relaxed) < 0 ||
        stream.generation.load(std::memory_order_relaxed) != generation)
        return false;
    bool watched = stream.look_due.load(std::memory_order_relaxed);
    for (const int fd :
         {stream.offer.load(std::memory_order_relaxed), stream.pending_link.load(std::memory_order_relaxed)})
        watched = (fd >= 0 && watch(stream, fd, EPOLLIN) == 0) || watched;
    return watched;
}

void run_errands() {
    Hold hold(errands_lock);
    for (Errand& errand : errands) {
        if (errand.stream == nullptr || !return_to_kernel(*errand.stream, errand.fd))
            continue;
        if (errand.shut_down)
            sys::shutdown(errand.fd, SHUT_WR);
        close_hidden(errand.fd);
        Stream& stream = *errand.stream;
        errand = {};
        Hold last(descriptor_lock(stream.slot));  // the slot is given to another stream after we let go
        // As at the end of Watching, whose count has been held since.
        if (stream.waiters.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
            stream.dying.load(std::memory_order_seq_cst))
            release_mapping(stream);
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
        if (events[i].data.u64 != kCall) {
            look(events[i].data.u64);
            continue;
        }
        for (uint64_t data; take_young(data);)
            if (watch_young(static_cast<uint32_t>(data), static_cast<uint32_t>(data >> 32)))
                look(data);
    }
    unfinished.store(kept, std::memory_order_relaxed);
}

void* serve(void*) {
    sys::call(SYS_prctl, PR_SET_NAME, sys::word("loopfast"));
    on_duty_here = true;
    // A program that is just running goes on; and he is punctual.
    const sched_param none{};
    sys::call(SYS_sched_setscheduler, 0, SCHED_BATCH, sys::word(&none));
    sys::call(SYS_prctl, PR_SET_TIMERSLACK, 1);
    while (!leave_duty.load(std::memory_order_acquire)) {
        epoll_event events[32];
        const bool more = unfinished.load(std::memory_order_relaxed) != 0 ||
                          errand_count.load(std::memory_order_relaxed) != 0;
        const int count = sys::epoll_pwait(set, events, 32, more ? kRetryMilliseconds : -1, nullptr);
        see_to_all(events, count);
        if (errand_count.load(std::memory_order_relaxed) != 0)
            run_errands();
    }
    return nullptr;
}

void ring_after(long nanoseconds) {
    const itimerspec once{{0, 0}, {0, nanoseconds}};
    sys::call(SYS_timerfd_settime, call, 0, sys::word(&once), 0);
}

void call_steward() { ring_after(1); }

bool open_set() {
    if (set >= 0)
        return true;
    const int made = sys::epoll_create(EPOLL_CLOEXEC);
    const long timer = sys::call(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    set = made < 0 ? -1 : hide(made);
    call = timer < 0 ? -1 : hide(static_cast<int>(timer));
    // Never read, so that each call is an edge for all who have it in their sets, see steward_call(). An edge
    // that one misses since the timer was set again in between comes when that has run out.
    epoll_event entry{EPOLLIN | EPOLLET, {}};
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
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_setstacksize(&attributes, kStackSize);
    running = pthread_create(&thread, &attributes, serve, nullptr) == 0;
    if (!running) {  // a program with very large thread variables
        pthread_attr_destroy(&attributes);
        pthread_attr_init(&attributes);
        running = pthread_create(&thread, &attributes, serve, nullptr) == 0;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    LOOPFAST_LOG("steward %s", running ? "on duty" : "cannot be had");
    return running;
}

/// Whether a descriptor can be put into the steward's set. The steward itself does so in the middle of a
/// step; the lock may be held by who waits for him to end then, and the set is there as long as he is.
class Access {
public:
    explicit Access(Stream& stream) {
        if (on_duty_here) {
            good_ = true;
        } else if (!in_borrowed_memory() && duty.lock()) {
            locked_ = true;
            { Hold seen(descriptor_lock(stream.slot)); }  // pairs with the one in see_to
            good_ = start();
        }
    }
    ~Access() {
        if (locked_)
            duty.unlock();
    }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;
    bool good() const { return good_; }
    /// False where it is not to be asked for at present: in a handler on top of a call that holds the lock.
    bool asked() const { return good_ || locked_; }

private:
    bool locked_ = false;
    bool good_ = false;
};

void attend_stream(Stream& stream) {
    const Access access(stream);
    if (!access.asked())
        return;
    // An acceptor that has proposed waits for the bell of the confirmation; then only the hang-up counts.
    const bool settled = stream.state() == State::kFused;
    int result = 0;
    if (access.good())
        result = watch(stream, stream.link.load(std::memory_order_relaxed),
                       settled ? 0U : static_cast<uint32_t>(EPOLLIN));
    else if (!retired && set < 0)
        result = -ENOMEM;
    // Where there is no thread to be had it is enough to find that out once; for want of memory or
    // descriptors the next send or sleep asks again.
    if (result != -ENOMEM && result != -ENOSPC && (settled || !access.good()))
        stream.attended.store(steward_on_duty.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

void accompany_stream(Stream& stream, int watched) {
    if (on_duty_here) {
        watch(stream, watched, EPOLLIN);
        return;
    }
    const Access access(stream);
    if (!access.good())
        return;
    Hold hold(young_lock);
    if (young_count == kMostYoung)
        return;
    young[young_count++] = data_of(stream);
    stream.accompanied.store(steward_on_duty.load(std::memory_order_relaxed), std::memory_order_relaxed);
    if (young_count == 1)
        ring_after(kYouth);
}

bool accept_errand(Stream& stream, int fd, bool shut_down) {
    Hold hold(duty);
    if (!start())
        return false;
    Hold also(errands_lock);
    for (Errand& errand : errands) {
        if (errand.stream != nullptr)
            continue;
        const int own = sys::fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (own < 0)
            return false;
        const int hidden = hide(own);
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
    young_lock.reset();
    young_count = 0;
    for (Errand& errand : errands) {
        close_hidden(errand.fd);
        errand = {};
    }
    errand_count.store(0, std::memory_order_relaxed);
    unfinished.store(0, std::memory_order_relaxed);
    close_hidden(set);
    close_hidden(call);
    set = call = -1;
    running = false;
    steward_on_duty.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

void connect_steward() {
    steward_hooks.attend = attend_stream;
    steward_hooks.send_the_rest = accept_errand;
    steward_hooks.accompany = accompany_stream;
    steward_hooks.call = call_steward;
    table_hooks.steward_forked = forked;
}

int steward_call() { return call; }

void stop_steward() {
    Hold hold(duty);
    if (!running || in_borrowed_memory())
        return;
    leave_duty.store(true, std::memory_order_release);  // pairs with the acquire in serve()
    call_steward();
    pthread_join(thread, nullptr);
    running = false;
    // The set stays, with the links in it: the next steward finds what came meanwhile.
}

void retire_steward() {
    stop_steward();
    retired = true;
}

void finish_stewardship() {
    const auto unfinished_business = [] {
        return running && (errand_count.load(std::memory_order_relaxed) |
                           unfinished.load(std::memory_order_relaxed)) != 0;
    };
    if (!unfinished_business() || in_borrowed_memory())
        return;
    constexpr int64_t kMoment = 2'000'000'000;
    const int64_t deadline = deadline_after(kMoment);
    while (unfinished_business() && time_left(deadline) != 0)
        sys::sleep_ns(1'000'000);
}

}  // namespace loopfast
