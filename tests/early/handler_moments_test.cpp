// A signal handler at each instruction of a call that waits. Inside a call the kernel runs no handler: one
// that comes ends the wait (EINTR). A library's call is user code in which it could run unseen, and the call
// would then sleep although the program's handler has asked it to come back. So a child is stepped through
// its call up to the sleep, and at each instruction the same call is made once more with the handler there.
// The first instructions are as those before the call: a handler there comes before it, as over the kernel
// one in libc's wrapper does. From the first moment at which it is noticed it has to be always.
#include <arpa/inet.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "connection.h"
#include "mark.h"

namespace {

Connection connection;
int set = -1;

struct Call {
    const char* name;
    long (*make)();
};
constexpr Call kCalls[] = {{"recv",
                            [] {
                                char byte;
                                return static_cast<long>(recv(connection.ours, &byte, 1, 0));
                            }},
                           {"readv",
                            [] {
                                char byte;
                                const iovec part{&byte, 1};
                                return static_cast<long>(readv(connection.ours, &part, 1));
                            }},
                           {"poll",
                            [] {
                                pollfd one{connection.ours, POLLIN, 0};
                                return static_cast<long>(poll(&one, 1, -1));
                            }},
                           {"select",
                            [] {
                                fd_set wanted;
                                FD_ZERO(&wanted);
                                FD_SET(connection.ours, &wanted);
                                return static_cast<long>(
                                    select(connection.ours + 1, &wanted, nullptr, nullptr, nullptr));
                            }},
                           {"epoll_wait",
                            [] {
                                epoll_event event;
                                return static_cast<long>(epoll_wait(set, &event, 1, -1));
                            }},
                           {"epoll_wait with a timeout", [] {
                                epoll_event event;
                                return static_cast<long>(epoll_wait(set, &event, 1, 100'000));
                            }}};

// ---- the child

[[noreturn]] void run_child(const Call& call, int flags, bool threads) {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = flags;
    sigaction(SIGUSR1, &action, nullptr);
    connection = connect_to_itself();
    set = epoll_create1(0);
    epoll_event wanted{EPOLLIN, {}};
    epoll_ctl(set, EPOLL_CTL_ADD, connection.ours, &wanted);
    if (threads) {
        pthread_t idle;
        pthread_create(
            &idle, nullptr,
            [](void*) -> void* {
                sigset_t all;
                sigfillset(&all);
                pthread_sigmask(SIG_BLOCK, &all, nullptr);
                for (;;)
                    pause();
            },
            nullptr);
    }
    if (ptrace(PTRACE_TRACEME) != 0)
        _exit(77);
    for (;;) {
        mark();
        errno = 0;
        const long result = call.make();
        if (result != -1 || errno != EINTR)
            _exit(3);
        mark();
    }
}

// ---- the parent

pid_t child = -1;
int steps = 0;  ///< of the last try

char state_of(pid_t pid) {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE* const file = std::fopen(path, "r");
    char line[256] = "";
    const char* const end =
        file != nullptr && std::fgets(line, sizeof line, file) != nullptr ? std::strrchr(line, ')') : nullptr;
    if (file != nullptr)
        std::fclose(file);
    return end != nullptr ? end[2] : 'X';
}

/// @return the signal it stopped with, or 0 when it sleeps for good.
int stop_or_sleep() {
    // A nap of the library's ends within a tick of our timer or two; a sleep does not.
    int asleep = 0;
    while (asleep < 8) {
        int status = 0;
        if (waitpid(child, &status, 0) != child) {
            asleep = state_of(child) == 'S' ? asleep + 1 : 0;
            continue;
        }
        if (WIFSTOPPED(status))
            return WSTOPSIG(status);
        std::fprintf(stderr, "handler_moments_test: the child ended: %#x\n", static_cast<unsigned>(status));
        _exit(WIFEXITED(status) && WEXITSTATUS(status) == 77 ? 77 : 1);
    }
    return 0;
}

void to_mark() {
    for (;;) {
        ptrace(PTRACE_CONT, child, 0, 0);
        if (const int signal = stop_or_sleep(); signal == SIGTRAP)
            return;
        else if (signal == 0)
            fail("the child hangs");
    }
}

/// Asleep in its call, the child gets the signal, and goes on to the mark behind the call.
void end_sleep() {
    syscall(SYS_tgkill, child, child, SIGUSR1);
    int signal = stop_or_sleep();
    if (signal == SIGTRAP) {  // of a step that led into the sleep
        ptrace(PTRACE_CONT, child, 0, 0);
        signal = stop_or_sleep();
    }
    if (signal != SIGUSR1)
        fail("no signal in the sleep");
    ptrace(PTRACE_CONT, child, 0, SIGUSR1);
    if (stop_or_sleep() != SIGTRAP)
        fail("a signal does not end the sleep");
}

void to_sleep_and_out() {
    ptrace(PTRACE_CONT, child, 0, 0);
    if (stop_or_sleep() != 0)
        fail("the call does not wait");
    end_sleep();
}

enum class Moment { kNoticed, kUnnoticed, kAsleep };

/// One call with the handler on top of its instruction number `at`.
Moment try_moment(int at) {
    to_mark();
    for (steps = 0; steps < at; ++steps) {
        ptrace(PTRACE_SINGLESTEP, child, 0, 0);
        if (stop_or_sleep() == 0) {
            // Through the call into its sleep: the kernel sees to the signal from here on.
            end_sleep();
            return Moment::kAsleep;
        }
    }
    ptrace(PTRACE_CONT, child, 0, SIGUSR1);
    const int signal = stop_or_sleep();
    if (signal == SIGTRAP)
        return Moment::kNoticed;
    if (signal != 0)
        fail("another signal");
    end_sleep();
    return Moment::kUnnoticed;
}

/// As many as the wrappers have (select translates its sets) until the call is known to be on a stream, with
/// room to spare.
constexpr int kBefore = 2000;
constexpr int kMost = 30'000;
/// Where every instruction is tried: those before the system call.
constexpr int kLast = 24;

struct Trial {
    int call;
    bool restart;  ///< SA_RESTART: nothing to a wait for several
    bool threads;  ///< more than one: the sleep is made as a cancellation point
    bool spin;
};
constexpr Trial kTrials[] = {{0, false, false, false}, {0, false, true, false}, {0, false, false, true},
                             {1, false, false, false}, {2, true, false, false}, {3, false, false, false},
                             {4, false, true, false},  {4, true, false, true},  {5, false, false, false}};

const char* self = "";

void start_child(const Trial& trial) {
    child = fork();
    if (child != 0)
        return;
    setenv("LOOPFAST_SPIN", trial.spin ? "auto" : "off", 1);
    char what[4] = {static_cast<char>('0' + trial.call), trial.restart ? 'r' : '-', trial.threads ? 't' : '-',
                    0};
    execl(self, self, "child", what, nullptr);
    _exit(4);
}

bool try_call(const Trial& trial, int stride) {
    const char* const name = kCalls[trial.call].name;
    start_child(trial);
    if (stop_or_sleep() != SIGTRAP)
        fail("no child");
    for (int i = 0; i < 5; ++i) {  // what is done once is done
        to_sleep_and_out();
        ptrace(PTRACE_CONT, child, 0, 0);
        if (stop_or_sleep() != SIGTRAP)
            fail("no next call");
    }
    to_sleep_and_out();
    int first = -1;
    int noticed = 0;
    int at = 1;
    bool good = true;
    const auto look = [&] {
        const Moment moment = try_moment(at);
        if (moment == Moment::kNoticed) {
            first = first < 0 ? at : first;
            ++noticed;
        } else if (moment == Moment::kUnnoticed && first >= 0) {
            std::fprintf(stderr, "%s: a handler at instruction %d is not noticed\n", name, at);
            good = false;
        }
        return moment;
    };
    while (look() != Moment::kAsleep && at < kMost) {
        if (first < 0 && at > kBefore) {
            std::fprintf(stderr, "%s: no handler is noticed at its first %d instructions\n", name, at);
            good = false;
            break;
        }
        at += stride;
    }
    // Each instruction before the system call, where the way there is the same each time.
    if (!trial.spin && good) {
        for (at = kMost; look() != Moment::kAsleep;) {
        }
        const int end = steps;
        for (at = end > kLast ? end - kLast : 1; at < end; ++at)
            look();
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    std::printf("%s%s%s%s: noticed from instruction %d on, at %d moments until the sleep at %d\n", name,
                trial.restart ? ", SA_RESTART" : "", trial.threads ? ", threads" : "",
                trial.spin ? ", after a spin" : "", first, noticed, at);
    std::fflush(stdout);
    if (noticed < 5 || at >= kMost) {
        std::fprintf(stderr, "%s: that are too few, or it never sleeps\n", name);
        good = false;
    }
    return good;
}

}  // namespace

/// handler_moments_test [STRIDE]: each instruction, or only every so many and the last.
int main(int argc, char** argv) {
    if (argc == 3 && std::strcmp(argv[1], "child") == 0)
        run_child(kCalls[argv[2][0] - '0'], argv[2][1] == 'r' ? SA_RESTART : 0, argv[2][2] == 't');
    self = "/proc/self/exe";
    const int stride = argc > 1 ? std::atoi(argv[1]) : 1;
    bool good = stride > 0;
    // Both run on one processor: a step costs two switches, and no message between processors.
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    sched_setaffinity(0, sizeof here, &here);
    struct sigaction tick {};
    tick.sa_handler = [](int) {};
    sigaction(SIGALRM, &tick, nullptr);
    const itimerval every{{0, 4'000}, {0, 4'000}};
    setitimer(ITIMER_REAL, &every, nullptr);
    for (const Trial& trial : kTrials)
        good = good && try_call(trial, stride);
    return good ? 0 : 1;
}
