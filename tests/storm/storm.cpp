// storm: connections under load whose ends change hands all the time. At random moments, every few hundred
// operations, an end forks and goes on in the child or in both, executes itself again with or without
// loopfast, passes the socket to another process by SCM_RIGHTS, starts programs that inherit it, sends and
// receives from threads at once, is interrupted by signals, and leaves the ring. Each direction carries bytes
// that follow from their position, so whoever receives can check them; each end knows how many there must be.
//
//     storm [--seed N] [--seconds S] [--bytes N] [--at-once N] [--only MOVE,MOVE...] [--plain]
//
// Prints the seed first, then what happened. Without --plain the ends run with the library that
// LOOPFAST_LIBRARY names, and at least a fifth of the connections must have been on the ring (of many others
// an end moves first). It ends with 1 if a byte was wrong, missing or too many, if a call failed that cannot
// fail, or if a connection came to no end in 60 s.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "mix.h"

namespace {

enum Move {
    kForkOn,     ///< the child goes on, the parent keeps its descriptor
    kForkClose,  ///< the child goes on, the parent closes
    kForkBack,   ///< the child does some of it, then the parent
    kForkBoth,   ///< one sends while the other receives
    kExecute,    ///< the same process, executed again with loopfast
    kExecutePlain,
    kPass,  ///< SCM_RIGHTS to a process with loopfast, which goes on
    kPassPlain,
    kPassBack,  ///< it does some of it, then we
    kSpawn,     ///< a program that inherits the socket and does nothing
    kThreads,
    kLeave,  ///< an option for which the stream leaves the ring
    kDuplicate,
    kMoves
};
constexpr const char* kMoveNames[kMoves] = {"fork",       "fork-close", "fork-back",  "fork-both", "exec",
                                            "exec-plain", "pass",       "pass-plain", "pass-back", "spawn",
                                            "threads",    "leave",      "dup"};

/// One end of one connection, in memory that all processes which have their turn at it share.
struct End {
    uint64_t out_seed, out_total, out_position;
    uint64_t in_seed, in_total, in_position;
    uint64_t random;
    uint32_t moves_left;
    uint32_t allowed;  ///< moves, as bits
    bool shut, ended;
    bool was_on_ring;
    uint32_t moved[kMoves];
    char what[200];  ///< what went wrong
};

const char* own_path;

class Dice {
public:
    explicit Dice(uint64_t& state) : state_(state) {}
    uint64_t below(uint64_t limit) { return mix(state_ += 0x9e3779b97f4a7c15U) % limit; }

private:
    uint64_t& state_;
};

void fill(char* to, uint64_t seed, uint64_t position, size_t size) {
    for (size_t i = 0; i < size;) {
        const uint64_t word = mix(seed + (position + i) / 8 * 0x9e3779b97f4a7c15U);
        for (size_t byte = (position + i) % 8; byte < 8 && i < size; ++byte, ++i)
            to[i] = static_cast<char>(word >> byte * 8);
    }
}

[[noreturn]] void fail(End& end, const char* what, long detail = 0) {
    const int error = errno;
    if (end.what[0] == 0)
        std::snprintf(end.what, sizeof end.what, "%s (%ld, errno %d: %s), process %d", what, detail, error,
                      std::strerror(error), getpid());
    _exit(9);
}

int signalled_socket = -1;

/// Calls on the socket whose call it interrupted: none of them may change anything.
void on_signal(int) {
    const int error = errno;
    if (signalled_socket >= 0) {
        char byte;
        pollfd one{signalled_socket, POLLIN, 0};
        int waiting;
        poll(&one, 1, 0);
        ioctl(signalled_socket, FIONREAD, &waiting);
        recv(signalled_socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    }
    errno = error;
}

void set_signals(Dice& dice, int fd) {
    signalled_socket = dice.below(2) != 0 ? fd : -1;
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = dice.below(2) != 0 ? SA_RESTART : 0;
    sigaction(SIGALRM, &action, nullptr);
    const auto microseconds = static_cast<suseconds_t>(dice.below(3) == 0 ? 200 + dice.below(5000) : 0);
    const itimerval timer{{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, nullptr);
}

class Actor {
public:
    Actor(End& end, int memory, int fd) : end_(end), memory_(memory), fd_(fd), dice_(end.random) { begin(); }

    /// All that is left to do, in this process or in those it hands over to.
    void run() {
        while (!done())
            step(true);
    }

private:
    void begin() {
        set_signals(dice_, fd_);
        lane_ = reinterpret_cast<int (*)(int)>(dlsym(RTLD_DEFAULT, "loopfast_lane"));
    }
    bool done() const { return end_.shut && end_.ended; }

    void step(bool may_move) {
        if (lane_ != nullptr && !end_.was_on_ring)
            end_.was_on_ring = lane_(fd_) == 1;
        if (may_move && end_.moves_left > 0 && dice_.below(250) == 0) {
            --end_.moves_left;
            move();
            return;
        }
        const bool sent = send_some(dice_);
        const bool received = receive_some(dice_);
        if (!sent && !received)
            rest(dice_);
    }

    void steps(uint64_t count) {
        for (uint64_t i = 0; i < count && !done(); ++i)
            step(false);
    }

    /// @return false when there was no room.
    bool send_some(Dice& dice) {
        if (end_.shut)
            return false;
        const uint64_t left = end_.out_total - end_.out_position;
        if (left == 0) {
            if (shutdown(fd_, SHUT_WR) != 0)
                fail(end_, "shutdown");
            end_.shut = true;
            return true;
        }
        char bytes[65536];
        const size_t size = std::min<uint64_t>(left, 1 + dice.below(uint64_t{1} << dice.below(17)));
        fill(bytes, end_.out_seed, end_.out_position, size);
        const iovec parts[2] = {{bytes, size / 3}, {bytes + size / 3, size - size / 3}};
        msghdr message{};
        message.msg_iov = const_cast<iovec*>(parts);
        message.msg_iovlen = 2;
        ssize_t sent;
        switch (dice.below(5)) {
        case 0:
            sent = write(fd_, bytes, size);
            break;
        case 1:
            sent = writev(fd_, parts, 2);
            break;
        case 2:
            sent = sendmsg(fd_, &message, MSG_NOSIGNAL);
            break;
        default:
            sent = send(fd_, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            break;
        }
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR)
                fail(end_, "send", static_cast<long>(end_.out_position));
            return errno == EINTR;
        }
        if (static_cast<size_t>(sent) > size)
            fail(end_, "more sent than given", sent);
        end_.out_position += static_cast<uint64_t>(sent);
        return sent > 0;
    }

    /// @return false when there was nothing.
    bool receive_some(Dice& dice) {
        if (end_.ended)
            return false;
        char bytes[65536];
        const size_t size = 1 + dice.below(uint64_t{1} << dice.below(17));
        const iovec parts[2] = {{bytes, size / 2}, {bytes + size / 2, size - size / 2}};
        msghdr message{};
        message.msg_iov = const_cast<iovec*>(parts);
        message.msg_iovlen = 2;
        ssize_t got;
        bool peeked = false;
        switch (dice.below(7)) {
        case 0:
            got = read(fd_, bytes, size);
            break;
        case 1:
            got = readv(fd_, parts, 2);
            break;
        case 2:
            got = recvmsg(fd_, &message, MSG_DONTWAIT);
            break;
        case 3:
            got = recv(fd_, bytes, size, MSG_PEEK | MSG_DONTWAIT);
            peeked = true;
            break;
        case 4:
            got = recv(fd_, bytes, std::min<size_t>(size, 1000), MSG_WAITALL);
            break;
        default:
            got = recv(fd_, bytes, size, MSG_DONTWAIT);
            break;
        }
        if (got < 0) {
            if (errno != EAGAIN && errno != EINTR)
                fail(end_, "receive", static_cast<long>(end_.in_position));
            return errno == EINTR;
        }
        if (got == 0) {
            if (end_.in_position != end_.in_total)
                fail(end_, "the end came early", static_cast<long>(end_.in_total - end_.in_position));
            end_.ended = true;
            return true;
        }
        char expected[65536];
        fill(expected, end_.in_seed, end_.in_position, static_cast<size_t>(got));
        if (static_cast<size_t>(got) > size ||
            end_.in_position + static_cast<uint64_t>(got) > end_.in_total ||
            std::memcmp(bytes, expected, static_cast<size_t>(got)) != 0)
            wrong_bytes(bytes, expected, static_cast<size_t>(got), peeked);
        if (!peeked)
            end_.in_position += static_cast<uint64_t>(got);
        return true;
    }

    /// Says where the bytes that came stand in the stream: it tells a loss from a repetition.
    [[noreturn]] void wrong_bytes(const char* bytes, const char* expected, size_t size, bool peeked) {
        size_t good = 0;
        while (good < size && bytes[good] == expected[good])
            ++good;
        const size_t compared = std::min<size_t>(size - good, 24);
        long found = -1;
        char candidate[24];
        for (uint64_t at = 0; at + compared <= end_.in_total && found < 0; ++at) {
            fill(candidate, end_.in_seed, at, compared);
            if (std::memcmp(candidate, bytes + good, compared) == 0)
                found = static_cast<long>(at);
        }
        std::snprintf(end_.what, sizeof end_.what,
                      "%s: of %zu bytes at %llu %zu are right, then come %zu of position %ld; process %d",
                      peeked ? "peeked" : "wrong", size, static_cast<unsigned long long>(end_.in_position),
                      good, compared, found, getpid());
        _exit(9);
    }

    /// Waits until something can be done, in one of several ways. A time limit, since a signal handler or a
    /// relative may have taken the occasion away.
    void rest(Dice& dice) const {
        const short wanted = static_cast<short>((end_.shut ? 0 : POLLOUT) | (end_.ended ? 0 : POLLIN));
        constexpr int kMilliseconds = 100;
        if (dice.below(3) != 0) {
            pollfd one{fd_, wanted, 0};
            poll(&one, 1, kMilliseconds);
            return;
        }
        const int set = epoll_create1(EPOLL_CLOEXEC);
        epoll_event event{};
        event.events = static_cast<uint32_t>(wanted) | (dice.below(2) != 0 ? uint32_t{EPOLLET} : 0U);
        epoll_ctl(set, EPOLL_CTL_ADD, fd_, &event);
        epoll_wait(set, &event, 1, kMilliseconds);
        close(set);
    }

    void wait_for(pid_t pid) {
        int status;
        while (waitpid(pid, &status, 0) < 0)
            if (errno != EINTR)
                fail(end_, "waitpid");
        if (status != 0)
            fail(end_, "a process that had its turn ended badly", status);
    }

    /// The last of this process: another one has done the rest.
    [[noreturn]] void end_after(pid_t pid) {
        wait_for(pid);
        _exit(0);
    }

    pid_t forked() {
        const pid_t pid = fork();
        if (pid < 0)
            fail(end_, "fork");
        if (pid == 0)
            begin();
        return pid;
    }

    void execute(bool plain, const char* how, int descriptor, uint64_t count) {
        const itimerval none{};
        setitimer(ITIMER_REAL, &none, nullptr);
        const std::string number = std::to_string(descriptor);
        const std::string memory = std::to_string(memory_);
        const std::string times = std::to_string(count);
        std::vector<char*> environment;
        for (char** entry = environ; *entry != nullptr; ++entry)
            if (!plain || std::strncmp(*entry, "LD_PRELOAD=", 11) != 0)
                environment.push_back(*entry);
        environment.push_back(nullptr);
        const char* const arguments[] = {own_path,       how,           memory.c_str(),
                                         number.c_str(), times.c_str(), nullptr};
        execve(own_path, const_cast<char**>(arguments), environment.data());
        fail(end_, "exec");
    }

    void pass(bool plain, uint64_t count) {
        int ways[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ways) != 0)
            fail(end_, "socketpair");
        const pid_t pid = fork();
        if (pid == 0) {
            close(ways[0]);
            close(fd_);
            execute(plain, "passed", ways[1], count);
        }
        close(ways[1]);
        char byte = 'p';
        iovec part{&byte, 1};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* const header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(header), &fd_, sizeof fd_);
        ssize_t sent;
        do
            sent = sendmsg(ways[0], &message, 0);
        while (sent < 0 && errno == EINTR);
        if (sent != 1)
            fail(end_, "a descriptor cannot be passed");
        close(ways[0]);
        if (count == 0) {
            if (dice_.below(2) != 0)
                close(fd_);
            signalled_socket = -1;
            end_after(pid);
        }
        wait_for(pid);
    }

    void spawn() {
        const char* const arguments[] = {own_path, "nothing", nullptr};
        pid_t pid;
        if (posix_spawn(&pid, own_path, nullptr, nullptr, const_cast<char**>(arguments), environ) != 0)
            fail(end_, "posix_spawn");
        wait_for(pid);
    }

    void threads() {
        uint64_t seeds[2] = {mix(end_.random + 1), mix(end_.random + 2)};
        const uint64_t count = 50 + dice_.below(400);
        const bool leaves = dice_.below(3) == 0;
        std::thread sender([&] {
            Dice dice(seeds[0]);
            for (uint64_t i = 0; i < count && end_.out_position < end_.out_total; ++i)
                if (!send_some(dice))
                    usleep(50);
        });
        std::thread leaver([&] {
            if (!leaves)
                return;
            usleep(static_cast<useconds_t>(seeds[0] % 2000));
            leave();
        });
        Dice dice(seeds[1]);
        for (uint64_t i = 0; i < count && !end_.ended; ++i)
            if (!receive_some(dice))
                usleep(50);
        sender.join();
        leaver.join();
    }

    void leave() const {
        const int least = 1;  // which every segment has
        setsockopt(fd_, IPPROTO_IP, IP_MINTTL, &least, sizeof least);
    }

    void fork_both() {
        const uint64_t seed = mix(end_.random + 3);
        const uint64_t count = 50 + dice_.below(400);
        const pid_t pid = forked();
        uint64_t own = seed + (pid == 0 ? 1 : 0);
        Dice dice(own);
        if (pid == 0) {
            for (uint64_t i = 0; i < count && end_.out_position < end_.out_total; ++i)
                if (!send_some(dice))
                    usleep(50);
            _exit(0);
        }
        for (uint64_t i = 0; i < count && !end_.ended; ++i)
            if (!receive_some(dice))
                usleep(50);
        wait_for(pid);
    }

    void move() {
        auto kind = static_cast<Move>(dice_.below(kMoves));
        while ((end_.allowed >> kind & 1) == 0)
            kind = static_cast<Move>(dice_.below(kMoves));
        ++end_.moved[kind];
        switch (kind) {
        case kForkOn:
        case kForkClose:
            if (const pid_t pid = forked(); pid != 0) {
                signalled_socket = -1;
                if (kind == kForkClose)
                    close(fd_);
                end_after(pid);
            }
            break;
        case kForkBack:
            if (const pid_t pid = forked(); pid == 0) {
                steps(20 + dice_.below(300));
                _exit(0);
            } else {
                wait_for(pid);
            }
            break;
        case kForkBoth:
            fork_both();
            break;
        case kExecute:
        case kExecutePlain:
            // As inetd does it. At other numbers a program is not given unread bytes that a relative may
            // want.
            if (fd_ != STDIN_FILENO && dup2(fd_, STDIN_FILENO) != STDIN_FILENO)
                fail(end_, "dup2");
            execute(kind == kExecutePlain, "end", STDIN_FILENO, 0);
            break;
        case kPass:
        case kPassPlain:
            pass(kind == kPassPlain, 0);
            break;
        case kPassBack:
            pass(dice_.below(2) != 0, 20 + dice_.below(300));
            break;
        case kSpawn:
            spawn();
            break;
        case kThreads:
            threads();
            break;
        case kLeave:
            leave();
            break;
        case kDuplicate: {
            const int copy = dup(fd_);
            signalled_socket = -1;
            if (copy < 0 || close(fd_) != 0)
                fail(end_, "dup");
            fd_ = copy;
            break;
        }
        default:
            break;
        }
    }

public:
    /// A turn of so many operations, or all that is left.
    void turn(uint64_t count) {
        if (count == 0)
            run();
        else
            steps(count);
    }

private:
    End& end_;
    int memory_;
    int fd_;
    Dice dice_;
    int (*lane_)(int) = nullptr;
};

End& map(int memory) {
    void* const at = mmap(nullptr, sizeof(End), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (at == MAP_FAILED) {
        std::perror("storm: mmap");
        std::exit(2);
    }
    return *static_cast<End*>(at);
}

int received_descriptor(End& end, int way) {
    char byte;
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    int fd = -1;
    if (recvmsg(way, &message, 0) != 1 || CMSG_FIRSTHDR(&message) == nullptr)
        fail(end, "no descriptor came");
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    close(way);
    return fd;
}

/// storm connect|accept MEMORY DESCRIPTOR|PORT
int start_end(const std::string& how, int memory, int number) {
    End& end = map(memory);
    int fd;
    if (how == "accept") {
        fd = accept(number, nullptr, nullptr);
        close(number);
    } else {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<uint16_t>(number));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
            fail(end, "connect");
    }
    // Both ends may be sending, each with a full queue: no call waits for long.
    const timeval moment{0, 20'000};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof moment) != 0)
        fail(end, "no connection");
    Actor(end, memory, fd).turn(0);
    return 0;
}

// ---- the driver ----

struct Options {
    uint64_t seed = static_cast<uint64_t>(time(nullptr)) * 1000003 + static_cast<uint64_t>(getpid());
    double seconds = 10;
    uint64_t bytes = ~uint64_t{0};
    unsigned at_once = 2;
    bool plain = false;
    uint32_t allowed = (1U << kMoves) - 1;
};

struct Connection {
    uint64_t seed = 0;
    End* ends[2] = {};
    pid_t pids[2] = {-1, -1};
    double begin = 0;
    bool live() const { return pids[0] > 0 || pids[1] > 0; }
};

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

pid_t start_process(const Options& options, const char* how, int memory, int number, uint64_t threshold) {
    const pid_t pid = fork();
    if (pid != 0)
        return pid;
    setpgid(0, 0);
    const char* const library = getenv("LOOPFAST_LIBRARY");
    if (!options.plain && library != nullptr) {
        setenv("LD_PRELOAD", library, 1);
        setenv("LOOPFAST", "on", 1);
        setenv("LOOPFAST_THRESHOLD", std::to_string(threshold).c_str(), 1);
    }
    execl(own_path, own_path, how, std::to_string(memory).c_str(), std::to_string(number).c_str(), nullptr);
    _exit(127);
}

void start(Connection& connection, const Options& options, uint64_t seed) {
    connection.seed = seed;
    connection.begin = now();
    uint64_t state = seed;
    Dice dice(state);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        listen(listener, 1) != 0 ||
        getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        std::perror("storm: listen");
        std::exit(2);
    }
    int memories[2];
    const uint64_t total[2] = {uint64_t{1} << (12 + dice.below(12)), uint64_t{1} << (12 + dice.below(12))};
    const uint64_t threshold = dice.below(2) * 2048;
    for (int i = 0; i < 2; ++i) {
        memories[i] = memfd_create("storm", 0);
        if (memories[i] < 0 || ftruncate(memories[i], sizeof(End)) != 0) {
            std::perror("storm: memfd");
            std::exit(2);
        }
        End& end = map(memories[i]);
        connection.ends[i] = &end;
        end.out_seed = mix(seed + static_cast<uint64_t>(i));
        end.in_seed = mix(seed + static_cast<uint64_t>(1 - i));
        end.out_total = total[i] + dice.below(5000);
        end.random = dice.below(~uint64_t{0});
        end.moves_left = static_cast<uint32_t>(dice.below(12));
        end.allowed = options.allowed;
    }
    for (int i = 0; i < 2; ++i)
        connection.ends[i]->in_total = connection.ends[1 - i]->out_total;
    connection.pids[0] = start_process(options, "accept", memories[0], listener, threshold);
    connection.pids[1] = start_process(options, "connect", memories[1], ntohs(address.sin_port), threshold);
    close(listener);
    close(memories[0]);
    close(memories[1]);
}

struct Totals {
    uint64_t connections = 0, on_ring = 0, bytes = 0, failures = 0;
    uint64_t moved[kMoves] = {};
};

void tell(const Connection& connection, const char* what) {
    std::fprintf(stderr, "storm: connection with seed %llu: %s\n",
                 static_cast<unsigned long long>(connection.seed), what);
    for (int i = 0; i < 2; ++i) {
        const End& end = *connection.ends[i];
        std::fprintf(stderr, "  %s: sent %llu of %llu%s, received %llu of %llu%s, ring %d; %s\n",
                     i == 0 ? "acceptor" : "connector", static_cast<unsigned long long>(end.out_position),
                     static_cast<unsigned long long>(end.out_total), end.shut ? " and shut" : "",
                     static_cast<unsigned long long>(end.in_position),
                     static_cast<unsigned long long>(end.in_total), end.ended ? " and the end" : "",
                     end.was_on_ring, end.what);
        for (int move = 0; move < kMoves; ++move)
            if (end.moved[move] != 0)
                std::fprintf(stderr, "    %s: %u\n", kMoveNames[move], end.moved[move]);
    }
}

void finish(Connection& connection, Totals& totals) {
    ++totals.connections;
    totals.on_ring += connection.ends[0]->was_on_ring && connection.ends[1]->was_on_ring;
    for (End* end : connection.ends) {
        totals.bytes += end->in_position;
        for (int move = 0; move < kMoves; ++move)
            totals.moved[move] += end->moved[move];
        munmap(end, sizeof *end);
    }
}

/// Looks after one connection. @return false when it failed.
bool attend(Connection& connection) {
    for (int i = 0; i < 2; ++i) {
        if (connection.pids[i] <= 0)
            continue;
        int status;
        if (waitpid(connection.pids[i], &status, WNOHANG) != connection.pids[i])
            continue;
        connection.pids[i] = -1;
        const End& end = *connection.ends[i];
        if (status != 0 || !end.shut || !end.ended || end.in_position != end.in_total) {
            char text[64];
            std::snprintf(text, sizeof text, "an end came out with status %x", status);
            tell(connection, text);
            return false;
        }
    }
    const char* const limit = getenv("STORM_LIMIT");  // for somebody who looks for one
    const double kLimit = limit != nullptr ? std::atof(limit) : 60;
    if (connection.live() && now() - connection.begin > kLimit) {
        tell(connection, "it comes to no end");
        return false;
    }
    return true;
}

int drive(const Options& options) {
    std::printf("storm: --seed %llu\n", static_cast<unsigned long long>(options.seed));
    std::fflush(stdout);
    std::vector<Connection> connections(options.at_once);
    Totals totals;
    uint64_t started = 0;
    const double end = now() + options.seconds;
    for (;;) {
        bool live = false;
        for (Connection& connection : connections) {
            if (connection.live()) {
                if (!attend(connection)) {
                    ++totals.failures;
                    const char* const keep = getenv("STORM_KEEP");  // for a debugger
                    for (const pid_t pid : connection.pids)
                        if (pid > 0 && keep == nullptr)
                            kill(-pid, SIGKILL);
                } else if (!connection.live()) {
                    finish(connection, totals);
                }
            }
            if (totals.failures == 0 && !connection.live() && now() < end && totals.bytes < options.bytes)
                start(connection, options, started == 0 ? options.seed : mix(options.seed + started)),
                    ++started;
            live = live || connection.live();
        }
        if (!live || totals.failures != 0)
            break;
        usleep(1000);
    }
    for (const Connection& connection : connections)
        for (const pid_t pid : connection.pids)
            if (pid > 0 && getenv("STORM_KEEP") == nullptr)
                kill(-pid, SIGKILL);
    std::printf("storm: %llu connections, %llu of them on the ring, %llu MB checked;",
                static_cast<unsigned long long>(totals.connections),
                static_cast<unsigned long long>(totals.on_ring),
                static_cast<unsigned long long>(totals.bytes / 1'000'000));
    for (int move = 0; move < kMoves; ++move)
        std::printf(" %s %llu", kMoveNames[move], static_cast<unsigned long long>(totals.moved[move]));
    std::printf("\n");
    // Where other work lets only few come about, their steps towards the ring are as few.
    constexpr uint64_t kEnoughToJudge = 30;
    if (!options.plain && totals.connections >= kEnoughToJudge && totals.on_ring * 5 < totals.connections) {
        std::fprintf(stderr, "storm: too few of them were on the ring\n");
        return 1;
    }
    return totals.failures == 0 && totals.connections != 0 ? 0 : 1;
}

uint32_t moves_named(const std::string& list) {
    uint32_t moves = 0;
    for (size_t at = 0; at < list.size();) {
        const size_t end = std::min(list.find(',', at), list.size());
        for (int move = 0; move < kMoves; ++move)
            if (list.substr(at, end - at) == kMoveNames[move])
                moves |= 1U << move;
        at = end + 1;
    }
    return moves != 0 ? moves : (1U << kMoves) - 1;
}

}  // namespace

int main(int argc, char** argv) {
    static char self[4096];
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return 2;
    own_path = self;
    const std::string verb = argc > 1 ? argv[1] : "";
    if (verb == "nothing")
        return 0;
    if ((verb == "accept" || verb == "connect") && argc > 3)
        return start_end(verb, std::atoi(argv[2]), std::atoi(argv[3]));
    if ((verb == "end" || verb == "passed") && argc > 4) {
        const int memory = std::atoi(argv[2]);
        End& end = map(memory);
        const int fd = verb == "end" ? std::atoi(argv[3]) : received_descriptor(end, std::atoi(argv[3]));
        Actor(end, memory, fd).turn(std::strtoull(argv[4], nullptr, 10));
        return 0;
    }
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        const char* const value = i + 1 < argc ? argv[i + 1] : "0";
        if (name == "--plain")
            options.plain = true;
        else if (name == "--seed")
            options.seed = std::strtoull(value, nullptr, 10), ++i;
        else if (name == "--seconds")
            options.seconds = std::atof(value), ++i;
        else if (name == "--bytes")
            options.bytes = std::strtoull(value, nullptr, 10), ++i;
        else if (name == "--only")
            options.allowed = moves_named(value), ++i;
        else if (name == "--at-once")
            options.at_once = static_cast<unsigned>(std::atoi(value)), ++i;
        else
            return 2;
    }
    return drive(options);
}
