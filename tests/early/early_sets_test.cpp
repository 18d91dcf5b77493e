// A process that opts in late: its epoll sets, and threads that wait in them, were there before. Nothing was
// noted of them (wait/early_sets.h), and yet no event may be missing. Each scenario runs in a process of its
// own, since a process opts in only once.
#include <arpa/inet.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "require.h"

namespace {

using Clock = std::chrono::steady_clock;

/// Exit status of a scenario that held, on a connection that never came to the ring.
constexpr int kOnTheKernel = 2;

/// Two sockets that will be one connection. Nothing is opted in until connect().
struct Pair {
    Pair() {
        listener = socket(AF_INET, SOCK_STREAM, 0);
        client = socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        REQUIRE(listen(listener, 4) == 0);
    }
    void opt_in() const {
        int on = 1;
        REQUIRE(ioctl(listener, SIO_LOOPBACK_FAST_PATH, &on) == 0);
        REQUIRE(ioctl(client, SIO_LOOPBACK_FAST_PATH, &on) == 0);
    }
    void connect_both() {
        sockaddr_in address{};
        socklen_t size = sizeof address;
        REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
        REQUIRE(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        server = accept(listener, nullptr, nullptr);
        REQUIRE(server >= 0);
    }
    /// @return whether both ends came to the ring.
    bool talk() const {
        for (int i = 0; i < 200; ++i) {
            char bytes[64] = {};
            REQUIRE(send(client, bytes, sizeof bytes, 0) == sizeof bytes);
            REQUIRE(recv(server, bytes, sizeof bytes, MSG_WAITALL) == sizeof bytes);
            REQUIRE(send(server, bytes, sizeof bytes, 0) == sizeof bytes);
            REQUIRE(recv(client, bytes, sizeof bytes, MSG_WAITALL) == sizeof bytes);
        }
        return loopfast_lane(client) == LOOPFAST_LANE_RING && loopfast_lane(server) == LOOPFAST_LANE_RING;
    }
    void say() const { REQUIRE(send(server, "x", 1, 0) == 1); }
    void hear() const {
        char byte;
        REQUIRE(recv(client, &byte, 1, 0) == 1);
    }
    void close_all() const {
        for (const int fd : {listener, client, server})
            close(fd);
    }
    int listener, client, server = -1;
};

constexpr uint64_t kMark = 0xfedcba9876543210;

void add(int set, int fd, uint32_t events, uint64_t data = kMark) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = data;
    REQUIRE(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
}

void entry_from_before(uint32_t trigger) {
    const int set = epoll_create1(0);
    Pair pair;
    add(set, pair.client, EPOLLIN | trigger);
    pair.opt_in();
    pair.connect_both();
    REQUIRE(pair.talk());
    epoll_event event;
    while (epoll_wait(set, &event, 1, 0) == 1) {  // edges of what has been read meanwhile
        REQUIRE(trigger != 0);
    }
    for (int i = 0; i < 3; ++i) {
        pair.say();
        REQUIRE(epoll_wait(set, &event, 1, 5000) == 1);
        REQUIRE(event.data.u64 == kMark && event.events == EPOLLIN);
        pair.hear();
        REQUIRE(epoll_wait(set, &event, 1, 0) == 0);
    }
}
void level() { entry_from_before(0); }
void edge() { entry_from_before(EPOLLET); }

void once() {
    const int set = epoll_create1(0);
    Pair pair;
    pair.connect_both();
    Pair late;
    add(set, late.client, EPOLLIN | EPOLLONESHOT);
    epoll_event event;
    REQUIRE(epoll_wait(set, &event, 1, 0) == 1);  // not connected: a hang-up, and that was its one shot
    late.opt_in();
    late.connect_both();
    REQUIRE(late.talk());
    late.say();
    REQUIRE(epoll_wait(set, &event, 1, 50) == 0);
    event.events = EPOLLIN | EPOLLONESHOT;
    event.data.u64 = kMark + 1;
    REQUIRE(epoll_ctl(set, EPOLL_CTL_MOD, late.client, &event) == 0);
    REQUIRE(epoll_wait(set, &event, 1, 5000) == 1 && event.data.u64 == kMark + 1);
}

/// Every processor has more to do than one thread, so that who is woken comes late.
class Load {
public:
    Load() {
        for (unsigned i = 0; i < 2 * std::thread::hardware_concurrency(); ++i)
            threads_.emplace_back([this] {
                while (!over_.load(std::memory_order_relaxed)) {
                }
            });
    }
    ~Load() {
        over_.store(true);
        for (std::thread& thread : threads_)
            thread.join();
    }
    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;

private:
    std::atomic<bool> over_{false};
    std::vector<std::thread> threads_;
};

/// Threads sleep in the set when its first stream comes; each hears of one connection.
void sleep_and_hear(int set, int copy) {
    constexpr int kThreads = 3;
    const Load load;
    std::vector<Pair> pairs(kThreads);
    std::atomic<unsigned> heard{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i)
        threads.emplace_back([&, i] {
            epoll_event event;
            int count;
            do
                count = i % 2 == 0 ? epoll_wait(set, &event, 1, -1)
                                   : epoll_pwait(copy, &event, 1, 20'000, nullptr);
            while (count < 0 && errno == EINTR);
            REQUIRE(count == 1);
            pairs[event.data.u64].hear();
            heard.fetch_add(1);
        });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    for (unsigned i = 0; i < kThreads; ++i) {
        pairs[i].opt_in();
        pairs[i].connect_both();
        REQUIRE(pairs[i].talk());
        add(set, pairs[i].client, EPOLLIN | EPOLLONESHOT, i);
    }
    for (const Pair& pair : pairs)
        pair.say();
    for (std::thread& thread : threads)
        thread.join();
    REQUIRE(heard.load() == kThreads);
    for (const Pair& pair : pairs)
        pair.close_all();
}

/// They were there before the process opted in, and nobody counted them.
void sleepers() {
    const int set = epoll_create1(0);
    sleep_and_hear(set, dup(set));
}

/// They are counted, and when the last one is out the call is over.
void counted_sleepers() {
    Pair first;
    first.opt_in();
    first.connect_both();
    REQUIRE(first.talk());
    for (int round = 0; round < 4; ++round) {
        const int set = epoll_create1(0);
        const int copy = dup(set);
        sleep_and_hear(set, copy);
        // Whoever was called out is out: the set is silent again, in all that can ask it.
        epoll_event event;
        REQUIRE(epoll_wait(set, &event, 1, 0) == 0);
        pollfd ready{copy, POLLIN, 0};
        REQUIRE(poll(&ready, 1, 0) == 0);
        int ends[2];
        REQUIRE(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
        add(set, ends[0], EPOLLIN);
        REQUIRE(poll(&ready, 1, 0) == 1 && ready.revents == POLLIN);
        REQUIRE(epoll_wait(copy, &event, 1, 5000) == 1 && event.data.u64 == kMark);
        for (const int fd : {set, copy, ends[0], ends[1]})
            close(fd);
    }
}

/// A process that is forked while threads are being called out, and has no stream in the set.
void forked_meanwhile() {
    const int set = epoll_create1(0);
    Pair pair;
    pair.opt_in();
    pair.connect_both();
    REQUIRE(pair.talk());
    add(set, pair.client, EPOLLIN);
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(10);
        pair.close_all();
        // What lies in the set is the parent's call, which the child's wait does not take for its own.
        pollfd ready{set, POLLIN, 0};
        REQUIRE(poll(&ready, 1, 50) >= 0);
        epoll_event event;
        REQUIRE(epoll_wait(set, &event, 1, 50) == 0);
        std::_Exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid && status == 0);
    epoll_event event;
    pair.say();
    REQUIRE(epoll_wait(set, &event, 1, 5000) == 1 && event.data.u64 == kMark);
}

/// While threads may still have to be called out, the set tells of the program's descriptors and of nothing
/// else.
void ordinary_meanwhile() {
    const int set = epoll_create1(0);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    add(set, ends[0], EPOLLIN);
    Pair pair;
    pair.opt_in();
    pair.connect_both();
    REQUIRE(pair.talk());
    add(set, pair.client, EPOLLIN, 1);
    epoll_event event;
    pollfd ready{set, POLLIN, 0};
    REQUIRE(epoll_wait(set, &event, 1, 20) == 0 && poll(&ready, 1, 20) == 0);
    const auto write_soon = [&] {
        return std::thread([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            REQUIRE(write(ends[1], "x", 1) == 1);
        });
    };
    std::thread writer = write_soon();
    REQUIRE(epoll_wait(set, &event, 1, 5000) == 1 && event.data.u64 == kMark);
    writer.join();
    // Level-triggered, and with room for one event only.
    for (int i = 0; i < 20; ++i) {
        REQUIRE(epoll_wait(set, &event, 1, i % 2 == 0 ? 0 : 5000) == 1 && event.data.u64 == kMark);
        REQUIRE(poll(&ready, 1, i % 2 == 0 ? 0 : 5000) == 1 && ready.revents == POLLIN);
    }
    char byte;
    REQUIRE(read(ends[0], &byte, 1) == 1);
    REQUIRE(epoll_wait(set, &event, 1, 20) == 0 && poll(&ready, 1, 20) == 0);
    // What a poll has heard of, a wait is told of at once.
    writer = write_soon();
    REQUIRE(poll(&ready, 1, 5000) == 1);
    writer.join();
    const auto before = Clock::now();
    REQUIRE(epoll_wait(set, &event, 1, 8000) == 1 && event.data.u64 == kMark);
    REQUIRE(Clock::now() - before < std::chrono::seconds(4));
    REQUIRE(read(ends[0], &byte, 1) == 1);
    pair.say();
    REQUIRE(epoll_wait(set, &event, 1, 5000) == 1 && event.data.u64 == 1);
}

/// As sleepers(), but the entries are there before, and become streams under the sleepers.
void sleepers_on_entries() {
    constexpr int kThreads = 3;
    const int set = epoll_create1(0);
    std::vector<Pair> pairs(kThreads);
    // Nothing to hear of a socket that is not connected but once: let it be said.
    for (unsigned i = 0; i < kThreads; ++i)
        add(set, pairs[i].client, EPOLLIN | EPOLLET, i);
    epoll_event events[kThreads];
    REQUIRE(epoll_wait(set, events, kThreads, 0) == kThreads);
    std::atomic<unsigned> seen{0};
    std::vector<std::thread> threads;
    std::atomic<bool> over{false};
    for (int i = 0; i < kThreads; ++i)
        threads.emplace_back([&] {
            while (!over.load()) {
                epoll_event event;
                const int count = epoll_wait(set, &event, 1, 10'000);
                REQUIRE(count == 1);
                char byte;
                while (recv(pairs[event.data.u64].client, &byte, 1, MSG_DONTWAIT) == 1)
                    if (byte == 'x')
                        seen.fetch_add(1);
            }
        });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    for (Pair& pair : pairs) {
        pair.opt_in();
        pair.connect_both();
    }
    // The threads read whatever comes; the connections move over meanwhile.
    unsigned said = 0;
    for (int round = 0; round < 200; ++round)
        for (const Pair& pair : pairs) {
            pair.say();
            char answer = 'a';
            REQUIRE(send(pair.client, &answer, 1, 0) == 1 && recv(pair.server, &answer, 1, 0) == 1);
            ++said;
            const auto limit = Clock::now() + std::chrono::seconds(10);
            while (seen.load() < said) {
                REQUIRE(Clock::now() < limit);
                std::this_thread::yield();
            }
        }
    for (const Pair& pair : pairs)
        REQUIRE(loopfast_lane(pair.client) == LOOPFAST_LANE_RING);
    over.store(true);
    int wake[2];
    REQUIRE(pipe(wake) == 0 && write(wake[1], "w", 1) == 1);
    add(set, wake[0], EPOLLIN, 0);
    for (std::thread& thread : threads)
        thread.join();
}

/// A wait that is told to come out goes on for the rest of its time, and no longer.
void timed() {
    const int set = epoll_create1(0);
    Pair pair;
    std::thread thread([&] {
        const auto begin = Clock::now();
        epoll_event event;
        REQUIRE(epoll_wait(set, &event, 1, 600) == 0);
        const auto took = Clock::now() - begin;
        REQUIRE(took >= std::chrono::milliseconds(595) && took < std::chrono::seconds(10));
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    pair.opt_in();
    pair.connect_both();
    add(set, pair.client, EPOLLRDHUP);  // not for the bytes that are about to come
    REQUIRE(pair.talk());
    thread.join();
}

void set_in_a_set() {
    const int inner = epoll_create1(0);
    const int outer = epoll_create1(0);
    add(outer, inner, EPOLLIN);
    Pair pair;
    pair.opt_in();
    add(inner, pair.client, EPOLLIN);
    pair.connect_both();
    pair.talk();
    pair.say();
    epoll_event event;
    REQUIRE(epoll_wait(outer, &event, 1, 5000) == 1 && event.data.u64 == kMark);
    REQUIRE(epoll_wait(inner, &event, 1, 5000) == 1);
}

/// Sets that come and go while another thread opts in, and streams in them.
void races() {
    std::atomic<bool> over{false};
    std::thread maker([&] {
        while (!over.load()) {
            const int set = epoll_create1(0);
            int ends[2];
            REQUIRE(set >= 0 && pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
            add(set, ends[0], EPOLLIN);
            epoll_event event;
            REQUIRE(epoll_wait(set, &event, 1, 5000) == 1 && event.data.u64 == kMark);
            close(set);
            close(ends[0]);
            close(ends[1]);
        }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    Pair pair;
    const int set = epoll_create1(0);
    add(set, pair.client, EPOLLIN);
    pair.opt_in();
    pair.connect_both();
    const bool on_ring = pair.talk();
    pair.say();
    epoll_event event;
    REQUIRE(epoll_wait(set, &event, 1, 5000) == 1 && event.data.u64 == kMark);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    over.store(true);
    maker.join();
    if (!on_ring)
        std::_Exit(kOnTheKernel);
}

struct Scenario {
    const char* name;
    void (*run)();
    /// Where a set is closed while it is being read, the sets of the process cannot be known, and the
    /// connection rightly stays on the kernel lane: on a loaded machine every other time. That shows little;
    /// another attempt shows more.
    int attempts = 1;
    int times = 1;  ///< it must hold so often
};
constexpr Scenario kScenarios[] = {
    {"level", level},
    {"edge", edge},
    {"once", once},
    {"sleepers", sleepers, 1, 5},
    {"counted_sleepers", counted_sleepers},
    {"forked_meanwhile", forked_meanwhile},
    {"ordinary_meanwhile", ordinary_meanwhile},
    {"sleepers_on_entries", sleepers_on_entries},
    {"timed", timed},
    {"set_in_a_set", set_in_a_set},
    {"races", races, 30},
};

}  // namespace

int main(int argc, char** argv) {
    int failed = 0;
    for (const Scenario& scenario : kScenarios) {
        if (argc > 1 && std::strcmp(argv[1], scenario.name) != 0)
            continue;
        int status = 0;
        int good = 0;
        for (int attempt = 0; attempt < scenario.attempts + scenario.times - 1; ++attempt) {
            const pid_t pid = fork();
            if (pid == 0) {
                alarm(40);
                scenario.run();
                std::_Exit(0);
            }
            waitpid(pid, &status, 0);
            const bool kernel = WIFEXITED(status) && WEXITSTATUS(status) == kOnTheKernel;
            good += status == 0 ? 1 : 0;
            if (good == scenario.times || (status != 0 && !kernel))
                break;  // or a fault, which is not what another attempt may hide
        }
        if (good != scenario.times) {
            std::fprintf(stderr, "%s: FAILED, status %x\n", scenario.name, status);
            ++failed;
        }
    }
    return failed == 0 ? 0 : 1;
}
