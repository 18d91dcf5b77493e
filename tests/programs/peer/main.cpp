// One side of the connections that the kill campaign breaks (../killed_test.py).
//
//   stream_peer listen blocking|epoll [--die-after MICROSECONDS]
//       prints "port N", accepts, streams on each connection in a thread of its own, and prints a line when
//       one has ended; ends itself when its standard input does
//   stream_peer connect blocking|epoll PORT ID COUNT [--die-after MICROSECONDS] [--end-after MICROSECONDS]
//                                                    [--fork-after MICROSECONDS]
//       COUNT connections with the numbers ID, ID+1, ...; ends when all of them have ended, which SIGTERM
//       and --end-after bring about in good order. With
//       --fork-after a forked child shares the (then only) connection, and goes on with it once its parent
//       was killed, --die-after that fork.
//
// A line is "end ID eof|reset|wrong|error RECEIVED RELATIVE SENT ERRNO"; a connector says "begun ID" before
// it, once the other side will hear of that number.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "peer/session.h"

namespace {

using peer::End;
using peer::Outcome;
using peer::Settings;

std::atomic<bool> finish{false};

[[noreturn]] void fail(const char* what) {
    fprintf(stderr, "stream_peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

/// One write, so that lines of several threads do not mix and a killed process prints whole ones.
void say(const char* word, uint64_t id, const Outcome& outcome) {
    static const char* const kNames[] = {"eof", "reset", "wrong", "error"};
    char line[160];
    const int size = snprintf(line, sizeof line, "%s %llu %s %llu %llu %llu %d\n", word,
                              static_cast<unsigned long long>(id), kNames[static_cast<int>(outcome.end)],
                              static_cast<unsigned long long>(outcome.received),
                              static_cast<unsigned long long>(outcome.relative),
                              static_cast<unsigned long long>(outcome.sent), outcome.error);
    if (write(STDOUT_FILENO, line, static_cast<size_t>(size)) != size)
        exit(1);
}

/// Does `what` in so many microseconds, from a thread of its own; never if `after` is negative.
template <typename What> void later(long after, What what) {
    if (after >= 0)
        std::thread{[after, what] {
            usleep(static_cast<useconds_t>(after));
            what();
        }}.detach();
}

void die_after(long microseconds) {
    later(microseconds, [] { kill(getpid(), SIGKILL); });
}

bool receive_all(int fd, void* data, size_t size) {
    return recv(fd, data, size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

void serve(int fd, bool epoll) {
    uint64_t id = 0;
    if (receive_all(fd, &id, sizeof id)) {
        Settings settings;
        settings.id = id;
        settings.acceptor = true;
        settings.epoll = epoll;
        const Outcome outcome = peer::run_session(fd, settings);
        close(fd);
        say("end", id, outcome);
    } else {
        close(fd);  // killed before it had said its number
    }
}

int listen_and_serve(bool epoll) {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener, generic, size) != 0 || listen(listener, 64) != 0 ||
        getsockname(listener, generic, &size) != 0)
        fail("listen");
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        pollfd both[2] = {{listener, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
        if (poll(both, 2, -1) < 0)
            fail("poll");
        if (both[1].revents != 0)
            return 0;
        const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd >= 0)
            std::thread{serve, fd, epoll}.detach();
    }
}

/// What a forked relative does: waits for its parent's death, finds where the incoming stream stands, and
/// goes on in both directions for a while. @return its exit status.
int take_over(int fd, int parent_alive, Settings settings) {
    pollfd parent{parent_alive, POLLIN, 0};
    while (poll(&parent, 1, -1) < 0 && errno == EINTR) {
    }
    const uint64_t start = settings.progress->received;
    const uint64_t asked = settings.progress->asked;
    unsigned char sample[64];
    Outcome outcome;
    outcome.end = End::kWrong;
    outcome.received = start;
    // Between the receive and the note about it the parent may have died: its bytes are gone with it.
    const int flags = 0;
    size_t have = 0;
    while (have < sizeof sample) {
        pollfd ready{fd, POLLIN, 0};
        poll(&ready, 1, 5000);
        const ssize_t got = recv(fd, sample + have, sizeof sample - have, flags | MSG_DONTWAIT);
        if (got <= 0) {
            outcome.error = got == 0 ? 0 : errno;
            outcome.end = got == 0 ? End::kEof : End::kError;
            say("relative", settings.id, outcome);
            return 1;
        }
        have += static_cast<size_t>(got);
    }
    const peer::Pattern pattern = peer::incoming(settings, false);
    uint64_t lost = 0;
    while (lost <= asked && pattern.check(sample, sizeof sample, start + lost) != sizeof sample)
        ++lost;
    if (lost > asked) {
        say("relative", settings.id, outcome);
        return 1;
    }
    settings.relative = true;
    settings.progress = nullptr;
    settings.receive_from = start + lost + sizeof sample;
    later(30'000, [] { finish = true; });
    outcome = peer::run_session(fd, settings);
    say("relative", settings.id, outcome);
    return outcome.end == End::kEof && outcome.sent > 0 ? 0 : 1;
}

int connect_and_stream(bool epoll, uint16_t port, uint64_t first, uint64_t count, long end_after,
                       long fork_after, long die) {
    std::vector<std::thread> threads;
    std::atomic<int> bad{0};
    later(end_after, [] { finish = true; });
    signal(SIGTERM, [](int) { finish = true; });
    for (uint64_t id = first; id < first + count; ++id) {
        threads.emplace_back([=, &bad] {
            const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            sockaddr_in address{};
            address.sin_family = AF_INET;
            address.sin_port = htons(port);
            address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            Outcome outcome;
            if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
                send(fd, &id, sizeof id, MSG_NOSIGNAL) != sizeof id) {
                outcome.error = errno;  // the other side was killed even before
                outcome.end = errno == ECONNREFUSED || errno == ECONNRESET || errno == EPIPE ? End::kReset
                                                                                             : End::kError;
                say("end", id, outcome);
                close(fd);
                return;
            }
            char begun[40];
            const int size =
                snprintf(begun, sizeof begun, "begun %llu\n", static_cast<unsigned long long>(id));
            if (write(STDOUT_FILENO, begun, static_cast<size_t>(size)) != size)
                exit(1);
            Settings settings;
            settings.id = id;
            settings.epoll = epoll;
            settings.finish = &finish;
            if (fork_after >= 0) {
                void* shared = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
                int alive[2];
                if (shared == MAP_FAILED || pipe(alive) != 0)
                    fail("mmap or pipe");
                settings.progress = new (shared) peer::Progress{};
                later(fork_after, [=] {
                    const pid_t child = fork();
                    if (child == 0) {
                        close(alive[1]);
                        _exit(take_over(fd, alive[0], settings));
                    }
                    die_after(die);
                });
            }
            outcome = peer::run_session(fd, settings);
            close(fd);
            say("end", id, outcome);
            if (outcome.end == End::kWrong || outcome.end == End::kError)
                bad = 1;
        });
    }
    for (std::thread& thread : threads)
        thread.join();
    return bad;
}

long option(int argc, char** argv, const char* name) {
    for (int i = 1; i + 1 < argc; ++i)
        if (strcmp(argv[i], name) == 0)
            return strtol(argv[i + 1], nullptr, 10);
    return -1;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string role = argc > 2 ? argv[1] : "";
    const bool epoll = argc > 2 && strcmp(argv[2], "epoll") == 0;
    const long die = option(argc, argv, "--die-after");
    if (role == "listen") {
        die_after(die);
        return listen_and_serve(epoll);
    }
    if (role == "connect" && argc > 5) {
        const long fork_after = option(argc, argv, "--fork-after");
        if (fork_after < 0)
            die_after(die);
        return connect_and_stream(epoll, static_cast<uint16_t>(strtoul(argv[3], nullptr, 10)),
                                  strtoull(argv[4], nullptr, 10), strtoull(argv[5], nullptr, 10),
                                  option(argc, argv, "--end-after"), fork_after, die);
    }
    fprintf(stderr, "usage: see the top of main.cpp\n");
    return 2;
}
