// Children and threads that are made in other ways than by fork() and pthread_create(), and what of the
// descriptors they share with who made them.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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

/// What a child does with the connection that it was born with.
int converse(int fd) {
    char bytes[4] = {};
    if (::read(fd, bytes, 3) != 3 || memcmp(bytes, "par", 3) != 0)
        return 1;
    return ::send(fd, "child", 5, 0) == 5 ? 7 : 2;
}

int converse_of(void* fd) { return converse(*static_cast<int*>(fd)); }
int close_of(void* fd) { return ::close(*static_cast<int*>(fd)) == 0 ? 7 : 1; }

long cloned(int (*body)(void*), int fd, int flags) {
    std::vector<char> stack(256 * 1024);
    return status_of(::clone(body, stack.data() + stack.size(), flags | SIGCHLD, &fd));
}

/// The child reads what comes first and answers; then its maker goes on.
void child_uses_it(const Pair& p, const std::string& how, const std::function<long()>& make) {
    p.a.send("parent");
    p.b.await_bytes(6);
    p.b.call(how, make);
    p.a.await_bytes(5);
    p.a.recv(100);
    p.b.recv(100);
    p.a.send("still there");
    p.b.await_bytes(11);
    p.b.recv(100);
    p.b.send("and here");
    p.a.await_bytes(8);
    p.a.recv(100);
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

CASE(cloned_child_uses_it) {
    child_uses_it(p, "clone", [&] { return cloned(converse_of, p.b.fd(), 0); });
}

CASE(cloned_child_uses_it_and_is_waited_for) {
    child_uses_it(p, "clone", [&] { return cloned(converse_of, p.b.fd(), CLONE_VFORK); });
}

CASE(underscore_forked_child_uses_it) {
    child_uses_it(p, "_Fork", [&]() -> long {
        const pid_t child = ::_Fork();
        if (child == 0)
            ::_exit(converse(p.b.fd()));
        return status_of(child);
    });
}

CASE(cloned_child_with_our_descriptors_uses_it) {
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
    other_thread_closes_its_own(
        p, "close_range", [] { return ::close_range(4000, 4001, CLOSE_RANGE_UNSHARE) == 0 ? 1 : 2; });
}

/// Of a process with one thread it changes nothing.
CASE(unshared_alone) {
    p.b.call("unshare", [] { return ::unshare(CLONE_FILES); });
    p.a.send("after");
    p.b.await_bytes(5);
    p.b.recv(100);
}

}  // namespace differential
