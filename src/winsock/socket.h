// A socket: the descriptor, what Winsock knows about it and the POSIX side does not, and what is pending on
// it.
//
// Each direction has a queue of operations and a lock. Into the receiving one go receives and AcceptEx, into
// the sending one sends, ConnectEx and the bytes of a large non-blocking send (the backlog). What is at the
// head is tried when the reactor says that its direction may have become ready.
#pragma once

#include <vector>

#include "winsock/operation.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

/// kAccepting: an AcceptEx is to fill it; nothing else may be done with it until that is over.
enum class State : uint8_t { kFresh, kAccepting, kBound, kListening, kConnecting, kConnected, kFailed };

struct Direction {
    Lock lock;
    bool closed = false;            ///< by closesocket: nothing may be queued any more
    Reactor* counted_at = nullptr;  ///< which knows that something may be pending here
    Operation* head = nullptr;
    Operation** tail = &head;
    Operation* spare = nullptr;  ///< finished ones, to be used again

    bool empty() const { return head == nullptr; }
    /// Something is pending from now on, or may be. It stays so when it is not: a request and its answer
    /// would otherwise change the reactor's count twice.
    /// @return whether that is news to the reactor.
    bool count_at(Reactor* reactor);
};

/// Options that Linux has not, or not so; values as set.
struct Settings {
    bool reuse_address = false;
    bool exclusive = false;
    bool conditional_accept = false;
    bool port_scalability = false;
    bool bsd_urgent = true;
    bool expedited = false;
    bool randomize_port = false;
    int send_buffer = -1;  ///< -1: never set
    int receive_buffer = -1;
    DWORD send_timeout = 0;  ///< milliseconds, 0: none
    DWORD receive_timeout = 0;
};

/// WSAEventSelect, see event_select.cpp.
struct EventSelection {
    Lock lock;
    Event* event = nullptr;  ///< counted
    LONG mask = 0;
    LONG recorded = 0;
    LONG disabled = 0;  ///< recorded before, and not re-enabled since
    int told = 0;       ///< bytes or connections there were when FD_READ or FD_ACCEPT was recorded
    int errors[FD_MAX_EVENTS] = {};
    Reactor* reactor = nullptr;  ///< where it counts as pending
};

/// An accepted connection that a condition function put off.
struct Deferred {
    int fd;
    Address address;
};

class BlockedCall;

class Socket : public Object {
public:
    static constexpr Kind kKind = Kind::kSocket;
    Socket(int fd, int family, int type, int protocol, bool overlapped);
    ~Socket() override;
    void closed() override;

    int fd() const { return fd_.load(std::memory_order_relaxed); }
    const int family;  ///< Linux's number, like the next two
    const int type;
    const int protocol;
    const bool overlapped;
    bool is_stream() const { return type == 1; }
    std::atomic<bool> nonblocking{false};
    std::atomic<State> state{State::kFresh};
    /// Held from the state kConnecting to the call that makes it true, and by who looks what became of it:
    /// before that call the descriptor is ready for all, and its error is told once.
    Lock connecting;
    /// A connecting socket may have become connected, or failed, since anybody looked. @return its state.
    State look();
    /// It is connected now.
    void connected();
    /// By AcceptEx or ConnectEx, and its context was not updated yet.
    std::atomic<bool> context_missing{false};
    std::atomic<bool> by_connect_ex{false};
    std::atomic<bool> fast_path{false};  ///< as SIO_LOOPBACK_FAST_PATH was set last
    std::atomic<bool> shut_receive{false};
    std::atomic<bool> shut_send{false};
    std::atomic<int> broken{0};  ///< the WSAE number of a reset; it stays, Linux tells it once
    std::atomic<int> connect_error{0};
    std::atomic<int64_t> connect_time{0};
    Settings settings;
    EventSelection selection;
    Direction in;
    Direction out;
    std::vector<Deferred> deferred;  ///< under in.lock
    Address peer;                    ///< set before the state says kConnected; empty: not known

    // Backlog: bytes of a non-blocking send that the queue did not take; under out.lock.
    bool has_backlog() const { return backlog_.size() != backlog_sent_; }
    size_t backlog_size() const { return backlog_.size() - backlog_sent_; }
    /// @return 0, or the error that the connection broke with.
    int drain_backlog();
    void add_backlog(const iovec* parts, unsigned count);
    /// shutdown(SD_SEND), once all that was sent before it is on its way. @return 0 or an error.
    int shut_send_in_order();

    // Attempts, without waiting: 0, WSAEWOULDBLOCK or an error; bytes moved in `moved`.
    int try_receive(const iovec* parts, unsigned count, size_t total, int& flags, Address* from,
                    size_t& moved);
    int try_send(const iovec* parts, unsigned count, int flags, const Address* to, size_t& moved);
    int try_accept(int& accepted, Address& address);
    /// An error of a send or receive as Winsock says it.
    int error_of(long result, bool sending);

    // Operations. All under the direction's lock.
    Operation* new_operation(Direction& direction, Target& target, Work work);
    void enqueue(Direction& direction, Operation* operation);
    void run_in();
    /// What run_in() nearly always does: one plain receive, and nothing behind it. @return false: it was not
    /// that.
    bool run_plain_receive();
    void run_out();
    /// Ends those that `which` says with an error. @return how many.
    template <typename Which> int cancel(Direction& direction, Which which);
    int cancel_all(uint64_t issuer, const OVERLAPPED* wanted);

    // Completion port.
    Port* port() const { return port_.load(std::memory_order_acquire); }
    ULONG_PTR key() const { return key_; }
    bool skips_success() const { return (modes.load(std::memory_order_relaxed) & 1) != 0; }
    /// @return 0 or ERROR_INVALID_PARAMETER: it has one.
    DWORD associate(Port* port, ULONG_PTR key);
    std::atomic<UCHAR> modes{0};

    // Readiness.
    Reactor* reactor();
    /// The reactor tells of this socket from now on; of room only where something waits for it.
    void watch(bool room);
    void unwatch();
    /// There was no room, though nothing was refused (the backlog's last bytes filled the queue): room is an
    /// edge again.
    void watch_room_again();
    /// From a reactor: `events` happened.
    static void progress(UINT_PTR handle, uint32_t events);
    /// From a reactor's look at its hot sockets.
    enum class Quick { kNothing, kDone, kNotPlain };
    Quick progress_quickly();
    /// The reactor looks at this socket itself from now on, if it is one that can be looked at.
    void warm();
    /// Whether there is certainly nothing to receive now, by a look at the ring.
    bool nothing_to_receive() const;

    // A place among the hot sockets of a reactor; changed under that reactor's lock.
    std::atomic<Reactor*> hot_at{nullptr};
    size_t hot_place = 0;
    uint16_t hot_quiet = 0;  ///< looks that found nothing
    /// What Winsock calls readable and writable. Poll bits in and out.
    short readiness(short events);

    // Blocking calls of threads, see blocking.h.
    Lock blocked_lock;
    BlockedCall* blocked = nullptr;
    bool closing = false;

    /// The descriptor is replaced: AcceptEx gives the socket its connection, DisconnectEx a new life.
    void replace(int fd);

private:
    void finish(Direction& direction, Operation* operation, int error, size_t bytes, DWORD flags);
    int perform_receive(Operation& operation, size_t& bytes, DWORD& flags);
    int perform_send(Operation& operation, size_t& bytes);
    int perform_connect(Operation& operation);
    void end_backlog();
    void progress_out(bool room, UINT_PTR handle);

    std::atomic<int> fd_;
    std::atomic<Port*> port_{nullptr};  ///< counted; set once
    ULONG_PTR key_ = 0;
    Lock watch_lock_;
    std::atomic<Reactor*> watched_by_{nullptr};  ///< changed under watch_lock_, as is the next
    std::atomic<uint32_t> watched_{0};
    std::vector<char> backlog_;
    size_t backlog_sent_ = 0;
    bool backlog_pending_ = false;
    bool shut_when_sent_ = false;
};

/// Whether calls may be made at all: WSAStartup was called, and the thread is not in a hook. @return 0 or the
/// error.
inline int check_call() { return !started() ? WSANOTINITIALISED : in_callback() ? WSAEINPROGRESS : 0; }
/// The socket of a handle. @return it or nullptr with `error` WSANOTINITIALISED, WSAEINPROGRESS or
/// WSAENOTSOCK.
Ref<Socket> find_socket(SOCKET handle, int& error);

}  // namespace loopfast::winsock
