// poll, select and epoll.
#include <string.h>
#include <sys/select.h>

#include "base/clock.h"
#include "base/hidden.h"
#include "posix/posix.h"
#include "wait/epoll_set.h"
#include "wait/poll_set.h"

namespace loopfast {

namespace {

int64_t from_milliseconds(int timeout) { return timeout < 0 ? kForever : timeout * 1'000'000LL; }

/// Nanoseconds, kForever for none, -1 for a time that the kernel refuses.
int64_t from_timespec(const timespec* time) {
    if (time == nullptr)
        return kForever;
    if (time->tv_sec < 0 || time->tv_nsec < 0 || time->tv_nsec >= 1'000'000'000)
        return -1;
    return time->tv_sec >= kForever / 1'000'000'000 ? kForever
                                                    : time->tv_sec * 1'000'000'000LL + time->tv_nsec;
}

/// Nothing in this process was ever a stream: one load.
bool no_streams() { return table_detail::limit.load(std::memory_order_relaxed) == 0; }

bool any_entry(const pollfd* fds, nfds_t count) {
    for (nfds_t i = 0; i < count; ++i)
        if (find(fds[i].fd).kind() != EntryKind::kNone)
            return true;
    return false;
}

template <typename Kernel>
int poll_with(pollfd* fds, nfds_t count, int64_t timeout, const sigset_t* mask, Kernel kernel) {
    if (no_streams() || !readable(fds, count * sizeof *fds) || !any_entry(fds, count))
        return kernel();
    for (;;) {
        if (poll_needs_us(fds, count))
            return returned<int>(poll_streams(fds, count, timeout, mask));
        bool moved;
        const int result = poll_kernel(
            fds, count, moved, [](void* argument) { return (*static_cast<Kernel*>(argument))(); }, &kernel);
        if (!moved)
            return result;
        sys::sleep_ns(5'000);  // being fused this moment
    }
}

}  // namespace

LOOPFAST_PUBLIC int poll(pollfd* fds, nfds_t count, int timeout) {
    return poll_with(fds, count, from_milliseconds(timeout), nullptr,
                     [&] { return real::poll(fds, count, timeout); });
}

LOOPFAST_PUBLIC int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
    const int64_t duration = from_timespec(timeout);
    if (duration < 0)
        return real::ppoll(fds, count, timeout, mask);
    return poll_with(fds, count, duration, mask, [&] { return real::ppoll(fds, count, timeout, mask); });
}

extern "C" [[noreturn]] void __chk_fail(void);

LOOPFAST_PUBLIC int __poll_chk(pollfd* fds, nfds_t count, int timeout, size_t room) {
    if (room / sizeof(pollfd) < count)
        __chk_fail();
    return poll(fds, count, timeout);
}
LOOPFAST_PUBLIC int __ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask,
                                size_t room) {
    if (room / sizeof(pollfd) < count)
        __chk_fail();
    return ppoll(fds, count, timeout, mask);
}

namespace {

/// select's sets as bit words: programs pass larger ones than fd_set has, sized by the count.
bool test(const fd_set* set, int fd) {
    return set != nullptr && (reinterpret_cast<const unsigned long*>(set)[fd / 64] >> (fd % 64) & 1) != 0;
}
void put(fd_set* set, int fd, bool on) {
    if (set == nullptr)
        return;
    auto& word = reinterpret_cast<unsigned long*>(set)[fd / 64];
    const unsigned long bit = 1UL << (fd % 64);
    word = on ? word | bit : word & ~bit;
}

constexpr short kReadable = POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR;
constexpr short kWritable = POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR;
constexpr int kMostSelected = 1024;

/// A select that names a stream, as a poll. kNotOurs: the kernel's select is right.
constexpr int kNotOurs = -1000000;

int select_streams(int count, fd_set* reading, fd_set* writing, fd_set* except, int64_t timeout,
                   const sigset_t* mask) {
    pollfd fds[kMostSelected];
    nfds_t used = 0;
    bool ours = false;
    if (count > kMostSelected)
        count = kMostSelected;
    for (int fd = 0; fd < count; ++fd) {
        const bool in = test(reading, fd);
        const bool out = test(writing, fd);
        const bool other = test(except, fd);
        if (!in && !out && !other)
            continue;
        short events = 0;
        if (in)
            events |= POLLIN | POLLRDNORM | POLLRDBAND;
        if (out)
            events |= POLLOUT | POLLWRNORM | POLLWRBAND;
        if (other)
            events |= POLLPRI;
        fds[used++] = {fd, events, 0};
        ours = ours || find(fd).kind() != EntryKind::kNone;
    }
    if (!ours)
        return kNotOurs;
    const int64_t deadline = timeout == 0 ? 0 : deadline_after(timeout);
    int found = 0;
    for (;;) {
        int result;
        const int64_t left = timeout == 0 ? 0 : time_left(deadline);
        timespec storage;
        const timespec* const time = as_timespec(left, storage);
        result = poll_with(fds, used, left, mask, [&] { return real::ppoll(fds, used, time, mask); });
        if (result < 0)
            return -errno;
        bool hung_up_only = false;
        for (nfds_t i = 0; i < used; ++i) {
            if ((fds[i].revents & POLLNVAL) != 0)
                return -EBADF;
            const bool in = test(reading, fds[i].fd) && (fds[i].revents & kReadable) != 0;
            const bool out = test(writing, fds[i].fd) && (fds[i].revents & kWritable) != 0;
            const bool other = test(except, fds[i].fd) && (fds[i].revents & POLLPRI) != 0;
            found += in + out + other;
            // poll always reports a hang-up; select does only to those who asked to read.
            hung_up_only = hung_up_only || (fds[i].revents != 0 && !in && !out && !other);
            if (hung_up_only && !in && !out && !other)
                fds[i].fd = fds[i].revents != 0 ? ~fds[i].fd : fds[i].fd;
        }
        if (found != 0 || !hung_up_only || left == 0)
            break;
    }
    for (nfds_t i = 0; i < used; ++i) {
        const int fd = fds[i].fd < 0 ? ~fds[i].fd : fds[i].fd;
        const short seen = fds[i].fd < 0 ? short{0} : fds[i].revents;
        put(reading, fd, test(reading, fd) && (seen & kReadable) != 0);
        put(writing, fd, test(writing, fd) && (seen & kWritable) != 0);
        put(except, fd, test(except, fd) && (seen & POLLPRI) != 0);
    }
    return found;
}

}  // namespace

LOOPFAST_PUBLIC int select(int count, fd_set* reading, fd_set* writing, fd_set* except, timeval* timeout) {
    if (no_streams() || count <= 0 || (timeout != nullptr && (timeout->tv_sec < 0 || timeout->tv_usec < 0)))
        return real::select(count, reading, writing, except, timeout);
    const int64_t duration =
        timeout == nullptr ? kForever : timeout->tv_sec * 1'000'000'000LL + timeout->tv_usec * 1000LL;
    const int64_t deadline = deadline_after(duration);
    const int result = select_streams(count, reading, writing, except, duration, nullptr);
    if (result == kNotOurs)
        return real::select(count, reading, writing, except, timeout);
    if (timeout != nullptr) {  // Linux says what is left
        const int64_t left = time_left(deadline);
        timeout->tv_sec = left / 1'000'000'000LL;
        timeout->tv_usec = left % 1'000'000'000LL / 1000;
    }
    return returned<int>(result);
}

LOOPFAST_PUBLIC int pselect(int count, fd_set* reading, fd_set* writing, fd_set* except,
                            const timespec* timeout, const sigset_t* mask) {
    const int64_t duration = from_timespec(timeout);
    if (no_streams() || count <= 0 || duration < 0)
        return real::pselect(count, reading, writing, except, timeout, mask);
    const int result = select_streams(count, reading, writing, except, duration, mask);
    if (result == kNotOurs)
        return real::pselect(count, reading, writing, except, timeout, mask);
    return returned<int>(result);
}

namespace {

int new_set(int fd) {
    if (fd >= 0) {
        appeared(fd);
        make_set(fd);
    }
    return fd;
}

}  // namespace

LOOPFAST_PUBLIC int epoll_create(int size) noexcept { return new_set(real::epoll_create(size)); }
LOOPFAST_PUBLIC int epoll_create1(int flags) noexcept { return new_set(real::epoll_create1(flags)); }

LOOPFAST_PUBLIC int epoll_ctl(int set_fd, int operation, int fd, epoll_event* event) noexcept {
    if (is_hidden(fd)) [[unlikely]]
        return returned<int>(-EBADF);
    EpollSet* const set = find_set(set_fd);
    if (set == nullptr)
        return real::epoll_ctl(set_fd, operation, fd, event);
    return returned<int>(set->control(set_fd, operation, fd, event));
}

LOOPFAST_PUBLIC int epoll_pwait(int set_fd, epoll_event* events, int capacity, int timeout,
                                const sigset_t* mask) {
    EpollSet* const set = find_set(set_fd);
    if (set == nullptr)
        return real::epoll_pwait(set_fd, events, capacity, timeout, mask);
    if (capacity > 0 && !readable(events, 1)) [[unlikely]]
        return returned<int>(-EFAULT);
    return returned<int>(set->wait(set_fd, events, capacity, from_milliseconds(timeout), mask));
}

LOOPFAST_PUBLIC int epoll_wait(int set_fd, epoll_event* events, int capacity, int timeout) {
    return epoll_pwait(set_fd, events, capacity, timeout, nullptr);
}

LOOPFAST_PUBLIC int epoll_pwait2(int set_fd, epoll_event* events, int capacity, const timespec* timeout,
                                 const sigset_t* mask) {
    EpollSet* const set = find_set(set_fd);
    const int64_t duration = from_timespec(timeout);
    if (set == nullptr || duration < 0)
        return real::epoll_pwait2(set_fd, events, capacity, timeout, mask);
    if (capacity > 0 && !readable(events, 1)) [[unlikely]]
        return returned<int>(-EFAULT);
    return returned<int>(set->wait(set_fd, events, capacity, duration, mask));
}

}  // namespace loopfast
