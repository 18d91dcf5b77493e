// What a program finds of its signal handlers: as it installed them, what they do to a call, and their
// frames.
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include <unwind.h>

#include <atomic>
#include <cstring>

#include "cases.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // programs call them all the same

namespace differential {

namespace {

void count_run(int) {}

/// The disposition of SIGUSR1 and SIGUSR2 as sigaction shows it.
void show(const End& end) {
    for (const int number : {SIGUSR1, SIGUSR2})
        end.call_with_text(format("disposition of %d", number), [&](Outcome& outcome) {
            struct sigaction now {};
            outcome.value = sigaction(number, nullptr, &now);
            uint64_t mask;
            static_assert(sizeof mask <= sizeof now.sa_mask);
            memcpy(&mask, &now.sa_mask, sizeof mask);
            outcome.text = format("%s flags %#x mask %#llx",
                                  now.sa_handler == SIG_DFL     ? "default"
                                  : now.sa_handler == SIG_IGN   ? "ignored"
                                  : now.sa_handler == count_run ? "ours"
                                                                : "another",
                                  static_cast<unsigned>(now.sa_flags), static_cast<unsigned long long>(mask));
        });
}

/// An old handler, by name.
long which(sighandler_t handler) {
    return handler == SIG_DFL     ? 0
           : handler == SIG_IGN   ? 1
           : handler == SIG_ERR   ? -1
           : handler == count_run ? 2
                                  : 3;
}

/// A receive in a thread of its own that gets SIGUSR2 as it sleeps, and a byte when that ended nothing.
void receive_under_signal(const End& from, const End& end) {
    Pending receiving = end.start("recv", [fd = end.fd()](Outcome& outcome) {
        char byte;
        outcome.value = ::recv(fd, &byte, 1, 0);
        outcome.error = errno;
    });
    receiving.interrupt(SIGUSR2);
    receiving.still_waiting();
    from.send("x");
    from.outq();  // until the kernel has really delivered it
    receiving.finish();
    end.recv(1, MSG_DONTWAIT);
}

}  // namespace

CASE(dispositions_shown) {
    p.b.call("signal", [] { return which(signal(SIGUSR1, count_run)); });
    p.b.call("sysv_signal", [] { return which(sysv_signal(SIGUSR2, count_run)); });
    show(p.b);
    p.b.call("signal", [] { return which(signal(SIGUSR1, SIG_ERR)); });
    p.b.call("signal", [] { return which(signal(65, count_run)); });
    p.b.call("signal", [] { return which(signal(32, count_run)); });
    p.b.call("signal", [] { return which(signal(SIGKILL, count_run)); });
    p.b.call("signal", [] { return which(signal(SIGUSR1, SIG_IGN)); });
    p.b.call("sigset", [] { return which(sigset(SIGUSR2, count_run)); });
    show(p.b);
    p.b.call("sigaction", [] {
        struct sigaction action {};
        action.sa_handler = count_run;
        action.sa_flags = static_cast<int>(SA_NODEFER | SA_RESTART | SA_ONSTACK | SA_RESETHAND);
        sigfillset(&action.sa_mask);
        return sigaction(SIGUSR1, &action, nullptr);
    });
    show(p.b);
    p.b.call("raise", [] { return raise(SIGUSR1); });
    show(p.b);
    p.b.call("what was shown, installed", [] {
        struct sigaction now {};
        return sigaction(SIGUSR2, nullptr, &now) + sigaction(SIGUSR1, &now, nullptr);
    });
    show(p.b);
}

CASE_THAT(signal_after_siginterrupt, kBlocking) {
    for (const int interrupt : {1, 0}) {
        p.b.call("siginterrupt", [&] { return siginterrupt(SIGUSR2, interrupt); });
        p.b.call("signal", [] { return which(signal(SIGUSR2, count_run)); });
        show(p.b);
        receive_under_signal(p.a, p.b);
    }
    p.b.call("siginterrupt", [] { return siginterrupt(65, 1); });
}

namespace {

std::atomic<int> frames{0};

int depth() {
    int count = 0;
    _Unwind_Backtrace(
        [](_Unwind_Context*, void* seen) {
            ++*static_cast<int*>(seen);
            return _URC_NO_REASON;
        },
        &count);
    return count;
}

}  // namespace

// A handler's way back is the frame between it and what it interrupted: crash reports, profilers,
// cancellation and exceptions go through it.
CASE_THAT(frames_under_a_handler, kBlocking) {
    struct sigaction action {};
    action.sa_handler = [](int) { frames.store(depth()); };
    for (const int flags : {0, SA_SIGINFO, SA_RESTART}) {
        p.b.quietly("sigaction", [&](Outcome&) {
            action.sa_flags = flags;
            sigaction(SIGUSR2, &action, nullptr);
        });
        p.b.call("raised", [] {
            frames.store(0);
            const int here = depth();
            raise(SIGUSR2);
            return static_cast<long>(frames.load() > here + 1);
        });
        p.b.call("in a wait", [fd = p.b.fd(), flags] {
            static std::atomic<int> here;
            static std::atomic<int> descriptor;
            frames.store(0);
            here.store(0);
            descriptor.store(fd);
            pthread_t thread;
            pthread_create(
                &thread, nullptr,
                [](void*) -> void* {
                    here.store(depth());
                    char byte;
                    return ::recv(descriptor.load(), &byte, 1, 0) < 0 ? nullptr : &here;
                },
                nullptr);
            while (here.load() == 0)
                usleep(1'000);
            usleep(20'000);
            pthread_kill(thread, SIGUSR2);
            while (frames.load() == 0)
                usleep(1'000);
            if (flags == SA_RESTART)
                ::shutdown(descriptor.load(), SHUT_RD);  // which the handler did not end
            pthread_join(thread, nullptr);
            return static_cast<long>(frames.load() > here.load() + 1);
        });
    }
}

CASE_THAT(cancelled_in_a_handler, kBlocking) {
    struct sigaction action {};
    action.sa_handler = [](int) {
        // NOLINTNEXTLINE(concurrency-thread-canceltype-asynchronous): that is what is tried
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
        pthread_cancel(pthread_self());
    };
    p.b.quietly("sigaction", [&](Outcome&) { sigaction(SIGUSR2, &action, nullptr); });
    p.b.call("recv", [fd = p.b.fd()] {
        static std::atomic<int> descriptor;
        static std::atomic<bool> cleaned;
        static std::atomic<pid_t> tid;
        static std::atomic<bool> returned;
        descriptor.store(fd);
        cleaned.store(false);
        tid.store(0);
        returned.store(false);
        pthread_t thread;
        pthread_create(
            &thread, nullptr,
            [](void*) -> void* {
                pthread_cleanup_push([](void*) { cleaned.store(true); }, nullptr);
                tid.store(gettid());
                char byte;
                ::recv(descriptor.load(), &byte, 1, 0);
                returned.store(true);
                pthread_cleanup_pop(0);
                return nullptr;
            },
            nullptr);
        await_sleep(tid, returned);
        pthread_kill(thread, SIGUSR2);
        void* result = nullptr;
        pthread_join(thread, &result);
        return static_cast<long>(result == PTHREAD_CANCELED) + (cleaned.load() ? 2 : 0);
    });
    p.a.send("after");
    p.b.recv(10);
}

}  // namespace differential
