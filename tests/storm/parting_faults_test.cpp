// A connection whose peer has said all, and whose descriptor goes to a stranger with bytes unread: nobody can
// send these again, so a fresh socket is put in its place. Whatever call fails on the way there, for a
// moment, the stranger gets the bytes, and the peer his answer. Runs under the library whose calls can be
// made to fail.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

const char* at_work = "";

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "%s: %s (%s)\n", at_work, what, std::strerror(errno));
    std::exit(1);
}

struct Connection {
    int peer = -1;
    int ours = -1;
};

Connection on_the_ring() {
    const auto lane = reinterpret_cast<int (*)(int)>(dlsym(RTLD_DEFAULT, "loopfast_lane"));
    Connection made;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    made.peer = socket(AF_INET, SOCK_STREAM, 0);
    if (lane == nullptr || bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener, 1) != 0 ||
        getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
        connect(made.peer, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        (made.ours = accept(listener, nullptr, nullptr)) < 0)
        fail("no connection");
    close(listener);
    char bytes[64] = {};
    for (int round = 0; round < 2000 && (lane(made.peer) != 1 || lane(made.ours) != 1); ++round)
        for (const int from : {made.peer, made.ours})
            if (send(from, bytes, sizeof bytes, 0) != sizeof bytes ||
                recv(from == made.peer ? made.ours : made.peer, bytes, sizeof bytes, MSG_WAITALL) !=
                    sizeof bytes)
                fail("no exchange");
    if (lane(made.peer) != 1 || lane(made.ours) != 1)
        fail("not on the ring");
    return made;
}

struct Control {
    Control(const int* fd) {
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = space;
        message.msg_controllen = sizeof space;
        if (fd == nullptr)
            return;
        cmsghdr* const header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof *fd);
        std::memcpy(CMSG_DATA(header), fd, sizeof *fd);
    }
    char byte = 'x';
    iovec part{&byte, 1};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
};

/// Through an AF_UNIX socket; `around` is called just before and just after it goes in.
template <typename Around> int passed(int fd, Around around) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        fail("socketpair");
    Control out(&fd);
    around(true);
    if (sendmsg(pair[0], &out.message, 0) != 1)
        fail("sendmsg");
    around(false);
    close(fd);
    Control in(nullptr);
    int got = -1;
    if (recvmsg(pair[1], &in.message, 0) != 1 || CMSG_FIRSTHDR(&in.message) == nullptr)
        fail("recvmsg");
    std::memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&in.message)), sizeof got);
    close(pair[0]);
    close(pair[1]);
    return got;
}

std::string received(int fd) {
    std::string all;
    char bytes[65536];
    for (long got; (got = recv(fd, bytes, sizeof bytes, 0)) > 0;)
        all.append(bytes, static_cast<size_t>(got));
    return all;
}

template <typename Around> void check(const char* name, const std::string& words, Around around) {
    at_work = name;
    const Connection connection = on_the_ring();
    if (send(connection.peer, words.data(), words.size(), 0) != static_cast<ssize_t>(words.size()) ||
        shutdown(connection.peer, SHUT_WR) != 0)
        fail("the peer could not say it");
    const int stranger = passed(connection.ours, around);
    const std::string got = received(stranger);
    if (got != words) {
        std::fprintf(stderr, "%s: %zu of %zu bytes\n", name, got.size(), words.size());
        std::exit(1);
    }
    if (send(stranger, "answer", 6, 0) != 6 || shutdown(stranger, SHUT_WR) != 0)
        fail("no answer could be sent");
    if (received(connection.peer) != "answer")
        fail("no answer");
    close(stranger);
    close(connection.peer);
}

}  // namespace

int main() {
    const auto inject =
        reinterpret_cast<void (*)(long, int, int, int, long)>(dlsym(RTLD_DEFAULT, "loopfast_inject_fault"));
    const auto injected = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "loopfast_injected_faults"));
    if (inject == nullptr || injected == nullptr)
        fail("not the library for this test");
    struct Fault {
        const char* name;
        long number;
        int error;
        int count;
        bool elsewhere;  ///< in the carrying process, so nothing is known of it here
    };
    constexpr Fault kFaults[] = {{"connect is interrupted", SYS_connect, EINTR, 1, false},
                                 {"connect, no memory", SYS_connect, ENOMEM, 10, false},
                                 {"connect, no port", SYS_connect, EADDRNOTAVAIL, 3, false},
                                 {"accept is interrupted", SYS_accept4, EINTR, 1, false},
                                 {"socket, no memory", SYS_socket, ENOBUFS, 5, false},
                                 {"bind, no port", SYS_bind, EADDRINUSE, 2, false},
                                 {"send, no memory", SYS_sendto, ENOMEM, 3, true},
                                 {"wait, interrupted", SYS_wait4, EINTR, 2, false}};
    // Few bytes, and more than the kernel's buffers take at once.
    for (const size_t size : {size_t{100}, size_t{1'000'000}})
        for (const Fault& fault : kFaults)
            check(fault.name, std::string(size, 'w'), [&](bool before) {
                if (before)
                    inject(fault.number, fault.error, fault.count, 0, -1);
                else if (injected() == 0 && !fault.elsewhere)
                    fail("the call that was to fail was not made");
            });
    // A peer that is gone altogether: what the stranger sends is refused while the kernel's buffers take
    // nothing of what is on its way to him, and all of that arrives nevertheless.
    {
        at_work = "refused";
        const std::string words(100'000, 'w');
        const Connection connection = on_the_ring();
        if (send(connection.peer, words.data(), words.size(), 0) != static_cast<ssize_t>(words.size()) ||
            close(connection.peer) != 0)
            fail("the peer could not say it");
        const int stranger = passed(connection.ours, [&](bool before) {
            if (before)
                inject(SYS_sendto, EAGAIN, 150'000, 0, -1);
            else
                injected();
        });
        for (int i = 0; i < 5; ++i) {
            send(stranger, "refused", 7, MSG_NOSIGNAL);
            usleep(2000);
        }
        const std::string got = received(stranger);
        if (got != words) {
            std::fprintf(stderr, "%s: %zu of %zu bytes\n", at_work, got.size(), words.size());
            return 1;
        }
        close(stranger);
    }
    // A program that has used up its descriptors.
    check("no descriptors", std::string(1000, 'w'), [](bool before) {
        static rlimit usual;
        if (before) {
            getrlimit(RLIMIT_NOFILE, &usual);
            const int next = dup(0);
            const rlimit none{static_cast<rlim_t>(next), usual.rlim_max};
            close(next);
            setrlimit(RLIMIT_NOFILE, &none);
            if (dup(0) >= 0)
                fail("there are descriptors");
        } else {
            setrlimit(RLIMIT_NOFILE, &usual);
        }
    });
    return 0;
}
