// docs/conformance.md: every call of the socket interface and every flag, what loopfast does with it, and the
// case that compares it with the kernel. What is done is not written down here but found out: each row's call
// is made on a connection that is on the ring, and afterwards it is looked where the bytes went and where the
// connection is. tests/differential/conformance_test compares the page with what stands in docs/.
#include "conformance.h"

#include <aio.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "cases.h"
#include "known_differences.h"
#include "old_calls.h"
#include "worker.h"

namespace differential {

namespace {

struct Row {
    const char* call;
    const char* with;
    const char* shown_by;
    void (*act)(Pair& p);
};

/// Bytes for b, delivered.
void give(Pair& p, const std::string& bytes = "0123456789") {
    p.a.send(bytes);
    p.b.await_bytes(bytes.size());
}

long close_all(std::initializer_list<int> fds) {
    for (const int fd : fds)
        ::close(fd);
    return 0;
}

long with_file(const std::function<long(int)>& use) {
    FILE* const file = ::tmpfile();
    const int fd = ::fileno(file);
    long result = ::write(fd, "0123456789", 10);
    ::lseek(fd, 0, SEEK_SET);
    result = use(fd);
    ::fclose(file);
    return result;
}

long with_pipe(const std::function<long(int, int)>& use) {
    int fds[2];
    if (::pipe(fds) != 0)
        return -1;
    const long result = use(fds[0], fds[1]);
    return result + close_all({fds[0], fds[1]});
}

long with_set(const End& end, unsigned events, const std::function<long(int)>& use) {
    const int set = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{events, {}};
    ::epoll_ctl(set, EPOLL_CTL_ADD, end.fd(), &event);
    const long result = use(set);
    return result + close_all({set});
}

long wait_on(int set) {
    epoll_event event;
    return ::epoll_wait(set, &event, 1, 100);
}

long in_child(const std::function<void()>& act) {
    const pid_t child = ::fork();
    if (child == 0) {
        act();
        _exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
}

#define ROW(named, given, shown, ...) \
    { named, given, shown, [](Pair & p) __VA_ARGS__ }
// The shortest rows: one expression on b, after bytes were given to it; and one on a.
#define IN(named, given, shown, ...)                   \
    ROW(named, given, shown, {                         \
        give(p);                                       \
        p.b.call("x", [&]() -> long { __VA_ARGS__; }); \
    })
#define OUT(named, given, shown, ...)                  \
    ROW(named, given, shown, {                         \
        p.a.call("x", [&]() -> long { __VA_ARGS__; }); \
        usleep(1000);                                  \
    })

#define ASK(named, given, shown, ...) \
    ROW(named, given, shown, { p.b.call("x", [&]() -> long { __VA_ARGS__; }); })

long set(const End& end, int level, int name, int value) {
    return ::setsockopt(end.fd(), level, name, &value, sizeof value);
}
long get(const End& end, int level, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    return ::getsockopt(end.fd(), level, name, &value, &size);
}
long set_time(const End& end, int name) {
    const timeval time{0, 10'000};
    return ::setsockopt(end.fd(), SOL_SOCKET, name, &time, sizeof time);
}

char room[64];
const iovec kParts[] = {{room, 4}, {room + 4, 20}};

const Row kRows[] = {
    // Receiving.
    IN("read", "", "receive_calls", return ::read(p.b.fd(), room, 64)),
    IN("readv", "", "receive_calls", return ::readv(p.b.fd(), kParts, 2)),
    IN("preadv2", "offset -1", "receive_calls", return ::preadv2(p.b.fd(), kParts, 2, -1, 0)),
    IN("preadv2", "RWF_NOWAIT", "receive_calls", return ::preadv2(p.b.fd(), kParts, 2, -1, RWF_NOWAIT)),
    IN("preadv2, pread, preadv", "an offset (ESPIPE)", "read_at_an_offset",
       return ::preadv2(p.b.fd(), kParts, 2, 0, 0)),
    IN("recv", "", "receive_calls", return ::recv(p.b.fd(), room, 64, 0)),
    IN("recv", "MSG_DONTWAIT", "receive_from_empty_stream", return ::recv(p.b.fd(), room, 64, MSG_DONTWAIT)),
    IN("recv", "MSG_PEEK", "peek", return ::recv(p.b.fd(), room, 64, MSG_PEEK)),
    IN("recv", "MSG_TRUNC", "truncate", return ::recv(p.b.fd(), room, 64, MSG_TRUNC)),
    IN("recv", "MSG_WAITALL", "wait_for_all", return ::recv(p.b.fd(), room, 10, MSG_WAITALL)),
    IN("recv", "MSG_OOB (none there)", "urgent_is_not_there", return ::recv(p.b.fd(), room, 1, MSG_OOB)),
    IN("recv", "MSG_ERRQUEUE", "receive_odd_flags", return ::recv(p.b.fd(), room, 1, MSG_ERRQUEUE)),
    IN("recv", "0 bytes", "receive_of_zero_waits", return ::recv(p.b.fd(), room, 0, 0)),
    IN("recv", "a bad buffer (EFAULT)", "bad_buffer_receive",
       return ::recv(p.b.fd(), reinterpret_cast<char*>(1), 4, 0)),
    IN("recvfrom", "with a name", "receive_calls", sockaddr_storage name; socklen_t size = sizeof name;
       return ::recvfrom(p.b.fd(), room, 64, 0, reinterpret_cast<sockaddr*>(&name), &size)),
    IN("recvmsg", "control, MSG_CMSG_CLOEXEC", "message_results", iovec part = kParts[1]; msghdr message{};
       message.msg_iov = &part; message.msg_iovlen = 1;
       return ::recvmsg(p.b.fd(), &message, MSG_CMSG_CLOEXEC)),
    IN("recvmmsg", "MSG_WAITFORONE", "wait_for_one_of_messages", iovec part = kParts[1]; mmsghdr message{};
       message.msg_hdr.msg_iov = &part; message.msg_hdr.msg_iovlen = 1;
       return ::recvmmsg(p.b.fd(), &message, 1, MSG_WAITFORONE, nullptr)),
    // Sending.
    OUT("write", "", "send_calls", return ::write(p.a.fd(), "x", 1)),
    OUT("writev", "", "send_calls", return ::writev(p.a.fd(), kParts, 2)),
    OUT("pwritev2", "offset -1", "send_calls", return ::pwritev2(p.a.fd(), kParts, 2, -1, 0)),
    OUT("pwritev2, pwrite, pwritev", "an offset (ESPIPE)", "write_at_an_offset",
        return ::pwritev2(p.a.fd(), kParts, 2, 0, 0)),
    OUT("send", "", "send_calls", return ::send(p.a.fd(), "x", 1, 0)),
    OUT("send", "MSG_DONTWAIT", "fill_and_drain", return ::send(p.a.fd(), "x", 1, MSG_DONTWAIT)),
    OUT("send", "MSG_NOSIGNAL", "half_close", return ::send(p.a.fd(), "x", 1, MSG_NOSIGNAL)),
    OUT("send", "MSG_MORE", "send_more_then_wait", return ::send(p.a.fd(), "x", 1, MSG_MORE)),
    OUT("send", "MSG_EOR, MSG_CONFIRM, MSG_DONTROUTE", "send_flags",
        return ::send(p.a.fd(), "x", 1, MSG_EOR | MSG_CONFIRM | MSG_DONTROUTE)),
    OUT("send", "MSG_OOB", "urgent_after_unread_bytes", return ::send(p.a.fd(), "x", 1, MSG_OOB)),
    OUT("send", "MSG_ZEROCOPY without the option", "zero_copy",
        return ::send(p.a.fd(), "x", 1, MSG_ZEROCOPY)),
    OUT("send", "MSG_ZEROCOPY with the option", "zero_copy",
        return set(p.a, SOL_SOCKET, SO_ZEROCOPY, 1) == 0 ? ::send(p.a.fd(), "x", 1, MSG_ZEROCOPY) : -1),
    OUT("send", "MSG_FASTOPEN (EISCONN)", "send_flags", return ::send(p.a.fd(), "x", 1, MSG_FASTOPEN)),
    OUT("send", "0 bytes", "send_nothing", return ::send(p.a.fd(), "x", 0, 0)),
    OUT("send", "a bad buffer (EFAULT)", "bad_buffer_send",
        return ::send(p.a.fd(), reinterpret_cast<const char*>(1), 4, 0)),
    OUT("sendto", "an address", "message_names", sockaddr_in name{}; name.sin_family = AF_INET;
        return ::sendto(p.a.fd(), "x", 1, 0, reinterpret_cast<sockaddr*>(&name), sizeof name)),
    OUT("sendmsg", "", "send_calls", iovec part = kParts[0]; msghdr message{}; message.msg_iov = &part;
        message.msg_iovlen = 1; return ::sendmsg(p.a.fd(), &message, 0)),
    OUT("sendmmsg", "", "send_calls", iovec part = kParts[0]; mmsghdr message{};
        message.msg_hdr.msg_iov = &part; message.msg_hdr.msg_iovlen = 1;
        return ::sendmmsg(p.a.fd(), &message, 1, 0)),
    OUT("__read_chk, __recv_chk, ...", "_FORTIFY_SOURCE", "fortified_calls",
        return ::send(p.a.fd(), "x", 1, 0)),
    // Between descriptors.
    OUT("sendfile", "file to socket", "sendfile_calls",
        return with_file([&](int file) { return ::sendfile(p.a.fd(), file, nullptr, 10); })),
    IN("sendfile", "socket to pipe", "sendfile_from_the_socket",
       return with_pipe([&](int, int out) { return ::sendfile(out, p.b.fd(), nullptr, 4); })),
    OUT("splice", "pipe to socket", "splice_calls", return with_pipe([&](int in, int out) {
            return ::write(out, "pipe", 4) + ::splice(in, nullptr, p.a.fd(), nullptr, 4, 0);
        })),
    IN("splice", "socket to pipe", "splice_calls",
       return with_pipe([&](int, int out) { return ::splice(p.b.fd(), nullptr, out, nullptr, 4, 0); })),
    IN("tee, vmsplice, copy_file_range", "(EINVAL, EBADF)", "splice_odd",
       return with_pipe([&](int, int out) { return ::tee(p.b.fd(), out, 4, 0); })),
    ROW("aio_read, aio_write, lio_listio", "", "asynchronous",
        {
            p.a.call("x", [&]() -> long {
                aiocb request{};
                request.aio_fildes = p.a.fd();
                request.aio_buf = room;
                request.aio_nbytes = 1;
                const aiocb* const list[] = {&request};
                ::aio_write(&request);
                while (::aio_error(&request) == EINPROGRESS)
                    ::aio_suspend(list, 1, nullptr);
                return ::aio_return(&request);
            });
        }),
    OUT("fdopen", "stdio", "stdio_writes", FILE* const file = ::fdopen(::dup(p.a.fd()), "w");
        fputs("x", file); return ::fclose(file)),
    OUT("dprintf, vdprintf", "", "printing_amid_other_bytes", return ::dprintf(p.a.fd(), "%d", 1)),
    OUT("syscall", "SYS_write, SYS_recvfrom, ...", "raw_writes",
        return ::syscall(SYS_write, p.a.fd(), "x", 1)),
    OUT("syscall", "SYS_io_uring_setup (ENOSYS)", "ring_of_requests",
        return ::syscall(SYS_io_uring_setup, 1, nullptr)),
    // Waiting.
    IN("poll, ppoll", "", "ready_or_not", pollfd one{p.b.fd(), POLLIN, 0}; return ::poll(&one, 1, 100)),
    IN("select, pselect", "", "ready_or_not", fd_set set; FD_ZERO(&set); FD_SET(p.b.fd(), &set);
       return ::select(p.b.fd() + 1, &set, nullptr, nullptr, nullptr)),
    IN("epoll_wait", "level", "epoll_level", return with_set(p.b, EPOLLIN, wait_on)),
    IN("epoll_wait", "EPOLLET", "epoll_edge", return with_set(p.b, EPOLLIN | EPOLLET, wait_on)),
    IN("epoll_wait", "EPOLLONESHOT", "epoll_oneshot", return with_set(p.b, EPOLLIN | EPOLLONESHOT, wait_on)),
    IN("epoll_wait", "EPOLLEXCLUSIVE", "epoll_exclusive",
       return with_set(p.b, EPOLLIN | EPOLLEXCLUSIVE, wait_on)),
    IN("epoll_pwait, epoll_pwait2", "masks, nanoseconds", "epoll_timeouts",
       return with_set(p.b, EPOLLIN,
                       [](int set) {
                           epoll_event event;
                           const timespec time{0, 1000};
                           return ::epoll_pwait2(set, &event, 1, &time, nullptr);
                       })),
    IN("epoll_ctl", "a set in a set", "epoll_nested",
       return with_set(p.b, EPOLLIN,
                       [](int inner) {
                           const int outer = ::epoll_create1(0);
                           epoll_event event{EPOLLIN, {}};
                           const int result = ::epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event);
                           ::close(outer);
                           return result;
                       })),
    IN("epoll_ctl", "one descriptor in many sets", "epoll_many_sets",
       return with_set(p.b, EPOLLIN, [&](int) { return with_set(p.b, EPOLLIN, wait_on); })),
    // Ending.
    OUT("shutdown", "SHUT_RD", "shut_for_reading", return ::shutdown(p.a.fd(), SHUT_RD)),
    OUT("shutdown", "SHUT_WR", "half_close", return ::shutdown(p.a.fd(), SHUT_WR)),
    OUT("shutdown", "SHUT_RDWR", "shut_both", return ::shutdown(p.a.fd(), SHUT_RDWR)),
    OUT("connect", "to AF_UNSPEC: disconnect", "disconnect", sockaddr name{}; name.sa_family = AF_UNSPEC;
        return ::connect(p.a.fd(), &name, sizeof name)),
    OUT("connect, listen, accept, bind", "on a connection (errors)", "accept_on_a_connection",
        return ::listen(p.a.fd(), 1)),
    // Descriptors.
    OUT("dup, dup2, dup3, F_DUPFD", "", "duplicates", const int copy = ::dup(p.a.fd());
        return ::send(copy, "x", 1, 0) + close_all({copy})),
    OUT("dup2, dup3, F_DUPFD", "onto 0, 1 or 2: stdio's", "standard_descriptors",
        const int kept = ::dup(STDIN_FILENO);
        ::dup2(p.a.fd(), STDIN_FILENO); ::dup2(kept, STDIN_FILENO); return ::close(kept)),
    OUT("close", "one of several", "duplicates", return ::close(::dup(p.a.fd()))),
    OUT("close_range, closefrom", "over others", "close_range_over_it", return ::close_range(900, 999, 0)),
    OUT("fcntl", "F_SETFL O_NONBLOCK", "nonblocking_is_shared",
        return ::fcntl(p.a.fd(), F_SETFL, O_RDWR | O_NONBLOCK)),
    OUT("fcntl", "F_SETFL O_ASYNC", "signal_driven", return ::fcntl(p.a.fd(), F_SETFL, O_RDWR | O_ASYNC)),
    OUT("fcntl", "F_SETOWN", "urgent_signals", return ::fcntl(p.a.fd(), F_SETOWN, getpid())),
    OUT("fcntl", "F_GETFL, F_GETFD, F_SETFD", "close_on_exec", return ::fcntl(p.a.fd(), F_GETFL)),
    OUT("fork", "either uses it", "both_use_it_after_fork",
        return in_child([&] { ::send(p.a.fd(), "x", 1, 0); })),
    OUT("syscall", "SYS_fork, SYS_clone", "raw_fork", const long child = fork_by_number();
        if (child == 0) _exit(0); return ::waitpid(static_cast<pid_t>(child), nullptr, 0)),
    OUT("fstat, lseek, fsync, flock, mmap, ...", "", "file_calls", return ::lseek(p.a.fd(), 0, SEEK_SET)),
    // Options and reports.
    IN("ioctl", "FIONREAD", "bytes_to_read", int count; return ::ioctl(p.b.fd(), FIONREAD, &count)),
    ASK("ioctl", "FIONBIO", "nonblocking_is_shared", int on = 1; return ::ioctl(p.b.fd(), FIONBIO, &on)),
    ASK("ioctl", "FIOASYNC", "signal_driven", int on = 1; return ::ioctl(p.b.fd(), FIOASYNC, &on)),
    ASK("ioctl", "SIOCOUTQ, SIOCOUTQNSD", "bytes_to_send", int count;
        return ::ioctl(p.b.fd(), SIOCOUTQ, &count)),
    ASK("ioctl, sockatmark", "SIOCATMARK", "urgent_after_unread_bytes", return ::sockatmark(p.b.fd())),
    ASK("getsockopt", "TCP_INFO", "bytes_counted", char info[256]; socklen_t size = sizeof info;
        return ::getsockopt(p.b.fd(), IPPROTO_TCP, TCP_INFO, info, &size)),
    ASK("getsockopt", "SO_ERROR", "reset_seen_by_option", return get(p.b, SOL_SOCKET, SO_ERROR)),
    ASK("getsockopt", "TCP_ZEROCOPY_RECEIVE", "zerocopy_receive", uint64_t request[3]{};
        socklen_t size = sizeof request; return ::getsockopt(p.b.fd(), IPPROTO_TCP, 35, request, &size)),
    ASK("getsockopt, setsockopt", "all others", "options", return set(p.b, SOL_SOCKET, SO_KEEPALIVE, 1)),
    ASK("getsockname, getpeername", "", "names", sockaddr_storage name; socklen_t size = sizeof name;
        return ::getpeername(p.b.fd(), reinterpret_cast<sockaddr*>(&name), &size)),
    ASK("setsockopt", "SO_RCVTIMEO, SO_SNDTIMEO", "receive_timeout", return set_time(p.b, SO_RCVTIMEO)),
    ASK("setsockopt", "SO_RCVLOWAT", "low_water", return set(p.b, SOL_SOCKET, SO_RCVLOWAT, 2)),
    ASK("setsockopt", "SO_RCVBUF, SO_SNDBUF", "small_buffers", return set(p.b, SOL_SOCKET, SO_RCVBUF, 8192)),
    ASK("setsockopt", "SO_LINGER", "reset_by_linger", const linger value{1, 0};
        return ::setsockopt(p.b.fd(), SOL_SOCKET, SO_LINGER, &value, sizeof value)),
    ASK("setsockopt", "TCP_NODELAY, TCP_CORK, TCP_QUICKACK", "cork",
        return set(p.b, IPPROTO_TCP, TCP_CORK, 1)),
    ASK("setsockopt", "SO_OOBINLINE", "urgent_inline", return set(p.b, SOL_SOCKET, SO_OOBINLINE, 1)),
    ASK("setsockopt", "SO_PEEK_OFF", "peek_offset", return set(p.b, SOL_SOCKET, SO_PEEK_OFF, 2)),
    ASK("setsockopt", "SO_ZEROCOPY", "zero_copy", return set(p.b, SOL_SOCKET, SO_ZEROCOPY, 1)),
    ASK("setsockopt", "SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING", "time_stamps",
        return set(p.b, SOL_SOCKET, SO_TIMESTAMPNS, 1)),
    ASK("setsockopt", "TCP_INQ", "bytes_in_queue", return set(p.b, IPPROTO_TCP, TCP_INQ, 1)),
    ASK("setsockopt", "IP_MINTTL, IPV6_MINHOPCOUNT", "least_time_to_live",
        return set(p.b, IPPROTO_IP, IP_MINTTL, 1)),
    ASK("setsockopt", "SO_ATTACH_FILTER, SO_ATTACH_BPF", "socket_filter",
        sock_filter all{BPF_RET | BPF_K, 0, 0, 0xffffffff};
        const sock_fprog program{1, &all};
        return ::setsockopt(p.b.fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)),
    ASK("setsockopt", "SO_PEEK_OFF, SO_TIMESTAMP, IP_MINTTL, ... to what it is", "options_as_they_are",
        return set(p.b, SOL_SOCKET, SO_PEEK_OFF, -1)),
    ASK("setsockopt", "TCP_ULP that the kernel lacks (ENOENT)", "upper_protocol",
        return ::setsockopt(p.b.fd(), IPPROTO_TCP, TCP_ULP, "nosuch", 6)),
};

/// libc's own getsockopt, behind whatever the library shows.
using Getsockopt = int (*)(int, int, int, void*, socklen_t*);
Getsockopt kernel_getsockopt() {
    void* const libc = ::dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    return reinterpret_cast<Getsockopt>(::dlsym(libc, "getsockopt"));
}

/// Bytes that an end has sent, over both lanes or over the kernel's.
uint64_t sent(const End& end, Getsockopt getsockopt) {
    unsigned char info[512] = {};
    socklen_t size = sizeof info;
    uint64_t bytes = 0;
    if (getsockopt(end.fd(), IPPROTO_TCP, TCP_INFO, info, &size) == 0)
        memcpy(&bytes, info + offsetof(tcp_info, tcpi_bytes_sent), sizeof bytes);
    return bytes;
}

[[noreturn]] void probe(const Row& row, const Lane& lane, int out) {
    const int trace = ::open("/dev/null", O_WRONLY);
    const Setup setup;
    Script script(trace);
    Pair p(script, setup, lane);
    p.establish();
    const Getsockopt kernels = kernel_getsockopt();
    const uint64_t kernel = sent(p.a, kernels) + sent(p.b, kernels);
    const uint64_t all = sent(p.a, ::getsockopt) + sent(p.b, ::getsockopt);
    row.act(p);
    const char* done = "kernel";  // nothing moved: the kernel's socket was asked, or nobody
    if (lane_of(p.a.fd()) != 1 || lane_of(p.b.fd()) != 1) {
        done = "unfuse";
    } else if (sent(p.a, kernels) + sent(p.b, kernels) != kernel) {
        done = "kernel, bytes";
    } else if (sent(p.a, ::getsockopt) + sent(p.b, ::getsockopt) != all) {
        done = "ring";
    }
    dprintf(out, "%s\n", done);
    _exit(0);
}

}  // namespace

int probe_rows(int out) {
    const Lane lane = parse_lane("ring");
    for (const Row& row : kRows) {
        fflush(stdout);
        const pid_t child = ::fork();
        if (child == 0)
            probe(row, lane, out);
        int status = 0;
        ::waitpid(child, &status, 0);
        if (status != 0)
            dprintf(out, "failed\n");
    }
    return 0;
}

int print_conformance(const std::string& program, const std::string& library) {
    const std::string command = "LOOPFAST= LD_PRELOAD='" + library + "' '" + program + "' --probe-rows";
    // NOLINTNEXTLINE(cert-env33-c): our own path and no other input
    FILE* const rows = ::popen(command.c_str(), "r");
    if (rows == nullptr)
        return 1;
    int bad = 0;
    puts("| call | with | what is done | shown by |\n|---|---|---|---|");
    for (const Row& row : kRows) {
        char done[64] = "failed";
        if (fgets(done, sizeof done, rows) != nullptr)
            done[strcspn(done, "\n")] = 0;
        bad += strcmp(done, "failed") == 0;
        const Case* const shown_by = find_case(row.shown_by);
        if (shown_by == nullptr) {
            fprintf(stderr, "%s %s: there is no case %s\n", row.call, row.with, row.shown_by);
            ++bad;
        }
        const char* differs = "";
        for (const KnownDifference& entry : kKnownDifferences)
            if (strcmp(entry.name, row.shown_by) == 0)
                differs = ", which differs";
        printf("| `%s` | %s | %s | `%s`%s |\n", row.call, row.with, done, row.shown_by, differs);
    }
    ::pclose(rows);
    return bad == 0 ? 0 : 1;
}

}  // namespace differential
