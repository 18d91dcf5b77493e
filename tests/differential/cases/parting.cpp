// Descriptors that go where nobody knows of a ring: to programs that are executed in every way there is, with
// and without the library, and to other processes. What lies unread goes with them, and a peer that makes no
// call meanwhile hinders nothing.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>

#include "cases.h"

namespace differential {

namespace {

constexpr const char* kNothing[] = {nullptr};
/// An environment in which the library is not loaded.
char* const* bare() { return const_cast<char* const*>(kNothing); }

/// Runs `begin`, which starts a program whose output goes to the descriptor given, and shows what it wrote.
template <typename Begin> Outcome program(const End& end, const std::string& what, Begin begin) {
    return end.call_with_text(what, [&](Outcome& outcome) {
        int fds[2];
        if (::pipe(fds) != 0)
            return;
        const pid_t pid = begin(fds[1]);
        ::close(fds[1]);
        std::string text;
        char bytes[65536];
        for (long got; (got = ::read(fds[0], bytes, sizeof bytes)) > 0;)
            text.append(bytes, static_cast<size_t>(got));
        ::close(fds[0]);
        int status = 0;
        ::waitpid(pid, &status, 0);
        outcome.value = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        outcome.text = shown(text);
    });
}

pid_t spawned(int fd, int output, std::initializer_list<const char*> words, char* const* environment) {
    std::vector<char*> arguments;
    for (const char* word : words)
        arguments.push_back(const_cast<char*>(word));
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    pid_t pid = -1;
    if (::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environment) != 0)
        pid = -1;
    posix_spawn_file_actions_destroy(&actions);
    return pid;
}

pid_t forked(int fd, int output, std::initializer_list<const char*> words, char* const* environment) {
    std::vector<char*> arguments;
    for (const char* word : words)
        arguments.push_back(const_cast<char*>(word));
    arguments.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::alarm(10);
        ::dup2(fd, 0);
        ::dup2(output, 1);
        ::execvpe(arguments[0], arguments.data(), environment);
        ::_exit(99);
    }
    return pid;
}

/// What is executed is to have this end's descriptor not even where both ends live in one process: else its
/// end would never be seen.
void keep_from_programs(const End& end) {
    end.quietly("close on exec", [&](Outcome&) { ::fcntl(end.fd(), F_SETFD, FD_CLOEXEC); });
}

}  // namespace

CASE_THAT(parting_spawned_program_reads, kBlocking) {
    keep_from_programs(p.a);
    p.a.send("0123456789");
    p.b.await_bytes(10);
    program(p.b, "head", [&](int output) { return spawned(p.b.fd(), output, {"head", "-c", "4"}, environ); });
    p.a.send("more");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.recv(100);
}

CASE_THAT(parting_spawned_stranger_reads, kBlocking) {
    const std::string bytes = pattern(100'000);
    p.a.send(bytes);
    p.b.await_bytes(1000);
    program(p.b, "wc", [&](int output) {
        return spawned(p.b.fd(), output, {"head", "-c", "100000"}, bare());
    });
    p.a.send("and on");
    p.b.await_bytes(6);
    p.b.recv(100);
    p.b.send("back");
    p.a.await_bytes(4);
    p.a.recv(100);
}

CASE_THAT(parting_vforked_stranger_reads, kBlocking) {
    p.a.send("one two three");
    p.b.await_bytes(13);
    program(p.b, "vfork and head", [&](int output) {
        const char* const words[] = {"head", "-c", "7", nullptr};
        const int fd = p.b.fd();
        const pid_t pid = ::vfork();
        if (pid == 0) {
            ::dup2(fd, 0);
            ::dup2(output, 1);
            ::execve("/usr/bin/head", const_cast<char* const*>(words), const_cast<char* const*>(kNothing));
            ::_exit(99);
        }
        return pid;
    });
    p.b.recv(100);
    p.a.send("four");
    p.b.await_bytes(4);
    p.b.recv(100);
}

CASE_THAT(parting_stranger_echoes, kBlocking) {
    keep_from_programs(p.a);
    p.a.send("before ");
    p.b.await_bytes(7);
    p.b.call("cat in both directions", [&]() -> long {
        const pid_t pid = forked(p.b.fd(), p.b.fd(), {"cat"}, bare());
        return pid > 0 ? 0 : -1;
    });
    p.a.send("and after");
    p.a.await_bytes(16);
    p.a.recv(100);
    p.b.close();
    p.a.shutdown(SHUT_WR);
    p.a.await_end();
    p.a.recv(100);
}

namespace {

/// The peer has said all, and waits for the answer: it must get one from whoever serves it in our place.
void answered(Pair& p, const char* name, const std::function<pid_t()>& start) {
    keep_from_programs(p.a);
    p.a.send("the whole request");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.call(name, [&]() -> long { return start() > 0 ? 0 : -1; });
    p.b.close();
    p.a.await_bytes(17);
    p.a.recv(100);
    p.a.await_end();
    p.a.recv(100);
}

}  // namespace

CASE_THAT(parting_stranger_answers_the_half_closed, kBlocking) {
    answered(p, "cat", [&] { return forked(p.b.fd(), p.b.fd(), {"cat"}, bare()); });
}

CASE_THAT(parting_vforked_stranger_answers_the_half_closed, kBlocking) {
    answered(p, "vfork and cat", [&] {
        const char* const words[] = {"cat", nullptr};
        const int fd = p.b.fd();
        const pid_t pid = ::vfork();
        if (pid == 0) {
            ::dup2(fd, 0);
            ::dup2(fd, 1);
            ::execve("/usr/bin/cat", const_cast<char* const*>(words), const_cast<char* const*>(kNothing));
            ::_exit(99);
        }
        return pid;
    });
}

CASE_THAT(parting_stranger_reads_what_the_closed_peer_left, kBlocking) {
    keep_from_programs(p.a);
    p.a.send("last words");
    p.b.await_bytes(10);
    p.a.close();
    program(p.b, "cat", [&](int output) { return forked(p.b.fd(), output, {"cat"}, bare()); });
}

CASE_THAT(parting_stranger_reads_a_backlog_of_the_closed_peer, kBlocking) {
    keep_from_programs(p.a);
    p.a.send(pattern(400'000));
    p.b.await_bytes(1000);
    p.a.close();
    program(p.b, "cat", [&](int output) { return forked(p.b.fd(), output, {"cat"}, bare()); });
}

CASE_THAT(parting_stranger_writes_to_the_closed_peer, kBlocking) {
    // What it writes is refused; what the peer sent before it went is there to be read all the same.
    keep_from_programs(p.a);
    p.a.send(pattern(50'000));
    p.b.await_bytes(1000);
    p.a.close();
    program(p.b, "echo, then wc", [&](int output) {
        return forked(p.b.fd(), output, {"sh", "-c", "echo x >&0; sleep 0.2; wc -c 2>/dev/null"}, bare());
    });
}

CASE_THAT(parting_peer_closes_after_it, kBlocking) {
    keep_from_programs(p.a);
    // Its bytes go into the kernel before its end does, as many as there are.
    p.a.send(pattern(800'000));
    p.b.await_bytes(1000);
    const int from = p.b.fd();
    Outcome moved = p.b.quietly("start", [&](Outcome& outcome) {
        int fds[2];
        if (::pipe(fds) != 0)
            return;
        outcome.value = forked(from, fds[1], {"sh", "-c", "sleep 0.2; wc -c"}, bare());
        ::close(fds[1]);
        outcome.data = std::to_string(fds[0]);
    });
    p.a.close();
    p.b.call_with_text("wc", [&](Outcome& outcome) {
        char text[32] = {};
        outcome.value = ::read(std::stoi(moved.data), text, sizeof text - 1);
        outcome.text = text;
        ::close(std::stoi(moved.data));
        ::waitpid(static_cast<pid_t>(moved.value), nullptr, 0);
    });
}

CASE_THAT(parting_system_inherits, kBlocking) {
    p.a.send("for the shell");
    p.b.await_bytes(13);
    p.b.call("system", [&]() -> long {
        ::fcntl(p.b.fd(), F_SETFD, 0);
        return ::system(  // NOLINT(cert-env33-c): what is tested
            format("test \"$(head -c 7 <&%d)\" = 'for the'", p.b.fd()).c_str());
    });
    p.b.recv(100);
}

CASE_THAT(parting_popen_inherits, kBlocking) {
    p.a.send("for the shell");
    p.b.await_bytes(13);
    p.b.call_with_text("popen", [&](Outcome& outcome) {
        ::fcntl(p.b.fd(), F_SETFD, 0);
        FILE* const file = ::popen(  // NOLINT(cert-env33-c): what is tested
            format("head -c 7 <&%d", p.b.fd()).c_str(), "r");
        char text[32] = {};
        outcome.value = file != nullptr ? static_cast<long>(::fread(text, 1, sizeof text, file)) : -1;
        outcome.text = text;
        if (file != nullptr)
            ::pclose(file);
    });
    p.b.recv(100);
}

CASE(parting_failed_exec) {
    p.a.send("still here");
    p.b.await_bytes(10);
    p.b.call("exec", [&]() -> long {
        ::fcntl(p.b.fd(), F_SETFD, 0);
        const char* const words[] = {"nothing", nullptr};
        return ::execv("/nonexistent", const_cast<char* const*>(words));
    });
    p.b.recv(100);
    p.b.send("yes");
    p.a.await_bytes(3);
    p.a.recv(100);
}

CASE(parting_closed_on_exec_stays) {
    // A child that inherits nothing disturbs nobody.
    p.a.send("for us");
    p.b.await_bytes(6);
    p.b.call("true", [&]() -> long {
        ::fcntl(p.b.fd(), F_SETFD, FD_CLOEXEC);
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::execlp("true", "true", nullptr);
            ::_exit(99);
        }
        int status = 0;
        ::waitpid(pid, &status, 0);
        return WEXITSTATUS(status);
    });
    p.b.recv(100);
    p.b.send("and back");
    p.a.await_bytes(8);
    p.a.recv(100);
}

CASE(parting_passed_with_unread_bytes) {
    p.a.send("unread, ");
    p.b.await_bytes(8);
    Outcome number =
        p.b.quietly("pass", [&](Outcome& outcome) { outcome.value = passed_descriptor(p.b.fd()); });
    const End other(p.script, p.b.actor(), static_cast<int>(number.value), "passed");
    other.recv(4);
    p.b.close();
    p.a.send("then this");
    other.await_bytes(13);
    other.recv(100);
    other.send("back");
    p.a.await_bytes(4);
    p.a.recv(100);
    other.close();
    p.a.await_end();
    p.a.recv(1);
}

CASE(parting_passed_by_sendmmsg) {
    p.a.send("unread, ");
    p.b.await_bytes(8);
    Outcome number =
        p.b.quietly("pass", [&](Outcome& outcome) { outcome.value = passed_descriptor(p.b.fd(), true); });
    const End other(p.script, p.b.actor(), static_cast<int>(number.value), "passed");
    other.recv(4);
    p.b.close();
    p.a.send("then this");
    other.await_bytes(13);
    other.recv(100);
    other.send("back");
    p.a.await_bytes(4);
    p.a.recv(100);
}

CASE(parting_passed_after_the_peer_closed) {
    p.a.send("unread");
    p.b.await_bytes(6);
    p.a.close();
    p.b.await_end();
    Outcome number =
        p.b.quietly("pass", [&](Outcome& outcome) { outcome.value = passed_descriptor(p.b.fd()); });
    const End other(p.script, p.b.actor(), static_cast<int>(number.value), "passed");
    p.b.close();
    other.await_bytes(6);
    other.recv(100);
    other.await_end();
    other.recv(100);
}

CASE(parting_both_pass) {
    p.a.send("from a");
    p.b.send("from b");
    p.a.await_bytes(6);
    p.b.await_bytes(6);
    Outcome first =
        p.a.quietly("pass", [&](Outcome& outcome) { outcome.value = passed_descriptor(p.a.fd()); });
    Outcome second =
        p.b.quietly("pass", [&](Outcome& outcome) { outcome.value = passed_descriptor(p.b.fd()); });
    const End one(p.script, p.a.actor(), static_cast<int>(first.value), "one");
    const End two(p.script, p.b.actor(), static_cast<int>(second.value), "two");
    p.a.close();
    p.b.close();
    one.await_bytes(6);
    two.await_bytes(6);
    one.recv(100);
    two.recv(100);
    one.send("more");
    two.await_bytes(4);
    two.recv(100);
    two.send("yet more");
    one.await_bytes(8);
    one.recv(100);
    two.close();
    one.await_end();
    one.recv(1);
}

namespace {

void wait_over_a_parting(Pair& p, bool after_the_peer) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    set.wait(0);
    p.a.send("one");
    p.b.await_bytes(3);
    if (after_the_peer)
        p.a.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    set.wait(1000);
    Outcome number =
        p.b.quietly("pass", [&](Outcome& outcome) { outcome.value = passed_descriptor(p.b.fd()); });
    set.wait(1000);
    p.b.recv(100);
    set.wait(0);
    p.a.send("two");
    p.b.await_bytes(3);
    set.wait(1000);
    p.b.recv(100);
    p.b.quietly("close", [&](Outcome&) { ::close(static_cast<int>(number.value)); });
}

}  // namespace

CASE(parting_waits_go_on) {
    // The descriptor is in a set while it leaves the ring; level and edge.
    wait_over_a_parting(p, false);
}

CASE(parting_waits_go_on_after_the_peers) {
    // Nobody can send again what is unread: another socket is put in its place.
    wait_over_a_parting(p, true);
}

CASE(parting_while_taken_out_of_a_set) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    set.wait();
    set.remove(p.b);
    p.a.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.recv(1);
    p.b.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    set.add(p.b, EPOLLIN | EPOLLOUT);
    p.a.send("y");
    p.b.await_bytes(1);
    set.wait();
    p.b.recv(1);
    set.wait();
}

CASE(parting_is_heeded_at_once) {
    // Who hears elsewhere that a byte is there, here from FIONREAD, receives it without waiting.
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    set.wait(0);
    p.a.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    long heeded = 0;
    for (int round = 0; round < 10; ++round) {
        const auto receive = [&](Outcome& outcome) {
            char byte;
            outcome.value = ::recv(p.b.fd(), &byte, 1, MSG_DONTWAIT);
        };
        p.b.quietly("look", receive);
        p.a.quietly("send", [&](Outcome&) { ::send(p.a.fd(), "x", 1, MSG_NOSIGNAL); });
        p.b.await_bytes(1);
        heeded += p.b.quietly("receive", receive).value;
    }
    p.b.call("bytes received at once", [heeded] { return heeded; });
}

namespace {

/// The descriptor goes to another process, which is this one again, and its first owner closes it.
End pass_on(Pair& p, const End& end, const std::string& name) {
    Outcome number =
        end.quietly("pass", [&](Outcome& outcome) { outcome.value = passed_descriptor(end.fd()); });
    end.quietly("close", [&](Outcome&) { ::close(end.fd()); });
    return {p.script, end.actor(), static_cast<int>(number.value), name};
}

uint64_t cookie_of(int fd) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    return ::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

}  // namespace

CASE(parting_first_owner_is_not_the_last) {
    // That the first owner of the one end closed it says nothing of the connection, whose half is then ended
    // by the second: whoever gets the other end can still answer.
    p.a.send("unread, ");
    p.b.await_bytes(8);
    const End one = pass_on(p, p.a, "one");
    one.shutdown(SHUT_WR);
    p.b.await_end();
    const End two = pass_on(p, p.b, "two");
    two.recv(100);
    two.await_end();  // it follows the bytes into a fresh socket, not quite at once
    two.recv(100);
    two.send("the answer");
    one.await_bytes(10);
    one.recv(100);
    two.close();
    one.await_end();
    one.recv(100);
}

CASE_THAT(parting_first_owner_left_much_unread, kBlocking) {
    Pending sending = p.b.start_send(pattern(7'000'000));
    p.a.await_bytes(100'000);
    const End one = pass_on(p, p.a, "one");
    one.shutdown(SHUT_WR);
    one.drain(7'000'000);
    sending.finish();
    p.b.send("and on");
    one.await_bytes(6);
    one.recv(100);
}

CASE(parting_after_a_child_executed) {
    // The child had closed its copy by executing something: the connection is its parent's as before.
    p.b.call("true", [&]() -> long {
        ::fcntl(p.b.fd(), F_SETFD, FD_CLOEXEC);
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::execlp("true", "true", nullptr);
            ::_exit(99);
        }
        int status = 0;
        ::waitpid(pid, &status, 0);
        return WEXITSTATUS(status);
    });
    p.b.send("unread, ");
    p.a.await_bytes(8);
    const Outcome before =
        p.a.quietly("socket", [&](Outcome& outcome) { outcome.data = std::to_string(cookie_of(p.a.fd())); });
    const End one = pass_on(p, p.a, "one");
    one.call("the same socket", [&]() -> long { return std::to_string(cookie_of(one.fd())) == before.data; });
    one.shutdown(SHUT_WR);
    p.b.send("then this");
    one.await_bytes(17);
    one.recv(100);
}

CASE_THAT(parting_disturbs_no_other_connection, kOneProcess) {
    Pair other(p.script, p.setup, p.lane);
    other.establish();
    p.a.send("unread");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    const End two = pass_on(p, p.b, "two");
    other.a.send("question");
    other.b.await_bytes(8);
    other.b.recv(100);
    other.b.close();
    other.a.await_end();
    other.a.send("to nobody");
    other.a.await_poll(POLLERR);
    other.a.send("to nobody");
    two.recv(100);
    two.send("answer");
    p.a.await_bytes(6);
    p.a.recv(100);
    other.a.close();
}

namespace {

std::atomic<int> children_told{0};

/// The library may need processes of its own; the program, which may do what it likes with its children, sees
/// nothing of them.
void with_children(Pair& p, void (*action)(int)) {
    p.b.quietly("SIGCHLD", [&](Outcome&) {
        children_told = 0;
        ::signal(SIGCHLD, action);
    });
    p.a.send("unread");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    const End two = pass_on(p, p.b, "two");
    two.recv(100);
    two.send("answer");
    p.a.await_bytes(6);
    p.a.recv(100);
    two.call("children",
             [] { return children_told.load() + (::waitpid(-1, nullptr, WNOHANG) >= 0 ? 100L : 0L); });
    p.b.quietly("SIGCHLD", [&](Outcome&) { ::signal(SIGCHLD, SIG_DFL); });
}

}  // namespace

CASE_THAT(parting_children_are_ignored, kOneProcess) { with_children(p, SIG_IGN); }
CASE_THAT(parting_children_are_counted, kOneProcess) {
    with_children(p, [](int) { ++children_told; });
}

// One that adopts orphans, as the first process of a container does, is told of none that are ours.
CASE_THAT(parting_children_of_an_adopter, kOneProcess) {
    const auto adopt = [&](unsigned long on) {
        p.b.call("PR_SET_CHILD_SUBREAPER", [=] { return ::prctl(PR_SET_CHILD_SUBREAPER, on); });
    };
    adopt(1);
    with_children(p, SIG_DFL);
    p.b.call("PR_GET_CHILD_SUBREAPER", [] {
        int on = -1;
        ::prctl(PR_GET_CHILD_SUBREAPER, &on);
        return on;
    });
    adopt(0);
}

CASE_THAT(parting_keeps_options, kBlocking) {
    p.b.set_time(SO_RCVTIMEO, 100);
    p.b.set(IPPROTO_TCP, TCP_NODELAY, 1);
    p.b.set(SOL_SOCKET, SO_KEEPALIVE, 1);
    p.a.send("unread, ");
    p.b.await_bytes(8);
    const End one = pass_on(p, p.a, "one");
    const End two = pass_on(p, p.b, "two");
    two.recv(100);
    two.recv(100);
    two.get(IPPROTO_TCP, TCP_NODELAY);
    two.get(SOL_SOCKET, SO_KEEPALIVE);
    two.getfl();
    one.send("more");
    two.recv(100);
}

CASE_THAT(parting_stranger_answers_and_closes_with_bytes_unread, kBlocking) {
    keep_from_programs(p.a);
    p.a.send(pattern(400'000));
    p.a.shutdown(SHUT_WR);
    p.b.await_bytes(1000);
    program(p.b, "answer", [&](int output) {
        return forked(p.b.fd(), output, {"sh", "-c", "head -c 10 >/dev/null; echo answer >&0"}, bare());
    });
    p.b.close();
    p.a.await_poll(POLLHUP);
    p.a.recv(100);
    p.a.recv(100);
}

CASE_THAT(parting_process_ends_before_the_kernel_has_room, kBlocking) {
    // All was sent, then the process ended: the kernel would have it still, and gives it to whoever has the
    // other end by then.
    const Actor child = p.script.fork(p.b.actor());
    const End c = p.b.in(child, "child");
    p.b.close();
    c.send(pattern(1'500'000));
    p.a.await_bytes(1000);
    c.quietly("little room", [&](Outcome&) {
        const int size = 50'000;
        ::setsockopt(c.fd(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    });
    const End one = pass_on(p, p.a, "one");
    p.script.exit(child);
    one.drain(1'500'000);
    one.recv(100);
}

}  // namespace differential
