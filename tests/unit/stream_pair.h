// Streams for tests: two ends of a real TCP connection, and calls on them in the shape that the front door
// (posix/) gives them. Results are >= 0 or -errno.
#pragma once

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "base/real.h"
#include "stream/stream.h"
#include "table/table.h"
#include "tcp_pair.h"
#include "wait/blocking.h"
#include "wait/epoll_set.h"

namespace loopfast {

inline long door_receive(int fd, void* buffer, size_t size, int flags = 0) {
    Stream* const stream = find_stream(fd);
    if (stream == nullptr)
        abort();
    if (!stream->fused()) {
        long result = -1;
        bool moved = false;
        if (stream->state() == State::kKernel) {
            result = ::recv(fd, buffer, size, flags);
            return result < 0 ? -errno : result;
        }
        int error = 0;
        {
            KernelReceive scope(*stream);
            moved = !scope.allowed();
            if (!moved) {
                result = ::recv(fd, buffer, size, flags);
                error = errno;
                scope.count(result, flags);
            }
        }
        if (!moved) {
            after_kernel_call(*stream, fd);
            return result < 0 ? -error : result;
        }
    }
    const iovec part{buffer, size};
    Buffers to(&part, 1);
    return receive(*stream, fd, &to, size, flags);
}

inline long door_send(int fd, const void* buffer, size_t size, int flags = 0) {
    Stream* const stream = find_stream(fd);
    if (stream == nullptr)
        abort();
    flags |= MSG_NOSIGNAL;
    if (!stream->fused()) {
        long result = -1;
        if (stream->state() == State::kKernel) {
            result = ::send(fd, buffer, size, flags);
            return result < 0 ? -errno : result;
        }
        before_kernel_send(*stream, fd, size);
        bool moved = false;
        int error = 0;
        {
            KernelSend scope(*stream);
            moved = !scope.allowed() || stream->fused();
            if (!moved) {
                result = ::send(fd, buffer, size, flags);
                error = errno;
                scope.count(result, size);
            }
        }
        if (!moved) {
            after_kernel_call(*stream, fd);
            return result < 0 ? -error : result;
        }
    }
    const iovec part{const_cast<void*>(buffer), size};
    return send(*stream, fd, Buffers(&part, 1), size, flags);
}

inline long door_close(int fd) {
    const TableEntry entry = before_close(fd);
    const int result = ::close(fd);
    const int error = errno;
    after_close(fd, entry);
    return result < 0 ? -error : result;
}

inline long door_shutdown(int fd, int how) {
    Stream& stream = *find_stream(fd);
    const int now = before_shutdown(stream, fd, how);
    const int result = now == kShutLater ? 0 : ::shutdown(fd, now);
    if (result == 0)
        after_shutdown(stream, how);
    return result < 0 ? -errno : result;
}

/// What the constructor of the library does; once per process.
inline void start_library() {
    static bool started = false;
    if (started)
        return;
    real::resolve();  // before there are threads, as the library's constructor does it
    connect_sets();
    started = true;
}

/// Makes a stream of one end of a connection.
inline Stream& opt_in(int fd, Role role, uint64_t threshold = 0) {
    start_library();
    Stream* const stream = make_stream(fd);
    if (stream == nullptr)
        abort();
    begin_connection(*stream, fd, role, threshold);
    return *stream;
}

inline bool both_in_ring(const Stream& stream) {
    return stream.fused() && stream.out_in_ring() && stream.in_in_ring();
}

/// Both ends of one connection.
class StreamPair {
public:
    explicit StreamPair(uint64_t threshold = 0, int family = AF_INET) : sockets_(family) {
        connector_ = &opt_in(sockets_.connector, Role::kConnector, threshold);
        acceptor_ = &opt_in(sockets_.acceptor, Role::kAcceptor, threshold);
    }
    ~StreamPair() {
        close_end(sockets_.connector);
        close_end(sockets_.acceptor);
    }
    StreamPair(const StreamPair&) = delete;
    StreamPair& operator=(const StreamPair&) = delete;

    int connector_fd() const { return sockets_.connector; }
    int acceptor_fd() const { return sockets_.acceptor; }
    Stream& connector() const { return *connector_; }
    Stream& acceptor() const { return *acceptor_; }
    int fd(int end) const { return end == 0 ? sockets_.connector : sockets_.acceptor; }
    Stream& stream(int end) const { return end == 0 ? *connector_ : *acceptor_; }

    /// Sends a byte each way until all that a program's first calls settle is settled. @return whether both
    /// directions are in the ring then.
    bool settle() {
        for (int round = 0; round < 8; ++round) {
            for (int end = 0; end < 2; ++end) {
                char byte = 's';
                if (door_send(fd(end), &byte, 1) != 1 || door_receive(fd(1 - end), &byte, 1) != 1)
                    return false;
            }
        }
        return both_in_ring(*connector_) && both_in_ring(*acceptor_);
    }
    void close_end(int& fd) {
        if (fd >= 0)
            door_close(fd);
        fd = -1;
    }
    void close_connector() { close_end(sockets_.connector); }
    void close_acceptor() { close_end(sockets_.acceptor); }

private:
    TcpPair sockets_;
    Stream* connector_;
    Stream* acceptor_;
};

}  // namespace loopfast
