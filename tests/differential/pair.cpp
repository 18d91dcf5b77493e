// See pair.h.
#include "pair.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "loopfast.h"

namespace differential {

namespace {

constexpr int kWarmingRounds = 4;
constexpr uid_t kOtherUser = 65534;

socklen_t address_of(Family family, bool listening, int port, sockaddr_storage& storage) {
    storage = {};
    if (family == Family::kV4) {
        auto& address = reinterpret_cast<sockaddr_in&>(storage);
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<uint16_t>(port));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return sizeof address;
    }
    auto& address = reinterpret_cast<sockaddr_in6&>(storage);
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(static_cast<uint16_t>(port));
    if (family == Family::kV6)
        address.sin6_addr = in6addr_loopback;
    else if (!listening)
        inet_pton(AF_INET6, "::ffff:127.0.0.1", &address.sin6_addr);
    return sizeof address;  // a dual-stack listener takes both
}

}  // namespace

int lane_of(int fd) {
    static const auto query = reinterpret_cast<int (*)(int)>(dlsym(RTLD_DEFAULT, "loopfast_lane"));
    return query == nullptr ? -1 : query(fd);
}

int opt_in(int fd) {
    int on = 1;
    return ::ioctl(fd, SIO_LOOPBACK_FAST_PATH, &on);
}

void Pair::listen() {
    listener = End(script, kServer, -1, "listener");
    const Outcome outcome = listener.quietly("listen", [&](Outcome& result) {
        const int fd =
            ::socket(setup.family == Family::kV4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        listener = End(script, kServer, fd, "listener");
        if (before_listen)
            before_listen(fd);
        if (lane.opts_in && server_opts_in && opt_in(fd) != 0)
            script.fail("the listener cannot opt in: " + error_name(errno));
        sockaddr_storage address;
        socklen_t size = address_of(setup.family, true, 0, address);
        if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, 16) != 0)
            script.fail("cannot listen: " + error_name(errno));
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
        result.value = ntohs(reinterpret_cast<sockaddr_in&>(address).sin_port);
    });
    port_ = static_cast<int>(outcome.value);
}

void Pair::make_client() {
    client = End(script, kClient, -1, "client");
    client.quietly("socket", [&](Outcome&) {
        if (setup.processes == Processes::kUsers && (::setresgid(kOtherUser, kOtherUser, kOtherUser) != 0 ||
                                                     ::setresuid(kOtherUser, kOtherUser, kOtherUser) != 0))
            script.fail("cannot change the user: " + error_name(errno));
        const int fd =
            ::socket(setup.family == Family::kV4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        client = End(script, kClient, fd, "client");
        if (before_connect)
            before_connect(fd);
        if (lane.opts_in && client_opts_in && opt_in(fd) != 0)
            script.fail("the client cannot opt in: " + error_name(errno));
    });
}

Outcome Pair::connect() {
    return client.quietly("connect", [&](Outcome& outcome) {
        sockaddr_storage address;
        const socklen_t size = address_of(setup.family, false, port_, address);
        outcome.value = ::connect(client.fd(), reinterpret_cast<sockaddr*>(&address), size);
        outcome.error = errno;
    });
}

Outcome Pair::send_and_connect(const std::string& bytes) {
    return client.quietly("send and connect", [&](Outcome& outcome) {
        sockaddr_storage address;
        const socklen_t size = address_of(setup.family, false, port_, address);
        outcome.value = ::sendto(client.fd(), bytes.data(), bytes.size(), MSG_FASTOPEN,
                                 reinterpret_cast<sockaddr*>(&address), size);
        outcome.error = errno;
    });
}

Outcome Pair::accept() {
    server = End(script, kServer, -1, "server");
    return server.quietly("accept", [&](Outcome& outcome) {
        const int fd = accept_flags == 0 ? ::accept(listener.fd(), nullptr, nullptr)
                                         : ::accept4(listener.fd(), nullptr, nullptr, accept_flags);
        outcome.value = fd < 0 ? -1 : 0;
        outcome.error = errno;
        server = End(script, kServer, fd, "server");
    });
}

void Pair::establish() {
    if (setup.processes == Processes::kForkBefore || setup.processes == Processes::kUsers)
        script.fork(kClient, kServer);
    listen();
    make_client();
    if (const Outcome outcome = connect(); !outcome.ok())
        script.fail("cannot connect: " + error_name(outcome.error));
    if (const Outcome outcome = accept(); !outcome.ok())
        script.fail("cannot accept: " + error_name(outcome.error));
    take_sides();
}

void Pair::take_sides() {
    if (lane.warm)
        warm_up();
    if (setup.processes == Processes::kForkAfter) {
        script.fork(kClient, kServer);
        // Each process keeps its own end, as after any fork of a server.
        client.quietly("close", [&](Outcome&) {
            ::close(server.fd());
            ::close(listener.fd());
        });
        server.quietly("close", [&](Outcome&) { ::close(client.fd()); });
    }
    a = setup.swapped ? server : client;
    b = setup.swapped ? client : server;
    a.rename("a");
    b.rename("b");
    if (setup.nonblocking)
        for (const End* end : {&a, &b})
            end->quietly("non-blocking", [&](Outcome&) { ::fcntl(end->fd(), F_SETFL, O_NONBLOCK | O_RDWR); });
}

void Pair::warm_up() {
    for (int round = 0; round < kWarmingRounds; ++round) {
        for (const auto& [from, to] : {std::pair{&client, &server}, std::pair{&server, &client}}) {
            from->quietly("warm up", [&, end = from](Outcome&) { ::send(end->fd(), "w", 1, MSG_NOSIGNAL); });
            to->quietly("warm up", [&, end = to](Outcome&) {
                char byte;
                pollfd entry{end->fd(), POLLIN, 0};
                if (::poll(&entry, 1, 5000) != 1 || ::recv(end->fd(), &byte, 1, 0) != 1)
                    script.fail("the warm-up lost a byte");
            });
        }
    }
    for (const End* end : {&client, &server}) {
        const Outcome outcome = end->quietly(
            "lane", [&](Outcome& result) { result.value = lane_of(end->fd()) == LOOPFAST_LANE_RING; });
        if (lane.fused && outcome.value == 0)
            script.fail("not on the ring after the warm-up: the comparison would mean nothing");
    }
    observe(client, "start");
}

void Pair::observe(const End& end, const char* when) const {
    end.quietly("lane", [&](Outcome&) {
        if (lane_of(end.fd()) == LOOPFAST_LANE_RING)
            script.note(end.actor(), std::string("ring at ") + when);
    });
}

}  // namespace differential
