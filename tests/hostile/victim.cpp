// The victim: an ordinary program with one TCP connection, run under the preload and led by commands on its
// standard input. Each command is answered by one line:
//
//     RESULT ERRNO ELAPSED_US CPU_US [HEX OF THE FIRST BYTES RECEIVED]
//
// It knows nothing of loopfast but the control code that opts a socket in. Beside the connection under attack
// it can hold another one, to itself, whose bytes must arrive unharmed whatever happens on the first.
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "loopfast.h"

namespace {

int listener = -1;
int connection = -1;
int set = -1;
int own[2] = {-1, -1};
uint64_t own_sent = 0;
std::vector<unsigned char> received;

int64_t now_us() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000LL + t.tv_nsec / 1000;
}

int64_t cpu_us() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1'000'000LL + t.tv_nsec / 1000;
}

bool marks = true;

int tcp_socket() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (!marks)
        return fd;
    int on = 1;
    if (ioctl(fd, SIO_LOOPBACK_FAST_PATH, &on) != 0)
        return -1;
    return fd;
}

sockaddr_in address_of(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    return address;
}

int listen_somewhere(int& fd) {
    fd = tcp_socket();
    sockaddr_in address = address_of(0);
    socklen_t size = sizeof address;
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd, 8) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
        return -1;
    return ntohs(address.sin_port);
}

/// `from`: the port to come from, or 0.
int connect_to(int port, int from = 0) {
    const int fd = tcp_socket();
    if (from != 0) {
        const int on = 1;
        const sockaddr_in here = address_of(from);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0)
            return -1;
    }
    const sockaddr_in address = address_of(port);
    return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? fd : -1;
}

void set_timeout(int fd, int milliseconds) {
    const timeval time{milliseconds / 1000, milliseconds % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

long send_bytes(size_t size, int flags) {
    static std::vector<unsigned char> bytes;
    bytes.assign(size, 'v');
    return send(connection, bytes.data(), size, flags | MSG_NOSIGNAL);
}

long receive_bytes(size_t size, int flags) {
    // Bytes beyond what was asked for are watched.
    received.assign(size + 64, 0xee);
    const long result = recv(connection, received.data(), size, flags);
    for (size_t i = size; i < received.size(); ++i)
        if (received[i] != 0xee)
            abort();
    received.resize(result > 0 ? std::min(static_cast<size_t>(result), size) : 0);
    return result;
}

/// Bytes that can be told from each other, by their place in the stream.
uint64_t streamed = 0;
uint64_t checked = 0;

unsigned char byte_at(uint64_t place) { return static_cast<unsigned char>(place * 31 + (place >> 8) * 7); }

long stream_bytes(size_t size) {
    std::vector<unsigned char> bytes(size);
    for (size_t i = 0; i < size; ++i)
        bytes[i] = byte_at(streamed + i);
    const long result = send(connection, bytes.data(), size, MSG_NOSIGNAL);
    streamed += result > 0 ? static_cast<uint64_t>(result) : 0;
    return result;
}

/// @return -4 for bytes that were not sent, or not in this place.
long check_bytes(size_t size, int flags) {
    const long result = receive_bytes(size, flags);
    for (long i = 0; i < result; ++i)
        if (received[static_cast<size_t>(i)] != byte_at(checked++))
            return -4;
    return result;
}

long wait_in_epoll(unsigned events, int timeout) {
    if (set < 0) {
        set = epoll_create1(0);
        epoll_event event{};
        event.events = events;
        if (epoll_ctl(set, EPOLL_CTL_ADD, connection, &event) != 0)
            return -1;
    } else {
        epoll_event event{};
        event.events = events;
        epoll_ctl(set, EPOLL_CTL_MOD, connection, &event);
    }
    epoll_event event{};
    const int count = epoll_wait(set, &event, 1, timeout);
    return count == 1 ? static_cast<long>(event.events) : count;
}

long wait_in_poll(short events, int timeout) {
    pollfd one{connection, events, 0};
    const int count = poll(&one, 1, timeout);
    return count == 1 ? one.revents : count;
}

/// The connection to ourselves: sends and receives some bytes, and compares. @return 0, or -1 with errno 0.
long own_round() {
    errno = 0;
    if (own[0] < 0) {
        int side = -1;
        const int port = listen_somewhere(side);
        own[0] = connect_to(port);
        own[1] = accept(side, nullptr, nullptr);
        close(side);
        set_timeout(own[1], 5000);
    }
    unsigned char out[100];
    unsigned char in[100];
    for (auto& byte : out)
        byte = static_cast<unsigned char>(own_sent++ * 31);
    if (send(own[0], out, sizeof out, 0) != sizeof out ||
        recv(own[1], in, sizeof in, MSG_WAITALL) != sizeof in)
        return -1;
    return memcmp(in, out, sizeof in) == 0 ? 0 : -1;
}

long count_descriptors() {
    DIR* const directory = opendir("/proc/self/fd");
    long count = -3;  // ".", ".." and the directory itself
    while (readdir(directory) != nullptr)
        ++count;
    closedir(directory);
    return count;
}

long resident_kib() {
    FILE* const file = fopen("/proc/self/statm", "r");
    long size = 0;
    long resident = 0;
    if (fscanf(file, "%ld %ld", &size, &resident) != 2)
        resident = -1;
    fclose(file);
    return resident * 4;
}

/// Memory that is this process's alone.
long private_kib() {
    FILE* const file = fopen("/proc/self/status", "r");
    char line[256];
    long found = -1;
    while (fgets(line, sizeof line, file) != nullptr)
        sscanf(line, "RssAnon: %ld", &found);
    fclose(file);
    return found;
}

/// Random operations for a while, none of which may wait for long. @return the longest one, in microseconds.
long random_operations(int milliseconds, uint64_t seed) {
    std::mt19937_64 random(seed);
    long longest = 0;
    set_timeout(connection, 20);
    for (const int64_t end = now_us() + milliseconds * 1000LL; now_us() < end;) {
        const int64_t start = now_us();
        const size_t sizes[] = {1, 100, 5000, 300'000, 2'000'000};
        const size_t size = 1 + random() % sizes[random() % 5];
        const int timeout = random() % 4 == 0 ? 20 : 0;
        int flags = timeout == 0 ? MSG_DONTWAIT : 0;
        switch (random() % 10) {
        case 0:
        case 1:
            send_bytes(size, flags);
            break;
        case 2:
        case 3:
            receive_bytes(size, flags);
            break;
        case 4:
            receive_bytes(size, flags | MSG_PEEK);
            break;
        case 5:
            receive_bytes(size, flags | (random() % 2 == 0 ? MSG_TRUNC : MSG_WAITALL));
            break;
        case 6:
            wait_in_poll(static_cast<short>(random() % 2 == 0 ? POLLIN : POLLIN | POLLOUT), timeout);
            break;
        case 7:
            wait_in_epoll(random() % 2 == 0 ? EPOLLIN : EPOLLIN | EPOLLOUT | EPOLLET, timeout);
            break;
        case 8: {
            int waiting = 0;
            ioctl(connection, FIONREAD, &waiting);
            break;
        }
        default:
            if (own_round() != 0)
                abort();
        }
        longest = std::max(longest, static_cast<long>(now_us() - start));
    }
    return longest;
}

/// As a careful program does it after it has opened what it needs: from here on only what it does by itself,
/// anything else ends it.
long enter_sandbox() {
    static const int kAllowed[] = {
        SYS_read,       SYS_write,      SYS_sendto,       SYS_recvfrom, SYS_close,      SYS_shutdown,
        SYS_exit_group, SYS_exit,       SYS_brk,          SYS_mmap,     SYS_munmap,     SYS_clock_gettime,
        SYS_poll,       SYS_setsockopt, SYS_rt_sigreturn, SYS_futex,    SYS_newfstatat, SYS_fstat};
    std::vector<sock_filter> filter;
    filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    for (const int number : kAllowed) {
        filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1));
        filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    }
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

/// A child that holds all that we hold, and does nothing.
pid_t relative = -1;
int relative_end = -1;

long begin_relative() {
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    relative = fork();
    if (relative == 0) {
        close(ends[1]);
        char byte;
        _exit(read(ends[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(ends[0]);
    relative_end = ends[1];
    return relative > 0 ? 0 : -1;
}

long end_relative() {
    close(relative_end);
    return waitpid(relative, nullptr, 0) == relative ? 0 : -1;
}

/// Executes itself, without the connection; the new image answers.
long execute_anew() {
    fcntl(connection, F_SETFD, FD_CLOEXEC);
    setenv("VICTIM_BEGAN", std::to_string(now_us()).c_str(), 1);
    return execl("/proc/self/exe", "victim", static_cast<char*>(nullptr));
}

/// And one that fails.
long execute_nothing() {
    fcntl(connection, F_SETFD, FD_CLOEXEC);
    return execl("/nonexistent", "nothing", static_cast<char*>(nullptr));
}

long run(const std::string& name, long a, long b) {
    if (name == "connect" || name == "accept")
        streamed = checked = 0;
    if (name == "connect")
        return (connection = connect_to(static_cast<int>(a), static_cast<int>(b))) >= 0 ? 0 : -1;
    if (name == "setuid")
        return setuid(static_cast<uid_t>(a));
    if (name == "chroot")
        return chroot("/var/empty") == 0 || chroot("/usr/share") == 0 ? chdir("/") : -1;
    if (name == "sandbox")
        return enter_sandbox();
    if (name == "exec")
        return execute_anew();
    if (name == "noexec")
        return execute_nothing();
    if (name == "unshare")
        return unshare(static_cast<int>(a));
    if (name == "fork")
        return begin_relative();
    if (name == "unfork")
        return end_relative();
    if (name == "unmarked") {  // what opts in is the process, if at all
        marks = a == 0;
        return 0;
    }
    if (name == "listen")
        return listen_somewhere(listener);
    if (name == "accept")
        return (connection = accept(listener, nullptr, nullptr)) >= 0 ? 0 : -1;
    if (name == "pending") {  // somebody can be accepted
        pollfd one{listener, POLLIN, 0};
        return poll(&one, 1, 0);
    }
    if (name == "timeout") {
        set_timeout(connection, static_cast<int>(a));
        return 0;
    }
    if (name == "send")
        return send_bytes(static_cast<size_t>(a), static_cast<int>(b));
    if (name == "recv")
        return receive_bytes(static_cast<size_t>(a), static_cast<int>(b));
    if (name == "stream")
        return stream_bytes(static_cast<size_t>(a));
    if (name == "check")
        return check_bytes(static_cast<size_t>(a), static_cast<int>(b));
    if (name == "poll")
        return wait_in_poll(static_cast<short>(a), static_cast<int>(b));
    if (name == "epoll")
        return wait_in_epoll(static_cast<unsigned>(a), static_cast<int>(b));
    if (name == "calls") {  // so many receives that find nothing
        for (long i = 0; i < a; ++i)
            receive_bytes(1, MSG_DONTWAIT);
        return 0;
    }
    if (name == "own")
        return own_round();
    if (name == "shutdown")
        return shutdown(connection, static_cast<int>(a));
    if (name == "close") {
        if (set >= 0)
            close(set);
        if (connection >= 0)
            close(connection);
        set = connection = -1;
        return 0;
    }
    if (name == "unlisten") {
        close(listener);
        return 0;
    }
    if (name == "lane" || name == "reason") {
        const auto ask = reinterpret_cast<int (*)(int)>(dlsym(RTLD_DEFAULT, ("loopfast_" + name).c_str()));
        return ask != nullptr ? ask(connection) : -2;
    }
    if (name == "descriptors")
        return count_descriptors();
    if (name == "resident")
        return resident_kib();
    if (name == "private")
        return private_kib();
    if (name == "random")
        return random_operations(static_cast<int>(a), static_cast<uint64_t>(b));
    return -3;
}

}  // namespace

int main() {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (const char* const began = getenv("VICTIM_BEGAN")) {
        printf("0 0 %lld 0 \n", static_cast<long long>(now_us() - atoll(began)));
        fflush(stdout);
        unsetenv("VICTIM_BEGAN");
    }
    char line[256];
    while (fgets(line, sizeof line, stdin) != nullptr) {
        char name[32] = {};
        long a = 0;
        long b = 0;
        sscanf(line, "%31s %ld %ld", name, &a, &b);
        received.clear();
        errno = 0;
        const int64_t start = now_us();
        const int64_t cpu = cpu_us();
        const long result = run(name, a, b);
        const int error = result < 0 ? errno : 0;
        printf("%ld %d %lld %lld ", result, error, static_cast<long long>(now_us() - start),
               static_cast<long long>(cpu_us() - cpu));
        for (size_t i = 0; i < received.size() && i < 64; ++i)
            printf("%02x", received[i]);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
