// edges: event loops under load. Connections whose ends are edge-triggered, level-triggered or one-shot
// entries of epoll sets, alone or shared by threads, read and write only when told to, in pieces of all
// sizes, with small buffers, late and in no order; the threshold is such that they move to the ring at any
// moment, in the middle of a full buffer for one, and some leave it again. Each direction carries bytes that
// follow from their position. An event that never comes is a connection that goes no further.
//
//     edges [--seed N] [--seconds S] [--load N] [--plain]
//
// `--load`: this many busy processes compete for the processors, so that what is woken comes late. Prints the
// seed first. It ends with 1 if a byte was wrong, missing or too many, if a call failed that cannot fail, or
// if nothing went on for 20 s; without --plain also if too few connections were ever on the ring.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "mix.h"

namespace {

constexpr unsigned kConnections = 24;  ///< of one round, all at once
constexpr size_t kMostPiece = 65536;
constexpr int kStallSeconds = 20;

class Dice {
public:
    explicit Dice(uint64_t seed) : state_(seed) {}
    uint64_t below(uint64_t limit) { return mix(state_ += 0x9e3779b97f4a7c15U) % limit; }
    bool one_in(uint64_t limit) { return below(limit) == 0; }

private:
    uint64_t state_;
};

/// What both processes of a round, and who started them, look at.
struct Shared {
    std::atomic<uint32_t> port;
    std::atomic<uint32_t> on_ring;  ///< ends that were seen there
    std::atomic<uint64_t> moved;    ///< bytes: whether anything goes on
    std::atomic<uint32_t> failed;
};
Shared* shared;

[[noreturn]] void fail(const char* what, long detail = 0) {
    std::fprintf(stderr, "edges, process %d: %s (%ld, %s)\n", getpid(), what, detail, std::strerror(errno));
    shared->failed.store(1);
    _exit(1);
}
void require(bool good, const char* what, long detail = 0) {
    if (!good)
        fail(what, detail);
}

enum class Manner {
    kEdge,   ///< both events, told once each
    kLevel,  ///< EPOLLOUT only while it is waited for
    kOnce    ///< EPOLLONESHOT, rearmed for what is waited for
};

/// One end of a connection.
struct End {
    int fd = -1;
    uint32_t index = 0;
    unsigned header = 0;  ///< bytes of the index sent, or received
    char header_bytes[4];
    Manner manner = Manner::kEdge;
    bool short_is_all =
        false;  ///< a piece that was not moved whole shows that there is no more, without a call
    bool readable = false, writable = false;
    bool shut = false, ended = false, waits_for_room = false, was_on_ring = false, corked = false,
         queued = false;
    bool end_is_near =
        false;  ///< EPOLLRDHUP was told: there is an end behind the bytes, without an event of its own
    uint64_t out_seed = 0, out_total = 0, out = 0;
    uint64_t in_seed = 0, in_total = 0, in = 0;
};

char byte_at(uint64_t seed, uint64_t position) {
    return static_cast<char>((seed + position) * 0x9e3779b1U >> 11);
}

class Loop {
public:
    Loop(uint64_t seed, bool server, int listener)
        : seed_(seed), server_(server), listener_(listener), set_(epoll_create1(0)), over_(eventfd(0, 0)),
          lane_(reinterpret_cast<int (*)(int)>(dlsym(RTLD_DEFAULT, "loopfast_lane"))) {
        Dice dice(seed_);
        threads_ = dice.one_in(3) ? 1 + static_cast<unsigned>(dice.below(3)) : 1;
        for (unsigned i = 0; i < kConnections; ++i)
            ends_.push_back(std::make_unique<End>());
        add(over_, EPOLLIN, kOver);
        if (server_)
            add(listener_, EPOLLIN | (threads_ > 1 ? uint32_t{EPOLLONESHOT} : 0U), kListener);
    }

    void run(const sockaddr_in& to) {
        std::vector<std::thread> threads;
        std::thread(&Loop::watch, this).detach();
        for (unsigned i = 1; i < threads_; ++i)
            threads.emplace_back(&Loop::work, this, i);
        if (!server_)
            connect_all(to);
        work(0);
        for (std::thread& thread : threads)
            thread.join();
    }

private:
    static constexpr uint64_t kListener = 1000000;
    static constexpr uint64_t kOver = 1000001;

    void add(int fd, uint32_t events, uint64_t data) const {
        epoll_event event{events, {}};
        event.data.u64 = data;
        require(epoll_ctl(set_, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
    }

    void set_up(End& end, Dice& dice) const {
        constexpr int kSizes[] = {0, 0, 4096, 16384, 65536};
        if (const int size = kSizes[dice.below(5)]; size != 0)
            setsockopt(end.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        if (const int on = 1; dice.one_in(2))
            setsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        end.manner = threads_ > 1 ? Manner::kOnce : static_cast<Manner>(dice.below(3));
        end.short_is_all = dice.one_in(2);
    }
    /// Now that it is known which connection it is.
    void know(End& end) const {
        Dice dice(mix(end.index + 1) ^
                  mix(seed_ | 1));  // the same on both sides: their seeds differ in this bit
        uint64_t totals[2];
        for (uint64_t& total : totals)
            total = dice.one_in(2) ? dice.below(4'000'000) : dice.below(200'000);
        end.out_seed = mix(end.index) + (server_ ? 1U << 20 : 0);
        end.in_seed = mix(end.index) + (server_ ? 0 : 1U << 20);
        end.out_total = totals[server_ ? 0 : 1];
        end.in_total = totals[server_ ? 1 : 0];
    }

    void connect_all(const sockaddr_in& to) {
        Dice dice(seed_ + 77);
        for (unsigned i = 0; i < kConnections; ++i) {
            End& end = *ends_[i];
            end.index = i;
            end.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            set_up(end, dice);
            know(end);
            std::memcpy(end.header_bytes, &end.index, 4);
            require(connect(end.fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 ||
                        errno == EINPROGRESS,
                    "connect");
            enter(end, i);
        }
    }
    void accept_all(Dice& dice) {
        for (;;) {
            const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
            if (fd < 0 && errno == EAGAIN)
                break;
            require(fd >= 0, "accept");
            const unsigned place = accepted_.fetch_add(1);
            End& end = *ends_[place];
            end.fd = fd;
            set_up(end, dice);
            enter(end, place);
        }
        if (threads_ > 1 && accepted_.load() < kConnections) {
            epoll_event event{EPOLLIN | EPOLLONESHOT, {}};
            event.data.u64 = kListener;
            require(epoll_ctl(set_, EPOLL_CTL_MOD, listener_, &event) == 0, "epoll_ctl of the listener");
        }
    }
    void enter(End& end, unsigned place) const {
        switch (end.manner) {
        case Manner::kEdge:
            return add(end.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, place);
        case Manner::kLevel:
            end.waits_for_room = true;
            return add(end.fd, EPOLLIN | EPOLLOUT, place);
        case Manner::kOnce:
            return add(end.fd, EPOLLIN | EPOLLOUT | EPOLLONESHOT, place);
        }
    }

    void receive_some(End& end, Dice& dice, std::vector<char>& buffer) {
        const size_t size = 1 + dice.below(dice.one_in(3) ? 100 : kMostPiece);
        const ssize_t got = recv(end.fd, buffer.data(), size, 0);
        if (got < 0) {
            require(errno == EAGAIN, "recv");
            end.readable = false;
            return;
        }
        const char* bytes = buffer.data();
        ssize_t left = got;
        while (server_ && left > 0 && end.header < 4) {
            end.header_bytes[end.header++] = *bytes++;
            --left;
            if (end.header == 4) {
                std::memcpy(&end.index, end.header_bytes, 4);
                know(end);
            }
        }
        for (ssize_t i = 0; i < left; ++i)
            require(bytes[i] == byte_at(end.in_seed, end.in + static_cast<uint64_t>(i)), "a byte is wrong",
                    static_cast<long>(end.in) + i);
        end.in += static_cast<uint64_t>(left);
        shared->moved.fetch_add(static_cast<uint64_t>(got), std::memory_order_relaxed);
        if (got == 0) {
            require(end.header == 4 && end.in == end.in_total, "the end came at",
                    static_cast<long>(end.in) - static_cast<long>(end.in_total));
            end.ended = true;
        } else if (end.short_is_all && !end.end_is_near && end.manner != Manner::kLevel &&
                   static_cast<size_t>(got) < size) {
            end.readable = false;
        }
    }
    /// @return false when nothing is left to send.
    bool send_some(End& end, Dice& dice, std::vector<char>& buffer) {
        size_t size;
        const bool header = !server_ && end.header < 4;
        if (header) {
            size = 4 - end.header;
            std::memcpy(buffer.data(), end.header_bytes + end.header, size);
        } else {
            size = 1 + dice.below(dice.one_in(3) ? 100 : kMostPiece);
            size = size < end.out_total - end.out ? size : end.out_total - end.out;
            for (size_t i = 0; i < size; ++i)
                buffer[i] = byte_at(end.out_seed, end.out + i);
        }
        if (size == 0)
            return false;
        const ssize_t sent = send(end.fd, buffer.data(), size, MSG_NOSIGNAL);
        if (sent < 0) {
            require(errno == EAGAIN, "send");
            end.writable = false;
            return true;
        }
        if (header)
            end.header += static_cast<unsigned>(sent);
        else
            end.out += static_cast<uint64_t>(sent);
        if (static_cast<size_t>(sent) < size && end.short_is_all)
            end.writable = false;
        return true;
    }
    bool knows(const End& end) const { return !server_ || end.header == 4; }

    /// @return whether it could go on without being told.
    bool serve(End& end, uint32_t events, Dice& dice, std::vector<char>& buffer) {
        if (end.fd < 0)
            return false;
        require((events & EPOLLERR) == 0, "an error of the connection", events);
        end.readable = end.readable || (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) != 0;
        end.writable = end.writable || (events & EPOLLOUT) != 0;
        end.end_is_near = end.end_is_near || (events & EPOLLRDHUP) != 0;
        for (unsigned steps = 1 + static_cast<unsigned>(dice.below(40)); steps > 0; --steps) {
            if (end.readable && !end.ended && !dice.one_in(4))
                receive_some(end, dice, buffer);
            if (dice.one_in(300)) {
                const int cork = end.corked ? 0 : 1;
                setsockopt(end.fd, IPPROTO_TCP, TCP_CORK, &cork, sizeof cork);
                end.corked = cork != 0;
            }
            if (dice.one_in(20'000)) {  // for which a stream leaves the ring
                for (const int on : {1, 0})
                    setsockopt(end.fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
            }
            if (end.writable && !end.shut && knows(end) && !send_some(end, dice, buffer)) {
                const int off = 0;
                if (end.corked)
                    setsockopt(end.fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
                require(shutdown(end.fd, SHUT_WR) == 0, "shutdown");
                end.shut = true;
            }
        }
        if (!end.was_on_ring && lane_ != nullptr && lane_(end.fd) == 1) {
            end.was_on_ring = true;
            shared->on_ring.fetch_add(1);
        }
        if (end.ended && end.shut) {
            require(close(end.fd) == 0, "close");
            end.fd = -1;
            if (finished_.fetch_add(1) + 1 == kConnections) {
                const uint64_t one = 1;
                require(write(over_, &one, sizeof one) == sizeof one, "write");
            }
            return false;
        }
        const bool more = (end.readable && !end.ended) || (end.writable && !end.shut && knows(end));
        if (end.manner == Manner::kOnce && !(more && threads_ == 1))
            rearm(end, EPOLLONESHOT);
        else if (end.manner == Manner::kLevel)
            rearm(end, 0);  // asked for only while it matters
        return more && end.manner != Manner::kLevel && (end.manner != Manner::kOnce || threads_ == 1);
    }
    void rearm(End& end, uint32_t flags) const {
        epoll_event event{flags, {}};
        if (!end.ended)
            event.events |= EPOLLIN;
        if (!end.shut && knows(end))
            event.events |= EPOLLOUT;
        event.data.u64 = place_of(end);
        end.readable = end.writable = false;  // what is there is told anew
        require(epoll_ctl(set_, EPOLL_CTL_MOD, end.fd, &event) == 0, "epoll_ctl");
    }
    uint64_t place_of(const End& end) const {
        for (unsigned i = 0;; ++i)
            if (ends_[i].get() == &end)
                return i;
    }

    void work(unsigned number) {
        Dice dice(seed_ * 31 + number);
        std::vector<char> buffer(kMostPiece + 1);
        std::vector<unsigned> later;  // could go on; only where one thread has the set to itself
        epoll_event events[8];
        for (;;) {
            const int room = 1 + static_cast<int>(dice.below(8));
            const int count = epoll_wait(set_, events, room, later.empty() ? -1 : 0);
            require(count >= 0 || errno == EINTR, "epoll_wait");
            for (int i = 0; i < count; ++i) {
                const uint64_t data = events[i].data.u64;
                if (data == kOver)
                    return;
                if (data == kListener) {
                    accept_all(dice);
                    continue;
                }
                require(data < kConnections, "an event that is nobody's", static_cast<long>(data));
                take(static_cast<unsigned>(data), events[i].events, dice, buffer, later);
            }
            if (!later.empty() && dice.one_in(2)) {
                const unsigned place = later[dice.below(later.size())];
                std::erase(later, place);
                ends_[place]->queued = false;
                take(place, 0, dice, buffer, later);
            }
            if (dice.one_in(200))
                usleep(static_cast<useconds_t>(dice.below(3000)));  // late
        }
    }
    void take(unsigned place, uint32_t events, Dice& dice, std::vector<char>& buffer,
              std::vector<unsigned>& later) {
        End& end = *ends_[place];
        if (!serve(end, events, dice, buffer) || end.queued)
            return;
        end.queued = true;
        later.push_back(place);
    }

    /// Says what every connection waits for when nothing goes on any more.
    void watch() {
        uint64_t last = ~uint64_t{0};
        for (int still = 0;; ++still) {
            const uint64_t moved = shared->moved.load();
            still = moved == last ? still : 0;
            last = moved;
            if (still == kStallSeconds) {
                for (const auto& end : ends_)
                    if (end->fd >= 0)
                        std::fprintf(
                            stderr,
                            "%s %u: fd %d, manner %d, in %lu of %lu%s, out %lu of %lu%s, %s%s lane %d%s\n",
                            server_ ? "server" : "client", end->index, end->fd, static_cast<int>(end->manner),
                            end->in, end->in_total, end->ended ? " ended" : "", end->out, end->out_total,
                            end->shut ? " shut" : "", end->readable ? "readable " : "",
                            end->writable ? "writable " : "", lane_ != nullptr ? lane_(end->fd) : -1,
                            end->corked ? " corked" : "");
                fail("nothing goes on", threads_);
            }
            sleep(1);
        }
    }

    uint64_t seed_;
    bool server_;
    int listener_, set_, over_;
    int (*lane_)(int);
    unsigned threads_;
    std::atomic<unsigned> accepted_{0}, finished_{0};
    std::vector<std::unique_ptr<End>> ends_;
};

/// One end of a round, in a process of its own: edges --end server|client SEED MEMORY.
int be_an_end(bool server, uint64_t seed, int memory) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    shared =
        static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = -1;
    if (server) {
        listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        socklen_t size = sizeof address;
        if (const int small = 8192; seed % 3 == 0)  // the connections inherit it
            setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        require(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                    listen(listener, kConnections) == 0 &&
                    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0,
                "listen");
        shared->port.store(address.sin_port);
    } else {
        while (shared->port.load() == 0)
            usleep(1000);
        address.sin_port = static_cast<uint16_t>(shared->port.load());
    }
    Loop(seed, server, listener).run(address);
    return 0;
}

pid_t start(const char* role, uint64_t seed, int memory, const char* path) {
    const pid_t pid = fork();
    if (pid == 0) {
        const std::string numbers[] = {std::to_string(seed), std::to_string(memory)};
        execl(path, path, "--end", role, numbers[0].c_str(), numbers[1].c_str(), nullptr);
        _exit(127);
    }
    return pid;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 5 && std::strcmp(argv[1], "--end") == 0)
        return be_an_end(std::strcmp(argv[2], "server") == 0, std::strtoull(argv[3], nullptr, 10),
                         std::atoi(argv[4]));
    uint64_t seed = static_cast<uint64_t>(time(nullptr)) * 1000003 + static_cast<uint64_t>(getpid());
    int seconds = 10;
    int load = 0;
    bool plain = false;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--plain")
            plain = true;
        else if (option == "--seed" && i + 1 < argc)
            seed = std::strtoull(argv[++i], nullptr, 10);
        else if (option == "--seconds" && i + 1 < argc)
            seconds = std::atoi(argv[++i]);
        else if (option == "--load" && i + 1 < argc)
            load = std::atoi(argv[++i]);
        else
            return std::fprintf(stderr, "usage: edges [--seed N] [--seconds S] [--load N] [--plain]\n"), 2;
    }
    const char* const library = getenv("LOOPFAST_LIBRARY");
    if (!plain && library == nullptr)
        return std::fprintf(stderr, "edges: LOOPFAST_LIBRARY must name the library, or --plain be given\n"),
               2;
    std::printf("seed %lu\n", seed);
    std::fflush(stdout);
    std::vector<pid_t> busy;
    for (int i = 0; i < load; ++i)
        if (const pid_t pid = fork(); pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (volatile unsigned turns = 0;;)
                turns = turns + 1;
        } else {
            busy.push_back(pid);
        }
    const int memory = memfd_create("edges", 0);
    require(memory >= 0 && ftruncate(memory, sizeof(Shared)) == 0, "memory");
    shared =
        static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0));
    char path[4096] = {};
    require(readlink("/proc/self/exe", path, sizeof path - 1) > 0, "own path");
    const time_t end = time(nullptr) + seconds;
    unsigned rounds = 0;
    bool good = true;
    Dice dice(seed);
    do {
        const uint64_t round = seed + 2 * ++rounds;
        if (!plain) {
            constexpr uint64_t kThresholds[] = {1, 3000, 50'000, 500'000};
            setenv("LD_PRELOAD", library, 1);
            setenv("LOOPFAST", "on", 1);
            setenv("LOOPFAST_THRESHOLD", std::to_string(dice.below(kThresholds[dice.below(4)])).c_str(), 1);
        }
        shared->port.store(0);
        const pid_t ends[] = {start("server", round & ~uint64_t{1}, memory, path),
                              start("client", round | 1, memory, path)};
        unsetenv("LD_PRELOAD");
        for (const pid_t pid : ends) {
            int status = 0;
            require(waitpid(pid, &status, 0) == pid, "waitpid");
            if (status != 0 && good) {
                std::fprintf(stderr, "round %u (seed %lu): an end ended with status %x\n", rounds, round,
                             status);
                good = false;
            }
        }
    } while (good && time(nullptr) < end);
    for (const pid_t pid : busy) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
    }
    const unsigned ends = rounds * kConnections * 2;
    std::printf("%u rounds of %u connections, %lu MB, %u of %u ends seen on the ring\n", rounds, kConnections,
                shared->moved.load() / 1'000'000, shared->on_ring.load(), ends);
    if (good && !plain && shared->on_ring.load() < ends / 10)
        return std::fprintf(stderr, "edges: too few were on the ring\n"), 1;
    return good ? 0 : 1;
}
