// An epoll set with streams in it. Interest in streams lives here, in user space; ordinary descriptors stay
// in the kernel's set, with their user data untouched.
//
//     E  the program's epoll descriptor: ordinary descriptors, and streams that were never fused
//     H  a hidden epoll set to sleep in: contains E itself (level-triggered, but see below), each stream's
//        link and kernel socket (edge-triggered), and an eventfd to get sleepers out
//
// A set whose entries are all ordinary is passed on to the kernel. When a stream is about to be fused its
// entry is claimed: taken out of E and managed here from then on. Changes of interest, which event loops
// make at every request, are then plain stores; the kernel hears of a stream once.
//
// Threads may be asleep in E when its first stream is claimed. They are called out (call_out_of_kernel): the
// eventfd is in E as well, and silent until then. While a call lasts it is ready there, level-triggered, so
// that the kernel wakes one thread after the other; an event that each had to pass on was lost when a thread
// that waits in H took it along with what it looked for in E. As E is always ready then, H tells of it
// edge-triggered for that time, and who sleeps in H looks at E first. A call ends when the last one has come
// out; since a thread may have been cancelled there, or was never counted, after ten seconds in any case.
//
// Streams with traffic are hot and scanned in user space; those that stay quiet become cold: armed for good,
// so that the next byte rings, and left out of the scan until then.
#pragma once

#include <signal.h>
#include <sys/epoll.h>

#include <cstdint>

#include "base/handlers.h"
#include "base/lock.h"
#include "stream/stream.h"
#include "wait/interest.h"

namespace loopfast {

/// How many nested sets tell of what could not leave the ring. Relaxed: it is looked at by who waits next,
/// and the sets' locks order the rest.
inline std::atomic<uint32_t> telling_sets{0};

class EpollSet {
public:
    /// epoll_ctl(2). @return 0 or -errno.
    int control(int set_fd, int operation, int fd, epoll_event* event);
    /// epoll_pwait(2) with a timeout in nanoseconds. @return events or -errno.
    int wait(int set_fd, epoll_event* events, int capacity, int64_t timeout, const sigset_t* mask,
             bool may_spin = true);

    // For a door that looks at its streams itself, and waits here only when it finds nothing.
    /// The spinning of wait(), with the caller's look. @return whether that said yes.
    bool spin(int64_t timeout, bool (*look)(void* context), void* context);
    /// A look, without waiting, at what only the kernel tells of; if there is anything, at all.
    int glance(int set_fd, epoll_event* events, int capacity);

    /// True when something in here must be looked at in user space.
    bool has_managed() const { return managed_.load(std::memory_order_acquire) != 0; }

    // For poll and select on the set's descriptor.
    bool any_ready(int set_fd);
    /// Arms what is hot for a sleep outside; @return the hidden set to sleep on, to be followed by disarm(),
    /// or -1.
    int arm(int set_fd, uint64_t token);
    void disarm(uint64_t token);
    void take_hidden_events();
    /// A thread that slept on the set in a poll will not come back. Its arming stood in place of that of
    /// threads that still sleep here, and it may have taken their bell: they look again.
    void poller_left();
    /// Around a wait on the descriptor of a set that is all the kernel's. @return true at the end when those
    /// who wait there are being called out: what the wait said is void then.
    bool enter_kernel();  ///< false: it has streams already, and nothing is to be ended
    bool leave_kernel();
    /// Changes when a call out of the kernel's set begins, to an odd number, and when it ends.
    uint32_t calls_out() const { return calls_out_.load(std::memory_order_acquire); }

    // From below.
    bool claim(Stream& stream, int fd);
    void unclaim(Stream& stream);
    void drop(Stream& stream);
    void edge(Stream& stream, uint32_t events, SetHooks::Edge when);
    /// `fd` is about to be closed while `other` still means the same stream.
    void divert(Stream& stream, int fd, int other);
    /// The set is in another set, which the kernel must be able to wake: streams in it leave the ring. See
    /// epoll_nested.cpp.
    void nest();
    /// Before a look at any set: bytes of which this one's E tells may have been read meanwhile.
    void settle_if_told();
    void forked();
    void release();
    /// What `fd` was added with; false when it was not. Of a one-shot that fired nothing is asked for.
    bool interest_of(int fd, epoll_event& event);
    /// `fd`, a descriptor of the set, is about to be closed: threads that wait in it go on with another one.
    void closing(int fd);
    void forget_kept();

    // For sets that were made before the process kept account of them, see early_sets.cpp.
    /// The entries, as the kernel has them. @return false when it does not say.
    bool take_in(int set_fd);
    /// A wait that began before that is over with `count` events. @return those that are the program's; fewer
    /// than `count`: it was told to come out.
    int came_late(epoll_event* events, int count);

    int descriptor = -1;  ///< some descriptor of the set, as last used
    std::atomic<bool> in_use{false};
    FamilyLock lock;

private:
    int wait_inside(int set_fd, epoll_event* events, int capacity, int64_t timeout, const sigset_t* mask,
                    bool may_spin);
    int64_t time_to_spin();
    /// The descriptor by which the set can be reached, if `fd` was closed meanwhile.
    int descriptor_now(int fd) const {
        const int kept = kept_.load(std::memory_order_acquire);  // pairs with closing()
        return kept >= 0 ? kept : fd;
    }
    /// `again`: only what has not been told of in this round. `asked`: ordinary descriptors have been asked
    /// for in this call. Afterwards asked_ says so.
    int scan(epoll_event* events, int capacity, bool again = false, bool asked = false);
    int take_what_came_before(epoll_event* events, int capacity);
    int tell_in_order(int set_fd, const epoll_event* hidden, int count, bool ordinary, epoll_event* events,
                      int capacity);
    void tell(Interest& interest, Stream& stream, uint32_t bits, epoll_event& event);
    /// Whatever the entry asks for; and only what it asks for.
    uint32_t all_bits(int fd, Interest& interest, Stream& stream);
    uint32_t ready_bits(int fd, Interest& interest, Stream& stream);
    static bool has_edge(const Interest& interest, const Stream& stream, uint32_t bits);
    static void polled(const Interest& interest, Stream& stream, uint32_t bits);
    bool report_edge(int fd, Interest& interest, Stream& stream, uint32_t& bits);
    int take_ordinary(int set_fd, epoll_event* events, int capacity, const sigset_t* mask = nullptr);
    bool look_is_due();
    int take_ordinary_first(int set_fd, epoll_event* events, int capacity, const sigset_t* mask);
    int look_at_kernel(int set_fd, epoll_event* events, int capacity, const sigset_t* mask, bool& of_streams);
    void take_hidden_events_locked();
    /// @return whether some of them told of streams.
    bool handle_hidden(const epoll_event* events, int count, bool& ordinary);
    bool ensure_hidden(int set_fd);
    /// All that a thread sleeps on is in H. False for want of memory or descriptors: short naps instead.
    bool can_sleep();
    bool register_streams();
    bool register_one(int fd, Interest& interest, Stream& stream);
    void unregister(int fd, Interest& interest, Stream& stream);
    void arm_hot(uint64_t token);
    void disarm_hot(uint64_t token);
    /// There is what it takes to have one stream more in user space.
    bool can_take(int set_fd, int fd);
    /// Room in the list for one entry more: asked for before an entry is taken in, so that making it hot
    /// cannot fail.
    bool make_room();
    void make_hot(int fd, Interest& interest);
    void make_cold(Interest& interest);
    bool try_cooling(int fd, Interest& interest, Stream& stream);
    void forget(int fd, Interest& interest);
    /// @return false when the kernel had no memory for it: the entry stays here, and is owed.
    bool give_to_kernel(int fd, Interest& interest);
    void owe(int fd, Interest& interest);
    void give_left_to_kernel();
    /// Of a nested set: what could not leave the ring and can now go into E goes there, and E tells of the
    /// rest. Under the lock.
    void settle_nested();
    /// The set ends, or it is a relative's who sees to it.
    void stop_telling() {
        telling_sets.fetch_sub(tells_nested_ ? 1 : 0, std::memory_order_relaxed);
        tells_nested_ = false;
    }
    /// All that is read of it comes over the kernel lane; or it has ended, and the kernel's socket is
    /// readable for good, so its word is right.
    static bool belongs_to_kernel(int fd, const Interest& interest, const Stream& stream);
    /// The eventfd is loud in E, or silent, as things are.
    void show_kick();
    /// Under the lock, so no atomic addition is needed. Release pairs with has_managed().
    void change_managed(int by) {
        managed_.store(managed_.load(std::memory_order_relaxed) + static_cast<uint32_t>(by),
                       std::memory_order_release);
    }
    void kick();
    void call_out_of_kernel();
    void end_call_out();
    /// Before somebody sleeps in E, under the lock and with nothing managed: being there is right now.
    void stay_in_kernel();
    /// A call out is under way. Ended here once it has lasted too long.
    bool calling_out();
    bool tell_of_kernel(uint32_t how);
    bool kernel_ready(int set_fd);
    void pass_on();
    int wait_in_kernel(int set_fd, epoll_event* events, int capacity, int64_t timeout, const sigset_t* mask,
                       const HandlersSince& handlers, bool& again);
    int control_managed(int operation, int fd, Interest* interest, Stream* stream, epoll_event* event);

    InterestTable interests_;
    int* hot_ = nullptr;  ///< descriptor numbers
    uint32_t hot_count_ = 0;
    uint32_t hot_room_ = 0;
    uint32_t next_scan_ = 0;
    std::atomic<uint32_t> managed_{0};
    std::atomic<uint32_t> sleepers_{0};         ///< threads in H
    std::atomic<uint32_t> kernel_sleepers_{0};  ///< threads in E
    bool calling_out_ = false;                  ///< threads in E are being called out
    bool calling_uncounted_ = false;            ///< some of them were not counted
    bool tells_edges_ = false;                  ///< H tells of E edge-triggered
    int64_t call_out_until_ = 0;
    std::atomic<uint32_t> calls_out_{0};  ///< begun and ended; release, pairs with calls_out()
    int inner_ = -1;                      ///< the descriptor by which E is in H
    /// The last look at E found something, or its entries changed since: a wait that finds no stream ready
    /// looks at it before it spins.
    bool ordinary_lively_ = true;
    bool ordinary_first_ = false;  ///< E had something for which the last report had no room
    /// Something in E is made ready by calls that nobody notes.
    bool always_look_ = false;
    uint32_t round_ = 0;                ///< of scans
    bool asked_ = false;                ///< for ordinary descriptors, in this call: not once more
    const void* looked_for_ = nullptr;  ///< which thread looked last: the address of its `own_calls`
    uint32_t looked_calls_ = 0;         ///< and their number then
    uint64_t looked_when_ = 0;          ///< ticks
    uint32_t kernel_waits_ = 1;         ///< waits in E so far: what was ready then has been reported
    bool nested_ = false;
    bool tells_nested_ = false;    ///< E is ready because of what could not leave the ring
    bool early_sleepers_ = false;  ///< there may be threads in E that were not counted
    bool owing_ = false;           ///< some entry is owed to E
    bool some_left_ = false;       ///< a relative took a stream off the ring: its entries belong to E again
    bool unregistered_ = false;    ///< some managed entry is not in H yet
    int hidden_ = -1;
    int kick_ = -1;
    std::atomic<uint32_t> inside_{0};  ///< threads in a wait
    std::atomic<int> kept_{-1};        ///< a hidden duplicate that they use, once their descriptor was closed
    SpinHistory history_;
};

/// What sets ask of a descriptor in whose place another socket is put, which takes its old one out of them.
class KeptInterest {
public:
    explicit KeptInterest(int fd);
    /// Of what has the number now.
    void put_back() const;

private:
    static constexpr int kMost = 16;
    int fd_;
    int count_ = 0;
    struct {
        EpollSet* set;
        epoll_event event;
    } entries_[kMost];
};

void settle_telling_sets();
/// The set behind a descriptor, or nullptr.
EpollSet* find_set(int fd);
/// `fd` is a new epoll descriptor. Where it cannot be noted, that is tried again at the first entry.
void make_set(int fd);
/// epoll_ctl(2) on a set that is not known here: for want of memory, or because it came from another program.
/// @return 0 or -errno.
int control_unknown_set(int set_fd, int operation, int fd, epoll_event* event);
/// Connects the layers below with this one. Called once, at load.
void connect_sets();

}  // namespace loopfast
