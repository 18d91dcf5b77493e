// poll, ppoll, select, pselect: one stream, both ends, streams and pipes mixed.
#include <signal.h>
#include <sys/select.h>

#include "cases.h"
#include <cerrno>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace differential {

namespace {

volatile sig_atomic_t signals_taken = 0;
constexpr Selector kSelectors[] = {Selector::kPoll, Selector::kPpoll, Selector::kSelect, Selector::kPselect};
constexpr short kEverything =
    POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND;
}  // namespace

CASE(ready_or_not) {
    for (const Selector selector : kSelectors) {
        wait_for(selector, {{p.b, POLLIN}}, 0);
        wait_for(selector, {{p.b, POLLIN}}, 10);
        wait_for(selector, {{p.b, POLLOUT}}, 0);
        wait_for(selector, {{p.b, POLLIN | POLLOUT | POLLPRI}}, -1);
        p.a.send("x");
        p.b.await_bytes(1);
        wait_for(selector, {{p.b, POLLIN | POLLOUT}}, -1);
        wait_for(selector, {{p.b, POLLPRI}}, 0);
        p.b.recv(1);
        wait_for(selector, {{p.b, POLLIN}}, 0);
    }
}

CASE(every_poll_event) {
    p.b.poll(kEverything);
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.poll(kEverything);
    p.b.poll(0);
    for (const short event : std::vector<short>{POLLIN, POLLPRI, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRNORM,
                                                POLLRDBAND, POLLWRBAND, POLLERR, POLLHUP, POLLNVAL})
        p.b.poll(event);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.poll(kEverything);
    p.b.recv(1);
    p.b.poll(kEverything);
    p.b.shutdown(SHUT_WR);
    p.b.await_poll(POLLHUP);
    p.b.poll(kEverything);
    p.b.poll(0);
    wait_for(Selector::kSelect, {{p.b, POLLIN | POLLOUT | POLLPRI}});
}

CASE(waiters_are_woken) {
    for (const Selector selector : kSelectors) {
        Pending waiting = start_wait_for(selector, {{p.b, POLLIN}});
        p.a.send("x");
        waiting.finish();
        p.b.recv(10);
        Pending limited = start_wait_for(selector, {{p.b, POLLIN}}, 5000);
        p.a.send("y");
        limited.finish();
        p.b.recv(10);
    }
}

CASE(waiter_for_room_is_woken) {
    const Outcome filled = p.a.fill();
    wait_for(Selector::kPoll, {{p.a, POLLOUT}}, 5);
    wait_for(Selector::kSelect, {{p.a, POLLOUT}}, 5);
    Pending waiting = start_wait_for(Selector::kPoll, {{p.a, POLLOUT}});
    p.b.quietly("drain", [&](Outcome&) {
        std::string buffer(1 << 20, 0);
        long left = filled.value;
        while (left > 0) {
            const long got = ::recv(p.b.fd(), buffer.data(), buffer.size(), 0);
            pollfd entry{p.b.fd(), POLLIN, 0};
            if (got < 0 && (errno != EAGAIN || ::poll(&entry, 1, 5000) != 1))
                break;
            left -= got > 0 ? got : 0;
        }
    });
    waiting.finish();
}

CASE(mixed_with_pipes) {
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    for (const Selector selector : kSelectors) {
        wait_for(selector, {{p.b, POLLIN}, {reading, POLLIN}, {writing, POLLOUT}});
        Pending waiting = start_wait_for(selector, {{p.b, POLLIN}, {reading, POLLIN}});
        writing.write("x");
        waiting.finish();
        p.a.send("y");
        p.b.await_bytes(1);
        wait_for(selector, {{p.b, POLLIN}, {reading, POLLIN}});
        reading.read(1);
        wait_for(selector, {{p.b, POLLIN}, {reading, POLLIN}});
        p.b.recv(1);
        Pending again = start_wait_for(selector, {{reading, POLLIN}, {p.b, POLLIN}});
        p.a.send("z");
        again.finish();
        p.b.recv(1);
    }
    writing.close();
    wait_for(Selector::kPoll, {{p.b, POLLIN}, {reading, POLLIN}});
}

CASE(same_descriptor_twice) {
    p.a.send("x");
    p.b.await_bytes(1);
    wait_for(Selector::kPoll, {{p.b, POLLIN}, {p.b, POLLOUT}, {p.b, POLLIN | POLLOUT}});
    const End copy = p.b.dup("copy");
    wait_for(Selector::kPoll, {{p.b, POLLIN}, {copy, POLLIN}});
    wait_for(Selector::kSelect, {{p.b, POLLIN}, {copy, POLLIN | POLLOUT}});
    copy.recv(1);
    wait_for(Selector::kPoll, {{p.b, POLLIN}, {copy, POLLIN}});
}

CASE(bad_entries) {
    const End none(p.script, p.b.actor(), 50, "none");  // within every table of descriptors
    const End ignored(p.script, p.b.actor(), -5, "ignored");
    wait_for(Selector::kPoll, {{p.b, POLLIN}, {none, POLLIN}, {ignored, POLLIN}});
    wait_for(Selector::kPoll, {{ignored, POLLIN}, {p.b, POLLOUT}});
    wait_for(Selector::kSelect, {{p.b, POLLIN}, {none, POLLIN}});
    wait_for(Selector::kPoll, {{ignored, POLLIN}, {p.b, POLLIN}}, 5);
}

CASE_THAT(both_ends_in_one_poll, kOneProcess) {
    wait_for(Selector::kPoll, {{p.a, POLLIN | POLLOUT}, {p.b, POLLIN | POLLOUT}});
    p.a.send("x");
    p.b.await_bytes(1);
    wait_for(Selector::kPoll, {{p.a, POLLIN}, {p.b, POLLIN}});
    wait_for(Selector::kSelect, {{p.a, POLLIN}, {p.b, POLLIN}});
    Pending waiting = start_wait_for(Selector::kPoll, {{p.a, POLLIN}});
    p.b.send("y");
    waiting.finish();
}

CASE(masks_without_a_wait) {
    // A call that does not wait is ended by a signal as well, if it has nothing to report; an epoll set's is
    // not.
    const auto with_pending_signal = [&](const std::string& what,
                                         const std::function<int(const sigset_t*)>& wait) {
        p.b.call(what, [&]() -> long {
            struct sigaction action {};
            action.sa_handler = [](int) { signals_taken = signals_taken + 1; };
            sigaction(SIGUSR1, &action, nullptr);
            sigset_t block;
            sigset_t before;
            sigemptyset(&block);
            sigaddset(&block, SIGUSR1);
            pthread_sigmask(SIG_BLOCK, &block, &before);
            signals_taken = 0;
            pthread_kill(pthread_self(), SIGUSR1);
            const int result = wait(&before);
            const int error = errno;
            p.script.line(format("handlers run: %d", static_cast<int>(signals_taken)));
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
            errno = error;
            return result;
        });
    };
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    for (const bool ready : {false, true}) {
        if (ready) {
            p.a.send("x");
            p.b.await_bytes(1);
        }
        with_pending_signal("ppoll", [&](const sigset_t* mask) {
            pollfd entry{p.b.fd(), POLLIN, 0};
            const timespec none{};
            return ::ppoll(&entry, 1, &none, mask);
        });
        with_pending_signal("pselect", [&](const sigset_t* mask) {
            fd_set readable;
            FD_ZERO(&readable);
            FD_SET(p.b.fd(), &readable);
            const timespec none{};
            return ::pselect(p.b.fd() + 1, &readable, nullptr, nullptr, &none, mask);
        });
        with_pending_signal("epoll_pwait", [&](const sigset_t* mask) {
            epoll_event event{};
            return ::epoll_pwait(set.end().fd(), &event, 1, 0, mask);
        });
    }
}

CASE(masks) {
    // A signal that is pending and let in by the mask interrupts; one that stays blocked does not.
    p.b.call("ppoll lets the signal in", [&]() -> long {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        sigaction(SIGUSR1, &action, nullptr);
        sigset_t block;
        sigset_t before;
        sigemptyset(&block);
        sigaddset(&block, SIGUSR1);
        pthread_sigmask(SIG_BLOCK, &block, &before);
        pthread_kill(pthread_self(), SIGUSR1);
        pollfd entry{p.b.fd(), POLLIN, 0};
        const timespec soon{0, 5'000'000};
        const int blocked = ::ppoll(&entry, 1, &soon, nullptr);
        p.script.line(format("blocked: %d", blocked));
        const timespec later{5, 0};
        const int result = ::ppoll(&entry, 1, &later, &before);
        const int error = errno;
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        errno = error;
        return result;
    });
    p.b.call("pselect lets the signal in", [&]() -> long {
        sigset_t block;
        sigset_t before;
        sigemptyset(&block);
        sigaddset(&block, SIGUSR1);
        pthread_sigmask(SIG_BLOCK, &block, &before);
        pthread_kill(pthread_self(), SIGUSR1);
        fd_set set;
        FD_ZERO(&set);
        FD_SET(p.b.fd(), &set);
        const timespec later{5, 0};
        const int result = ::pselect(p.b.fd() + 1, &set, nullptr, nullptr, &later, &before);
        const int error = errno;
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        errno = error;
        return result;
    });
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    set.end().call("epoll_pwait lets the signal in", [&]() -> long {
        sigset_t block;
        sigset_t before;
        sigemptyset(&block);
        sigaddset(&block, SIGUSR1);
        pthread_sigmask(SIG_BLOCK, &block, &before);
        pthread_kill(pthread_self(), SIGUSR1);
        epoll_event event;
        const int result = ::epoll_pwait(set.end().fd(), &event, 1, 5000, &before);
        const int error = errno;
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        errno = error;
        return result;
    });
}

CASE(bad_times) {
    p.b.call("ppoll", [&] {
        pollfd entry{p.b.fd(), POLLIN, 0};
        const timespec bad{0, 2'000'000'000};
        return ::ppoll(&entry, 1, &bad, nullptr);
    });
    p.b.call("select", [&] {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(p.b.fd(), &set);
        timeval bad{-1, 0};
        return ::select(p.b.fd() + 1, &set, nullptr, nullptr, &bad);
    });
    p.b.call("pselect", [&] {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(p.b.fd(), &set);
        const timespec bad{0, -1};
        return ::pselect(p.b.fd() + 1, &set, nullptr, nullptr, &bad, nullptr);
    });
    p.b.call("select -1", [&] { return ::select(-1, nullptr, nullptr, nullptr, nullptr); });
}

CASE(select_keeps_time) {
    p.b.call_with_text("select says what is left", [&](Outcome& outcome) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(p.b.fd(), &set);
        timeval time{0, 5000};
        outcome.value = ::select(p.b.fd() + 1, &set, nullptr, nullptr, &time);
        outcome.text = time.tv_sec == 0 && time.tv_usec == 0 ? "none" : "some";
    });
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.call_with_text("select says what is left", [&](Outcome& outcome) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(p.b.fd(), &set);
        timeval time{100, 0};
        outcome.value = ::select(p.b.fd() + 1, &set, nullptr, nullptr, &time);
        outcome.text = time.tv_sec >= 99 ? "nearly all" : "less";
    });
}

CASE(select_of_large_numbers) {
    p.b.call_with_text("select of a descriptor beyond FD_SETSIZE", [&](Outcome& outcome) {
        rlimit limit{};
        ::getrlimit(RLIMIT_NOFILE, &limit);
        const rlimit more{4096, limit.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &more);
        const int fd = ::fcntl(p.b.fd(), F_DUPFD, 2500);
        alignas(fd_set) unsigned char bits[4096 / 8] = {};
        auto* const set = reinterpret_cast<fd_set*>(bits);
        const auto mark = [&](int number) {
            bits[number / 8] |= static_cast<unsigned char>(1U << number % 8);
        };
        timeval none{0, 0};
        mark(fd);
        outcome.text = format("%d ", ::select(fd + 1, nullptr, set, nullptr, &none));
        outcome.text += format("%d ", (bits[fd / 8] >> fd % 8 & 1));
        outcome.text += format("%d ", ::select(fd + 1, set, nullptr, nullptr, &none));
        outcome.text += format("%d ", (bits[fd / 8] >> fd % 8 & 1));
        mark(fd);
        mark(p.b.fd());
        outcome.text += format("%d ", ::select(fd + 1, nullptr, set, nullptr, &none));
        mark(fd + 1);
        const int bad = ::select(fd + 2, set, nullptr, nullptr, &none);
        outcome.text += bad < 0 ? error_name(errno) : std::to_string(bad);
        ::close(fd);
        ::setrlimit(RLIMIT_NOFILE, &limit);
    });
    p.b.call("poll of more than there may be", [] {
        static pollfd fds[100'000];
        for (auto& one : fds)
            one.fd = -1;
        rlimit limit{};
        ::getrlimit(RLIMIT_NOFILE, &limit);
        const rlimit less{1024, limit.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &less);
        const int result = ::poll(fds, 100'000, 0);
        const int error = errno;
        ::setrlimit(RLIMIT_NOFILE, &limit);
        errno = error;
        return result;
    });
}

CASE(select_into_nowhere) {
    p.a.send("x");
    p.b.await_bytes(1);
    const int fd = p.b.fd();
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    auto* const bad = reinterpret_cast<fd_set*>(1);
    p.b.call("a bad set for reading", [&] { return ::select(fd + 1, bad, nullptr, nullptr, nullptr); });
    p.b.call("a bad set for writing", [&] { return ::select(fd + 1, &set, bad, nullptr, nullptr); });
    p.b.call("a bad set of exceptions", [&] { return ::select(fd + 1, &set, nullptr, bad, nullptr); });
    p.b.call("a count below zero", [&] { return ::select(-1, &set, nullptr, nullptr, nullptr); });
    p.b.call("pselect, a bad time", [&] {
        const timespec time{0, 1'000'000'000};
        return ::pselect(fd + 1, &set, nullptr, nullptr, &time, nullptr);
    });
    p.b.call("poll of a bad array", [&] { return ::poll(reinterpret_cast<pollfd*>(1), 1, 0); });
    p.b.call("epoll_ctl, a bad event", [&] {
        const int set_fd = ::epoll_create1(0);
        long result = ::epoll_ctl(set_fd, EPOLL_CTL_ADD, fd, reinterpret_cast<epoll_event*>(1));
        const int error = errno;
        ::close(set_fd);
        errno = error;
        return result;
    });
}

}  // namespace differential
