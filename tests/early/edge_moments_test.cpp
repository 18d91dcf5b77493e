// A byte that comes at each instruction of a look at an edge-triggered set that asks for bytes and for room.
// There is room all the time; so a look that found no bytes yet, but took the position of those that came a
// moment later for told, told of room, and of the bytes never. A child is stepped through its epoll_wait, and
// at each instruction the same call is made once more with a handler there that sends the byte from the other
// end. An end is told of, and told of once.
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>

#include "connection.h"
#include "mark.h"

namespace {

Connection connection;

/// What both look at.
struct Shared {
    std::atomic<bool> inside;  ///< the call is under way
    std::atomic<bool> came;
    std::atomic<bool> lost;
    std::atomic<bool> twice;
};
Shared* shared;

// ---- the child

uint32_t look(int set) {
    epoll_event event{};
    return epoll_wait(set, &event, 1, 0) == 1 ? event.events : 0;
}

/// What comes.
struct News {
    const char* name;
    void (*prepare)(int set);  ///< before each look
    void (*come)();            ///< the handler
    uint32_t events;           ///< which of them has to be told
};

void enter(int set) {
    epoll_event wanted{EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {}};
    epoll_ctl(set, EPOLL_CTL_ADD, connection.ours, &wanted);
}

char bytes[65536];

void take_all(int fd) {
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
    }
}

void begin_anew(int set) {
    close(connection.ours);
    close(connection.peer);
    connection = connect_to_itself();
    enter(set);
}

constexpr News kNews[] = {
    {"a byte", [](int) { take_all(connection.ours); }, [] { send(connection.peer, "x", 1, MSG_DONTWAIT); },
     EPOLLIN},
    {"room",
     [](int) {
         while (send(connection.ours, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
         }
     },
     [] { take_all(connection.peer); }, EPOLLOUT},
    {"the end", begin_anew, [] { shutdown(connection.peer, SHUT_WR); }, EPOLLRDHUP},
    {"the end beside a byte", begin_anew, [] { shutdown(connection.peer, SHUT_WR); }, EPOLLRDHUP}};
const News* news = kNews;

[[noreturn]] void run_child() {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    connection = connect_to_itself();
    struct sigaction action {};
    action.sa_handler = [](int) {
        news->come();
        shared->came.store(true);
    };
    sigaction(SIGUSR1, &action, nullptr);
    const int set = epoll_create1(0);
    enter(set);
    if (ptrace(PTRACE_TRACEME) != 0)
        _exit(77);
    for (;;) {
        news->prepare(set);
        while (look(set) != 0) {
        }
        if (news == &kNews[3])
            send(connection.peer, "x", 1, MSG_DONTWAIT);
        shared->came.store(false);
        mark();
        shared->inside.store(true);
        uint32_t told = look(set);
        shared->inside.store(false);
        int times = (told & news->events) != 0 ? 1 : 0;
        for (int i = 0; i < 3; ++i) {
            const uint32_t more = look(set);
            told |= more;
            times += (more & news->events) != 0 ? 1 : 0;
        }
        if (shared->came.load() && (told & news->events) == 0)
            shared->lost.store(true);
        if (times > 1 && news->events == EPOLLRDHUP)
            shared->twice.store(true);
    }
}

// ---- the parent

pid_t child = -1;

void to_stop(int signal) {
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
        std::fprintf(stderr, "edge_moments_test: the child ended: %#x\n", static_cast<unsigned>(status));
        _exit(WIFEXITED(status) && WEXITSTATUS(status) == 77 ? 77 : 1);
    }
    if (WSTOPSIG(status) != signal)
        fail("another signal");
}

constexpr int kMost = 30'000;

bool try_news(int stride) {
    child = fork();
    if (child == 0)
        run_child();
    to_stop(SIGTRAP);
    for (int i = 0; i < 5; ++i) {  // what is done once is done
        ptrace(PTRACE_CONT, child, 0, 0);
        to_stop(SIGTRAP);
    }
    constexpr int kOften = 700;  ///< the scan is among these
    int moments = 0;
    int lost = 0;
    int twice = 0;
    for (int at = 1, steps = 0; at < kMost; at += at < kOften ? 3 : stride) {
        bool begun = false;
        for (steps = 0; steps < at && !(begun && !shared->inside.load()); ++steps) {
            ptrace(PTRACE_SINGLESTEP, child, 0, 0);
            to_stop(SIGTRAP);
            begun = begun || shared->inside.load();
        }
        if (steps < at)
            break;  // the call is over by then
        ptrace(PTRACE_CONT, child, 0, SIGUSR1);
        to_stop(SIGTRAP);
        ++moments;
        if (shared->lost.exchange(false)) {
            std::fprintf(stderr, "%s that comes at instruction %d is never told of\n", news->name, at);
            ++lost;
        }
        if (shared->twice.exchange(false)) {
            std::fprintf(stderr, "%s that comes at instruction %d is told of twice\n", news->name, at);
            ++twice;
        }
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    std::printf("%s at %d moments of epoll_wait, %d lost, %d told twice\n", news->name, moments, lost, twice);
    std::fflush(stdout);
    return lost == 0 && twice == 0 && moments >= 5;
}

}  // namespace

/// edge_moments_test [STRIDE]: every third of the first instructions, and of the others only one in so many.
int main(int argc, char** argv) {
    const int stride = argc > 1 ? std::atoi(argv[1]) : 1;
    shared = static_cast<Shared*>(
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    bool good = true;
    for (const News& one : kNews) {
        news = &one;
        good = try_news(stride) && good;
    }
    return good ? 0 : 1;
}
