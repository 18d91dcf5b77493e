// SIGSEGV and SIGBUS in a process whose bad pointers the library turns into EFAULT: what a program sees of
// the two, blocked, handled, ignored, sent, inherited, is the same as without a stream. Each check runs in
// two processes, one with a connection that was opted in and one without; what they tell is compared.
//
//     fault_signals_test [CHECK]
#include <arpa/inet.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

// System V's calls are among what is tested.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

extern char** environ;

namespace {

bool plain = false;
int ours = -1;
int peer = -1;
int output = -1;
/// Volatile: the compiler warns of what it can see through.
char* const volatile kNowhere = reinterpret_cast<char*>(16);

void tell(const char* format, ...) {
    char text[400];
    va_list list;
    va_start(list, format);
    const int size = std::vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (write(output, text, static_cast<size_t>(size)) != size)
        _exit(90);
}

void connect_them() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    peer = socket(AF_INET, SOCK_STREAM, 0);
    if (!plain && (loopfast_enable(listener, 1) != 0 || loopfast_enable(peer, 1) != 0))
        _exit(91);
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
        connect(peer, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        (ours = accept(listener, nullptr, nullptr)) < 0)
        _exit(92);
    close(listener);
    char byte = 0;
    for (int round = 0; round < 1000 && !plain && (loopfast_lane(ours) != 1 || loopfast_lane(peer) != 1);
         ++round)
        for (const int from : {peer, ours})
            if (send(from, &byte, 1, 0) != 1 || recv(from == peer ? ours : peer, &byte, 1, 0) != 1)
                _exit(93);
    if (!plain && loopfast_lane(ours) != LOOPFAST_LANE_RING)
        _exit(94);
}

void result(const char* name, long value) {
    tell("%s %ld %s\n", name, value, value < 0 ? strerror(errno) : "");
}

void use_bad_pointers() {
    result("send", send(ours, kNowhere, 5, 0));
    char byte = 'x';
    send(peer, &byte, 1, 0);
    pollfd one{ours, POLLIN, 0};
    poll(&one, 1, -1);
    result("recv", recv(ours, kNowhere, 5, MSG_DONTWAIT));
    result("poll", poll(reinterpret_cast<pollfd*>(kNowhere), 1, 0));
    result("good recv", recv(ours, &byte, 1, 0));
}

sigset_t set_of(int first, int second = 0) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, first);
    if (second != 0)
        sigaddset(&set, second);
    return set;
}
sigset_t all() {
    sigset_t set;
    sigfillset(&set);
    return set;
}
void change(int how, const sigset_t& set) { sigprocmask(how, &set, nullptr); }

void tell_set(const char* name, const sigset_t& set) {
    tell("%s:", name);
    for (const int signal : {SIGSEGV, SIGBUS, SIGUSR1, SIGUSR2, SIGTERM})
        tell(" %d", sigismember(&set, signal));
    tell("\n");
}
void tell_mask(const char* name) {
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, nullptr, &now);
    tell_set(name, now);
}
void tell_pending() {
    sigset_t now;
    sigpending(&now);
    tell_set("pending", now);
}

void handle(int signal, void (*handler)(int), int flags, const sigset_t* mask = nullptr) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    if (mask != nullptr)
        action.sa_mask = *mask;
    sigaction(signal, &action, nullptr);
}
void say(int signal) {
    tell("handler of %d\n", signal);
    tell_mask("in it");
}
void fault() { *reinterpret_cast<volatile int*>(kNowhere) = 1; }

void* in_thread(void*) {
    tell_mask("thread");
    use_bad_pointers();
    return nullptr;
}
void run_thread(void* (*work)(void*), void* argument = nullptr) {
    pthread_t thread;
    pthread_create(&thread, nullptr, work, argument);
    pthread_join(thread, nullptr);
}

void blocked_all() {
    connect_them();
    change(SIG_BLOCK, all());
    tell_mask("all");
    use_bad_pointers();
    run_thread(in_thread);
    change(SIG_UNBLOCK, set_of(SIGSEGV));
    tell_mask("without one");
    use_bad_pointers();
    change(SIG_UNBLOCK, set_of(SIGBUS));
    tell_mask("without two");
    change(SIG_SETMASK, set_of(SIGUSR1));
    tell_mask("only another");
}

void blocked_before() {
    change(SIG_BLOCK, all());
    connect_them();
    tell_mask("all");
    use_bad_pointers();
    run_thread(in_thread);
}

void blocked_in_another_thread_before() {
    int ends[2];
    if (pipe(ends) != 0)
        _exit(95);
    pthread_t thread;
    const sigset_t both = set_of(SIGSEGV, SIGBUS);
    change(SIG_BLOCK, both);
    pthread_create(
        &thread, nullptr,
        [](void* from) -> void* {
            char byte;
            if (read(*static_cast<int*>(from), &byte, 1) == 1)
                in_thread(nullptr);
            return nullptr;
        },
        &ends[0]);
    change(SIG_UNBLOCK, both);
    connect_them();
    if (write(ends[1], "", 1) != 1)
        _exit(96);
    pthread_join(thread, nullptr);
}

void blocked_one() {
    connect_them();
    for (const int signal : {SIGSEGV, SIGBUS}) {
        change(SIG_SETMASK, set_of(signal, SIGUSR2));
        tell_mask("one");
        use_bad_pointers();
        sigset_t old;
        const sigset_t more = set_of(SIGTERM, SIGBUS);
        sigprocmask(SIG_BLOCK, &more, &old);
        tell_set("old", old);
        tell_mask("more");
    }
    void* const file = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED,
                            static_cast<int>(syscall(SYS_memfd_create, "x", 0)), 0);
    result("past the end", send(ours, static_cast<char*>(file) + 4096, 5, 0));
}

void handler_with_full_mask() {
    const sigset_t full = all();
    handle(
        SIGUSR1, [](int signal) { say(signal), use_bad_pointers(); }, 0, &full);
    connect_them();
    handle(
        SIGUSR2, [](int signal) { say(signal), use_bad_pointers(); }, 0, &full);
    raise(SIGUSR1);
    raise(SIGUSR2);
    tell_mask("after");
    struct sigaction now {};
    sigaction(SIGUSR1, nullptr, &now);
    tell_set("shown", now.sa_mask);
    handle(
        SIGUSR1, [](int) { change(SIG_BLOCK, all()); }, 0);
    raise(SIGUSR1);
    tell_mask("after one that blocks");
    sigaction(SIGUSR1, nullptr, &now);
    tell_set("shown", now.sa_mask);
}

void fault_while_blocked() {
    connect_them();
    handle(SIGSEGV, say, 0);
    change(SIG_BLOCK, set_of(SIGSEGV));
    fault();
    tell("lives\n");
}

void fault_while_the_other_is_blocked() {
    connect_them();
    handle(
        SIGSEGV, [](int signal) { say(signal), _exit(3); }, 0);
    change(SIG_BLOCK, set_of(SIGBUS));
    fault();
}

void bad_pointer_in_own_handler() {
    connect_them();
    handle(
        SIGSEGV, [](int signal) { say(signal), use_bad_pointers(), _exit(3); }, 0);
    fault();
}

void second_fault_in_handler() {
    connect_them();
    handle(
        SIGSEGV, [](int signal) { say(signal), fault(), _exit(3); }, 0);
    fault();
}

void pending() {
    connect_them();
    handle(SIGSEGV, say, 0);
    change(SIG_BLOCK, all());
    raise(SIGSEGV);
    kill(getpid(), SIGBUS);
    tell_pending();
    tell_mask("all");
    timespec none{};
    siginfo_t info{};
    const sigset_t bus = set_of(SIGBUS);
    result("sigtimedwait", sigtimedwait(&bus, &info, &none));
    tell("code %d, itself %d\n", info.si_code, info.si_pid == getpid());
    tell_pending();
    change(SIG_UNBLOCK, set_of(SIGSEGV));
    tell_pending();
    change(SIG_SETMASK, all());
    raise(SIGSEGV);
    change(SIG_SETMASK, set_of(SIGBUS));
    tell_mask("end");
}

void pending_and_taken() {
    connect_them();
    const sigset_t both = set_of(SIGSEGV, SIGBUS);
    change(SIG_BLOCK, both);
    const int taker = signalfd(-1, &both, SFD_NONBLOCK);
    for (int i = 0; i < 2; ++i) {
        raise(SIGSEGV);
        kill(getpid(), SIGBUS);
        signalfd_siginfo taken[3];
        result("taken", read(taker, taken, sizeof taken));
        use_bad_pointers();
        tell_mask("both");
        tell_pending();
    }
}

void pending_in_handler() {
    connect_them();
    handle(SIGSEGV, say, 0);
    const sigset_t full = all();
    handle(
        SIGUSR1, [](int signal) { raise(SIGSEGV), say(signal); }, 0, &full);
    raise(SIGUSR1);
    tell_mask("after");
}

void sent_to_who_has_it_free() {
    connect_them();
    handle(
        SIGSEGV, [](int) { tell("main thread %d\n", gettid() == getpid()); }, 0);
    static int ends[2];
    if (pipe(ends) != 0)
        _exit(95);
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
            char byte;
            while (read(ends[0], &byte, 1) < 0)
                continue;
            return nullptr;
        },
        nullptr);
    change(SIG_BLOCK, all());
    kill(getpid(), SIGSEGV);
    if (write(ends[1], "", 1) != 1)
        _exit(96);
    pthread_join(thread, nullptr);
}

void waits_with_masks() {
    connect_them();
    handle(SIGSEGV, say, 0);
    const sigset_t full = all();
    sigset_t but_one = full;
    sigdelset(&but_one, SIGUSR1);
    handle(
        SIGUSR1, [](int signal) { say(signal), use_bad_pointers(); }, 0);
    change(SIG_BLOCK, full);
    raise(SIGUSR1);
    result("sigsuspend", sigsuspend(&but_one));
    raise(SIGUSR1);
    pollfd one{ours, POLLIN, 0};
    result("ppoll", ppoll(&one, 1, nullptr, &but_one));
    const sigset_t none{};
    raise(SIGSEGV);
    result("ppoll", ppoll(&one, 1, nullptr, &none));
    tell_mask("after");
}

sigjmp_buf place;
void jumps() {
    connect_them();
    static volatile int rounds = 0;
    for (const int flags : {0, static_cast<int>(SA_NODEFER)}) {
        handle(
            SIGSEGV, [](int) { rounds = rounds + 1, siglongjmp(place, 1); }, flags);
        for (int i = 0; i < 3; ++i)
            if (sigsetjmp(place, flags == 0 ? 1 : 0) == 0)
                fault();
        tell("rounds %d\n", rounds);
        tell_mask("after");
    }
    change(SIG_BLOCK, all());
    if (sigsetjmp(place, 1) == 0) {
        change(SIG_SETMASK, set_of(SIGTERM));
        fault();
    }
    tell_mask("after");
    use_bad_pointers();
}

void flags_and_stacks() {
    connect_them();
    static char memory[65536];
    const stack_t stack{memory, 0, sizeof memory};
    sigaltstack(&stack, nullptr);
    const sigset_t mask = set_of(SIGUSR2, SIGBUS);
    for (const int flags : {0, static_cast<int>(SA_NODEFER), static_cast<int>(SA_ONSTACK),
                            static_cast<int>(SA_RESETHAND | SA_ONSTACK)}) {
        handle(
            SIGSEGV,
            [](int signal) {
                say(signal);
                stack_t now;
                sigaltstack(nullptr, &now);
                tell("other stack %d\n", (now.ss_flags & SS_ONSTACK) != 0);
            },
            flags, &mask);
        raise(SIGSEGV);
        struct sigaction now {};
        sigaction(SIGSEGV, nullptr, &now);
        tell("handler %d, flags %x\n", now.sa_handler != SIG_DFL, now.sa_flags & ~0x04000000);
        tell_set("shown", now.sa_mask);
    }
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t*, void* context) {
        auto& frame = static_cast<ucontext_t*>(context)->uc_sigmask;
        tell_set("frame", frame);
        sigaddset(&frame, SIGBUS);
        sigdelset(&frame, SIGTERM);
    };
    sigaction(SIGSEGV, &action, nullptr);
    change(SIG_SETMASK, set_of(SIGTERM));
    raise(SIGSEGV);
    tell_mask("after");
}

const char* const kShow[] = {"grep", "-E", "Sig(Blk|Ign)", "/proc/self/status", nullptr};
void inherited() {
    connect_them();
    signal(SIGSEGV, SIG_IGN);
    change(SIG_BLOCK, set_of(SIGBUS, SIGUSR2));
    dup2(output, 1);
    auto* const arguments = const_cast<char**>(kShow);
    pid_t child;
    if (posix_spawnp(&child, "grep", nullptr, nullptr, arguments, environ) == 0)
        waitpid(child, nullptr, 0);
    if ((child = fork()) == 0)
        execvp("grep", arguments), _exit(97);
    waitpid(child, nullptr, 0);
    if ((child = vfork()) == 0)
        execvp("grep", arguments), _exit(97);
    waitpid(child, nullptr, 0);
    if ((child = vfork()) == 0) {
        signal(SIGSEGV, SIG_DFL);
        change(SIG_SETMASK, set_of(SIGUSR1));
        execvp("grep", arguments), _exit(97);
    }
    waitpid(child, nullptr, 0);
    // NOLINTNEXTLINE(cert-env33-c): it is one of the ways in which masks are inherited
    result("system", system("exec grep -E 'Sig(Blk|Ign)' /proc/self/status"));
    result("exec", execl("/nowhere", "nowhere", nullptr));
    tell("ignored %d\n", signal(SIGSEGV, SIG_IGN) == SIG_IGN);
    tell_mask("after");
    use_bad_pointers();
    raise(SIGSEGV);
    execvp("grep", arguments);
}

void system_v() {
    connect_them();
    tell("set %d\n", sigset(SIGSEGV, say) == SIG_DFL);
    use_bad_pointers();
    tell("hold %d\n", sigset(SIGSEGV, SIG_HOLD) == say);
    use_bad_pointers();
    tell_mask("held");
    raise(SIGSEGV);
    tell("set %d\n", sigset(SIGSEGV, say) == SIG_HOLD);
    result("sighold", sighold(SIGBUS));
    tell_mask("held");
    result("sigrelse", sigrelse(SIGBUS));
    tell_mask("released");
    sighold(SIGSEGV);
    raise(SIGSEGV);
    result("sigpause", sigpause(SIGSEGV));
    tell_mask("after");
    sigrelse(SIGSEGV);
    result("sigignore", sigignore(SIGSEGV));
    use_bad_pointers();
    raise(SIGSEGV);
    tell("set %d\n", sigset(SIGSEGV, SIG_DFL) == SIG_IGN);
    tell("ssignal %d\n", ssignal(SIGSEGV, say) == SIG_DFL);
    result("sighold", sighold(99));
}

void by_number() {
    connect_them();
    struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)();
        unsigned long mask;
    } action{SIG_IGN, 0, nullptr, 1}, old{};
    result("rt_sigaction", syscall(SYS_rt_sigaction, SIGSEGV, &action, &old, 8));
    tell("default %d\n", old.handler == SIG_DFL);
    use_bad_pointers();
    action.handler = SIG_DFL;
    result("rt_sigaction", syscall(SYS_rt_sigaction, SIGSEGV, &action, &old, 8));
    tell("ignored %d mask %lu\n", old.handler == SIG_IGN, old.mask);
    use_bad_pointers();
    result("bad size", syscall(SYS_rt_sigaction, SIGSEGV, &action, &old, 16));
    result("bad action", syscall(SYS_rt_sigaction, SIGSEGV, kNowhere, nullptr, 8));
    result("bad old", syscall(SYS_rt_sigaction, SIGSEGV, nullptr, kNowhere, 8));
    unsigned long mask = ~0UL;
    result("rt_sigprocmask", syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mask, nullptr, 8));
    use_bad_pointers();
    tell_mask("all");
    result("bad how", syscall(SYS_rt_sigprocmask, 77, &mask, nullptr, 8));
    result("bad set", syscall(SYS_rt_sigprocmask, SIG_BLOCK, kNowhere, nullptr, 8));
    result("bad old", syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, kNowhere, 8));
}

struct Check {
    const char* name;
    void (*run)();
};
constexpr Check kChecks[] = {{"blocked_all", blocked_all},
                             {"blocked_before", blocked_before},
                             {"blocked_in_another_thread_before", blocked_in_another_thread_before},
                             {"blocked_one", blocked_one},
                             {"handler_with_full_mask", handler_with_full_mask},
                             {"fault_while_blocked", fault_while_blocked},
                             {"fault_while_the_other_is_blocked", fault_while_the_other_is_blocked},
                             {"bad_pointer_in_own_handler", bad_pointer_in_own_handler},
                             {"second_fault_in_handler", second_fault_in_handler},
                             {"pending", pending},
                             {"pending_and_taken", pending_and_taken},
                             {"pending_in_handler", pending_in_handler},
                             {"sent_to_who_has_it_free", sent_to_who_has_it_free},
                             {"waits_with_masks", waits_with_masks},
                             {"jumps", jumps},
                             {"flags_and_stacks", flags_and_stacks},
                             {"inherited", inherited},
                             {"system_v", system_v},
                             {"by_number", by_number}};

std::string told(const Check& check, bool without) {
    int ends[2];
    if (pipe(ends) != 0)
        return "no pipe";
    const pid_t child = fork();
    if (child == 0) {
        plain = without;
        output = ends[1];
        close(ends[0]);
        alarm(20);
        check.run();
        _exit(0);
    }
    close(ends[1]);
    std::string text;
    char bytes[4096];
    for (ssize_t size; (size = read(ends[0], bytes, sizeof bytes)) > 0;)
        text.append(bytes, static_cast<size_t>(size));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        return text + "killed by " + std::to_string(WTERMSIG(status)) + "\n";
    return text + "status " + std::to_string(WEXITSTATUS(status)) + "\n";
}

}  // namespace

int main(int argc, char** argv) {
    int failed = 0;
    for (const Check& check : kChecks) {
        if (argc > 1 && std::strcmp(argv[1], check.name) != 0)
            continue;
        const std::string kernel = told(check, true);
        const std::string ring = told(check, false);
        if (kernel == ring && argc <= 1)
            continue;
        failed += kernel == ring ? 0 : 1;
        std::printf("%s: without a stream:\n%s%s: with one:\n%s\n", check.name, kernel.c_str(), check.name,
                    ring.c_str());
    }
    return failed != 0;
}
