// An end: one descriptor, as an operation's subject. Each member function is one call of the socket
// interface, performed where the end's actor lives, and one line of the trace.
//
// What no function here does is said with call(): any code that gives a number and sets errno.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <string>
#include <vector>

#include "script.h"

namespace differential {

/// Until a thread of this process sleeps, seen three times in a row, or `over`. A signal or a cancellation
/// that is meant for a call that waits comes after this: no time that one could sleep instead is enough on a
/// loaded machine.
void await_sleep(const std::atomic<pid_t>& thread, const std::atomic<bool>& over);

/// A call that runs in a thread of its own, because it waits for something that the script does later.
class Pending {
public:
    Pending(Script& script, Actor actor, std::string what, int task)
        : script_(&script), actor_(actor), what_(std::move(what)), task_(task) {}
    /// Waits for the call to return and shows what it returned.
    Outcome finish();
    /// Sends the thread a signal while it waits, and waits until the handler ran.
    void interrupt(int signal);
    /// Shows whether the call is still waiting after a while: for what must not end it.
    void still_waiting();

private:
    Script* script_;
    Actor actor_;
    std::string what_;
    int task_;
};

class End {
public:
    End() = default;
    End(Script& script, Actor actor, int fd, std::string name)
        : script_(&script), actor_(actor), fd_(fd), name_(std::move(name)) {}

    Script& script() const { return *script_; }
    Actor actor() const { return actor_; }
    int fd() const { return fd_; }  ///< meaningful where the actor lives
    const std::string& name() const { return name_; }
    void rename(const std::string& name) { name_ = name; }
    /// The same descriptor in another process, that was forked from this end's.
    End in(Actor actor, const std::string& name) const { return {*script_, actor, fd_, name}; }

    // Anything: gives a value, errno if it is negative, and perhaps text to be compared.
    Outcome call(const std::string& what, const std::function<long()>& body) const;
    Outcome call_with_text(const std::string& what, const Body& body) const;
    /// The same, not in the trace.
    Outcome quietly(const std::string& what, const Body& body) const;
    /// The same in a thread; returns once that thread sleeps or is done.
    Pending start(const std::string& what, const Body& body) const;

    // Bytes out.
    Outcome send(const std::string& bytes, int flags = 0) const;
    Outcome write(const std::string& bytes) const;
    Outcome sendto(const std::string& bytes, int flags = 0) const;
    Outcome writev(const std::vector<std::string>& parts) const;
    Outcome sendmsg(const std::vector<std::string>& parts, int flags = 0) const;
    Outcome sendmmsg(const std::vector<std::string>& messages, int flags = 0) const;
    Outcome pwritev2(const std::vector<std::string>& parts, off_t offset, int flags) const;
    /// Sends all of it in a thread, however long the buffers make it wait.
    Pending start_send(const std::string& bytes, int flags = 0) const;

    // Bytes in.
    Outcome recv(size_t size, int flags = 0) const;
    Outcome read(size_t size) const;
    Outcome recvfrom(size_t size, int flags = 0) const;
    Outcome readv(const std::vector<size_t>& sizes) const;
    Outcome recvmsg(const std::vector<size_t>& sizes, int flags = 0) const;
    Outcome recvmmsg(const std::vector<size_t>& sizes, int flags = 0) const;
    Outcome preadv2(const std::vector<size_t>& sizes, off_t offset, int flags) const;
    /// Receives until `size` bytes came, or the end, or an error. One line, whatever the portions were.
    Outcome drain(size_t size) const;
    Pending start_recv(size_t size, int flags = 0) const;

    // Endings.
    Outcome shutdown(int how) const;
    Outcome close() const;
    Outcome reset() const;  ///< SO_LINGER 0, then close

    // State.
    Outcome poll(short events, int timeout = 0) const;
    Outcome fionread() const;
    Outcome outq() const;  ///< after it became 0, or has stayed something else
    Outcome get(int level, int name) const;
    Outcome set(int level, int name, int value) const;
    Outcome set_time(int name, int milliseconds) const;
    Outcome getfl() const;
    Outcome nonblocking(bool on, bool by_ioctl = false) const;
    Outcome getpeername() const;

    // Descriptors.
    End dup(const std::string& name) const;
    End dup_with(const std::string& name, const std::string& what, const std::function<int(int)>& how) const;

    /// Waits until so many bytes can be read. A script says it wherever the kernel gives no promise when
    /// bytes arrive.
    void await_bytes(size_t size) const;
    /// Waits until poll reports all of `events`.
    void await_poll(short events) const;
    /// Waits until the peer is known to be gone: EOF, an error, or a hang-up.
    void await_end() const { await_poll(POLLRDHUP); }
    /// Waits until the peer has acknowledged that this end shut down: the state changes then, which is an
    /// edge.
    void await_acknowledged_end() const;
    /// Sends until the buffers are full; the number of bytes is in the outcome and not in the trace, since
    /// the kernel's room and ours differ.
    Outcome fill(unsigned seed = 1, size_t chunk = 65536) const;

private:
    std::string title(const std::string& operation) const { return name_ + "." + operation; }
    Outcome receive(const std::string& operation, size_t size, const std::function<long(char*)>& body) const;

    Script* script_ = nullptr;
    Actor actor_ = kClient;
    int fd_ = -1;
    std::string name_;
};

std::string flag_names(int flags);
std::string event_names(unsigned events);
/// The address space just before a page that cannot be touched: `accessible` bytes can.
char* before_bad_page(size_t accessible);
/// What comes back as another number when a descriptor goes through an AF_UNIX socket; -1 for an error.
int passed_descriptor(int fd, bool with_several = false);

}  // namespace differential
