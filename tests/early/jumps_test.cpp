// siglongjmp out of a signal handler that interrupted a send or a receive in the middle of its copy: what the
// call held is let go of, so that other threads, and this one, go on with the connection.
#include <arpa/inet.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "require.h"

namespace {

int client = -1;
int server = -1;
sigjmp_buf place;
volatile sig_atomic_t may_jump = 0;

/// While the main thread has signals blocked, another one may be chosen: its stack is not the one to jump to.
void on_alarm(int) {
    if (may_jump != 0 && gettid() == getpid()) {
        may_jump = 0;
        siglongjmp(place, 1);
    }
}

void connect_both() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
            listen(listener, 1) == 0);
    REQUIRE(ioctl(listener, SIO_LOOPBACK_FAST_PATH, &on) == 0 &&
            ioctl(client, SIO_LOOPBACK_FAST_PATH, &on) == 0);
    REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    REQUIRE(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    server = accept(listener, nullptr, nullptr);
    for (int i = 0; i < 200; ++i) {
        char byte = 'w';
        REQUIRE(send(client, &byte, 1, 0) == 1 && recv(server, &byte, 1, 0) == 1);
        REQUIRE(send(server, &byte, 1, 0) == 1 && recv(client, &byte, 1, 0) == 1);
    }
    REQUIRE(loopfast_lane(client) == LOOPFAST_LANE_RING && loopfast_lane(server) == LOOPFAST_LANE_RING);
}

/// Somewhat deeper than the call that was left: its frames do not lie where the old ones did.
[[gnu::noinline]] ssize_t deeper(int depth, int fd, bool sends, char* bytes, size_t size) {
    volatile char room[256];
    room[0] = static_cast<char>(depth);
    if (depth > 0)
        return deeper(depth - 1, fd, sends, bytes, size) + (room[0] == static_cast<char>(depth) ? 0 : 1);
    return sends ? send(fd, bytes, size, MSG_DONTWAIT) : recv(fd, bytes, size, MSG_DONTWAIT);
}

bool moves(ssize_t result) { return result > 0 || (result < 0 && errno == EAGAIN); }

/// @return whether the handler interrupted the work and jumped.
bool interrupted(bool sends, std::vector<char>& bytes, useconds_t delay) {
    if (sigsetjmp(place, 1) != 0)
        return true;
    may_jump = 1;
    const itimerval timer{{0, 0}, {0, static_cast<suseconds_t>(delay)}};
    setitimer(ITIMER_REAL, &timer, nullptr);
    for (int i = 0; i < 10'000 && may_jump != 0; ++i) {
        if (sends)
            (void)!send(client, bytes.data(), bytes.size(), MSG_DONTWAIT);
        else
            (void)!recv(server, bytes.data(), bytes.size(), MSG_DONTWAIT);
    }
    may_jump = 0;
    return false;
}

void jump_out_of(bool sends) {
    std::vector<char> bytes(256 * 1024, 'b');
    std::vector<char> others(256 * 1024, 'o');
    std::atomic<bool> over{false};
    // The other end of the direction is always at work.
    std::thread other([&] {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, nullptr);
        while (!over.load())
            if (sends)
                (void)!recv(server, others.data(), others.size(), MSG_DONTWAIT);
            else
                (void)!send(client, others.data(), others.size(), MSG_DONTWAIT);
    });
    int jumps = 0;
    unsigned state = 1;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(15);
    for (int round = 0; round < 400 && std::chrono::steady_clock::now() < end; ++round) {
        state = state * 1664525 + 1013904223;
        jumps += interrupted(sends, bytes, 50 + (state >> 16) % 400);
        const int fd = sends ? client : server;
        char some[64] = {};
        // A thread that jumped nowhere first: it would wait for ever. Every fourth time this thread does.
        if (round % 4 != 0) {
            std::atomic<bool> done{false};
            std::thread third([&] {
                REQUIRE(moves(deeper(0, fd, sends, some, sizeof some)));
                done.store(true);
            });
            const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
            while (!done.load()) {
                REQUIRE(std::chrono::steady_clock::now() < limit);
                usleep(50);
            }
            third.join();
        }
        REQUIRE(moves(deeper(round % 5, fd, sends, some, sizeof some)));
    }
    over.store(true);
    other.join();
    std::printf("%s: %d jumps\n", sends ? "send" : "receive", jumps);
    REQUIRE(jumps > 10);
}

}  // namespace

int main() {
    struct sigaction action {};
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, nullptr);
    connect_both();
    jump_out_of(true);
    jump_out_of(false);
    return 0;
}
