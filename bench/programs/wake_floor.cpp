// What a wake-up across processors costs on this machine, by several means: two processes, one pinned to each
// of two processors, pass a turn to and fro and sleep in between. No way of carrying bytes that sleeps
// between messages can be faster than this; it is what the rows with spinning off are to be compared with.
//
//     wake_floor [--seconds S]        one JSON object: the medians of a round trip in nanoseconds
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <vector>

namespace {

uint64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(t.tv_nsec);
}

void pin(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/// One end of a means: passes the turn, and waits for it.
struct Side {
    std::function<void()> pass;
    std::function<void()> await;
};

uint64_t median_round_trip(const Side& first, const Side& second, double seconds) {
    const pid_t child = fork();
    if (child == 0) {
        pin(1);
        for (;;) {
            second.await();
            second.pass();
        }
    }
    pin(0);
    std::vector<uint64_t> samples;
    const uint64_t begin = now_ns();
    uint64_t before = begin;
    while (before - begin < static_cast<uint64_t>(seconds * 1e9)) {
        first.pass();
        first.await();
        const uint64_t after = now_ns();
        samples.push_back(after - before);
        before = after;
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    std::nth_element(samples.begin(), samples.begin() + static_cast<long>(samples.size() / 2), samples.end());
    return samples[samples.size() / 2];
}

uint64_t by_futex(double seconds) {
    auto* words = static_cast<std::atomic<uint32_t>*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    const auto side = [words](int mine) {
        std::atomic<uint32_t>* const out = words + 16 * mine;
        std::atomic<uint32_t>* const in = words + 16 * (1 - mine);
        return Side{[out] {
                        out->store(1);
                        syscall(SYS_futex, out, FUTEX_WAKE, 1, nullptr, nullptr, 0);
                    },
                    [in] {
                        while (in->load() == 0)
                            syscall(SYS_futex, in, FUTEX_WAIT, 0, nullptr, nullptr, 0);
                        in->store(0);
                    }};
    };
    return median_round_trip(side(0), side(1), seconds);
}

/// Never drained, edge-triggered: the cheapest way to sleep on a descriptor.
Side with_epoll(int out, int in, const void* note, size_t size) {
    const int set = epoll_create1(0);
    epoll_event event{EPOLLIN | EPOLLET, {}};
    epoll_ctl(set, EPOLL_CTL_ADD, in, &event);
    return {[=] {
                if (write(out, note, size) < 0)
                    exit(1);
            },
            [=] {
                epoll_event found;
                while (epoll_wait(set, &found, 1, -1) != 1) {
                }
            }};
}

uint64_t by_eventfd(double seconds) {
    static const uint64_t one = 1;
    const int first = eventfd(0, 0);
    const int second = eventfd(0, 0);
    return median_round_trip(with_epoll(second, first, &one, sizeof one),
                             with_epoll(first, second, &one, sizeof one), seconds);
}

uint64_t by_tcp(double seconds) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 1) != 0)
        exit(1);
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    const int one = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(one, reinterpret_cast<sockaddr*>(&address), size) != 0)
        exit(1);
    const int other = accept(listener, nullptr, nullptr);
    const int on = 1;
    setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(other, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const auto side = [](int fd) {
        return Side{[fd] {
                        const char message[64] = {};
                        if (send(fd, message, sizeof message, 0) != sizeof message)
                            exit(1);
                    },
                    [fd] {
                        char message[64];
                        if (recv(fd, message, sizeof message, MSG_WAITALL) != sizeof message)
                            exit(1);
                    }};
    };
    return median_round_trip(side(one), side(other), seconds);
}

}  // namespace

int main(int argc, char** argv) {
    double seconds = 0.5;
    if (argc == 3 && strcmp(argv[1], "--seconds") == 0)
        seconds = strtod(argv[2], nullptr);
    std::vector<uint64_t> tcp;
    std::vector<uint64_t> futex;
    std::vector<uint64_t> event;
    for (int round = 0; round < 5; ++round) {  // in turn, for the machine's moods
        tcp.push_back(by_tcp(seconds));
        futex.push_back(by_futex(seconds));
        event.push_back(by_eventfd(seconds));
    }
    const auto median = [](std::vector<uint64_t> values) {
        std::sort(values.begin(), values.end());
        return static_cast<unsigned long>(values[values.size() / 2]);
    };
    printf("{\"tcp_ns\": %lu, \"futex_ns\": %lu, \"eventfd_ns\": %lu}\n", median(tcp), median(futex),
           median(event));
}
