// See poll_set.h.
#include "wait/poll_set.h"

#include <errno.h>
#include <sys/mman.h>

#include <new>

#include "base/real.h"
#include "link/identity.h"
#include "policy/verdict.h"
#include "stream/sleep.h"
#include "table/table.h"
#include "wait/caller.h"
#include "wait/chance.h"
#include "wait/epoll_set.h"
#include "wait/sleeper.h"
#include "wait/spin.h"

namespace loopfast {

namespace {

constexpr uint32_t kAlways = POLLERR | POLLHUP | POLLNVAL;
constexpr nfds_t kFew = 16;
constexpr nfds_t kOnStack = 128;

SpinHistory history;  // of all polls of the process

/// In a spin the ordinary descriptors are looked at this often: a look costs half a microsecond.
constexpr int64_t kOrdinaryLookEvery = 10'000;

enum class Kind : uint8_t {
    kIgnored,    ///< a negative number
    kOrdinary,   ///< the kernel's
    kCandidate,  ///< a stream on the kernel lane: not fused while it is counted as being waited for there
    kFused,      ///< a stream with a segment
    kPlainSet,   ///< an epoll set that is all the kernel's so far
    kSet,        ///< an epoll set with streams in it
    kClosed      ///< a stream whose descriptor another thread does not come to an end with closing
};

/// What one entry of the array means during one round, whatever becomes of its descriptor meanwhile.
struct Watched {
    Stream* stream;
    EpollSet* set;
    int place;  ///< in the kernel's part, or -1
    Kind kind;
    bool armed : 1;
    bool called : 1;     ///< the stream's connection is kept while we wait, see caller.h
    bool followed : 1;   ///< what its kernel socket has to tell comes as an event, see follow()
    uint16_t calls_out;  ///< of the plain set, after it was entered: the last bits
};
static_assert(sizeof(Watched) == 24, "a poll's stack is small");

/// Memory for a poll: room for what each entry means, and for the kernel's part with one entry more.
struct Scratch {
    pollfd* fds;
    Watched* watched;
};

/// In a frame of its own, so that a poll of few descriptors, which a signal handler may make on a small
/// stack, does not take the room that one of many needs.
template <nfds_t kPlaces, typename Act> [[gnu::noinline]] int with_places(Act act) {
    pollfd fds[kPlaces + 1];
    Watched watched[kPlaces];
    return act(Scratch{fds, watched});
}

/// A mapping for one poll. The last one is kept for the next: new pages at each call cost more than all the
/// rest of it.
class LargeScratch {
public:
    explicit LargeScratch(size_t size) : memory_(spare.exchange(nullptr, std::memory_order_acquire)) {
        size += sizeof(Head);
        if (memory_ != nullptr && memory_->size >= size)
            return;
        if (memory_ != nullptr)
            sys::munmap(memory_, memory_->size);
        void* const made =
            sys::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memory_ = sys::mmap_failed(made) ? nullptr : static_cast<Head*>(made);
        if (memory_ != nullptr)
            memory_->size = size;
    }
    ~LargeScratch() {
        if (memory_ != nullptr && memory_->size <= kMostKept)
            memory_ =
                spare.exchange(memory_, std::memory_order_acq_rel);  // another thread's, if there is one
        if (memory_ != nullptr)
            sys::munmap(memory_, memory_->size);
    }
    LargeScratch(const LargeScratch&) = delete;
    LargeScratch& operator=(const LargeScratch&) = delete;
    bool good() const { return memory_ != nullptr; }
    void* begin() const { return memory_ + 1; }

private:
    struct alignas(16) Head {
        size_t size;
    };
    static constexpr size_t kMostKept = 256 * 1024;
    // Acquire and release: who takes it out sees its size.
    inline static std::atomic<Head*> spare{nullptr};
    Head* memory_;
};

/// Calls `act` with memory for `count` entries: on the stack where they are not many, else a mapping.
/// (malloc belongs to the program and may not be called from a signal handler, which poll may.) @return what
/// it returned, or -ENOMEM.
template <typename Act> int with_scratch(nfds_t count, Act act) {
    if (count <= kFew)
        return with_places<kFew>(act);
    if (count <= kOnStack)
        return with_places<kOnStack>(act);
    LargeScratch memory(count * (sizeof(pollfd) + sizeof(Watched)) + sizeof(pollfd));
    if (!memory.good())
        return -ENOMEM;
    auto* const watched = static_cast<Watched*>(memory.begin());
    return act(Scratch{reinterpret_cast<pollfd*>(watched + count), watched});
}

bool has_segment(const Stream& stream) { return stream.segment && stream.fused(); }

/// One round of a poll: what each entry means, held fixed from here to the destructor. Streams with a segment
/// stay mapped (see Watching), streams without one are not fused.
class Round {
public:
    /// `first`: else there was one before it, with the same scratch.
    Round(pollfd* fds, nfds_t count, const Scratch& scratch, bool first)
        : fds_(fds), count_(count), watched_(scratch.watched), kernel_(scratch.fds) {
        end_jumped_calls(this);
        for (nfds_t i = 0; i < count; ++i)
            classify(fds[i].fd, watched_[i], first ? nullptr : watched_[i].stream);
    }
    ~Round() {
        for (nfds_t i = 0; i < count_; ++i) {
            Stream* const stream = watched_[i].stream;
            if (watched_[i].kind == Kind::kCandidate) {
                // Release as at the end of KernelReceive.
                stream->kernel_readers.fetch_sub(1, std::memory_order_release);
            } else if (watched_[i].kind == Kind::kFused && watched_[i].called) {
                end_call(*stream, this);
            } else if (watched_[i].kind == Kind::kFused) {
                stop_watching(*stream);
            } else if (watched_[i].kind == Kind::kPlainSet) {
                watched_[i].set->leave_kernel();
            }
        }
    }
    Round(const Round&) = delete;
    Round& operator=(const Round&) = delete;

    bool any_armed() const {
        for (nfds_t i = 0; i < count_; ++i)
            if (watched_[i].armed)
                return true;
        return false;
    }
    bool any_ordinary() const { return ordinary_; }
    bool any_ours() const { return ours_; }
    bool changed() const { return changed_; }
    bool any_is_looked_at_again() const {
        for (nfds_t i = 0; i < count_; ++i)
            if (watched_[i].kind == Kind::kFused && is_looked_at_again(*watched_[i].stream))
                return true;
        return false;
    }

    /// The kernel's sockets of many streams are not asked one by one, every 50 us, but tell the thread's set
    /// of what changes, as those in an epoll set do.
    void follow() {
        if (count_ <= kFew || !ours_)
            return;
        for (nfds_t i = 0; i < count_; ++i)
            if (watched_[i].kind == Kind::kFused)
                watched_[i].followed = watch_in_thread(*watched_[i].stream, fds_[i].fd) >= 0;
        take_thread_events();
        look_if_due();
    }

    /// Fills in revents of everything we know ourselves. @return how many have some. `as_poll`: not one of
    /// many looks in a spin.
    int evaluate(bool as_poll) {
        int found = 0;
        for (nfds_t i = 0; i < count_; ++i) {
            pollfd& entry = fds_[i];
            entry.revents = 0;
            if (watched_[i].kind == Kind::kFused) {
                const auto wanted = static_cast<uint32_t>(static_cast<uint16_t>(entry.events)) | kAlways;
                Stream& stream = *watched_[i].stream;
                const Freshness freshness = watched_[i].followed ? Freshness::kCached : Freshness::kRecent;
                uint32_t ready;
                if (!watched_[i].followed || (wanted & POLLWRBAND) != 0 ||
                    !plain_readiness(stream, wanted | POLLOUT, ready))
                    ready = readiness(stream, entry.fd, freshness);
                if (as_poll && (ready & POLLOUT) == 0) [[unlikely]] {
                    polled_without_room(stream);
                    ready = readiness(stream, entry.fd, freshness);
                }
                entry.revents = static_cast<short>(ready & wanted);
            } else if (watched_[i].kind == Kind::kSet && (entry.events & kReadable) != 0 &&
                       watched_[i].set->any_ready(entry.fd)) {
                entry.revents = static_cast<short>(entry.events & kReadable);
            } else if (watched_[i].kind == Kind::kClosed) {
                entry.revents = POLLNVAL;
            }
            found += entry.revents != 0;
        }
        return found;
    }

    /// Makes the kernel's part of a poll: ordinary descriptors as they are. With a token it is one to sleep
    /// in: sets with streams by their hidden set, and for all streams together the thread's own epoll set,
    /// where links and kernel sockets are registered edge-triggered. (Not the links themselves: a
    /// level-triggered wait would have to empty them, and thereby take another waiter's edge.)
    nfds_t kernel_part(uint64_t token, bool& good) {
        nfds_t used = 0;
        int thread_set = -1;
        good = true;
        for (nfds_t i = 0; i < count_; ++i) {
            Watched& watched = watched_[i];
            pollfd part{fds_[i].fd, fds_[i].events, 0};
            watched.place = -1;
            switch (watched.kind) {
            case Kind::kIgnored:
            case Kind::kClosed:
                continue;
            case Kind::kFused:
                if (token != 0) {
                    thread_set = watch_in_thread(*watched.stream, part.fd);
                    good = good && thread_set >= 0;
                }
                continue;
            case Kind::kSet:
                if (token != 0) {
                    const int hidden = watched.set->arm(part.fd, token);
                    watched.armed = hidden >= 0;
                    good = good && hidden >= 0;
                    part.fd = hidden >= 0 ? hidden : part.fd;
                } else {
                    part.events = 0;  // what it has, evaluate() has seen; this is whether it is open
                }
                break;
            case Kind::kOrdinary:
            case Kind::kCandidate:
            case Kind::kPlainSet:
                break;
            }
            watched.place = static_cast<int>(used);
            kernel_[used++] = part;
        }
        if (thread_set >= 0)
            kernel_[used++] = {thread_set, POLLIN, 0};
        return used;
    }

    void arm_streams(uint64_t token) {
        for (nfds_t i = 0; i < count_; ++i)
            if (watched_[i].kind == Kind::kFused)
                each_word(i, [&](Stream& stream, Untrusted<uint64_t>& word) {
                    arm(stream, word, token);
                    heal(stream);
                });
    }
    void disarm(uint64_t token) {
        for (nfds_t i = 0; i < count_; ++i) {
            if (watched_[i].kind == Kind::kFused)
                each_word(i, [&](Stream&, Untrusted<uint64_t>& word) { disarm_word(word, token); });
            else if (watched_[i].armed)
                watched_[i].set->disarm(token);
            watched_[i].armed = false;
        }
    }

    /// Whether the kernel has an event for one of the ordinary descriptors; not which.
    bool ordinary_ready() {
        bool good;
        const nfds_t used = kernel_part(0, good);
        timespec none{0, 0};
        return sys::ppoll(kernel_, static_cast<unsigned>(used), &none, nullptr) > 0;
    }

    /// After a kernel poll over kernel_part: the ordinary descriptors' events. @return how many have some.
    int collect() {
        int found = 0;
        for (nfds_t i = 0; i < count_; ++i) {
            const int place = watched_[i].place;
            if (place < 0 || kernel_[place].revents == 0)
                continue;
            if (watched_[i].kind == Kind::kSet && kernel_[place].fd != fds_[i].fd) {
                watched_[i].set->take_hidden_events();
            } else if (watched_[i].kind == Kind::kPlainSet &&
                       (watched_[i].set->has_managed() || (watched_[i].calls_out & 1) != 0 ||
                        static_cast<uint16_t>(watched_[i].set->calls_out()) != watched_[i].calls_out)) {
                changed_ = true;  // it was woken to be looked at anew
            } else if (fds_[i].revents == 0) {
                fds_[i].revents = kernel_[place].revents;
                ++found;
            }
        }
        return found;
    }

private:
    static constexpr short kReadable = POLLIN | POLLRDNORM;

    /// Another thread is in the middle of closing the stream's descriptor, or putting another file in its
    /// place: the number means nothing to us any more, and to the kernel still a socket that tells of nothing
    /// on the ring. A poll that looks again when it wakes goes by the number in the kernel too, where it
    /// finds the one or the other. @return true when that does not come to an end.
    static bool is_being_closed(int fd, const Stream& stream) {
        constexpr int kMostLooks = 50'000;  // a second, or some with the slack of the timer
        for (int look = 0; look < kMostLooks; ++look) {
            if (find(fd).kind() != EntryKind::kNone || stream.cookie == 0 || cookie_of(fd) != stream.cookie)
                return false;
            sys::sleep_ns(20'000);
        }
        return true;
    }

    void classify(int fd, Watched& watched, const Stream* before) {
        watched = {nullptr, nullptr, -1, fd < 0 ? Kind::kIgnored : Kind::kOrdinary, false, false, false, 0};
        if (fd < 0)
            return;
        if (before != nullptr && find(fd).kind() == EntryKind::kNone && is_being_closed(fd, *before))
            [[unlikely]] {
            watched.kind = Kind::kClosed;
            ours_ = true;
            return;
        }
        if (Stream* const stream = find_stream(fd)) {
            watched.stream = stream;
            for (;;) {
                // As KernelReceive: announce, then look. seq_cst on both sides.
                stream->kernel_readers.fetch_add(1, std::memory_order_seq_cst);
                const State state = stream->shared->state.load(std::memory_order_seq_cst);
                const bool pending = state == State::kPending &&
                                     stream->shared->setup_owner.load(std::memory_order_relaxed) != my_tid();
                if (!pending && state != State::kProposed && state != State::kFused) {
                    watched.kind = Kind::kCandidate;
                    ordinary_ = true;
                    return;
                }
                stream->kernel_readers.fetch_sub(1, std::memory_order_release);
                if (!pending)
                    break;
                sys::sleep_ns(5'000);  // being fused this moment
            }
            watched.called = begin_call(*stream, this);
            if (!watched.called)
                stream->waiters.fetch_add(1, std::memory_order_seq_cst);  // Dekker with release_mapping
            watched.kind = Kind::kFused;
            ours_ = true;
            if (!has_segment(*stream) || find_stream(fd) != stream) {  // closed meanwhile
                if (watched.called)
                    end_call(*stream, this);
                else
                    stop_watching(*stream);
                if (find_stream(fd) != stream)
                    return classify(fd, watched, stream);
                watched.kind = Kind::kOrdinary;
                ordinary_ = true;
            }
        } else if (EpollSet* const set = find_set(fd)) {
            watched.set = set;
            watched.kind = set->enter_kernel() ? Kind::kPlainSet : Kind::kSet;
            watched.calls_out = static_cast<uint16_t>(set->calls_out());
            ours_ = ours_ || watched.kind == Kind::kSet;
            ordinary_ = true;
        } else {
            ordinary_ = true;
        }
    }

    template <typename Act> void each_word(nfds_t i, Act act) {
        Stream& stream = *watched_[i].stream;
        if ((fds_[i].events & kReadable) != 0)
            act(stream, stream.in().sleep.consumer);
        if ((fds_[i].events & (POLLOUT | POLLWRNORM)) != 0)
            act(stream, stream.out().sleep.producer);
    }

    pollfd* fds_;
    nfds_t count_;
    Watched* watched_;
    pollfd* kernel_;
    bool ordinary_ = false;
    bool ours_ = false;
    bool changed_ = false;
};

}  // namespace

bool poll_needs_us(const pollfd* fds, nfds_t count) {
    for (nfds_t i = 0; i < count; ++i) {
        if (find(fds[i].fd).kind() == EntryKind::kNone)
            continue;
        const Stream* const stream = find_stream(fds[i].fd);
        if ((stream != nullptr && has_segment(*stream)) || find_set(fds[i].fd) != nullptr)
            return true;
    }
    return false;
}

namespace {

[[gnu::noinline]] int poll_rounds(pollfd* fds, nfds_t count, int64_t timeout, const sigset_t* mask,
                                  const Scratch& scratch, bool& slept_on_sets) {
    const HandlersSince handlers;
    const int64_t deadline = timeout == 0 ? 0 : deadline_after(timeout);
    bool look = timeout == 0;  // at everything, and answer if there is something
    for (bool first = true;; first = false) {
        Round round(fds, count, scratch, first);
        round.follow();
        int found = round.evaluate(true);
        if (found == 0 && first && timeout != 0 && round.any_ours()) {
            // A relay polls a socket and a pipe: the pipe must not wait until the spin for the socket is
            // over. And what the pipe brings shows nothing about the peer, so it counts as a spin in vain.
            int64_t next_look = round.any_ordinary() ? 0 : kForever;
            if (const int64_t time = spin_time(history); time > 0)
                spin_until(
                    history, deadline, time,
                    [&] {
                        if ((found = round.evaluate(false)) != 0)
                            return SpinStep::kReady;
                        if (handlers.any())
                            return SpinStep::kGiveUp;  // and so does the sleep
                        if (next_look != kForever && now_ns() >= next_look) {
                            if (round.ordinary_ready()) {
                                look = true;
                                return SpinStep::kGiveUp;
                            }
                            next_look = now_ns() + kOrdinaryLookEvery;
                        }
                        return SpinStep::kGoOn;
                    },
                    looks_per_time(count));
        }
        bool good;
        if (found != 0 || look) {
            const bool over = timeout == 0 || time_left(deadline) == 0;
            look = over;
            if (!round.any_ordinary()) {
                if (found != 0)
                    return found;
                if (!over)
                    continue;  // another thread took it
                // Nothing to report: then a signal that the caller's mask lets through ends the call, even
                // one that does not wait.
                timespec none{0, 0};
                return mask != nullptr ? sys::ppoll(nullptr, 0, &none, mask) : 0;
            }
            const nfds_t used = round.kernel_part(0, good);
            timespec none{0, 0};
            const int result = sys::ppoll(scratch.fds, static_cast<unsigned>(used), &none, mask);
            if (result < 0 && found == 0)
                return result;
            found += result > 0 ? round.collect() : 0;
            if (found == 0 && (round.changed() || !over))
                continue;
            return found;
        }
        const uint64_t token = new_sleep_token();
        const nfds_t used = round.kernel_part(token, good);
        slept_on_sets = slept_on_sets || round.any_armed();
        round.arm_streams(token);
        int64_t left = time_left(deadline);
        if (!good && left > 200'000)
            left = 200'000;  // no descriptor to sleep on: short naps
        if (left > kLookAgain && round.any_is_looked_at_again()) [[unlikely]]
            left = kLookAgain;
        if (round.evaluate(false) != 0 || left == 0) {
            round.disarm(token);
            look = true;
            continue;
        }
        occasion_for_all();
        timespec storage;
        const int64_t start = now_ns();
        const auto result = static_cast<int>(sleep_in_call(
            SYS_ppoll, sys::word(scratch.fds), static_cast<long>(used), sys::word(as_timespec(left, storage)),
            sys::word(mask), sizeof(uint64_t), 0, handlers));
        round.disarm(token);
        if (result < 0)
            return result;
        if (result > 0) {
            slept(history, now_ns() - start);
            take_thread_events();
        }
        if (round.collect() != 0 || time_left(deadline) == 0)
            look = true;
    }
}

}  // namespace

int poll_streams(pollfd* fds, nfds_t count, int64_t timeout, const sigset_t* mask) {
    occasion_for_all();
    bool slept_on_sets = false;
    const int result = with_scratch(count, [&](const Scratch& scratch) {
        return poll_rounds(fds, count, timeout, mask, scratch, slept_on_sets);
    });
    if (slept_on_sets)
        for (nfds_t i = 0; i < count; ++i)
            if (EpollSet* const set = find_set(fds[i].fd))
                set->poller_left();
    return result;
}

namespace {

[[gnu::noinline]] int hold_and_wait(const pollfd* fds, nfds_t count, bool& moved, int (*wait)(void*),
                                    void* argument, const Scratch& scratch) {
    nfds_t held = 0;
    for (; held < count && !moved; ++held) {
        Stream* const stream = find_stream(fds[held].fd);
        scratch.watched[held].stream = stream;
        if (stream == nullptr)
            continue;
        // As KernelReceive, for the whole array.
        stream->kernel_readers.fetch_add(1, std::memory_order_seq_cst);
        const State state = stream->shared->state.load(std::memory_order_seq_cst);
        moved = state == State::kPending || state == State::kProposed || state == State::kFused;
    }
    const int result = moved ? 0 : wait(argument);
    for (nfds_t i = 0; i < held; ++i) {
        Stream* const stream = scratch.watched[i].stream;
        if (stream == nullptr)
            continue;
        constexpr short kRoom = POLLOUT | POLLWRNORM;
        if (!moved && result >= 0 && (fds[i].events & kRoom) != 0 && (fds[i].revents & kRoom) == 0)
            polled_without_room(*stream);
        stream->kernel_readers.fetch_sub(1, std::memory_order_release);
    }
    return result < 0 ? -errno : result;
}

}  // namespace

int poll_kernel(pollfd* fds, nfds_t count, bool& moved, int (*wait)(void*), void* argument) {
    moved = false;
    // Without the places to note the streams in, one could be fused while we wait for it in the kernel.
    const int result = with_scratch(count, [&](const Scratch& scratch) {
        return hold_and_wait(fds, count, moved, wait, argument, scratch);
    });
    if (result >= 0)
        return result;
    errno = -result;
    return -1;
}

}  // namespace loopfast
