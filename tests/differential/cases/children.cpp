// Children and threads that are made in other ways than by fork() and pthread_create(), and what of the
// descriptors they share with who made them.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "cases.h"

namespace differential {

namespace {

long status_of(long child) {
    int status = 0;
    return ::waitpid(static_cast<pid_t>(child), &status, 0) == child && WIFEXITED(status)
               ? WEXITSTATUS(status)
               : -1;
}

constexpr int kRounds = 20;

/// Sends something and waits for it to come back. @return false when it does not
bool exchange(int fd, const char* text, size_t size) {
    char bytes[16] = {};
    if (::send(fd, text, size, 0) != static_cast<ssize_t>(size))
        return false;
    for (size_t got = 0; got < size;) {
        const ssize_t now = ::read(fd, bytes + got, size - got);
        if (now <= 0)
            return false;
        got += static_cast<size_t>(now);
    }
    return memcmp(bytes, text, size) == 0;
}

/// What a child does with the connection that it was born with.
int converse(int fd) { return exchange(fd, "child", 5) ? 7 : 1; }

int converse_of(void* fd) { return converse(*static_cast<int*>(fd)); }
int close_of(void* fd) { return ::close(*static_cast<int*>(fd)) == 0 ? 7 : 1; }

long cloned(int (*body)(void*), int fd, int flags) {
    std::vector<char> stack(256 * 1024);
    return status_of(::clone(body, stack.data() + stack.size(), flags | SIGCHLD, &fd));
}

/// A child converses, and then its maker, in turn.
void child_uses_it(const Pair& p, const std::string& how, const std::function<long()>& make) {
    Pending echoing = p.a.start("echo", [fd = p.a.fd()](Outcome& outcome) {
        char bytes[64];
        for (ssize_t size = ::read(fd, bytes, sizeof bytes); size > 0; size = ::read(fd, bytes, sizeof bytes))
            outcome.value += ::send(fd, bytes, static_cast<size_t>(size), 0);
    });
    p.b.call(how, [&]() -> long {
        const timeval limit{5, 0};
        ::setsockopt(p.b.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        for (int round = 0; round < kRounds; ++round) {
            if (const long status = make(); status != 7)
                return -status;
            if (!exchange(p.b.fd(), "again", 5))
                return round;
        }
        return kRounds;
    });
    p.b.close();
    echoing.finish();
}

/// The number is free afterwards in the table that the calling thread has left, if at all.
void other_thread_closes_its_own(const Pair& p, const std::string& how, const std::function<long()>& part) {
    p.b.call(how, [&]() -> long {
        long result = 0;
        std::thread other([&] {
            result = part();
            result = result * 10 + (::close(p.b.fd()) == 0 ? 1 : 2);
            char byte;
            result = result * 10 + (::read(p.b.fd(), &byte, 1) < 0 && errno == EBADF ? 1 : 2);
        });
        other.join();
        return result;
    });
    p.a.send("after");
    p.b.await_bytes(5);
    p.b.recv(100);
    p.b.send("and back");
    p.a.await_bytes(8);
    p.a.recv(100);
    p.b.close();
    p.a.await_end();
    p.a.recv(1);
}

}  // namespace

CASE_THAT(cloned_child_uses_it, kBlocking) {
    child_uses_it(p, "clone", [&] { return cloned(converse_of, p.b.fd(), 0); });
}

CASE_THAT(cloned_child_uses_it_and_is_waited_for, kBlocking) {
    child_uses_it(p, "clone", [&] { return cloned(converse_of, p.b.fd(), CLONE_VFORK); });
}

CASE_THAT(underscore_forked_child_uses_it, kBlocking) {
    child_uses_it(p, "_Fork", [&]() -> long {
        const pid_t child = ::_Fork();
        if (child == 0)
            ::_exit(converse(p.b.fd()));
        return status_of(child);
    });
}

CASE_THAT(cloned_child_with_our_descriptors_uses_it, kBlocking) {
    child_uses_it(p, "clone, CLONE_FILES", [&] { return cloned(converse_of, p.b.fd(), CLONE_FILES); });
}

CASE(cloned_child_with_our_descriptors_closes_it) {
    p.b.call("clone, CLONE_FILES", [&] { return cloned(close_of, p.b.fd(), CLONE_FILES); });
    p.a.await_end();
    p.a.recv(1);
    p.b.send("x");
    p.b.recv(1);
}

CASE(cloned_child_with_our_descriptors_and_memory_closes_it) {
    p.b.call("clone, CLONE_FILES and CLONE_VM",
             [&] { return cloned(close_of, p.b.fd(), CLONE_FILES | CLONE_VM | CLONE_VFORK); });
    p.a.await_end();
    p.a.recv(1);
    p.b.send("x");
    p.b.recv(1);
}

CASE(thread_with_its_own_descriptors) {
    other_thread_closes_its_own(p, "unshare", [] { return ::unshare(CLONE_FILES) == 0 ? 1 : 2; });
}

CASE(thread_with_its_own_descriptors_by_number) {
    other_thread_closes_its_own(p, "SYS_unshare",
                                [] { return ::syscall(SYS_unshare, CLONE_FILES) == 0 ? 1 : 2; });
}

CASE(thread_with_its_own_descriptors_by_range) {
    other_thread_closes_its_own(p, "close_range",
                                [] { return ::close_range(4000, 4001, CLOSE_RANGE_UNSHARE) == 0 ? 1 : 2; });
}

/// Of a process with one thread it changes nothing.
CASE(unshared_alone) {
    p.b.call("unshare", [] { return ::unshare(CLONE_FILES); });
    p.a.send("after");
    p.b.await_bytes(5);
    p.b.recv(100);
}

}  // namespace differential
