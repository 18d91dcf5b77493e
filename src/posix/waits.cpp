// poll, select and epoll.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>

#include "base/clock.h"
#include "base/copy.h"
#include "base/hidden.h"
#include "base/ticks.h"
#include "posix/masks.h"
#include "posix/posix.h"
#include "wait/early_sets.h"
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
bool no_streams() { return !had_streams(); }

bool any_entry(const pollfd* fds, nfds_t count) {
    for (nfds_t i = 0; i < count; ++i)
        if (find(fds[i].fd).kind() != EntryKind::kNone)
            return true;
    return false;
}

/// The kernel refuses a poll of more entries than the process may have descriptors.
constexpr nfds_t kFewPolled = 256;
bool allowed(nfds_t count) {
    rlimit limit{};
    return ::getrlimit(RLIMIT_NOFILE, &limit) != 0 || count <= limit.rlim_cur;
}

/// The kernel reads all entries at the beginning and writes all answers at the end. One of each page is
/// tried.
bool writable(pollfd* fds, nfds_t count) {
    constexpr nfds_t kInAPage = 4096 / sizeof(pollfd);
    for (nfds_t i = 0; i < count; i += kInAPage)
        if (safe_copy(&fds[i].revents, &fds[i].revents, sizeof fds[i].revents) != 0)
            return false;
    return count == 0 ||
           safe_copy(&fds[count - 1].revents, &fds[count - 1].revents, sizeof fds[0].revents) == 0;
}

template <typename Kernel>
int poll_with(pollfd* fds, nfds_t count, int64_t timeout, const sigset_t* mask, Kernel kernel) {
    if (count > kFewPolled && !allowed(count))
        return returned<int>(-EINVAL);
    if (!readable(fds, count * sizeof *fds) || !any_entry(fds, count))
        return kernel();
    if (!writable(fds, count)) [[unlikely]]
        return returned<int>(-EFAULT);
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

static __attribute__((noinline)) int poll_with_streams(pollfd* fds, nfds_t count, int timeout) {
    return poll_with(fds, count, from_milliseconds(timeout), nullptr,
                     [&] { return real::poll(fds, count, timeout); });
}
LOOPFAST_PUBLIC int poll(pollfd* fds, nfds_t count, int timeout) {
    return no_streams() ? real::poll(fds, count, timeout) : poll_with_streams(fds, count, timeout);
}

LOOPFAST_PUBLIC int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* asked) {
    const WaitMask translated(asked);
    const sigset_t* const mask = translated.get();
    const int64_t duration = from_timespec(timeout);
    if (duration < 0 || no_streams() || !translated.good())
        return real::ppoll(fds, count, timeout, mask);
    return poll_with(fds, count, duration, mask, [&] { return real::ppoll(fds, count, timeout, mask); });
}

namespace {

constexpr short kReadable = POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR;
constexpr short kWritable = POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR;
constexpr int kMostSelected = 1024;
/// For so many the answers lie in a small frame, as in poll_set.cpp.
constexpr int kFewSelected = 16;
constexpr int kSomeSelected = 128;
/// Among the events of an entry, where poll knows no such bit: the descriptor was open when the call began.
constexpr short kOpenAtFirst = 0x4000;

/// What select is given and gives back. Programs pass larger sets than fd_set has, sized by the count; so
/// they are taken as words, and from memory that may not be there.
class SelectSets {
public:
    /// `good()` is false when the sets cannot be read or there is no memory for them.
    SelectSets(int count, fd_set* reading, fd_set* writing, fd_set* except)
        : theirs_{reading, writing, except} {
        const auto words = (static_cast<size_t>(count) + kBits - 1) / kBits;
        bytes_ = words * sizeof(unsigned long);
        auto* memory = small_;
        if (count > kMostSelected) {
            size_ = kSets * bytes_ + static_cast<size_t>(count) * sizeof(pollfd);
            void* const mapped =
                sys::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (sys::mmap_failed(mapped)) {
                size_ = 0;
                has_memory_ = false;
                return;
            }
            memory = static_cast<unsigned long*>(mapped);
            mapped_fds_ = reinterpret_cast<pollfd*>(memory + kSets * words);
        }
        good_ = true;
        install_fault_handlers();
        for (int i = 0; i < kSets; ++i) {
            words_[i] = memory + static_cast<size_t>(i) * words;
            memset(words_[i], 0, bytes_);
            const iovec part{theirs_[i], bytes_};
            good_ = good_ && (theirs_[i] == nullptr || Buffers(&part, 1).copy_in(words_[i], bytes_));
        }
    }
    ~SelectSets() {
        if (size_ != 0)
            sys::munmap(words_[0], size_);
    }
    SelectSets(const SelectSets&) = delete;
    SelectSets& operator=(const SelectSets&) = delete;

    bool good() const { return good_; }
    bool has_memory() const { return has_memory_; }
    /// With a place for each descriptor; nullptr where the sets are small.
    pollfd* mapped_fds() const { return mapped_fds_; }
    /// How many descriptors they name at most: one that is in two sets counts twice.
    int named() const {
        int sum = 0;
        for (const unsigned long* const set : words_)
            for (size_t i = 0; i < bytes_ / sizeof *set; ++i)
                sum += __builtin_popcountl(set[i]);
        return sum;
    }
    bool test(int set, int fd) const { return (word(set, fd) >> (static_cast<size_t>(fd) % kBits) & 1) != 0; }
    void clear(int set, int fd) { word(set, fd) &= ~(1UL << (static_cast<size_t>(fd) % kBits)); }
    bool give_back() {
        bool all = true;
        for (int i = 0; i < kSets; ++i) {
            const iovec part{theirs_[i], bytes_};
            all = all && (theirs_[i] == nullptr || Buffers(&part, 1).copy_out(words_[i], bytes_));
        }
        return all;
    }

private:
    static constexpr int kSets = 3;
    static constexpr size_t kBits = sizeof(unsigned long) * 8;
    unsigned long& word(int set, int fd) const { return words_[set][static_cast<size_t>(fd) / kBits]; }

    fd_set* theirs_[kSets];
    unsigned long* words_[kSets] = {};
    size_t bytes_;
    size_t size_ = 0;
    bool good_ = false;
    bool has_memory_ = true;
    pollfd* mapped_fds_ = nullptr;
    unsigned long small_[kSets * kMostSelected / kBits];
};

/// How many descriptors the kernel has room for at present: it looks at no more bits of a set. 0: not known.
[[gnu::noinline]] int most_selectable() {
    char text[2048];
    const auto fd =
        static_cast<int>(sys::call(SYS_openat, AT_FDCWD, sys::word("/proc/self/status"), O_CLOEXEC));
    const long size = fd >= 0 ? sys::read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        sys::close(fd);
    if (size <= 0)
        return 0;
    text[size] = 0;
    const char* const line = strstr(text, "FDSize:");
    const auto known = static_cast<int>(line != nullptr ? strtol(line + 7, nullptr, 10) : 0);
    return known > kMostSelected ? known : kMostSelected;
}

/// A select that names a stream, as a poll. kNotOurs: the kernel's select is right.
constexpr int kNotOurs = -1000000;

[[gnu::noinline]] int select_as_poll(SelectSets& sets, int count, pollfd* fds, int64_t timeout,
                                     const sigset_t* mask) {
    nfds_t used = 0;
    bool ours = false;
    for (int fd = 0; fd < count; ++fd) {
        const bool in = sets.test(0, fd);
        const bool out = sets.test(1, fd);
        const bool other = sets.test(2, fd);
        if (!in && !out && !other)
            continue;
        short events = 0;
        if (in)
            events |= POLLIN | POLLRDNORM | POLLRDBAND;
        if (out)
            events |= POLLOUT | POLLWRNORM | POLLWRBAND;
        if (other)
            events |= POLLPRI;
        if (find(fd).kind() != EntryKind::kNone) {
            ours = true;
            events |= kOpenAtFirst;
        }
        fds[used++] = {fd, events, 0};
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
            if ((fds[i].revents & POLLNVAL) != 0) {
                if ((fds[i].events & kOpenAtFirst) == 0)
                    return -EBADF;
                // Closed while we waited: ready in all respects, as the kernel has it.
                fds[i].revents = POLLIN | POLLOUT | POLLPRI;
            }
            const int fd = fds[i].fd;
            if (fd < 0)
                continue;
            const bool in = sets.test(0, fd) && (fds[i].revents & kReadable) != 0;
            const bool out = sets.test(1, fd) && (fds[i].revents & kWritable) != 0;
            const bool other = sets.test(2, fd) && (fds[i].revents & POLLPRI) != 0;
            found += in + out + other;
            // poll always reports a hang-up; select does only to those who asked to read.
            if (fds[i].revents != 0 && !in && !out && !other) {
                hung_up_only = true;
                fds[i].fd = ~fd;
            }
        }
        if (found != 0 || !hung_up_only || left == 0)
            break;
    }
    for (nfds_t i = 0; i < used; ++i) {
        const int fd = fds[i].fd < 0 ? ~fds[i].fd : fds[i].fd;
        const short seen = fds[i].fd < 0 ? short{0} : fds[i].revents;
        if ((seen & kReadable) == 0)
            sets.clear(0, fd);
        if ((seen & kWritable) == 0)
            sets.clear(1, fd);
        if ((seen & POLLPRI) == 0)
            sets.clear(2, fd);
    }
    return sets.give_back() ? found : -EFAULT;
}

template <int kPlaces>
[[gnu::noinline]] int select_with_places(SelectSets& sets, int count, int64_t timeout, const sigset_t* mask) {
    pollfd fds[kPlaces];
    return select_as_poll(sets, count, fds, timeout, mask);
}

int select_streams(int count, fd_set* reading, fd_set* writing, fd_set* except, int64_t timeout,
                   const sigset_t* mask) {
    if (count > kMostSelected) {
        const int most = most_selectable();
        if (most == 0)
            return -ENOMEM;  // the kernel says so where it has no memory for its part
        count = count < most ? count : most;
    }
    SelectSets sets(count, reading, writing, except);
    if (!sets.has_memory())
        return -ENOMEM;
    if (!sets.good())
        return kNotOurs;
    if (sets.mapped_fds() != nullptr)
        return select_as_poll(sets, count, sets.mapped_fds(), timeout, mask);
    const int named = sets.named();
    if (named <= kFewSelected)
        return select_with_places<kFewSelected>(sets, count, timeout, mask);
    if (named <= kSomeSelected)
        return select_with_places<kSomeSelected>(sets, count, timeout, mask);
    return select_with_places<kMostSelected>(sets, count, timeout, mask);
}

}  // namespace

LOOPFAST_PUBLIC int select(int count, fd_set* reading, fd_set* writing, fd_set* except, timeval* timeout) {
    // What is wrong with the arguments is left to the real function.
    if (no_streams() || count <= 0 || !readable(timeout, timeout != nullptr ? sizeof *timeout : 0) ||
        (timeout != nullptr && (timeout->tv_sec < 0 || timeout->tv_usec < 0)))
        return real::select(count, reading, writing, except, timeout);
    const int64_t duration = timeout == nullptr || timeout->tv_sec >= kForever / 2'000'000'000
                                 ? kForever
                                 : timeout->tv_sec * 1'000'000'000LL + timeout->tv_usec * 1000LL;
    const int64_t deadline = deadline_after(duration);
    const int result = select_streams(count, reading, writing, except, duration, nullptr);
    if (result == kNotOurs)
        return real::select(count, reading, writing, except, timeout);
    if (timeout != nullptr && duration != kForever) {  // Linux says what is left
        const int64_t left = time_left(deadline);
        // One that cannot be written is left alone, as the kernel leaves it: programs have such constants.
        put(timeout, timeval{left / 1'000'000'000LL, left % 1'000'000'000LL / 1000});
    }
    return returned<int>(result);
}

LOOPFAST_PUBLIC int pselect(int count, fd_set* reading, fd_set* writing, fd_set* except,
                            const timespec* timeout, const sigset_t* asked) {
    const WaitMask translated(asked);
    const sigset_t* const mask = translated.get();
    const int64_t duration = from_timespec(timeout);
    if (no_streams() || count <= 0 || duration < 0 || !translated.good())
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
        set_appeared(fd);
    }
    return fd;
}

}  // namespace

LOOPFAST_PUBLIC int epoll_create(int size) noexcept { return new_set(real::epoll_create(size)); }
LOOPFAST_PUBLIC int epoll_create1(int flags) noexcept { return new_set(real::epoll_create1(flags)); }

LOOPFAST_PUBLIC int epoll_ctl(int set_fd, int operation, int fd, epoll_event* event) noexcept {
    if (is_hidden(fd)) [[unlikely]]
        return returned<int>(-EBADF);
    if (EpollSet* const set = find_set(set_fd))
        return returned<int>(set->control(set_fd, operation, fd, event));
    if (sets_are_tracked()) [[unlikely]]
        return returned<int>(control_unknown_set(set_fd, operation, fd, event));
    const int result = real::epoll_ctl(set_fd, operation, fd, event);
    if (EpollSet* const late = find_set(set_fd)) [[unlikely]]
        late->take_in(set_fd);
    return result;
}

namespace {

/// More events than the kernel lets one ask for.
constexpr int kMostEvents = INT32_MAX / static_cast<int>(sizeof(epoll_event));

/// How many of the events there is memory for. The kernel finds out when it has one to put there, and returns
/// what it could put. Asked of the last one, where it lies on another page than the first; if that is not
/// there, of page after page, up to more events than anybody has ready.
int room_for(epoll_event* events, int capacity) {
    constexpr uintptr_t kPage = 4096;
    constexpr int kPages = 64;
    char byte;
    // Written as it was read.
    if (safe_copy(events, events, 1) != 0)
        return 0;
    const uintptr_t first = reinterpret_cast<uintptr_t>(events);
    const uintptr_t last = reinterpret_cast<uintptr_t>(events + capacity) - 1;
    if (first / kPage == last / kPage || safe_copy(&byte, reinterpret_cast<const char*>(last), 1) == 0)
        [[likely]]
        return capacity;
    uintptr_t end = (first / kPage + 1) * kPage;
    for (int i = 0; i < kPages && safe_copy(&byte, reinterpret_cast<const char*>(end), 1) == 0; ++i)
        end += kPage;
    const uintptr_t room = (end - first) / sizeof(epoll_event);
    return room < static_cast<uintptr_t>(capacity) ? static_cast<int>(room) : capacity;
}

int wait_in_set(EpollSet& set, int set_fd, epoll_event* events, int capacity, int64_t timeout,
                const sigset_t* mask) {
    if (capacity > kMostEvents)
        return returned<int>(-EINVAL);
    if (capacity > 0 && set.has_managed()) {
        capacity = room_for(events, capacity);
        // Where the events cannot be put, that matters once there are some. They are not taken then: an edge
        // can still be told, and a one-shot entry still fires.
        if (capacity == 0) [[unlikely]] {
            pollfd ready{set_fd, POLLIN, 0};
            const int result = poll_streams(&ready, 1, timeout, mask);
            return returned<int>(result > 0 ? -EFAULT : result);
        }
    }
    return returned<int>(set.wait(set_fd, events, capacity, timeout, mask));
}

}  // namespace

namespace {

/// How long ago that was, by the processor's counter, whose pace is looked up now: this is needed once in a
/// process's life at most.
int64_t nanoseconds_since(uint64_t begin) {
    const uint64_t now = ticks();
    const int64_t time = now_ns();
    sys::sleep_ns(1'000'000);
    const uint64_t more = ticks() - now;
    const double pace = more == 0 ? 0 : static_cast<double>(now_ns() - time) / static_cast<double>(more);
    return static_cast<int64_t>(static_cast<double>(now - begin) * pace);
}

/// A wait of which no account was kept is over, and by now its set is known.
[[gnu::noinline]] int wait_on(EpollSet& set, int set_fd, epoll_event* events, int capacity, int64_t timeout,
                              const sigset_t* mask, uint64_t begin, int count) {
    const int error = errno;
    const int kept = set.came_late(events, count);
    errno = error;
    if (kept == count || kept != 0)
        return kept;
    if (timeout > 0 && timeout != kForever) {
        const int64_t left = timeout - nanoseconds_since(begin);
        timeout = left > 0 ? left : 0;
    }
    return wait_in_set(set, set_fd, events, capacity, timeout, mask);
}

}  // namespace

LOOPFAST_PUBLIC int epoll_pwait(int set_fd, epoll_event* events, int capacity, int timeout,
                                const sigset_t* asked) {
    const WaitMask translated(asked);
    const sigset_t* const mask = translated.get();
    if (!translated.good()) [[unlikely]]
        return real::epoll_pwait(set_fd, events, capacity, timeout, mask);
    if (EpollSet* const set = find_set(set_fd))
        return wait_in_set(*set, set_fd, events, capacity, from_milliseconds(timeout), mask);
    const uint64_t begin = timeout > 0 ? ticks() : 0;
    const int count = real::epoll_pwait(set_fd, events, capacity, timeout, mask);
    if (EpollSet* const late = find_set(set_fd)) [[unlikely]]
        return wait_on(*late, set_fd, events, capacity, from_milliseconds(timeout), mask, begin, count);
    return count;
}

LOOPFAST_PUBLIC int epoll_wait(int set_fd, epoll_event* events, int capacity, int timeout) {
    if (EpollSet* const set = find_set(set_fd))
        return wait_in_set(*set, set_fd, events, capacity, from_milliseconds(timeout), nullptr);
    const uint64_t begin = timeout > 0 ? ticks() : 0;
    const int count = real::epoll_wait(set_fd, events, capacity, timeout);
    if (EpollSet* const late = find_set(set_fd)) [[unlikely]]
        return wait_on(*late, set_fd, events, capacity, from_milliseconds(timeout), nullptr, begin, count);
    return count;
}

LOOPFAST_PUBLIC int epoll_pwait2(int set_fd, epoll_event* events, int capacity, const timespec* timeout,
                                 const sigset_t* asked) {
    const WaitMask translated(asked);
    const sigset_t* const mask = translated.get();
    if (!translated.good()) [[unlikely]]
        return real::epoll_pwait2(set_fd, events, capacity, timeout, mask);
    // Where it cannot be read, or is not a time, the real function says so.
    const auto duration = [&] {
        return readable(timeout, timeout != nullptr ? sizeof *timeout : 0) ? from_timespec(timeout) : -1;
    };
    if (EpollSet* const set = find_set(set_fd))
        if (const int64_t time = duration(); time >= 0)
            return wait_in_set(*set, set_fd, events, capacity, time, mask);
    const uint64_t begin = ticks();
    const int count = real::epoll_pwait2(set_fd, events, capacity, timeout, mask);
    if (EpollSet* const late = find_set(set_fd)) [[unlikely]]
        if (const int64_t time = duration(); time >= 0)
            return wait_on(*late, set_fd, events, capacity, time, mask, begin, count);
    return count;
}

}  // namespace loopfast
