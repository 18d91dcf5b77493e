// Threads in user space that a signal handler switches (swapcontext), also in the middle of calls that wait:
// each has a connection of its own. What they exchange is right, and when all is closed the other end hears
// the end of each connection: no call is counted as under way that is over.
#include <arpa/inet.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "require.h"

namespace {

constexpr int kContexts = 6;
constexpr int kExchanges = 300;
constexpr size_t kMost = 3000;  ///< bytes of a message
constexpr size_t kStack = 256 * 1024;

ucontext_t contexts[kContexts];
ucontext_t main_context;
int connections[kContexts];
bool over[kContexts];
int current = -1;
int switches = 0;

void switch_on() {
    const int from = current;
    for (int i = 1; i <= kContexts; ++i) {
        const int next = (from + i) % kContexts;
        if (over[next] || next == from)
            continue;
        current = next;
        ++switches;
        swapcontext(&contexts[from], &contexts[next]);
        return;
    }
}

void on_alarm(int) {
    const int error = errno;
    if (current >= 0)
        switch_on();
    errno = error;
}

/// No memory of malloc's, which one context may be in the middle of when another one is switched to.
char sent[kContexts][kMost];
char received[kContexts][kMost];

/// A whole message is sent or received.
template <typename Call> void all_of(char* bytes, size_t size, Call call) {
    for (size_t done = 0; done < size;) {
        const ssize_t now = call(bytes + done, size - done);
        REQUIRE(now > 0 || (now < 0 && errno == EINTR));
        done += now > 0 ? static_cast<size_t>(now) : 0;
    }
}

void converse(int own) {
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &alarm, nullptr);
    const int fd = connections[own];
    for (int i = 0; i < kExchanges; ++i) {
        const size_t size = 1 + static_cast<size_t>(i * 7919 + own * 31) % kMost;
        for (size_t k = 0; k < size; ++k)
            sent[own][k] = static_cast<char>(k * 7 + static_cast<size_t>(i + own));
        all_of(sent[own], size, [fd](char* from, size_t left) { return send(fd, from, left, 0); });
        if (i % 5 == 0) {
            pollfd one{fd, POLLIN, 0};
            poll(&one, 1, -1);
        }
        all_of(received[own], size, [fd](char* to, size_t left) { return recv(fd, to, left, 0); });
        REQUIRE(memcmp(received[own], sent[own], size) == 0);
    }
    sigprocmask(SIG_BLOCK, &alarm, nullptr);
    over[own] = true;
    switch_on();
    setcontext(&main_context);  // the last one
}

/// Sends back what comes, until each connection has ended.
[[noreturn]] void echo(int listener) {
    pollfd ends[kContexts];
    for (pollfd& end : ends)
        end = {accept(listener, nullptr, nullptr), POLLIN, 0};
    char bytes[4096];
    for (int open = kContexts; open > 0;) {
        if (poll(ends, kContexts, 20'000) <= 0)
            _exit(1);
        for (pollfd& end : ends) {
            if (end.revents == 0)
                continue;
            const ssize_t size = read(end.fd, bytes, sizeof bytes);
            if (size <= 0) {
                close(end.fd);
                end.fd = -1;
                --open;
            }
            for (ssize_t done = 0; done < size;) {
                const ssize_t back = write(end.fd, bytes + done, static_cast<size_t>(size - done));
                if (back <= 0)
                    _exit(2);
                done += back;
            }
        }
    }
    _exit(0);
}

void set_timer(suseconds_t microseconds) {
    const itimerval timer{{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, nullptr);
}

void round_of_all() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    REQUIRE(ioctl(listener, SIO_LOOPBACK_FAST_PATH, &on) == 0);
    REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
            listen(listener, kContexts) == 0);
    REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    const pid_t child = fork();
    if (child == 0)
        echo(listener);
    close(listener);
    static char stacks[kContexts][kStack];
    for (int i = 0; i < kContexts; ++i) {
        connections[i] = socket(AF_INET, SOCK_STREAM, 0);
        REQUIRE(ioctl(connections[i], SIO_LOOPBACK_FAST_PATH, &on) == 0);
        REQUIRE(connect(connections[i], reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        over[i] = false;
        getcontext(&contexts[i]);
        contexts[i].uc_stack.ss_sp = stacks[i];
        contexts[i].uc_stack.ss_size = kStack;
        sigaddset(&contexts[i].uc_sigmask, SIGALRM);
        makecontext(&contexts[i], reinterpret_cast<void (*)()>(converse), 1, i);
    }
    current = 0;
    set_timer(300);
    swapcontext(&main_context, &contexts[0]);
    set_timer(0);
    current = -1;
    for (const int fd : connections)
        close(fd);
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
}

}  // namespace

int main() {
    struct sigaction action {};
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    constexpr int kRounds = 12;
    for (int i = 0; i < kRounds; ++i)
        round_of_all();
    printf("switched %d times\n", switches);
    REQUIRE(switches > kRounds);
}
