// What other threads and signal handlers do to a call that waits: close, dup2, shutdown, cancellation, jumps.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "cases.h"

namespace differential {

namespace {

struct Cancelled {
    const std::function<void()>& body;
    std::atomic<pid_t> tid{0};
    std::atomic<bool> done{false};
};

std::atomic<bool> was_cancelled;

/// Runs `body` in a thread, lets it wait, cancels it. @return 1 when it was cancelled, 0 when it returned.
long cancelled(const std::function<void()>& body) {
    Cancelled call{body};
    was_cancelled.store(false);
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void* argument) -> void* {
            auto& running = *static_cast<Cancelled*>(argument);
            running.tid.store(gettid());
            running.body();
            running.done.store(true);
            return nullptr;
        },
        &call);
    await_sleep(call.tid, call.done);
    pthread_cancel(thread);
    was_cancelled.store(true);
    void* result = nullptr;
    pthread_join(thread, &result);
    return result == PTHREAD_CANCELED ? 1 : 0;
}

/// In a thread that `cancelled` runs: returns once that has cancelled it, which has no effect yet.
void await_cancellation() {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    while (!was_cancelled.load())
        usleep(1000);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, nullptr);
}

void exchange(const Pair& p) {
    for (int i = 0; i < 3; ++i) {
        p.a.send("to b");
        p.b.await_bytes(4);
        p.b.recv(100);
        p.b.send("to a");
        p.a.await_bytes(4);
        p.a.recv(100);
    }
}

/// More than the buffers of a connection ever hold.
constexpr size_t kTooMuch = 20'000'000;

sigjmp_buf jump;

/// Runs `body`, out of which a handler jumps after so long. @return 1 when it did.
long jumped(const std::function<void()>& body, int milliseconds = 30) {
    struct sigaction action {};
    struct sigaction old {};
    action.sa_handler = [](int) { siglongjmp(jump, 1); };
    sigaction(SIGALRM, &action, &old);
    const itimerval soon{{0, 0}, {0, milliseconds * 1000}};
    volatile long result = 1;
    if (sigsetjmp(jump, 1) == 0) {
        setitimer(ITIMER_REAL, &soon, nullptr);
        body();
        result = 0;
    }
    const itimerval never{};
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &old, nullptr);
    return result;
}

}  // namespace

CASE_THAT(close_under_a_receive, kBlocking) {
    // The call keeps the connection alive, and its bytes.
    Pending receiving = p.b.start_recv(10);
    p.b.close();
    receiving.still_waiting();
    p.a.send("late");
    receiving.finish();
    p.a.await_end();
    p.a.recv(10);
}

CASE_THAT(close_under_a_receive_until_the_end, kBlocking) {
    Pending receiving = p.b.start_recv(10, MSG_WAITALL);
    p.b.close();
    p.a.send("late");
    receiving.still_waiting();
    p.a.shutdown(SHUT_WR);
    receiving.finish();
    p.a.await_end();
    p.a.recv(10);
}

CASE_THAT(close_under_a_send, kBlocking) {
    const long filled = p.a.fill().value;
    Pending sending = p.a.start_send(std::string(100'000, 'x'));
    p.a.close();
    sending.still_waiting();
    p.b.call("read it all", [&] {
        size_t got = 0;
        std::string bytes(1'000'000, 0);
        for (;;) {
            const ssize_t result = ::recv(p.b.fd(), bytes.data(), bytes.size(), 0);
            if (result <= 0)
                return static_cast<long>(got) - filled + result;
            got += static_cast<size_t>(result);
        }
    });
    sending.finish();
}

CASE_THAT(dup2_over_a_receive, kBlocking) {
    Pending receiving = p.b.start_recv(10);
    p.b.call("dup2", [&] {
        const int null = ::open("/dev/null", O_RDWR);
        const int result = ::dup2(null, p.b.fd());
        ::close(null);
        return result == p.b.fd() ? 0 : -1;
    });
    receiving.still_waiting();
    p.a.send("late");
    receiving.finish();
    p.a.await_end();
    p.b.recv(1);
}

CASE_THAT(number_used_again_under_a_receive, kBlocking) {
    Pending receiving = p.b.start_recv(10);
    const int number = p.b.fd();
    p.b.close();
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    p.b.call("the number is the pipe's", [&, &reading = reading, &writing = writing] {
        return number == reading.fd() || number == writing.fd();
    });
    writing.write("for the pipe");
    receiving.still_waiting();
    p.a.send("for the stream");
    receiving.finish();
    reading.read(100);
    p.a.await_end();
    p.a.recv(1);
}

CASE_THAT(close_under_a_poll, kBlocking) {
    Pending polling = start_wait_for(Selector::kPoll, {{p.b, POLLIN}});
    p.b.close();
    polling.still_waiting();
    p.a.send("late");
    polling.finish();
}

CASE_THAT(close_under_a_select, kBlocking) {
    Pending polling = start_wait_for(Selector::kSelect, {{p.b, POLLIN}});
    p.b.close();
    polling.still_waiting();
    p.a.send("late");
    polling.finish();
}

CASE_THAT(close_of_a_copy_under_a_receive, kBlocking) {
    const End copy = p.b.dup("copy");
    Pending receiving = copy.start_recv(10);
    p.b.close();
    receiving.still_waiting();
    p.a.send("x");
    receiving.finish();
    copy.close();
    p.a.await_end();
    p.a.recv(1);
}

CASE(close_under_an_epoll_wait) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    Pending waiting = set.start_wait(300);
    p.b.close();
    p.a.await_end();
    waiting.finish();
    p.a.recv(1);
}

CASE(close_of_the_set_under_a_wait) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    Pending waiting = set.start_wait(2000);
    set.end().close();
    waiting.still_waiting();
    p.a.send("x");
    waiting.finish();
    p.b.recv(10);
    exchange(p);
}

CASE_THAT(nonblocking_under_a_receive, kBlocking) {
    Pending receiving = p.b.start_recv(10);
    p.b.nonblocking(true);
    receiving.still_waiting();
    p.a.send("x");
    receiving.finish();
    p.b.recv(1);
}

CASE_THAT(timeout_set_under_a_receive, kBlocking) {
    Pending receiving = p.b.start_recv(10);
    p.b.set_time(SO_RCVTIMEO, 10);
    receiving.still_waiting();
    p.a.send("x");
    receiving.finish();
    p.b.recv(1);
}

namespace {

void stay_on(int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::sched_setaffinity(0, sizeof one, &one);
}

}  // namespace

CASE_THAT(send_size_raised_under_a_send, kBlocking) {
    // The new size is room for who waits already. Both threads share a processor, and the one that sets it
    // only has what the other leaves over: who waits looks before the call that wakes him has returned.
    for (int round = 1; round <= 4; ++round) {
        p.a.set(SOL_SOCKET, SO_SNDBUF, 4096);
        const Outcome filled = p.a.fill();
        int cpu = 0;
        Pending sending = p.a.start("send", [&](Outcome& outcome) {
            cpu = ::sched_getcpu();
            stay_on(cpu);
            outcome.value = ::send(p.a.fd(), "x", 1, MSG_NOSIGNAL);
        });
        p.a.call("set SO_SNDBUF", [&] {
            long result = -1;
            std::thread setter([&] {
                stay_on(cpu);
                const sched_param none{};
                ::sched_setscheduler(0, SCHED_IDLE, &none);
                const int size = 1 << 17;
                result = ::setsockopt(p.a.fd(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
            });
            setter.join();
            return result;
        });
        sending.finish();
        p.b.quietly("drain", [&](Outcome&) {
            std::string buffer(static_cast<size_t>(filled.value) + 1, 0);
            ::recv(p.b.fd(), buffer.data(), buffer.size(), MSG_WAITALL);
        });
    }
}

CASE_THAT(send_size_raised_above_all_room, kBlocking) {
    // The sizes are more than a ring holds, before and after: still the larger one is room for who waits.
    if (p.a.set(SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20).value != 0)
        return;  // a user who may not set such sizes
    p.a.fill();
    Pending sending = p.a.start_send("x");
    sending.still_waiting();
    p.a.set(SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20);
    sending.finish();
    p.a.set(SOL_SOCKET, SO_SNDBUFFORCE, 32 << 20);
    p.a.send("y", MSG_DONTWAIT);
}

CASE_THAT(two_receives_at_once, kBlocking) {
    Pending first = p.b.start_recv(1);
    Pending second = p.b.start_recv(1);
    p.a.send("xx");
    first.finish();
    second.finish();
    exchange(p);
}

CASE_THAT(receive_and_send_at_once, kBlocking) {
    p.a.fill();
    Pending sending = p.a.start_send("more");
    Pending receiving = p.a.start_recv(10);
    p.b.send("answer");
    receiving.finish();
    p.b.quietly("drain", [&](Outcome&) {
        std::string bytes(1'000'000, 0);
        pollfd one{p.b.fd(), POLLIN, 0};
        while (::poll(&one, 1, 100) == 1 && ::recv(p.b.fd(), bytes.data(), bytes.size(), 0) > 0) {
        }
    });
    sending.finish();
}

CASE_THAT(cancelled_receive, kBlocking) {
    p.b.call("recv", [&] {
        return cancelled([&] {
            char byte;
            ::recv(p.b.fd(), &byte, 1, 0);
        });
    });
    p.b.call("read", [&] {
        return cancelled([&] {
            char byte;
            if (::read(p.b.fd(), &byte, 1) < 0)
                return;
        });
    });
    exchange(p);
    p.b.close();
    p.a.await_end();
    p.a.recv(1);
}

CASE_THAT(cancelled_send, kBlocking) {
    const long filled = p.a.fill().value;
    p.a.call("send", [&] {
        return cancelled([&] {
            const std::string bytes = pattern(kTooMuch);
            ::send(p.a.fd(), bytes.data(), bytes.size(), 0);
        });
    });
    p.b.drain(static_cast<size_t>(filled) > 0 ? 1000 : 0);
    p.a.close();
}

CASE_THAT(cancelled_waits, kBlocking) {
    p.b.call("poll", [&] {
        return cancelled([&] {
            pollfd one{p.b.fd(), POLLIN, 0};
            ::poll(&one, 1, 5000);
        });
    });
    p.b.call("select", [&] {
        return cancelled([&] {
            fd_set set;
            FD_ZERO(&set);
            FD_SET(p.b.fd(), &set);
            ::select(p.b.fd() + 1, &set, nullptr, nullptr, nullptr);
        });
    });
    exchange(p);
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    p.b.call("epoll_wait", [&] {
        return cancelled([&] {
            epoll_event event;
            ::epoll_wait(set.end().fd(), &event, 1, 5000);
        });
    });
    set.wait();
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait(1000);
    p.b.recv(1);
    set.wait(20);
    exchange(p);
    set.wait(20);
}

CASE(cancelled_before_a_call) {
    p.b.call("recv", [&] {
        return cancelled([&] {
            await_cancellation();
            char byte;
            ::recv(p.b.fd(), &byte, 1, MSG_DONTWAIT);
        });
    });
    p.b.call("send", [&] {
        return cancelled([&] {
            await_cancellation();
            ::send(p.b.fd(), "never", 5, MSG_DONTWAIT);
        });
    });
    p.b.send("seen");
    p.a.await_bytes(4);
    p.a.recv(100);
}

CASE_THAT(jump_out_of_a_receive, kBlocking) {
    for (int i = 0; i < 3; ++i) {
        p.b.call("recv", [&] {
            return jumped([&] {
                char byte;
                ::recv(p.b.fd(), &byte, 1, 0);
            });
        });
        exchange(p);
    }
    p.b.close();
    p.a.await_end();
    p.a.recv(1);
}

// More often than anything that is remembered of a call has places.
CASE_THAT(jump_out_of_many_receives, kBlocking) {
    for (int i = 0; i < 2; ++i) {
        p.b.call("recv, and poll", [&] {
            long jumps = 0;
            for (int k = 0; k < 70; ++k) {
                jumps += jumped(
                    [&] {
                        char byte;
                        ::recv(p.b.fd(), &byte, 1, 0);
                    },
                    2);
                jumps += jumped(
                    [&] {
                        pollfd one{p.b.fd(), POLLIN, 0};
                        ::poll(&one, 1, -1);
                    },
                    2);
            }
            return jumps;
        });
        exchange(p);
    }
    p.b.close();
    p.a.await_end();
    p.a.recv(1);
}

CASE_THAT(jump_out_of_a_send, kBlocking) {
    p.a.fill();
    p.a.call("send", [&] {
        const std::string bytes = pattern(kTooMuch);
        return jumped([&] { ::send(p.a.fd(), bytes.data(), bytes.size(), 0); });
    });
    p.b.quietly("drain", [&](Outcome&) {
        std::string bytes(1'000'000, 0);
        pollfd one{p.b.fd(), POLLIN, 0};
        while (::poll(&one, 1, 100) == 1 && ::recv(p.b.fd(), bytes.data(), bytes.size(), 0) > 0) {
        }
    });
    exchange(p);
}

CASE_THAT(jump_out_of_waits, kBlocking) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    for (int i = 0; i < 2; ++i) {
        p.b.call("poll", [&] {
            return jumped([&] {
                pollfd one{p.b.fd(), POLLIN, 0};
                ::poll(&one, 1, 5000);
            });
        });
        p.b.call("epoll_wait", [&] {
            return jumped([&] {
                epoll_event event;
                ::epoll_wait(set.end().fd(), &event, 1, 5000);
            });
        });
        exchange(p);
        p.a.send("x");
        p.b.await_bytes(1);
        set.wait(1000);
        p.b.recv(1);
        set.wait(20);
    }
}

CASE_THAT(handler_that_reads, kBlocking) {
    // The handler takes the bytes that the interrupted call waits for.
    static int number;
    static std::atomic<long> taken{0};
    p.b.quietly("handler", [&](Outcome&) {
        number = p.b.fd();
        taken.store(0);
        struct sigaction action {};
        action.sa_handler = [](int) {
            char bytes[16];
            const ssize_t result = ::recv(number, bytes, sizeof bytes, MSG_DONTWAIT);
            taken.fetch_add(result > 0 ? result : 0);
        };
        action.sa_flags = SA_RESTART;
        sigaction(SIGUSR2, &action, nullptr);
    });
    p.b.call_with_text("a receive under a handler that reads", [&](Outcome& outcome) {
        pthread_t thread;
        static std::atomic<long> received;
        received.store(-2);
        pthread_create(
            &thread, nullptr,
            [](void*) -> void* {
                char bytes[16];
                received.store(::recv(number, bytes, sizeof bytes, 0));
                return nullptr;
            },
            nullptr);
        usleep(30'000);
        pthread_kill(thread, SIGUSR2);
        usleep(30'000);
        outcome.text = format("handler %ld, call %ld", taken.load(), received.load());
        pthread_kill(thread, SIGUSR2);
        ::shutdown(number, SHUT_RD);
        pthread_join(thread, nullptr);
        outcome.value = received.load();
    });
}

CASE_THAT(handler_that_writes, kBlocking) {
    static int number;
    p.b.quietly("handler", [&](Outcome&) {
        number = p.b.fd();
        struct sigaction action {};
        action.sa_handler = [](int) { ::send(number, "from the handler", 16, MSG_DONTWAIT); };
        action.sa_flags = SA_RESTART;
        sigaction(SIGUSR2, &action, nullptr);
    });
    p.b.quietly("signal", [&](Outcome&) { raise(SIGUSR2); });
    p.a.await_bytes(16);
    p.a.recv(100);
    Pending receiving = p.b.start_recv(10);
    p.b.quietly("signal", [&](Outcome&) { kill(getpid(), SIGUSR2); });
    p.a.await_bytes(16);
    p.a.recv(100);
    p.a.send("x");
    receiving.finish();
}

CASE_THAT(stopped_and_continued, kBlocking) {
    Pending receiving = p.b.start_recv(10);
    p.b.quietly("a child stops us and lets us go on", [](Outcome&) {
        if (const pid_t child = ::fork(); child == 0) {
            ::kill(getppid(), SIGSTOP);
            usleep(20'000);
            ::kill(getppid(), SIGCONT);
            _exit(0);
        }
        usleep(50'000);
    });
    receiving.still_waiting();
    p.a.send("x");
    receiving.finish();
}

}  // namespace differential
