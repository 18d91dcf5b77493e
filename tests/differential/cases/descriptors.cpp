// Descriptors: duplicates, closing, flags of the open description, what fork and exec pass on.
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "cases.h"

namespace differential {

namespace {

void exchange(const End& from, const End& to) {
    from.send("ping");
    to.await_bytes(4);
    to.recv(10);
}

}  // namespace

CASE(limit_of_descriptors) {
    // No number is given out that the program's own limit forbids.
    p.b.call("the first number that is refused", [&]() -> long {
        rlimit before{};
        ::getrlimit(RLIMIT_NOFILE, &before);
        rlimit low = before;
        low.rlim_cur = 200;
        ::setrlimit(RLIMIT_NOFILE, &low);
        std::vector<int> copies;
        int last = -1;
        for (int copy; (copy = ::dup(p.b.fd())) >= 0; last = copy)
            copies.push_back(copy);
        const bool onto_it = ::dup2(p.b.fd(), 200) >= 0;
        for (const int copy : copies)
            ::close(copy);
        ::setrlimit(RLIMIT_NOFILE, &before);
        return onto_it ? -2 : last + 1;
    });
    exchange(p.a, p.b);
}

namespace {

/// The program allows itself no more descriptors, as sandboxes do.
void allow_none(const End& end, bool for_good) {
    end.call("no descriptors", [for_good] {
        rlimit limit{};
        ::getrlimit(RLIMIT_NOFILE, &limit);
        const rlimit none{0, for_good ? 0 : limit.rlim_max};
        return ::setrlimit(RLIMIT_NOFILE, &none);
    });
}

/// `what` once the other end sleeps. There nothing can be looked at any more, neither /proc nor a poll.
void soon(const End& end, const std::string& name, long (*what)(int fd)) {
    end.quietly(name, [&](Outcome&) {
        std::thread([fd = end.fd(), what] {
            usleep(50'000);
            what(fd);
        }).detach();
    });
}

/// An end without them, in a process of its own.
void serve_without_any(Pair& p, bool for_good) {
    const Actor child = p.script.fork(p.b.actor());
    const End end = p.b.in(child, "child");
    p.b.close();
    soon(p.a, "send", [](int fd) -> long { return ::send(fd, "first", 5, 0); });
    end.recv(10);
    allow_none(end, for_good);
    end.send("pong");
    p.a.await_bytes(4);
    p.a.recv(10);
    soon(p.a, "send", [](int fd) -> long { return ::send(fd, "more", 4, 0); });
    end.recv(10);
    soon(p.a, "shutdown", [](int fd) -> long { return ::shutdown(fd, SHUT_WR); });
    end.recv(10);
    end.recv(10);
    end.send("last");
    p.a.await_bytes(4);
    p.a.recv(10);
    p.script.exit(child);
}

}  // namespace

CASE_THAT(no_descriptors_for_now, kBlocking) { serve_without_any(p, false); }
CASE_THAT(no_descriptors_for_good, kBlocking) { serve_without_any(p, true); }

CASE(duplicates) {
    const End one = p.b.dup("one");
    const End two = p.b.dup_with("two", "F_DUPFD", [](int fd) { return ::fcntl(fd, F_DUPFD, 100); });
    const End three =
        p.b.dup_with("three", "F_DUPFD_CLOEXEC", [](int fd) { return ::fcntl(fd, F_DUPFD_CLOEXEC, 60); });
    const End four = p.b.dup_with("four", "dup2", [](int fd) { return ::dup2(fd, 70); });
    const End five = p.b.dup_with("five", "dup3", [](int fd) { return ::dup3(fd, 71, O_CLOEXEC); });
    for (const End* end : {&one, &two, &three, &four, &five}) {
        exchange(p.a, *end);
        exchange(*end, p.a);
        end->call("F_GETFD", [&] { return ::fcntl(end->fd(), F_GETFD); });
    }
    p.b.call("the numbers", [&] { return two.fd() == 100 && three.fd() == 60 && four.fd() == 70; });
    p.b.close();
    exchange(p.a, one);
    one.close();
    two.close();
    three.close();
    four.close();
    exchange(five, p.a);
    exchange(p.a, five);
    five.close();
    p.a.await_end();
    p.a.recv(1);
}

CASE(duplicate_onto_itself) {
    p.b.call("dup2 onto itself", [&] { return ::dup2(p.b.fd(), p.b.fd()) == p.b.fd(); });
    p.b.call("dup3 onto itself", [&] { return ::dup3(p.b.fd(), p.b.fd(), 0); });
    p.b.call("dup2 of nothing", [&] { return ::dup2(50, p.b.fd()); });
    p.b.call("dup3 with odd flags", [&] { return ::dup3(p.b.fd(), 70, 12345); });
    exchange(p.a, p.b);
}

CASE(duplicate_over_a_stream) {
    // The last descriptor of a stream goes by dup2: that is a close.
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    p.b.call("dup2 of a pipe over b",
             [&, &reading = reading] { return ::dup2(reading.fd(), p.b.fd()) == p.b.fd(); });
    p.a.await_end();
    p.a.recv(1);
    writing.write("x");
    p.b.read(1);
    p.b.send("x");
}

CASE(number_used_again) {
    // A new descriptor with the old number must not be taken for the old connection.
    const End copy = p.b.dup("copy");
    const int number = p.b.fd();
    p.b.close();
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    p.b.call("the number is the pipe's", [&, &reading = reading, &writing = writing] {
        return number == reading.fd() || number == writing.fd();
    });
    p.a.send("for the stream");
    copy.await_bytes(14);
    writing.write("for the pipe");
    reading.read(100);
    copy.recv(100);
}

CASE(closed_by_system_call) {
    const int number = p.b.fd();
    p.b.call("SYS_close", [&] { return ::syscall(SYS_close, number); });
    p.a.await_end();
    p.a.recv(1);
    p.b.recv(1);
    p.b.call("pipe", [&]() -> long {
        int fds[2];
        const int result = ::pipe(fds);
        if (fds[0] == number || fds[1] == number) {
            if (::write(fds[1], "pipe", 4) != 4)
                return -2;
            char bytes[8];
            return ::read(fds[0], bytes, 8);
        }
        return result - 100;
    });
}

CASE(close_range_over_it) {
    const End copy = p.b.dup_with("copy", "F_DUPFD", [](int fd) { return ::fcntl(fd, F_DUPFD, 200); });
    p.b.call("close_range cloexec", [&] { return ::close_range(200, 220, CLOSE_RANGE_CLOEXEC); });
    copy.call("F_GETFD", [&] { return ::fcntl(copy.fd(), F_GETFD); });
    p.b.call("close_range", [&] { return ::close_range(190, ~0U, 0); });
    copy.recv(1);
    exchange(p.a, p.b);
    p.b.call("close_range, bad", [&] { return ::close_range(10, 5, 0); });
}

CASE(lowest_number) {
    // POSIX: a new descriptor gets the lowest free number, whatever the library keeps for itself.
    p.b.call("lowest", [&] {
        const int first = ::open("/dev/null", O_RDONLY);
        const int second = ::open("/dev/null", O_RDONLY);
        ::close(first);
        const int third = ::dup(p.b.fd());
        const int result = third == first && second > first && second < 40;
        ::close(second);
        ::close(third);
        return result;
    });
}

CASE(nonblocking_is_shared) {
    const End copy = p.b.dup("copy");
    p.b.nonblocking(true);
    copy.getfl();
    copy.recv(1);
    copy.nonblocking(false, true);
    p.b.getfl();
    p.b.nonblocking(true, true);
    copy.recv(1);
    p.b.getfl();
    const Actor child = p.script.fork(p.b.actor());
    const End inherited = p.b.in(child, "child");
    inherited.getfl();
    inherited.recv(1);
    inherited.nonblocking(false);
    p.b.getfl();
    inherited.nonblocking(true);
    p.b.recv(1);
    p.script.exit(child);
    p.b.recv(1);
    p.b.getfl();
}

CASE_THAT(blocking_is_shared, kBlocking) {
    const End copy = p.b.dup("copy");
    p.b.nonblocking(true);
    copy.nonblocking(false);
    Pending receiving = p.b.start_recv(10);
    receiving.still_waiting();
    p.a.send("x");
    receiving.finish();
}

CASE(forked_child_uses_it) {
    const Actor child = p.script.fork(p.b.actor());
    const End inherited = p.b.in(child, "child");
    p.b.close();
    for (int i = 0; i < 3; ++i) {
        exchange(p.a, inherited);
        exchange(inherited, p.a);
    }
    inherited.shutdown(SHUT_WR);
    p.a.await_end();
    p.a.recv(1);
    p.script.exit(child);
    p.a.poll(POLLIN | POLLOUT | POLLRDHUP);
}

CASE(forked_parent_uses_it) {
    const Actor child = p.script.fork(p.b.actor());
    const End inherited = p.b.in(child, "child");
    inherited.close();
    exchange(p.a, p.b);
    p.script.exit(child);
    exchange(p.a, p.b);
    exchange(p.b, p.a);
    p.b.close();
    p.a.await_end();
    p.a.recv(1);
}

CASE(forked_child_only_exits) {
    p.a.send("unread");
    p.b.await_bytes(6);
    const Actor child = p.script.fork(p.b.actor());
    p.script.exit(child);
    p.a.poll(POLLIN | POLLOUT | POLLRDHUP);
    p.b.recv(10);
    exchange(p.b, p.a);
}

CASE(both_use_it_after_fork) {
    const Actor child = p.script.fork(p.b.actor());
    const End inherited = p.b.in(child, "child");
    for (int i = 0; i < 3; ++i) {
        p.a.send("0123456789");
        p.b.await_bytes(10);
        p.b.recv(3);
        inherited.recv(3);
        p.b.recv(2, MSG_PEEK);
        inherited.recv(10);
        p.b.send("parent ");
        inherited.send("child ");
        p.b.send("parent");
        p.a.await_bytes(19);
        p.a.recv(100);
    }
    inherited.fionread();
    p.b.close();
    p.a.poll(POLLIN | POLLOUT | POLLRDHUP);
    inherited.send("last");
    p.script.exit(child);
    p.a.await_end();
    p.a.recv(100);
    p.a.recv(100);
}

CASE(child_closes_with_unread_bytes) {
    // It is not the last to close, so nothing is reset.
    p.a.send("unread");
    p.b.await_bytes(6);
    const Actor child = p.script.fork(p.b.actor());
    p.b.in(child, "child").close();
    p.script.exit(child);
    p.a.poll(POLLIN | POLLOUT | POLLRDHUP);
    p.b.recv(10);
    exchange(p.a, p.b);
}

CASE_THAT(child_waits_for_bytes, kBlocking) {
    const Actor child = p.script.fork(p.b.actor());
    const End inherited = p.b.in(child, "child");
    Pending receiving = inherited.start_recv(10);
    p.a.send("x");
    receiving.finish();
    Pending waiting = start_wait_for(Selector::kPoll, {{inherited, POLLIN}});
    p.a.send("y");
    waiting.finish();
    p.b.recv(1);
    p.script.exit(child);
}

CASE(grandchild_uses_it) {
    const Actor child = p.script.fork(p.b.actor());
    p.b.close();
    const End inherited = p.b.in(child, "child");
    exchange(p.a, inherited);
    const Actor grandchild = p.script.fork(child);
    inherited.close();
    const End second = p.b.in(grandchild, "grandchild");
    exchange(p.a, second);
    exchange(second, p.a);
    p.script.exit(grandchild);
    p.a.await_end();
    p.a.recv(1);
}

CASE(child_of_an_accepting_server) {
    const Actor child = p.script.fork(p.b.actor());
    p.b.quietly("close in parent", [&](Outcome&) { ::close(p.b.fd()); });
    const End inherited = p.b.in(child, "child");
    inherited.send(pattern(50'000, 4), MSG_DONTWAIT);
    inherited.close();
    p.a.drain(50'000);
    p.a.recv(1);
}

CASE(vforked_child_disturbs_nothing) {
    p.b.call("posix_spawn", [&]() -> long {
        const char* const arguments[] = {"true", nullptr};
        pid_t pid = 0;
        const int result =
            posix_spawnp(&pid, "true", nullptr, nullptr, const_cast<char* const*>(arguments), environ);
        int status = 0;
        if (result == 0)
            ::waitpid(pid, &status, 0);
        return result == 0 ? status : -result;
    });
    exchange(p.a, p.b);
    exchange(p.b, p.a);
}

CASE(close_on_exec) {
    p.b.call("a program looks for it", [&]() -> long {
        ::fcntl(p.b.fd(), F_SETFD, FD_CLOEXEC);
        const pid_t pid = ::fork();
        if (pid == 0) {
            const std::string path = format("test -e /proc/self/fd/%d", p.b.fd());
            ::execl("/bin/sh", "sh", "-c", path.c_str(), nullptr);
            ::_exit(99);
        }
        int status = 0;
        ::waitpid(pid, &status, 0);
        return WEXITSTATUS(status);
    });
    exchange(p.a, p.b);
}

CASE(executed_program_writes) {
    // The descriptor stays open over exec; whatever the new image is, its bytes come after ours.
    p.b.send("before ");
    p.b.call("sh writes", [&]() -> long {
        ::fcntl(p.b.fd(), F_SETFD, 0);
        const pid_t pid = ::fork();
        if (pid == 0) {
            const std::string command = format("echo inside >&%d", p.b.fd());
            ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
            ::_exit(99);
        }
        int status = 0;
        ::waitpid(pid, &status, 0);
        return WEXITSTATUS(status);
    });
    p.b.send("after");
    p.a.await_bytes(19);
    p.a.recv(100);
}

CASE(executed_program_reads) {
    p.a.send("line\nrest");
    p.b.await_bytes(9);
    p.b.call_with_text("sh reads a line", [&](Outcome& outcome) {
        ::fcntl(p.b.fd(), F_SETFD, 0);
        int fds[2];
        if (::pipe(fds) != 0)
            return;
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::dup2(fds[1], 1);
            ::alarm(5);
            const std::string command = format("exec head -c 5 <&%d", p.b.fd());
            ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
            ::_exit(99);
        }
        ::close(fds[1]);
        char bytes[32];
        const long got = ::read(fds[0], bytes, sizeof bytes);
        ::close(fds[0]);
        int status = 0;
        ::waitpid(pid, &status, 0);
        outcome.value = WEXITSTATUS(status);
        outcome.text = shown({bytes, got > 0 ? static_cast<size_t>(got) : 0});
    });
    p.b.recv(100, MSG_DONTWAIT);
}

}  // namespace differential
