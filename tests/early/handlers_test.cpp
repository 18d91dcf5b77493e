// Two threads whose signal handlers do opposite work: each has a handler come on top of its own copy that
// needs what the other one is in the middle of. One receives, and its handler sends; the other sends, and its
// handler receives; or both wait in one epoll set each, and their handlers look into the other's. The kernel,
// in whose calls no handler runs, knows no such knot, so nobody may wait for ever. (What a call does when it
// finds one: EINTR.)
//
//     handlers_test [--plain] [SECONDS]
#include <arpa/inet.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "connection.h"

namespace {

bool plain = false;
double seconds = 1.5;

/// What a thread does over and over, and what its handler does.
struct Part {
    void (*work)();
    void (*handle)();
};
struct Turns : Part {
    std::atomic<unsigned long> rounds{0};
};

Turns parts[2];
thread_local const Part* own = nullptr;
std::atomic<bool> over{false};
Connection one, other;
int sets[2];

constexpr size_t kMuch = 1 << 18;

void receive_much(int fd) {
    static thread_local std::vector<char> bytes(kMuch);
    recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
}
void send_much(int fd) {
    static thread_local std::vector<char> bytes(kMuch);
    send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}
void receive_one(int fd) {
    char byte;
    recv(fd, &byte, 1, MSG_DONTWAIT);
}
void send_one(int fd) {
    const char byte = 'x';
    send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}
void look(int set) {
    epoll_event events[4];
    epoll_wait(set, events, 4, 0);
}

/// The two parts, with signals every few microseconds, and peers that give and take.
void run(const char* name, const Part& first, const Part& second) {
    parts[0].work = first.work;
    parts[0].handle = first.handle;
    parts[1].work = second.work;
    parts[1].handle = second.handle;
    parts[0].rounds = parts[1].rounds = 0;
    over = false;
    std::vector<std::thread> threads;
    for (Turns& part : parts)
        threads.emplace_back([&part] {
            own = &part;
            while (!over.load(std::memory_order_relaxed)) {
                part.work();
                part.rounds.fetch_add(1, std::memory_order_relaxed);
            }
            own = nullptr;
        });
    std::vector<std::thread> peers;
    for (const int fd : {one.peer, other.peer})
        peers.emplace_back([fd] {
            while (!over.load(std::memory_order_relaxed)) {
                send_much(fd);
                receive_much(fd);
            }
        });
    // Until the time is over, and then until both have come around once more.
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    auto moved = Clock::now();
    unsigned long seen[2] = {0, 0};
    for (bool both = false; Clock::now() < end || !both;) {
        for (std::thread& thread : threads)
            pthread_kill(thread.native_handle(), SIGUSR1);
        usleep(10);
        both = parts[0].rounds != seen[0] && parts[1].rounds != seen[1];
        if (both) {
            moved = Clock::now();
            seen[0] = parts[0].rounds;
            seen[1] = parts[1].rounds;
        } else if (Clock::now() - moved > std::chrono::seconds(8)) {
            std::fprintf(stderr, "%s: %lu and %lu rounds, then none\n", name, seen[0], seen[1]);
            fail("both wait for ever");
        }
    }
    over = true;
    for (std::thread& thread : threads)
        thread.join();
    for (std::thread& thread : peers)
        thread.join();
}

}  // namespace

int main(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--plain") == 0)
            plain = true;
        else
            seconds = std::atof(argv[i]);
    }
    struct sigaction action {};
    action.sa_handler = [](int) {
        const int error = errno;
        if (own != nullptr)
            own->handle();
        errno = error;
    };
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
    one = connect_to_itself(plain);
    other = connect_to_itself(plain);
    run("receive and send", {[] { receive_much(one.ours); }, [] { send_one(one.ours); }},
        {[] { send_much(one.ours); }, [] { receive_one(one.ours); }});
    run("two connections, receiving", {[] { receive_much(one.ours); }, [] { receive_one(other.ours); }},
        {[] { receive_much(other.ours); }, [] { receive_one(one.ours); }});
    run("two connections, sending", {[] { send_much(one.ours); }, [] { send_one(other.ours); }},
        {[] { send_much(other.ours); }, [] { send_one(one.ours); }});
    for (int i = 0; i < 2; ++i) {
        epoll_event event{EPOLLIN, {}};
        sets[i] = epoll_create1(0);
        if (epoll_ctl(sets[i], EPOLL_CTL_ADD, i == 0 ? one.ours : other.ours, &event) != 0)
            fail("no set");
    }
    run("two sets", {[] { look(sets[0]); }, [] { look(sets[1]); }},
        {[] { look(sets[1]); }, [] { look(sets[0]); }});
    run("a set and a connection", {[] { look(sets[0]); }, [] { receive_one(other.ours); }},
        {[] { receive_much(other.ours); }, [] { look(sets[0]); }});
    return 0;
}
