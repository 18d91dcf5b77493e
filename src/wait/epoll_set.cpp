// Sets and their entries: epoll_ctl, registration with the hidden set, the list of hot streams. See
// epoll_set.h.
#include "wait/epoll_set.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <new>

#include "base/hidden.h"
#include "base/ready.h"
#include "base/real.h"
#include "policy/policy.h"
#include "table/table.h"
#include "wait/caller.h"
#include "wait/early_sets.h"
#include "wait/epoll_events.h"
#include "wait/sleeper.h"

namespace loopfast {

namespace {

constexpr uint32_t kMostSets = 4096;
EpollSet* sets = nullptr;  // kMostSets of them, untouched pages cost nothing
uint32_t sets_made = 0;    // places below this one have been used
FamilyLock making;

/// The kernel has an entry that is not known here and may mean any stream: none is fused from now on.
std::atomic<bool> lost_sight{false};

}  // namespace

EpollSet* find_set(int fd) {
    const TableEntry entry = find(fd);
    if (entry.kind() != EntryKind::kSet)
        return nullptr;
    return &sets[entry.index()];
}

void make_set(int fd) {
    Hold hold(making);
    if (sets == nullptr)
        sets = static_cast<EpollSet*>(zeroed_pages(sizeof(EpollSet) * kMostSets));
    if (sets == nullptr || !open_arena())
        return;
    for (uint32_t i = 0; i < kMostSets; ++i) {
        if (sets[i].in_use.load(std::memory_order_relaxed))
            continue;
        new (&sets[i]) EpollSet();
        sets[i].descriptor = fd;
        sets[i].in_use.store(true, std::memory_order_release);
        if (i >= sets_made)
            sets_made = i + 1;
        set_entry(fd, TableEntry(EntryKind::kSet, i, 0));
        return;
    }
}

namespace {

/// The kernel was told of an entry that cannot be noted here: what it means must never be fused.
void keep_unseen(Stream* stream, int fd) {
    if (stream != nullptr) {
        stream->unseen.store(true, std::memory_order_seq_cst);
        return;
    }
    // It may become a stream yet.
    int protocol = 0;
    socklen_t size = sizeof protocol;
    if (sys::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != -ENOTSOCK)
        lost_sight.store(true, std::memory_order_seq_cst);
}

}  // namespace

int control_unknown_set(int set_fd, int operation, int fd, epoll_event* event) {
    if (real::epoll_ctl(set_fd, operation, fd, event) < 0)
        return -errno;
    // Under a filter of the program's own no system call is made, and nothing is fused either.
    if (operation != EPOLL_CTL_ADD || setups_forbidden())
        return 0;
    // That it was accepted shows that this is a set.
    make_set(set_fd);
    if (EpollSet* const set = find_set(set_fd)) {
        if (real::epoll_ctl(set_fd, EPOLL_CTL_DEL, fd, nullptr) < 0)
            return 0;  // another thread was faster
        return set->control(set_fd, operation, fd, event);
    }
    Stream* const stream = find_stream(fd);
    keep_unseen(stream, fd);
    // Somebody may be fusing it this very moment, and have looked for the mark already.
    while (stream != nullptr && stream->state() == State::kPending)
        sys::sleep_ns(10'000);
    if (stream != nullptr && stream->fused())
        leave(*stream, fd, Reason::kLimit);
    return 0;
}

bool EpollSet::ensure_hidden(int set_fd) {
    if (hidden_ >= 0)
        return true;
    const int made = sys::epoll_create(EPOLL_CLOEXEC);
    if (made < 0)
        return false;
    hidden_ = hide(made);
    const long event = sys::call(SYS_eventfd2, 0, EFD_NONBLOCK | EFD_CLOEXEC);
    kick_ = event < 0 ? -1 : hide(static_cast<int>(event));
    epoll_event inner{EPOLLIN, {}};
    inner.data.u64 = kOrdinaryEvent;
    epoll_event kick{EPOLLIN | EPOLLET, {}};
    kick.data.u64 = kKickEvent;
    // In E as well, and silent there: a kick turns it on, which needs no memory and so cannot fail.
    epoll_event silent{EPOLLET, {}};
    silent.data.u64 = kernel_kick_data();
    inner_ = set_fd;
    if (hidden_ < 0 || kick_ < 0 || sys::epoll_ctl(hidden_, EPOLL_CTL_ADD, set_fd, &inner) < 0 ||
        sys::epoll_ctl(hidden_, EPOLL_CTL_ADD, kick_, &kick) < 0 ||
        sys::epoll_ctl(set_fd, EPOLL_CTL_ADD, kick_, &silent) < 0) {
        close_hidden(hidden_);
        close_hidden(kick_);
        hidden_ = kick_ = -1;
        return false;
    }
    return true;
}

void EpollSet::kick() {
    const uint64_t one = 1;
    if (kick_ < 0)
        return;
    if (sleepers_.load(std::memory_order_relaxed) != 0)
        sys::write(kick_, &one, sizeof one);
    if (kernel_sleepers_.load(std::memory_order_relaxed) != 0 || early_sleepers_)
        call_out_of_kernel();
}

bool EpollSet::make_room() {
    if (managed_.load(std::memory_order_relaxed) < hot_room_)
        return true;
    const uint32_t room = hot_room_ == 0 ? 1024 : hot_room_ * 2;
    auto* larger = static_cast<int*>(zeroed_pages(sizeof(int) * room));
    if (larger == nullptr)
        return false;
    for (uint32_t i = 0; i < hot_count_; ++i)
        larger[i] = hot_[i];
    if (hot_ != nullptr)
        sys::munmap(hot_, sizeof(int) * hot_room_);
    hot_ = larger;
    hot_room_ = room;
    return true;
}

void EpollSet::make_hot(int fd, Interest& interest) {
    interest.quiet = 0;
    if (interest.hot_index != 0)
        return;
    hot_[hot_count_++] = fd;  // there is room for all that are managed, see make_room()
    interest.hot_index = hot_count_;
}

void EpollSet::make_cold(Interest& interest) {
    if (interest.hot_index == 0)
        return;
    const uint32_t place = interest.hot_index - 1;
    const int last = hot_[--hot_count_];
    hot_[place] = last;
    interest.hot_index = 0;
    if (place != hot_count_) {
        Interest* moved = interests_.find(last);
        if (moved != nullptr)
            moved->hot_index = place + 1;
    }
}

bool EpollSet::register_one(int fd, Interest& interest, Stream& stream) {
    const int open = interest.open(fd);
    epoll_event event{EPOLLIN | EPOLLET, {}};
    event.data.u64 = hidden_data(fd, false);
    const int link = stream.link.load(std::memory_order_relaxed);
    int result = sys::epoll_ctl(hidden_, EPOLL_CTL_ADD, link, &event);
    if (result == -EEXIST)  // another entry of the same stream: both are looked at when it rings
        result = sys::epoll_ctl(hidden_, EPOLL_CTL_MOD, link, &event);
    if (result < 0)
        return false;
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    event.data.u64 = hidden_data(fd, true);
    result = sys::epoll_ctl(hidden_, EPOLL_CTL_ADD, open, &event);
    if (result < 0 && result != -EEXIST)
        return false;
    forget_kernel_readiness(stream);
    interest.registered = true;
    interest.had_room =
        (!stream.out_in_ring() || half_shut(stream)) && (ready_now(open, POLLOUT) & POLLOUT) != 0;
    stream.watched.fetch_add(1, std::memory_order_relaxed);
    return true;
}

void EpollSet::unregister(int fd, Interest& interest, Stream& stream) {
    if (!interest.registered || hidden_ < 0)
        return;
    interest.registered = false;
    stream.watched.fetch_sub(1, std::memory_order_relaxed);
    sys::epoll_ctl(hidden_, EPOLL_CTL_DEL, fd, nullptr);
    // The link stays as long as another entry means the same stream.
    int others = 0;
    if (stream.set_entries.load(std::memory_order_relaxed) > 1) {
        interests_.each([&](int, Interest& other) {
            if (&other != &interest && other.managed && other.slot == interest.slot)
                ++others;
        });
    }
    if (others == 0)
        sys::epoll_ctl(hidden_, EPOLL_CTL_DEL, stream.link.load(std::memory_order_relaxed), nullptr);
}

void EpollSet::forget(int fd, Interest& interest) {
    if (interest.stream) {
        Stream& stream = stream_at(interest.slot);
        if (interest.managed) {
            if (stream.generation == interest.generation)
                unregister(fd, interest, stream);
            make_cold(interest);
            if (!interest.dormant)
                change_managed(-1);
        }
        if (stream.generation == interest.generation)
            stream.set_entries.fetch_sub(1, std::memory_order_relaxed);
    }
    interest = {};
}

int EpollSet::control_managed(int operation, int fd, Interest* interest, Stream* stream, epoll_event* event) {
    const bool ours = interest != nullptr && interest->used && interest->managed &&
                      stream_at(interest->slot).generation == interest->generation &&
                      (stream == nullptr || interest->slot == stream->slot);
    const bool known = ours && !interest->dormant;
    if (operation == EPOLL_CTL_ADD) {
        if (known)
            return -EEXIST;
        constexpr uint32_t kWithExclusive =
            EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
        if ((event->events & EPOLLEXCLUSIVE) != 0 && (event->events & ~kWithExclusive) != 0)
            return -EINVAL;
        if (interest == nullptr || !make_room())
            return -ENOMEM;
        if (!ours) {
            if (interest->used)
                forget(fd, *interest);
            *interest = {};
            interest->used = interest->stream = interest->managed = true;
            interest->slot = stream->slot;
            interest->generation = stream->generation;
            stream->set_entries.fetch_add(1, std::memory_order_relaxed);
        }
        // One that was taken out before the first sleep after its claim was passed over then.
        if (!interest->registered)
            unregistered_ = true;
        interest->dormant = false;
        change_managed(1);
    } else if (!known) {
        const bool exclusive = operation == EPOLL_CTL_MOD && (event->events & EPOLLEXCLUSIVE) != 0;
        return exclusive ? -EINVAL : -ENOENT;
    } else if (operation == EPOLL_CTL_DEL) {
        interest->dormant = true;
        make_cold(*interest);
        change_managed(-1);
        return 0;
    } else if ((interest->events & EPOLLEXCLUSIVE) != 0 || (event->events & EPOLLEXCLUSIVE) != 0) {
        return -EINVAL;
    }
    interest->events = event->events;
    interest->data = event->data.u64;
    interest->disabled = false;
    interest->edge = true;
    if (stream != nullptr)
        interest->via = 0;  // the number means the stream again
    interest->listed = false;
    make_hot(fd, *interest);
    if (stream != nullptr && stream->segment)
        polled(*interest, *stream, 0);  // the kernel looks at it here, too
    kick();
    return 0;
}

bool EpollSet::can_take(int set_fd, int fd) {
    Hold hold(lock);
    return ensure_hidden(set_fd) && interests_.make(fd) != nullptr && make_room();
}

int EpollSet::control(int set_fd, int operation, int fd, epoll_event* event) {
    if (operation != EPOLL_CTL_ADD && operation != EPOLL_CTL_MOD && operation != EPOLL_CTL_DEL)
        return real::epoll_ctl(set_fd, operation, fd, event) < 0 ? -errno : 0;
    Stream* const stream = find_stream(fd);
    if (operation == EPOLL_CTL_ADD) {
        EpollSet* const inner = find_set(fd);
        if (inner != nullptr && inner != this)
            inner->nest();
        if (nested_ && stream != nullptr && stream->fused())
            leave(*stream, fd, Reason::kOption, Unread::kWaitedFor);
        // What it takes to look after a stream in user space is not to be had: then the kernel does it.
        if (stream != nullptr && stream->fused() && !can_take(set_fd, fd))
            leave(*stream, fd, Reason::kLimit);
    }
    const HoldIfFree hold(lock);
    if (!hold.held())
        return -ENOMEM;  // what epoll_ctl may say of a state of ours
    descriptor = set_fd;
    Interest* const interest = operation == EPOLL_CTL_ADD ? interests_.make(fd) : interests_.find(fd);
    const bool managed = interest != nullptr && interest->used && interest->managed;
    // What the kernel says of a descriptor that is closed it must say itself.
    const bool to_be_managed =
        operation == EPOLL_CTL_ADD && stream != nullptr && stream->fused() &&
        (!nested_ || (interest != nullptr && !belongs_to_kernel(fd, Interest{}, *stream)));
    if (stream != nullptr && (managed || to_be_managed)) {
        if (!ensure_hidden(set_fd))
            return -ENOMEM;
        // Taken in before anything else is looked at, as in the kernel.
        epoll_event given{};
        const iovec part{event, sizeof given};
        if (operation != EPOLL_CTL_DEL && !Buffers(&part, 1).copy_in(&given, sizeof given))
            return -EFAULT;
        const int done = control_managed(operation, fd, interest, stream, &given);
        settle_nested();
        return done;
    }
    const int result = real::epoll_ctl(set_fd, operation, fd, event);
    if (result < 0)
        return -errno;
    if (operation == EPOLL_CTL_DEL) {
        if (interest != nullptr && interest->used)
            forget(fd, *interest);
        return 0;
    }
    if (operation == EPOLL_CTL_ADD && interest != nullptr && interest->used)
        forget(fd, *interest);
    if (interest == nullptr) {
        always_look_ = true;
        keep_unseen(stream, fd);  // it is not fused, and who is about to waits for the lock
        return 0;
    }
    if (!interest->used && stream != nullptr) {
        interest->stream = true;
        interest->slot = stream->slot;
        interest->generation = stream->generation;
        stream->set_entries.fetch_add(1, std::memory_order_relaxed);
    }
    interest->used = true;
    interest->disabled = false;
    interest->events = event->events;
    interest->data = event->data.u64;
    interest->entered = kernel_waits_;
    ordinary_lively_ = true;
    if (operation == EPOLL_CTL_ADD && stream == nullptr)
        always_look_ = always_look_ || !made_ready_by_noted_calls(fd);
    return 0;
}

bool EpollSet::interest_of(int fd, epoll_event& event) {
    Hold hold(lock);
    const Interest* const interest = interests_.find(fd);
    if (interest == nullptr || !interest->used || interest->dormant)
        return false;
    event.events = interest->disabled ? 0U : interest->events;
    event.data.u64 = interest->data;
    return true;
}

void EpollSet::release() {
    {
        Hold hold(lock);
        stop_telling();
        interests_.each([&](int number, Interest& interest) { forget(number, interest); });
        interests_.release();
        if (hot_ != nullptr)
            sys::munmap(hot_, sizeof(int) * hot_room_);
        hot_ = nullptr;
        hot_count_ = hot_room_ = 0;
        close_hidden(hidden_);
        close_hidden(kick_);
        hidden_ = kick_ = -1;
    }
    in_use.store(false, std::memory_order_release);
}

namespace {

template <typename Visit> void each_set(Visit visit) {
    for (uint32_t i = 0; i < sets_made; ++i)
        if (sets[i].in_use.load(std::memory_order_acquire))
            visit(sets[i]);
}

}  // namespace

KeptInterest::KeptInterest(int fd) : fd_(fd) {
    each_set([&](EpollSet& set) {
        if (count_ < kMost && set.interest_of(fd, entries_[count_].event))
            entries_[count_++].set = &set;
    });
}

void KeptInterest::put_back() const {
    for (int i = 0; i < count_; ++i) {
        EpollSet& set = *entries_[i].set;
        epoll_event event = entries_[i].event;
        set.control(set.descriptor, EPOLL_CTL_ADD, fd_, &event);
    }
}

void settle_telling_sets() {
    each_set([](EpollSet& set) { set.settle_if_told(); });
}

namespace {

bool claim_in_sets(Stream& stream, int fd) {
    bool good = true;
    each_set([&](EpollSet& set) { good = good && set.claim(stream, fd); });
    // After the sets, under whose locks entries are made; seq_cst with the stores in keep_unseen().
    return good && !lost_sight.load(std::memory_order_seq_cst) &&
           !stream.unseen.load(std::memory_order_seq_cst);
}

void drop_from_sets(Stream& stream) {
    each_set([&](EpollSet& set) { set.drop(stream); });
}

}  // namespace

void connect_sets() {
    set_hooks.claim = claim_in_sets;
    set_hooks.lost_sight = [](const Stream& stream) {
        return lost_sight.load(std::memory_order_relaxed) || stream.unseen.load(std::memory_order_relaxed);
    };
    table_hooks.descriptor_closing = [](Stream& stream, int fd, int other) {
        each_set([&](EpollSet& set) { set.divert(stream, fd, other); });
    };
    set_hooks.unclaim = [](Stream& stream) { each_set([&](EpollSet& set) { set.unclaim(stream); }); };
    set_hooks.edge = [](Stream& stream, uint32_t events, SetHooks::Edge when) {
        each_set([&](EpollSet& set) { set.edge(stream, events, when); });
    };
    table_hooks.stream_closing = drop_from_sets;
    table_hooks.end_jumped_calls = [] { end_jumped_calls(__builtin_frame_address(0)); };
    table_hooks.overtake_calls = [](const Stream& stream) { return overtake_calls(stream); };
    table_hooks.reaches = [](const Stream& stream) { return reaches(stream); };
    table_hooks.set_closing = [](uint32_t index, int fd) { sets[index].closing(fd); };
    table_hooks.set_closed = [](uint32_t index) { sets[index].release(); };
    table_hooks.forked = [] {
        making.reset();
        early_sets_forked();
        each_set([](EpollSet& set) { set.forked(); });
        each_set([](EpollSet& set) { set.forget_kept(); });
        forget_thread_waiter();
        count_calls_again();
    };
}

}  // namespace loopfast
