// A stream: loopfast's view of one end of one TCP connection. The application's descriptor is and stays the
// kernel's socket; the stream knows which lane each direction is on and moves the bytes of the ring lane.
//
// Everything in this layer returns at once: results are >= 0 or -errno, -EAGAIN when a wait would be
// needed. Waiting is the next layer's business (wait/).
#pragma once

#include <poll.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>

#include "base/ticks.h"
#include "policy/reason.h"
#include "policy/verdict.h"
#include "segment/segment.h"
#include "stream/shared.h"

namespace loopfast {

enum class Role : uint32_t { kNone, kConnector, kAcceptor };

/// How far the meeting on a pending link has come, see proof.h.
enum class Stage : uint32_t {
    kNobody,
    kMet,     ///< acceptor: hello was said; connector: waits for it
    kSigned,  ///< connector: our sign is given
    kProven   ///< the peer's sign was seen
};

/// The kernel has to be asked: an event came, or we changed something.
constexpr uint32_t kUnknown = 1U << 31;

/// How waits on one stream or set went lately; decides whether to spin before the next sleep (wait/spin.h).
/// Threads may mix up each other's counts here: relaxed, nothing depends on them but the length of a spin.
struct SpinHistory {
    std::atomic<uint8_t> failures{0};     ///< spins in vain in a row
    std::atomic<uint8_t> hunches{0};      ///< of those that a peer awake gave cause for
    std::atomic<uint8_t> patience{0};     ///< logarithm of the sleeps between two trials
    std::atomic<uint8_t> sleeps{0};       ///< since the last trial
    std::atomic<uint32_t> last_sleep{0};  ///< nanoseconds; 0 while none ended with what it waited for
};

/// What a slot keeps from one stream to the next: a thread may be late to look at a stream that was closed,
/// or to say that it looks no more, and the slot hold another one by then.
struct SlotWatch {
    std::atomic<int> waiters{0};     ///< threads that look at the segment without a lock
    std::atomic<bool> dying{false};  ///< closed; the last waiter unmaps
};

/// What begins anew with each stream, see Stream.
struct StreamWords {
    SharedHalf* shared = nullptr;
    uint32_t slot = 0;
    std::atomic<uint32_t> generation{0};  ///< the connection this process means; compared with the shared one
    Role role = Role::kNone;
    std::atomic<int> accepted_family{0};  ///< of a listener: what it accepts, once that is known

    MappedSegment segment;
    std::atomic<int> link{-1};
    int peer_pid = 0;  ///< as the kernel tells it; 0 when it cannot be told

    // Rendezvous, see fuse.cpp.
    int setup_fd = -1;  ///< the descriptor through which the current setup call came
    /// Some descriptor of this process that means the stream, or -1: for the steward, who comes without one.
    /// Changed, and used by him, under descriptor_lock(): a number may mean anything once it is closed.
    std::atomic<int> descriptor{-1};
    uint64_t cookie = 0;                ///< of the kernel's socket, since the segment is there
    std::atomic<uint32_t> attended{0};  ///< the steward that watches the link, see attend()
    std::atomic<int> offer{-1};         ///< connector: the listening socket
    std::atomic<int> pending_link{-1};  ///< connected, nothing is shared yet
    /// Of the meeting on it, see proof.h. Changed inside a SetupScope; looked at before, as a hint whether
    /// one is worth while.
    std::atomic<Stage> stage{Stage::kNobody};
    int peer_sign = -1;                    ///< the peer's switches at our first look
    uint64_t peer_cookie = 0;              ///< the peer's socket
    std::atomic<uint32_t> quiet_calls{0};  ///< since something happened on the pending link
    int sign_fd = -1;                      ///< the descriptor through which our sign was given
    uint64_t sign_cookie = 0;              ///< and what it meant then
    uint64_t threshold = 0;
    std::atomic<uint64_t> next_look_in{0};
    std::atomic<uint64_t> next_look_out{0};
    std::atomic<uint32_t> offer_calls{0};
    std::atomic<int64_t> offer_made{0};
    /// Of a thread, so that another one's calls end and the offer can be confirmed.
    std::atomic<uint32_t> steps_aside{0};

    // What looks at the packets, see judge.cpp.
    std::atomic<uint64_t> judged{0};  ///< the verdict_word() under which nothing forbade the ring
    uint64_t cgroup = 0;              ///< of the socket; 0 until it is asked for

    std::atomic<int> local_refs{0};  ///< descriptors of this process
    std::atomic<int> callers{0};     ///< blocking calls that wait, see wait/caller.h
    std::atomic<int> kept{-1};       ///< the hidden duplicate that they use, once their descriptor was closed
    std::atomic<int> reaching{0};    ///< of them, those that are about to use the number that they have

    /// What poll said of the kernel socket last, or kUnknown: the low half. The high half counts the events
    /// on the socket, so that an answer from before an event is never stored after it.
    std::atomic<uint64_t> kernel_ready{kUnknown};
    std::atomic<uint64_t> last_kernel_look{0};  ///< in ticks
    std::atomic<int> watched{0};                ///< hidden epoll sets that report events on the socket
    std::atomic<bool> link_down{false};         ///< the link hung up, as an event or a look said
    uint64_t drained_told = 0;                  ///< the last backlog that the peer was told is read
    uint64_t drained_when = 0;                  ///< and when, in ticks
    uint64_t drained_seen = 0;                  ///< the last one that the peer told us of

    // The Dekker words of fuse.cpp. They speak of this process only: nothing is changed while it has
    // relatives that hold the connection, and a relative that is killed takes its calls with it.
    std::atomic<uint32_t> kernel_readers{0};  ///< calls inside a kernel receive or a kernel wait
    std::atomic<uint32_t> kernel_senders{0};  ///< calls inside a kernel send
    std::atomic<uint32_t> cutting{0};         ///< 1 while a cut is being published
    bool held_for_fork = false;               ///< see before_fork() in table.cpp
    bool stays_over_exec = false;             ///< see before_exec() in table.cpp

    // Thread-epoll registrations, see wait/sleeper.cpp.
    std::atomic<uint64_t> registered_receiver{0};
    std::atomic<uint64_t> registered_sender{0};
    /// Which thread sent last, by the address of its count, and what that was: see order.h. Under the sending
    /// lock.
    const void* ordered_by = nullptr;
    uint32_t ordered_calls = 0;
    SpinHistory receive_spin;
    SpinHistory send_spin;
    std::atomic<int> set_entries{0};  ///< epoll interest entries of this process that mean this stream
    std::atomic<bool> unseen{false};  ///< and there is one that could not be noted, see epoll_set.cpp

    int side() const { return role == Role::kConnector ? 0 : 1; }
    Direction& out() const { return segment.segment->direction[side()]; }
    Direction& in() const { return segment.segment->direction[1 - side()]; }
    SideWords& our_words() const { return segment.segment->side[side()]; }
    SideWords& their_words() const { return segment.segment->side[1 - side()]; }
    RingWriter writer() const { return {out(), shared->producer, segment.data(side()), segment.capacity}; }
    RingReader reader() const { return {in(), shared->consumer, segment.data(1 - side()), segment.capacity}; }
    bool out_in_ring() const { return shared->out_lane.load(std::memory_order_acquire) == Lane::kRing; }
    bool in_in_ring() const { return shared->in_lane.load(std::memory_order_acquire) == Lane::kRing; }
    State state() const { return shared->state.load(std::memory_order_acquire); }
    /// The segment is there and its words have to be watched.
    bool fused() const {
        const State now = state();
        return now == State::kFused || now == State::kProposed;
    }
};

/// One process's half. Lives in a fixed array; `slot` is its index there and in the arena.
struct Stream : SlotWatch, StreamWords {};

// --- receive.cpp, send.cpp: one attempt, on whichever lane is due ---

/// Receives into `to` (null: drop, as MSG_TRUNC does) on a stream with a segment. Flags: MSG_PEEK,
/// MSG_TRUNC; MSG_DONTWAIT is implied. @return bytes, 0 at the end, -EAGAIN, or -errno.
long receive_some(Stream& stream, int fd, Buffers* to, size_t size, int flags);

/// With this flag a send goes on with what an earlier part of the same call began: an error must not be
/// collected from the kernel then, it belongs to the next call.
constexpr int kContinued = 1 << 30;

/// Sends from `from` on a stream with a segment. @return bytes taken, -EAGAIN when there is no room, or
/// -errno (-EPIPE after SIGPIPE was raised as the kernel raises it).
long send_some(Stream& stream, int fd, const Buffers& from, size_t size, int flags);

/// All that lies before the cut has been received: the next receive goes to the ring.
inline bool ring_is_due(const Stream& stream) {
    // Acquire pairs with the release in publish_cut. Harmless: only compared.
    const uint64_t cut = stream.in().producer.cut.load(std::memory_order_acquire).harmless();
    return cut != kNoCut && cut - 1 == stream.shared->kernel_in.load(std::memory_order_relaxed);
}

/// Bytes that a receive would find now, as FIONREAD has it.
uint64_t bytes_waiting(Stream& stream, int fd);

/// What TCP_INQ says after a receive: the bytes that are left, and one more where the peer's end is behind
/// them. 0 promises that there is nothing until the next edge.
int rest_of_bytes(Stream& stream, int fd);

/// The most that a peer's SO_RCVBUF adds: some more than what the kernel's own tuning reaches.
constexpr uint64_t kMostForPeer = 8 * 1024 * 1024;

/// Of what the sizes are above the ring, this part is room in its reserve: 128 bytes for 4 MiB.
constexpr uint64_t kShareOfReserve = 32 * 1024;

/// What of a ring the limit reaches without its reserve, a 1024th.
constexpr uint64_t without_reserve(uint64_t capacity) { return capacity - capacity / 1024; }

/// Bytes that may be in flight towards the peer at once. A ring is as large as it was made, but a larger
/// SO_SNDBUF is room at once, however little, for who waits for it: so sizes that are more than the ring
/// holds are handed out of its reserve.
inline uint64_t send_limit(const Stream& stream) {
    // Harmless: clamped to the capacity right here.
    const uint64_t theirs = stream.their_words().receive_size.load(std::memory_order_relaxed).harmless();
    const uint64_t capacity = stream.segment.capacity;
    const uint64_t ours = stream.shared->send_size.load(std::memory_order_relaxed);
    // A segment as large as a peer may propose must not make us fill it on the peer's word alone.
    const uint64_t most = capacity < kMostForPeer ? capacity : kMostForPeer;
    const uint64_t sum = ours + (theirs < most ? theirs : most);
    const uint64_t most_of_it = without_reserve(capacity);
    if (sum <= most_of_it)
        return sum < kControlSize ? kControlSize : sum;
    const uint64_t limit = most_of_it + (sum - most_of_it) / kShareOfReserve;
    return limit < capacity ? limit : capacity;
}

/// How many bytes make the stream readable: SO_RCVLOWAT, but no more than the peer can put into the ring, who
/// would wait for us to read and we for him to send.
inline uint64_t low_water(const Stream& stream) {
    const uint64_t wanted = stream.shared->low_water.load(std::memory_order_relaxed);
    if (wanted <= 1) [[likely]]
        return 1;
    const uint64_t capacity = without_reserve(stream.segment.capacity);
    const uint64_t ours = stream.shared->receive_size.load(std::memory_order_relaxed);
    const uint64_t most = capacity < kMostForPeer ? capacity : kMostForPeer;
    const uint64_t room = ours < most ? ours : most;
    return wanted < room ? wanted : room < 1 ? 1 : room;
}

/// How much of what we sent the peer's receive queue would not have taken yet, as SIOCOUTQ has it: what is in
/// flight beyond the peer's part of the limit.
uint64_t bytes_unsent(const Stream& stream);

/// What the ring carried of the connection's bytes, also after it was left. Those that went back to the
/// kernel are among the kernel's own.
struct Carried {
    uint64_t sent = 0;
    uint64_t received = 0;
};
Carried carried_by_ring(const Stream& stream);

// --- readiness.cpp ---

/// How old the kernel's answer may be where no event would tell of a change: kCached where the caller has
/// just processed the events on the socket, kRecent (50 us) where nobody watches it.
enum class Freshness { kCached, kRecent };
/// For calls outside a wait: a stream that is registered in an epoll set is watched there, and looked at on
/// its own account only every 10 ms.
constexpr uint64_t kWatchedTicks = 10 * kTicksPerMs;

/// The poll bits that are true now (POLLIN, POLLOUT, POLLRDHUP, POLLHUP, POLLERR, POLLPRI, ...).
uint32_t readiness(Stream& stream, int fd, Freshness freshness);
/// What poll says of the kernel socket: the last answer, or a new one.
uint32_t kernel_readiness(Stream& stream, int fd, Freshness freshness);
/// An event was seen on the kernel socket, or we changed its state ourselves.
inline void forget_kernel_readiness(Stream& stream) {
    uint64_t seen = stream.kernel_ready.load(std::memory_order_relaxed);
    // Relaxed: it orders nothing else, it only has to be one step with the compare-and-swap that stores an
    // answer (kernel_readiness).
    while (!stream.kernel_ready.compare_exchange_weak(seen, ((seen >> 32) + 1) << 32 | kUnknown,
                                                      std::memory_order_relaxed)) {
    }
}
/// The last answer, or kUnknown.
inline uint32_t cached_kernel_readiness(const Stream& stream) {
    return static_cast<uint32_t>(stream.kernel_ready.load(std::memory_order_relaxed));
}
/// Enough room that poll says writable: a third of the limit, as the kernel has it.
inline bool has_room(const Stream& stream) {
    const uint64_t limit = send_limit(stream);
    RingWriter writer = stream.writer();
    // A stale tail only errs towards "full": look at the real one before saying so.
    const uint64_t known = writer.in_flight(false);
    if (known <= limit && limit - known >= limit / 3)
        return true;
    const uint64_t used = writer.in_flight(true);
    return used <= limit && limit - used >= limit / 3;
}

/// A stream's program was told that there is no room. How long it may be so, TCP_USER_TIMEOUT says.
void mind_full_ring(Stream& stream);
inline void found_no_room(Stream& stream) {
    if (stream.shared->user_timeout.load(std::memory_order_relaxed) != 0) [[unlikely]]
        mind_full_ring(stream);
}

/// A poll of whatever kind that finds no room makes room, when it comes, an edge to sets that ask for it, as
/// a send does that finds none. (The kernel's sets SOCK_NOSPACE.)
inline void polled_without_room(Stream& stream) {
    if (stream.shared->peer_left.load(std::memory_order_relaxed) != 0)
        return;  // the kernel tells of its own room
    // seq_cst: before the caller's next look at the ring. Who finds no room then is told of it by a peer
    // whose bell comes after this.
    stream.shared->full_count.fetch_add(1, std::memory_order_seq_cst);
    found_no_room(stream);
}

/// The readiness of a stream that is in the middle of its life, with both directions on the ring and nothing
/// to ask the kernel, which is nearly always: a few loads. @return false when readiness() must say.
inline bool plain_readiness(const Stream& stream, uint32_t wanted, uint32_t& ready) {
    constexpr uint32_t kWritable = POLLOUT | POLLWRNORM | POLLWRBAND;
    const SharedHalf& shared = *stream.shared;
    // Relaxed or as in readiness(): each of these words is a hint to look closer, and is looked at again.
    if (!stream.in_in_ring() || !stream.out_in_ring() ||
        (cached_kernel_readiness(stream) & ~kWritable) != 0 ||
        stream.link_down.load(std::memory_order_relaxed) || stream.state() == State::kKernel ||
        stream.their_words().closing.load(std::memory_order_relaxed).is_set() ||
        (shared.send_to_kernel.load(std::memory_order_relaxed) |
         shared.peer_left.load(std::memory_order_relaxed)) != 0)
        return false;
    ready = 0;
    if ((wanted & (POLLIN | POLLRDNORM)) != 0 && stream.reader().available() >= low_water(stream))
        ready |= POLLIN | POLLRDNORM;
    if ((wanted & kWritable) != 0 && has_room(stream))
        ready |= POLLOUT | POLLWRNORM;
    return true;
}

/// The peer is gone with bytes of ours unread. Had they gone through the kernel it would have reset the
/// connection; sending them to the dead socket makes it do so now. @return true if this call did that.
bool refused_by_the_dead(Stream& stream, int fd);

// --- fuse.cpp: on the way to the ring ---

/// The connection exists now, in the role given; `threshold` 0 fuses at once.
void begin_connection(Stream& stream, int fd, Role role, uint64_t threshold);
/// Before `size` bytes go to the kernel: the last moment for an offer.
void before_kernel_send(Stream& stream, int fd, size_t size);
/// After a call on the kernel lane: look for an offer, or see whether ours was taken.
void after_kernel_call(Stream& stream, int fd);
/// On a stream that was proposed: has the connector confirmed? Then publish our cut.
void advance(Stream& stream, int fd);
/// Stays on the kernel lane for good.
void refuse(Stream& stream, Reason reason);
/// Withdraws what was offered and not yet confirmed (before a fork, at close).
void withdraw_offer(Stream& stream);
/// In the child of a fork: an acceptor's unfinished meeting is its parent's.
void forget_link_of_parent(Stream& stream);
/// The program looks at, or sets, one of the options that the sign of a proof uses: it finds its own values,
/// and the proof ends without a result. See proof.h.
void keep_options_private(Stream& stream);

/// The scope of a call that may move bytes over the kernel lane outside our locks. While one is open no
/// cut is made in its direction. `allowed` is false once the stream has a segment: then the call must be
/// made through receive_some or send_some.
class KernelReceive {
public:
    explicit KernelReceive(Stream& stream);
    ~KernelReceive();
    bool allowed() const { return allowed_; }
    void count(long result, int flags);

private:
    Stream& stream_;
    bool allowed_;
};
class KernelSend {
public:
    explicit KernelSend(Stream& stream);
    ~KernelSend();
    bool allowed() const { return allowed_; }
    /// Of a call that was asked to send `wanted` bytes. If it sent fewer, room is an edge when it comes.
    void count(long result, size_t wanted);

private:
    Stream& stream_;
    bool allowed_;
};

/// What the layers above know and this one must ask: set once at start, see wait/epoll_set.cpp. `claim`
/// takes the stream's interest entries into user space before it is fused; it says no while a thread sleeps
/// in the kernel on one of those sets.
struct SetHooks {
    bool (*claim)(Stream& stream, int fd) = nullptr;
    /// It was not fused after all: back into the kernel's sets.
    void (*unclaim)(Stream& stream) = nullptr;
    /// An edge for the entries that mean the stream and ask for any of `events`; 0: for all. kDue, before a
    /// call that makes the kernel tell of it as well, and kIfStillDue after it: one edge in all.
    enum Edge { kNow, kDue, kIfStillDue };
    void (*edge)(Stream& stream, uint32_t events, Edge when) = nullptr;
    /// Some set may have an entry of the stream that nobody here knows: it must stay on the kernel lane.
    bool (*lost_sight)(const Stream& stream) = nullptr;
};
inline SetHooks set_hooks;

/// Living processes that hold the descriptor.
int count_holders(SharedHalf& shared);

/// What a thread of ours, that sleeps while nothing happens, does for streams whose program makes no call:
/// see wait/steward.h. `attend` is called when a stream got a segment, and before its sleeps.
struct StewardHooks {
    void (*attend)(Stream& stream) = nullptr;
    /// Our direction is about to end, by a close or by shutdown(SHUT_WR), while bytes that the peer did not
    /// take have yet to go to the kernel. @return true when they will; the end comes after them then.
    bool (*send_the_rest)(Stream& stream, int fd, bool shut_down) = nullptr;
    /// Some bytes are held back: will they be shown in time? See held.cpp.
    bool (*mind)() = nullptr;
    /// A stream with TCP_USER_TIMEOUT was found full. See wait/impatience.h.
    void (*found_no_room)(Stream& stream) = nullptr;
};
inline StewardHooks steward_hooks;
/// Which steward is on duty: a forked child has none until it needs one.
inline std::atomic<uint32_t> steward_on_duty{1};
inline void attend(Stream& stream) {
    // Relaxed: the steward's own lock orders what is behind it.
    if (stream.attended.load(std::memory_order_relaxed) != steward_on_duty.load(std::memory_order_relaxed) &&
        steward_hooks.attend != nullptr) [[unlikely]]
        steward_hooks.attend(stream);
}

// --- held.cpp: MSG_MORE, TCP_CORK ---

/// `size` bytes are about to be put into the ring, and more are to follow: `more` says that this call's flags
/// say so, otherwise the socket is corked. @return true when the reader is not to see them yet. The sending
/// lock is held.
bool hold_back(Stream& stream, size_t size, bool more);
/// Shows what is held, and wakes the reader.
void show_held_now(Stream& stream);
inline bool holds_some(const Stream& stream) {
    // seq_cst: before_fork() has said that there are relatives, or an uncork that there is no cork, and
    // hold_back() swaps this and then looks for that: one of the two sees the other.
    return stream.out().producer.held.load(std::memory_order_seq_cst).is_set();
}
inline void show_held(Stream& stream) {
    if (holds_some(stream)) [[unlikely]]
        show_held_now(stream);
}
/// The reading side: the peer's direction has ended, or its link has, and nobody else will show what it held.
inline void show_end(Stream& stream) {
    // Relaxed: on the kernel's word, and for this side's own looks.
    auto& held = stream.in().producer.held;
    if (held.load(std::memory_order_relaxed).is_set()) [[unlikely]]
        held.store(0, std::memory_order_relaxed);
}
/// Shows what this process held back too long. @return whether it holds any.
bool show_overdue(Stream& (*stream_of)(uint32_t slot));

// --- leave.cpp ---

/// The peer turned away from what we put into the ring: it is there still, on the kernel lane, whatever it
/// did to its sending half since. Acquire pairs with the compare-and-swap in leave(): its tail stands still.
inline bool said_that_it_left(const Stream& stream) {
    const uint64_t word = stream.out().producer.turned_away.load(std::memory_order_acquire).harmless();
    return word != kBothThere && word != kProducerDone;
}

/// The peer let go of its link without ending the connection: it goes on over the kernel lane.
bool peer_left(Stream& stream, int fd);
/// After that: sends what the peer left unread over the kernel lane. @return true when all of it is sent.
bool return_to_kernel(Stream& stream, int fd);
/// What the peer did not take, or does not keep. Relaxed: the words are compared, and asked for again.
inline bool has_unsent(const Stream& stream) {
    const ProducerLine& line = stream.out().producer;
    const uint64_t word = line.turned_away.load(std::memory_order_relaxed).harmless();
    return is_kept(word) ? kept_until(line.head.load(std::memory_order_relaxed).harmless()) != word
                         : stream.writer().in_flight(true) != 0;
}
/// How soon who sleeps looks again where no event tells of what he waits for.
constexpr int64_t kLookAgain = 10'000'000;
/// Bytes of ours are still to go back to the kernel: who sends them may be another thread, and what kept them
/// may have been want of memory.
inline bool has_to_return(const Stream& stream) {
    return stream.link_down.load(std::memory_order_relaxed) && stream.state() == State::kFused &&
           stream.out_in_ring() && has_unsent(stream);
}
/// With SO_RCVLOWAT: fewer bytes than that lie in the ring, and what comes now comes over the kernel lane,
/// which tells of nothing less than that either. They count together.
inline bool waits_on_both_lanes(const Stream& stream) {
    return stream.shared->low_water.load(std::memory_order_relaxed) > 1 &&
           stream.link_down.load(std::memory_order_relaxed) && stream.state() == State::kFused &&
           stream.reader().available() != 0;
}
/// Whoever sleeps looks again soon.
inline bool is_looked_at_again(const Stream& stream) {
    return has_to_return(stream) || waits_on_both_lanes(stream);
}
/// Our direction is about to end, by close or shutdown: what the peer left unread goes before the end.
/// @return false when some of it would not go into the kernel yet.
bool finish_output(Stream& stream, int fd);
/// What lies unread when one leaves: the peer sends it again when it comes to that; or, before one goes where
/// the ring cannot be read, the peer is waited for, and what it does not see to keeps us in the ring; or it
/// keeps us there at once, where this process goes on reading and only what comes next is to be elsewhere.
enum class Unread { kToThePeer, kWaitedFor, kKept };
/// Leaves the ring for good. @return false when unread bytes keep us there: then we go on reading them.
bool leave(Stream& stream, int fd, Reason reason, Unread unread = Unread::kToThePeer);

// --- judge.cpp: filters and captures ---

/// The socket has, or is about to get, a filter of its own: that is the objection.
void note_socket_filter(Stream& stream);
/// Before the connection is fused: what forbids it, if anything does.
Reason forbidden(Stream& stream, int fd);
/// kNone, unless what this end sends takes another way than through lo, or none, although its peer is on this
/// host. `fresh`: it is about to be fused; otherwise it may have changed since.
Reason led_astray(const Stream& stream, int fd, bool fresh);
/// The verdict may be another one than when the stream was judged: leaves the ring if something forbids it.
void reconsider(Stream& stream, int fd);
/// It surely is.
inline void judge_anew(Stream& stream, int fd) {
    stream.judged.store(0, std::memory_order_relaxed);
    reconsider(stream, fd);
}
/// On the data path, before bytes go into the ring or come out of it.
inline void heed_verdict(Stream& stream, int fd) {
    // Relaxed: a hint, see verdict_word().
    if (stream.judged.load(std::memory_order_relaxed) != verdict_word()) [[unlikely]]
        reconsider(stream, fd);
}

// --- lifecycle.cpp ---

/// This process's last descriptor is about to be closed; called before. `last` when no relative holds it.
void prepare_close(Stream& stream, int fd, bool last);
/// Releases the segment and the link, once nobody looks at them.
void release_mapping(Stream& stream);
/// The same, by one who looked, and may have been the last.
void release_if_dying(Stream& stream);
/// One of those that `waiters` counts looks no more. The stream may be another one afterwards.
inline void stop_watching(Stream& stream) {
    // Dekker with release_mapping.
    if (stream.waiters.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
        stream.dying.load(std::memory_order_seq_cst)) [[unlikely]]
        release_if_dying(stream);
}
/// connect(2) to nowhere has ended the connection: what was in the rings is gone, as what was in the kernel's
/// queues. A connection that begins on the same socket stays on the kernel lane.
void disconnected(Stream& stream);
/// shutdown(2) succeeded or is about to. @return what of it the kernel is to do now; kShutLater for nothing,
/// since bytes have to go first.
constexpr int kShutLater = -1;
int before_shutdown(Stream& stream, int fd, int how);
void after_shutdown(Stream& stream, int how);
/// What is sent from here on goes to the kernel, which refuses it: our half is shut down, or the connection
/// is over.
inline bool half_shut(const Stream& stream) {
    return stream.shared->send_to_kernel.load(std::memory_order_relaxed) != 0;
}
/// An edge that no byte makes, for who asks for any of `events`. Whatever was asked of it, and whether it
/// could be had, shutdown(2) is one to everybody (0); so is setting SO_RCVLOWAT to who reads, where there is
/// enough.
inline void tell_sets(Stream& stream, uint32_t events, SetHooks::Edge when) {
    if (set_hooks.edge != nullptr && stream.set_entries.load(std::memory_order_relaxed) != 0)
        set_hooks.edge(stream, events, when);
}

/// A thread looks at the segment without a lock for a while.
class Watching {
public:
    explicit Watching(Stream& stream);
    ~Watching();
    Watching(const Watching&) = delete;
    Watching& operator=(const Watching&) = delete;
    /// False when the stream was closed under us.
    bool alive() const { return alive_; }

private:
    Stream& stream_;
    bool alive_;
};

}  // namespace loopfast
