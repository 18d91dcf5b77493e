// System calls by number, through syscall(): programs mix them with libc's names on one descriptor.
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/close_range.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cases.h"
#include "old_calls.h"

namespace differential {

namespace {

/// One raw call that fills a buffer.
void raw_in(const End& end, const std::string& what, const std::function<long(char*, size_t)>& body) {
    end.call_with_text(what, [&](Outcome& outcome) {
        char bytes[64] = {};
        outcome.value = body(bytes, sizeof bytes);
        outcome.error = errno;
        outcome.text = shown({bytes, strnlen(bytes, sizeof bytes)});
    });
}

void send_part(const Pair& p, const std::string& bytes) {
    p.a.send(bytes);
    p.b.await_bytes(bytes.size());
}

}  // namespace

CASE(raw_reads) {
    const int fd = p.b.fd();
    send_part(p, "one");
    raw_in(p.b, "SYS_read", [&](char* to, size_t) { return ::syscall(SYS_read, fd, to, 2); });
    raw_in(p.b, "SYS_recvfrom",
           [&](char* to, size_t size) { return ::syscall(SYS_recvfrom, fd, to, size, 0, nullptr, nullptr); });
    send_part(p, "two");
    raw_in(p.b, "SYS_recvfrom, peeking", [&](char* to, size_t size) {
        return ::syscall(SYS_recvfrom, fd, to, size, MSG_PEEK, nullptr, nullptr);
    });
    raw_in(p.b, "SYS_readv", [&](char* to, size_t size) {
        const iovec parts[] = {{to, 1}, {to + 1, size - 1}};
        return ::syscall(SYS_readv, fd, parts, 2);
    });
    send_part(p, "three");
    raw_in(p.b, "SYS_preadv2", [&](char* to, size_t size) {
        const iovec part{to, size};
        return ::syscall(SYS_preadv2, fd, &part, 1, -1L, -1L, 0);
    });
    raw_in(p.b, "SYS_preadv2 at 0", [&](char* to, size_t size) {
        const iovec part{to, size};
        return ::syscall(SYS_preadv2, fd, &part, 1, 0L, 0L, 0);
    });
    raw_in(p.b, "SYS_pread64",
           [&](char* to, size_t size) { return ::syscall(SYS_pread64, fd, to, size, 0L); });
    send_part(p, "four");
    raw_in(p.b, "SYS_recvmsg", [&](char* to, size_t size) {
        iovec part{to, size};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        return ::syscall(SYS_recvmsg, fd, &message, 0);
    });
    send_part(p, "five");
    raw_in(p.b, "SYS_recvmmsg", [&](char* to, size_t size) {
        iovec part{to, size};
        mmsghdr message{};
        message.msg_hdr.msg_iov = &part;
        message.msg_hdr.msg_iovlen = 1;
        const long count = ::syscall(SYS_recvmmsg, fd, &message, 1, 0, nullptr);
        return count == 1 ? static_cast<long>(message.msg_len) : count;
    });
    raw_in(p.b, "SYS_recvfrom, nothing there", [&](char* to, size_t size) {
        return ::syscall(SYS_recvfrom, fd, to, size, MSG_DONTWAIT, nullptr, nullptr);
    });
    p.b.call("SYS_read into nowhere", [&] { return ::syscall(SYS_read, -1, nullptr, 1); });
}

CASE(raw_writes) {
    const int fd = p.a.fd();
    p.a.call("SYS_write", [&] { return ::syscall(SYS_write, fd, "one ", 4); });
    p.a.send("1 ");
    p.a.call("SYS_sendto", [&] { return ::syscall(SYS_sendto, fd, "two ", 4, MSG_NOSIGNAL, nullptr, 0); });
    p.a.send("2 ");
    p.a.call("SYS_writev", [&] {
        const iovec part{const_cast<char*>("three "), 6};
        return ::syscall(SYS_writev, fd, &part, 1);
    });
    p.a.call("SYS_pwritev2", [&] {
        const iovec part{const_cast<char*>("four "), 5};
        return ::syscall(SYS_pwritev2, fd, &part, 1, -1L, -1L, 0);
    });
    p.a.call("SYS_pwrite64", [&] { return ::syscall(SYS_pwrite64, fd, "x", 1, 0L); });
    p.a.call("SYS_sendmsg", [&] {
        iovec part{const_cast<char*>("five "), 5};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        return ::syscall(SYS_sendmsg, fd, &message, 0);
    });
    p.a.call("SYS_sendmmsg", [&] {
        iovec part{const_cast<char*>("six"), 3};
        mmsghdr message{};
        message.msg_hdr.msg_iov = &part;
        message.msg_hdr.msg_iovlen = 1;
        return ::syscall(SYS_sendmmsg, fd, &message, 1, 0);
    });
    p.b.await_bytes(29);
    p.b.recv(100);
    p.a.call("SYS_shutdown", [&] { return ::syscall(SYS_shutdown, fd, SHUT_WR); });
    p.b.await_end();
    p.b.recv(10);
    p.a.call("SYS_sendto after that",
             [&] { return ::syscall(SYS_sendto, fd, "x", 1, MSG_NOSIGNAL, nullptr, 0); });
}

CASE(raw_waits) {
    const int fd = p.b.fd();
    p.b.call("SYS_poll, nothing there", [&] {
        pollfd one{fd, POLLIN, 0};
        return poll_by_number(&one, 1, 0);
    });
    send_part(p, "bytes");
    p.b.call("SYS_poll", [&] {
        pollfd one{fd, POLLIN | POLLOUT, 0};
        return poll_by_number(&one, 1, 1000) * 1000 + one.revents;
    });
    p.b.call("SYS_ppoll", [&] {
        pollfd one{fd, POLLIN, 0};
        timespec time{5, 0};
        const long result = ::syscall(SYS_ppoll, &one, 1, &time, nullptr, 8L);
        return result * 1000 + one.revents + (time.tv_sec == 4 || time.tv_sec == 5 ? 0 : 100'000);
    });
    p.b.call("SYS_ppoll with a mask of another size", [&] {
        pollfd one{fd, POLLIN, 0};
        sigset_t mask;
        sigemptyset(&mask);
        return ::syscall(SYS_ppoll, &one, 1, nullptr, &mask, 7L);
    });
    p.b.call("SYS_pselect6", [&] {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        timespec time{5, 0};
        sigset_t mask;
        sigemptyset(&mask);
        struct {
            const sigset_t* mask;
            size_t size;
        } given{&mask, 8};
        return ::syscall(SYS_pselect6, fd + 1, &set, nullptr, nullptr, &time, &given) * 10 +
               (FD_ISSET(fd, &set) ? 1 : 0);
    });
    p.b.call("SYS_select", [&] {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        timeval time{5, 0};
        return select_by_number(fd + 1, &set, &time) * 10 + (FD_ISSET(fd, &set) ? 1 : 0);
    });
    p.b.call("an epoll set", [&] {
        const auto set = static_cast<int>(::syscall(SYS_epoll_create1, 0));
        epoll_event event{EPOLLIN, {}};
        event.data.u64 = 42;
        long result = ::syscall(SYS_epoll_ctl, set, EPOLL_CTL_ADD, fd, &event);
        event = {};
        result = result * 10 + epoll_wait_by_number(set, &event, 1, 1000);
        result = result * 100 + static_cast<long>(event.data.u64);
        event = {};
        result = result * 10 + ::syscall(SYS_epoll_pwait, set, &event, 1, 1000, nullptr, 8L);
        result = result * 10 + ::syscall(SYS_epoll_pwait, set, &event, 1, 1000, &event, 7L);
        const timespec time{1, 0};
        result = result * 10 + ::syscall(SYS_epoll_pwait2, set, &event, 1, &time, nullptr, 8L);
        ::syscall(SYS_close, set);
        return result;
    });
    p.b.call("SYS_ioctl FIONREAD", [&] {
        int bytes = 0;
        ::syscall(SYS_ioctl, fd, FIONREAD, &bytes);
        return bytes;
    });
    p.b.call("SYS_setsockopt", [&] {
        const int bytes = 9;
        return ::syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
    });
    p.b.poll(POLLIN);
    p.b.call("SYS_getsockopt", [&]() -> long {
        int value = 0;
        socklen_t size = sizeof value;
        ::syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_RCVLOWAT, &value, &size);
        return value;
    });
}

CASE(raw_descriptors) {
    const int fd = p.b.fd();
    send_part(p, "bytes");
    p.b.call("SYS_dup", [&]() -> long {
        const auto copy = static_cast<int>(::syscall(SYS_dup, fd));
        char byte = 0;
        const ssize_t got = ::read(copy, &byte, 1);
        ::syscall(SYS_close, copy);
        return got * 1000 + byte;
    });
    p.b.call("SYS_dup3", [&]() -> long {
        const auto copy = static_cast<int>(::syscall(SYS_dup3, fd, 300, O_CLOEXEC));
        char byte = 0;
        const ssize_t got = ::recv(copy, &byte, 1, 0);
        ::close(copy);
        return got * 1000 + byte;
    });
    p.b.call("SYS_fcntl F_DUPFD", [&]() -> long {
        const auto copy = static_cast<int>(::syscall(SYS_fcntl, fd, F_DUPFD, 300));
        char byte = 0;
        const ssize_t got = ::recv(copy, &byte, 1, 0);
        ::syscall(SYS_close_range, 290, 310, 0);
        return got * 1000 + byte + (::fcntl(copy, F_GETFD) < 0 ? 0 : 100'000);
    });
    p.b.call("SYS_fcntl O_NONBLOCK", [&] { return ::syscall(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK); });
    p.b.recv(100);
    p.b.recv(100);
    p.b.call("SYS_close", [&] { return ::syscall(SYS_close, fd); });
    p.a.await_end();
    p.a.recv(10);
}

CASE(raw_fork) {
    send_part(p, "parent");
    p.b.call("SYS_fork", [&]() -> long {
        const long child = fork_by_number();
        if (child == 0) {
            char bytes[4];
            const bool good = ::read(p.b.fd(), bytes, 3) == 3 && memcmp(bytes, "par", 3) == 0;
            ::close(p.b.fd());
            _exit(good ? 7 : 8);
        }
        int status = 0;
        ::waitpid(static_cast<pid_t>(child), &status, 0);
        return WEXITSTATUS(status);
    });
    p.b.recv(100);
    p.b.call("SYS_clone", [&]() -> long {
        const long child = ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0L);
        if (child == 0)
            _exit(::send(p.b.fd(), "child", 5, 0) == 5 ? 7 : 8);
        int status = 0;
        ::waitpid(static_cast<pid_t>(child), &status, 0);
        return WEXITSTATUS(status);
    });
    p.a.await_bytes(5);
    p.a.recv(100);
    p.a.send("still there");
    p.b.await_bytes(11);
    p.b.recv(100);
}

CASE_THAT(raw_connects, kBare) {
    p.establish();
    p.listener.call("raw listener", [&] {
        const auto fd = static_cast<int>(::syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
        ::syscall(SYS_listen, fd, 1);
        sockaddr_storage name{};
        socklen_t size = sizeof name;
        ::syscall(SYS_getsockname, fd, &name, &size);
        const auto to = static_cast<int>(::syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
        long result = ::syscall(SYS_connect, to, &name, size);
        const auto from = static_cast<int>(::syscall(SYS_accept4, fd, nullptr, nullptr, 0));
        for (int i = 0; i < 20; ++i) {
            char bytes[200] = {};
            result += ::syscall(SYS_write, to, bytes, sizeof bytes);
            size_t got = 0;
            while (got < sizeof bytes)
                got += static_cast<size_t>(::syscall(SYS_read, from, bytes, sizeof bytes - got));
            result += ::send(from, bytes, 100, 0);
            got = 0;
            while (got < 100)
                got += static_cast<size_t>(::recv(to, bytes, 100 - got, 0));
        }
        ::syscall(SYS_close, from);
        char byte;
        result = result * 10 + ::syscall(SYS_read, to, &byte, 1);
        ::close(to);
        ::close(fd);
        return result;
    });
}

CASE(requests_by_number) {
    // The kernel's asynchronous calls: it reads, writes and polls by itself.
    p.a.send("first ");
    p.b.await_bytes(6);
    p.b.call_with_text("io_submit: poll and read", [&](Outcome& outcome) {
        aio_context_t context = 0;
        outcome.value = ::syscall(SYS_io_setup, 4, &context);
        char bytes[64] = {};
        iocb look{};
        look.aio_lio_opcode = IOCB_CMD_POLL;
        look.aio_fildes = static_cast<uint32_t>(p.b.fd());
        look.aio_buf = POLLIN;
        iocb read{};
        read.aio_lio_opcode = IOCB_CMD_PREAD;
        read.aio_fildes = look.aio_fildes;
        read.aio_buf = reinterpret_cast<uintptr_t>(bytes);
        read.aio_nbytes = sizeof bytes;
        iocb* requests[] = {&look, &read};
        for (iocb*& request : requests) {
            io_event event{};
            timespec limit{5, 0};
            outcome.value = outcome.value * 10 + ::syscall(SYS_io_submit, context, 1, &request);
            outcome.value = outcome.value * 10 + ::syscall(SYS_io_getevents, context, 1, 1, &event, &limit);
            outcome.value = outcome.value * 100 + event.res;
        }
        outcome.text = shown({bytes, strnlen(bytes, sizeof bytes)});
        ::syscall(SYS_io_destroy, context);
    });
    p.a.call("io_submit: write", [&] {
        aio_context_t context = 0;
        long result = ::syscall(SYS_io_setup, 4, &context);
        iocb write{};
        write.aio_lio_opcode = IOCB_CMD_PWRITE;
        write.aio_fildes = static_cast<uint32_t>(p.a.fd());
        write.aio_buf = reinterpret_cast<uintptr_t>("written");
        write.aio_nbytes = 7;
        iocb* request = &write;
        result = result * 10 + ::syscall(SYS_io_submit, context, 1, &request);
        result = result * 10 + ::syscall(SYS_io_submit, context, 1, nullptr);
        ::syscall(SYS_io_destroy, context);
        return result;
    });
    p.b.await_bytes(7);
    p.b.recv(100);
}

CASE(ring_of_requests) {
    // Where there is no ring a program falls back to calls; where there is one the connection still works.
    p.b.quietly("io_uring_setup", [&](Outcome&) {
        io_uring_params parameters{};
        const long fd = ::syscall(SYS_io_uring_setup, 4, &parameters);
        if (fd >= 0)
            ::close(static_cast<int>(fd));
    });
    send_part(p, "after that");
    p.b.recv(100);
}

}  // namespace differential
