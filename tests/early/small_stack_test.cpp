// How much stack a call takes that a signal handler makes: programs give their handlers 8 KiB (SIGSTKSZ), of
// which the kernel's frame takes up to 3.5. The kernel's own calls take none.
//
//     small_stack_test [--plain]
#include <arpa/inet.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace {

constexpr size_t kMost = 3072;  ///< more than any call may take, or it does not fit
constexpr size_t kStack = 20480;
constexpr size_t kGuard = 65536;
constexpr unsigned char kUntouched = 0xa5;

bool plain = false;

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "small_stack_test: %s (%s)\n", what, std::strerror(errno));
    _exit(1);
}

int ours = -1;
int peer = -1;
int idle[2];  // a pipe in which nothing ever is
int set = -1;

void connect_both() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    peer = socket(AF_INET, SOCK_STREAM, 0);
    if (!plain && (loopfast_enable(listener, 1) != 0 || loopfast_enable(peer, 1) != 0))
        fail("cannot opt in");
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
        connect(peer, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        (ours = accept(listener, nullptr, nullptr)) < 0)
        fail("no connection");
    close(listener);
    char byte = 0;
    for (int round = 0; round < 1000 && !plain && (loopfast_lane(ours) != 1 || loopfast_lane(peer) != 1);
         ++round)
        for (const int from : {peer, ours})
            if (send(from, &byte, 1, 0) != 1 || recv(from == peer ? ours : peer, &byte, 1, 0) != 1)
                fail("no exchange");
    if (!plain && loopfast_lane(ours) != LOOPFAST_LANE_RING)
        fail("not on the ring");
}

// What the handler does. Each call finds nothing, waits for a millisecond where it can, and has an ordinary
// descriptor besides the stream.
constexpr long kWait = 1'000'000;
int handle_nothing() { return 0; }
int handle_poll() {
    pollfd fds[2] = {{ours, POLLIN, 0}, {idle[0], POLLIN, 0}};
    return poll(fds, 2, 1);
}
int handle_ppoll() {
    pollfd fds[2] = {{ours, POLLIN, 0}, {idle[0], POLLIN, 0}};
    const timespec limit{0, kWait};
    return ppoll(fds, 2, &limit, nullptr);
}
int handle_poll_at_once() {
    pollfd one{ours, POLLIN, 0};
    return poll(&one, 1, 0);
}
int handle_select() {
    fd_set reading;
    FD_ZERO(&reading);
    FD_SET(ours, &reading);
    FD_SET(idle[0], &reading);
    timeval limit{0, kWait / 1000};
    return select(FD_SETSIZE, &reading, nullptr, nullptr, &limit);
}
int handle_pselect() {
    fd_set reading;
    FD_ZERO(&reading);
    FD_SET(ours, &reading);
    const timespec limit{0, kWait};
    return pselect(ours + 1, &reading, nullptr, nullptr, &limit, nullptr);
}
int handle_epoll() {
    epoll_event events[2];
    return epoll_wait(set, events, 2, 1);
}
int handle_recv() {
    char byte;
    return recv(ours, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN ? 0 : -1;
}
int handle_waiting_recv() {
    char byte;
    return recv(ours, &byte, 1, 0) < 0 && errno == EAGAIN ? 0 : -1;  // SO_RCVTIMEO
}
int handle_exchange() {
    char byte = 0;
    pollfd one{ours, POLLIN, 0};
    if (send(peer, &byte, 1, 0) != 1 || poll(&one, 1, 1000) != 1)
        return -1;
    return recv(ours, &byte, 1, 0) == 1 ? 0 : -1;
}

int (*handle)() = nullptr;
int result = 0;

unsigned char* stack = nullptr;

/// The most of the stack that a handler took which did this, `rounds` times.
size_t depth_of(int (*work)(), int rounds) {
    handle = work;
    std::memset(stack, kUntouched, kStack);
    for (int i = 0; i < rounds; ++i) {
        raise(SIGUSR1);
        if (result != 0)
            fail("the call found something, or failed");
    }
    size_t untouched = 0;
    while (untouched < kStack && stack[untouched] == kUntouched)
        ++untouched;
    return kStack - untouched;
}

}  // namespace

int main(int argc, char** argv) {
    plain = argc > 1 && std::strcmp(argv[1], "--plain") == 0;
    connect_both();
    epoll_event event{EPOLLIN, {}};
    set = epoll_create1(0);
    if (pipe(idle) != 0 || epoll_ctl(set, EPOLL_CTL_ADD, ours, &event) != 0)
        fail("no descriptors");
    const timeval limit{0, 1000};
    setsockopt(ours, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);

    void* const memory =
        mmap(nullptr, kGuard + kStack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        fail("no stack");
    stack = static_cast<unsigned char*>(memory) + kGuard;
    if (mprotect(stack, kStack, PROT_READ | PROT_WRITE) != 0)
        fail("no stack");
    stack_t other{};
    other.ss_sp = stack;
    other.ss_size = kStack;
    struct sigaction action {};
    action.sa_handler = [](int) {
        const int error = errno;
        result = handle();
        errno = error;
    };
    action.sa_flags = SA_ONSTACK;
    if (sigaltstack(&other, nullptr) != 0 || sigaction(SIGUSR1, &action, nullptr) != 0)
        fail("no handler");

    const struct {
        const char* name;
        int (*work)();
    } calls[] = {{"poll", handle_poll},        {"poll at once", handle_poll_at_once},
                 {"ppoll", handle_ppoll},      {"select", handle_select},
                 {"pselect", handle_pselect},  {"epoll_wait", handle_epoll},
                 {"recv", handle_recv},        {"recv that waits", handle_waiting_recv},
                 {"exchange", handle_exchange}};
    depth_of(handle_nothing, 1);  // what is called first is looked up on this stack
    const size_t base = depth_of(handle_nothing, 1);
    bool good = true;
    for (const auto& [name, work] : calls) {
        depth_of(work, 1);
        const size_t depth = depth_of(work, 200) - base;
        std::printf("%-16s %zu\n", name, depth);
        good = good && depth <= kMost;
    }
    if (!good)
        std::fprintf(stderr, "small_stack_test: a call takes more than %zu bytes of stack\n", kMost);
    return good ? 0 : 1;
}
