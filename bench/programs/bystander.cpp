// bystander: what the library costs a program that has nothing to do with it: files, pipes, processes.
//
//     bystander list                          names the operations
//     bystander time OPERATION [--seconds S]  nanoseconds for one, the median of many short rounds
//     bystander count OPERATION               instructions and system calls in user space for one
//
// Each prints one JSON object. It is run as it is and again with the library preloaded. Times tell what a
// program notices; counts tell what is there to be noticed, on a busy machine too: the parent steps its child
// through the operation with ptrace, one instruction after the other, so the number is exact and needs no
// counter of the processor (which virtual machines often do not have).
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

namespace {

[[noreturn]] void die(const char* what) {
    std::fprintf(stderr, "bystander: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
}

/// What the operations work on, made before anything is measured.
struct Things {
    int null = -1;          ///< /dev/null
    int file = -1;          ///< an unlinked file of one page
    int pipe[2] = {};       ///< with a byte in it, so that its reading end is always ready
    int set = -1;           ///< an epoll set with that pipe
    int local[2] = {};      ///< a pair of AF_UNIX stream sockets
    const char* self = "";  ///< this program
} things;

void make_things() {
    things.null = open("/dev/null", O_RDWR | O_CLOEXEC);
    things.file = memfd_create("bystander", MFD_CLOEXEC);
    if (things.null < 0 || things.file < 0 || ftruncate(things.file, 4096) != 0 || pipe(things.pipe) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, things.local) != 0)
        die("cannot prepare");
    things.set = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{};
    event.events = EPOLLIN;
    if (write(things.pipe[1], "x", 1) != 1 ||
        epoll_ctl(things.set, EPOLL_CTL_ADD, things.pipe[0], &event) != 0)
        die("cannot prepare");
}

// NOLINTBEGIN(bugprone-unused-return-value): what is measured is the call
void check(bool good) {
    if (!good)
        die("the operation failed");
}

void close_file() {
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    check(close(fd) == 0);
}
void read_file() {
    char bytes[64];
    check(lseek(things.file, 0, SEEK_SET) == 0 && read(things.file, bytes, sizeof bytes) == sizeof bytes);
}
void write_null() {
    const char bytes[64] = {};
    check(write(things.null, bytes, sizeof bytes) == sizeof bytes);
}
void writev_null() {
    char bytes[64] = {};
    const iovec parts[2] = {{bytes, 32}, {bytes + 32, 32}};
    check(writev(things.null, parts, 2) == sizeof bytes);
}
void pipe_both_ways() {
    char bytes[64] = {};
    check(write(things.pipe[1], bytes, sizeof bytes) == sizeof bytes &&
          read(things.pipe[0], bytes, sizeof bytes) == sizeof bytes);
}
void local_both_ways() {
    char bytes[64] = {};
    check(send(things.local[1], bytes, sizeof bytes, 0) == sizeof bytes &&
          recv(things.local[0], bytes, sizeof bytes, 0) == sizeof bytes);
}
void poll_pipe() {
    pollfd one{things.pipe[0], POLLIN, 0};
    check(poll(&one, 1, 0) == 1);
}
void select_pipe() {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(things.pipe[0], &set);
    timeval now{};
    check(select(things.pipe[0] + 1, &set, nullptr, nullptr, &now) == 1);
}
void epoll_pipe() {
    epoll_event event;
    check(epoll_wait(things.set, &event, 1, 0) == 1);
}
void epoll_change() {
    epoll_event event{};
    event.events = EPOLLIN;
    check(epoll_ctl(things.set, EPOLL_CTL_MOD, things.pipe[0], &event) == 0);
}
void epoll_make() {
    const int set = epoll_create1(EPOLL_CLOEXEC);
    check(close(set) == 0);
}
void duplicate() { check(close(dup(things.null)) == 0); }
void flags() { check(fcntl(things.null, F_GETFL) >= 0); }
void tcp_socket() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(close(fd) == 0);
}
void fork_wait() {
    const pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    int status = 1;
    check(waitpid(pid, &status, 0) == pid && status == 0);
}
void vfork_exec() {
    const pid_t pid = vfork();
    if (pid == 0) {
        execl(things.self, things.self, "nothing", nullptr);
        _exit(127);
    }
    int status = 1;
    check(waitpid(pid, &status, 0) == pid && status == 0);
}
// NOLINTEND(bugprone-unused-return-value)

struct Operation {
    const char* name;
    void (*run)();
    int counted;  ///< rounds that are enough for a count
};
constexpr Operation kOperations[] = {
    {"close", close_file, 16},
    {"read-file", read_file, 16},
    {"write-null", write_null, 16},
    {"writev-null", writev_null, 16},
    {"pipe", pipe_both_ways, 16},
    {"unix-socket", local_both_ways, 16},
    {"poll", poll_pipe, 16},
    {"select", select_pipe, 16},
    {"epoll_wait", epoll_pipe, 16},
    {"epoll_ctl", epoll_change, 16},
    {"epoll_create", epoll_make, 16},
    {"dup", duplicate, 16},
    {"fcntl", flags, 16},
    {"tcp-socket", tcp_socket, 16},
    {"fork", fork_wait, 2},
    {"exec", vfork_exec, 1},
};

uint64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(t.tv_nsec);
}

void time_it(const Operation& operation, double seconds) {
    for (int i = 0; i < 4; ++i)
        operation.run();
    // Rounds of about 50 us: short enough that most of them meet no other program.
    int batch = 1;
    for (;; batch *= 2) {
        const uint64_t begin = now_ns();
        for (int i = 0; i < batch; ++i)
            operation.run();
        if (now_ns() - begin >= 50'000)
            break;
    }
    std::vector<double> rounds;
    const uint64_t end = now_ns() + static_cast<uint64_t>(seconds * 1e9);
    do {
        const uint64_t begin = now_ns();
        for (int i = 0; i < batch; ++i)
            operation.run();
        rounds.push_back(static_cast<double>(now_ns() - begin) / batch);
    } while (now_ns() < end);
    std::nth_element(rounds.begin(), rounds.begin() + static_cast<long>(rounds.size() / 2), rounds.end());
    std::printf("{\"ns\": %.1f, \"rounds\": %zu}\n", rounds[rounds.size() / 2], rounds.size());
}

struct Count {
    long instructions = 0;
    long calls = 0;
};

/// Is the next instruction of the stopped child a system call?
bool at_system_call(pid_t pid) {
#if defined(__x86_64__)
    user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, pid, nullptr, &registers) != 0)
        die("ptrace");
    const long code = ptrace(PTRACE_PEEKTEXT, pid, registers.rip, nullptr);
    return (code & 0xffff) == 0x050f;
#else
    user_regs_struct registers;
    iovec part{&registers, sizeof registers};
    constexpr long kGeneralRegisters = 1;  // NT_PRSTATUS
    if (ptrace(PTRACE_GETREGSET, pid, kGeneralRegisters, &part) != 0)
        die("ptrace");
    const long code = ptrace(PTRACE_PEEKTEXT, pid, registers.pc, nullptr);
    return (static_cast<uint32_t>(code) & 0xffffffe0U) == 0xd4000000U;
#endif
}

/// Steps a stopped child to its next SIGSTOP, or to its end; and the children that it makes meanwhile to
/// theirs.
Count step(pid_t pid) {
    Count count;
    if (ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK) != 0)
        die("ptrace");
    for (int deliver = 0;;) {
        count.calls += at_system_call(pid);
        if (ptrace(PTRACE_SINGLESTEP, pid, nullptr, static_cast<long>(deliver)) != 0)
            die("ptrace");
        int status;
        if (waitpid(pid, &status, __WALL) != pid)
            die("waitpid");
        if (!WIFSTOPPED(status)) {
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                die("the child failed");
            return count;
        }
        ++count.instructions;
        if (status >> 16 != 0) {
            unsigned long made = 0;
            ptrace(PTRACE_GETEVENTMSG, pid, nullptr, &made);
            const auto child = static_cast<pid_t>(made);
            if (waitpid(child, &status, __WALL) != child || !WIFSTOPPED(status))
                die("its child did not stop");
            const Count more = step(child);
            count.instructions += more.instructions;
            count.calls += more.calls;
        } else if (WSTOPSIG(status) == SIGSTOP) {
            return count;
        }
        // The end of its own child is its business.
        deliver = WSTOPSIG(status) == SIGCHLD ? SIGCHLD : 0;
    }
}

/// The child runs the operation so often between two stops.
Count counted(const Operation& operation, int rounds) {
    const pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        make_things();
        for (int i = 0; i < 2; ++i)
            operation.run();
        raise(SIGSTOP);
        for (int i = 0; i < rounds; ++i)
            operation.run();
        raise(SIGSTOP);
        std::_Exit(0);
    }
    // On its way there it is told of the ends of its own children.
    int status;
    for (;;) {
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
            die("the child did not stop");
        if (WSTOPSIG(status) == SIGSTOP)
            break;
        ptrace(PTRACE_CONT, pid, nullptr, static_cast<long>(WSTOPSIG(status)));
    }
    const Count count = step(pid);
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return count;
}

/// All that a program does from its first instruction to its last which does nothing.
Count counted_start() {
    const pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        execl(things.self, things.self, "nothing", nullptr);
        _exit(127);
    }
    int status;
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        die("the child did not stop");
    return step(pid);
}

void count_it(const Operation& operation) {
    // The difference of two counts: what stands around the operation is in both.
    const Count few = counted(operation, operation.counted);
    const Count many = counted(operation, 2 * operation.counted);
    std::printf("{\"instructions\": %.1f, \"calls\": %.2f}\n",
                static_cast<double>(many.instructions - few.instructions) / operation.counted,
                static_cast<double>(many.calls - few.calls) / operation.counted);
}

}  // namespace

int main(int argc, char** argv) {
    const std::string verb = argc > 1 ? argv[1] : "";
    const std::string name = argc > 2 ? argv[2] : "";
    if (verb == "nothing")
        return 0;
    static char self[4096];
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        die("/proc/self/exe");
    things.self = self;
    if (verb == "list") {
        for (const Operation& operation : kOperations)
            std::printf("%s\n", operation.name);
        std::printf("start\n");
        return 0;
    }
    if (verb == "count" && name == "start") {
        const Count count = counted_start();
        std::printf("{\"instructions\": %ld, \"calls\": %ld}\n", count.instructions, count.calls);
        return 0;
    }
    for (const Operation& operation : kOperations) {
        if (name != operation.name)
            continue;
        if (verb == "count") {
            count_it(operation);
            return 0;
        }
        if (verb == "time") {
            make_things();
            time_it(operation, argc > 4 ? std::strtod(argv[4], nullptr) : 0.3);
            return 0;
        }
    }
    std::fprintf(stderr, "usage: bystander list | time OPERATION [--seconds S] | count OPERATION\n");
    return 2;
}
