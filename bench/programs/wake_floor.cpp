// What passing a turn across processors costs on this machine, by several means: two processes, one pinned to
// each of two processors, pass it to and fro. By `word` both spin: what the caches take to carry one line
// there and back, the floor of everything that spins. By the others they sleep in between: no way of carrying
// bytes that sleeps between messages can be faster, and the rows with spinning off are to be compared with
// them.
//
//     wake_floor [--seconds S] [--means NAME]    one JSON object: the medians of a round trip in nanoseconds
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

/// Two words of shared memory, in lines of their own; the one that a side waits for is zero until its turn.
struct Words {
    std::atomic<uint32_t>* out;
    std::atomic<uint32_t>* in;
};
Words words_of(int side) {
    static auto* const words = static_cast<std::atomic<uint32_t>*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    return {words + 64 * side, words + 64 * (1 - side)};
}

uint64_t by_word(double seconds) {
    const auto side = [](int number) {
        const Words words = words_of(number);
        return Side{[words] { words.out->store(1); },
                    [words] {
                        while (words.in->load() == 0) {
                        }
                        words.in->store(0);
                    }};
    };
    return median_round_trip(side(0), side(1), seconds);
}

uint64_t by_futex(double seconds) {
    const auto side = [](int number) {
        const Words words = words_of(number);
        return Side{[words] {
                        words.out->store(1);
                        syscall(SYS_futex, words.out, FUTEX_WAKE, 1, nullptr, nullptr, 0);
                    },
                    [words] {
                        while (words.in->load() == 0)
                            syscall(SYS_futex, words.in, FUTEX_WAIT, 0, nullptr, nullptr, 0);
                        words.in->store(0);
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
    const char* only = nullptr;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(argv[i + 1], nullptr);
        else if (strcmp(argv[i], "--means") == 0)
            only = argv[i + 1];
    }
    struct Means {
        const char* name;
        uint64_t (*measure)(double seconds);
        std::vector<uint64_t> seen;
    };
    Means all[] = {
        {"tcp", by_tcp, {}}, {"futex", by_futex, {}}, {"eventfd", by_eventfd, {}}, {"word", by_word, {}}};
    for (int round = 0; round < 5; ++round)  // in turn, for the machine's moods
        for (Means& means : all)
            if (only == nullptr || strcmp(only, means.name) == 0)
                means.seen.push_back(means.measure(seconds));
    const char* before = "{";
    for (Means& means : all) {
        if (means.seen.empty())
            continue;
        std::sort(means.seen.begin(), means.seen.end());
        printf("%s\"%s_ns\": %lu", before, means.name,
               static_cast<unsigned long>(means.seen[means.seen.size() / 2]));
        before = ", ";
    }
    printf("}\n");
}
