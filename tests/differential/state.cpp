// See end.h: endings, options, readiness, duplicates, and calls that wait in a thread.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "end.h"

namespace differential {

namespace {

struct Name {
    unsigned value;
    const char* name;
};

std::string names(unsigned value, const Name* table, size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) {
        if ((value & table[i].value) == 0)
            continue;
        text += (text.empty() ? "" : "|") + std::string(table[i].name);
        value &= ~table[i].value;
    }
    if (value != 0)
        text += format("%s0x%x", text.empty() ? "" : "|", value);
    return text.empty() ? "0" : text;
}

struct Task {
    Body body;
    Outcome outcome;
    std::atomic<bool> done{false};
    std::atomic<pid_t> tid{0};
    pthread_t thread{};
};
std::vector<std::unique_ptr<Task>> tasks;  // of every actor; null where it lives elsewhere

std::atomic<int> handler_runs{0};

/// The stat files of the threads looked at last, left open far above what the case uses: a look opens nothing
/// then. One that did would take the lowest number for a moment, which may be the very one that a call under
/// way has lost, and is made anew on.
struct StatFile {
    pid_t tid = 0;
    int fd = -1;
};
constexpr int kStatFiles = 8;
constexpr int kHighNumber = 900;
StatFile stat_files[kStatFiles];

/// Reads it anew, and leaves it open where there is a high number for it.
long read_stat_anew(pid_t tid, char* text, size_t size) {
    static int next = 0;
    const std::string path = format("/proc/self/task/%d/stat", tid);
    const int low = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC));
    if (low < 0)
        return -1;
    const long result = syscall(SYS_pread64, low, text, size, 0);
    const int high = static_cast<int>(syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, kHighNumber));
    syscall(SYS_close, low);
    if (high < 0)
        return result;
    StatFile& file = stat_files[next++ % kStatFiles];
    if (file.fd >= 0)
        syscall(SYS_close, file.fd);
    file = {tid, high};
    return result;
}

/// The state letter of a thread, from its stat line behind the name in parentheses.
char state_of(pid_t tid) {
    char text[256];
    long size = -1;
    for (const StatFile& file : stat_files)
        if (file.tid == tid && size <= 0)
            size = syscall(SYS_pread64, file.fd, text, sizeof text, 0);
    if (size <= 0)  // none is open, or the case has closed it
        size = read_stat_anew(tid, text, sizeof text);
    const std::string line(text, size > 0 ? static_cast<size_t>(size) : 0);
    const size_t end = line.rfind(") ");
    return end == std::string::npos ? 'X' : line[end + 2];
}

}  // namespace

void await_sleep(const std::atomic<pid_t>& thread, const std::atomic<bool>& over) {
    int asleep = 0;
    await([&] {
        asleep = thread.load() != 0 && state_of(thread.load()) == 'S' ? asleep + 1 : 0;
        return over.load() || asleep >= 3;
    });
}

std::string flag_names(int flags) {
    static constexpr Name kNames[] = {
        {MSG_OOB, "OOB"},           {MSG_PEEK, "PEEK"},         {MSG_DONTROUTE, "DONTROUTE"},
        {MSG_TRUNC, "TRUNC"},       {MSG_DONTWAIT, "DONTWAIT"}, {MSG_EOR, "EOR"},
        {MSG_WAITALL, "WAITALL"},   {MSG_CONFIRM, "CONFIRM"},   {MSG_NOSIGNAL, "NOSIGNAL"},
        {MSG_MORE, "MORE"},         {MSG_ERRQUEUE, "ERRQUEUE"}, {MSG_WAITFORONE, "WAITFORONE"},
        {MSG_ZEROCOPY, "ZEROCOPY"}, {MSG_FASTOPEN, "FASTOPEN"}, {MSG_CMSG_CLOEXEC, "CMSG_CLOEXEC"}};
    return names(static_cast<unsigned>(flags), kNames, std::size(kNames));
}

std::string event_names(unsigned events) {
    static constexpr Name kNames[] = {{EPOLLIN, "IN"},           {EPOLLPRI, "PRI"},
                                      {EPOLLOUT, "OUT"},         {EPOLLERR, "ERR"},
                                      {EPOLLHUP, "HUP"},         {POLLNVAL, "NVAL"},
                                      {EPOLLRDNORM, "RDNORM"},   {EPOLLRDBAND, "RDBAND"},
                                      {EPOLLWRNORM, "WRNORM"},   {EPOLLWRBAND, "WRBAND"},
                                      {EPOLLRDHUP, "RDHUP"},     {EPOLLET, "ET"},
                                      {EPOLLONESHOT, "ONESHOT"}, {EPOLLEXCLUSIVE, "EXCLUSIVE"}};
    return names(events, kNames, std::size(kNames));
}

Pending End::start(const std::string& what, const Body& body) const {
    const auto number = static_cast<int>(tasks.size());
    tasks.emplace_back();
    script_->run(actor_, title("start " + what), [&](Outcome&) {
        tasks.back() = std::make_unique<Task>();
        Task& task = *tasks.back();
        task.body = body;
        pthread_create(
            &task.thread, nullptr,
            [](void* argument) -> void* {
                auto& running = *static_cast<Task*>(argument);
                running.tid.store(static_cast<pid_t>(syscall(SYS_gettid)));
                errno = 0;
                running.body(running.outcome);
                if (running.outcome.value < 0 && running.outcome.error == 0)
                    running.outcome.error = errno;
                if (count_of_sigpipe() != 0)
                    running.outcome.text += format(" SIGPIPE*%d", count_of_sigpipe());
                running.done.store(true);
                return nullptr;
            },
            &task);
        await_sleep(task.tid, task.done);
    });
    return {*script_, actor_, title(what), number};
}

namespace {

/// Where a thread is, as /proc has it: the call and the kernel's function, for a hang that nobody can look
/// at.
std::string where_is(pid_t tid) {
    std::string text;
    for (const char* const name : {"syscall", "wchan", "stack"}) {
        char found[400] = {};
        const int fd = ::open(format("/proc/self/task/%d/%s", tid, name).c_str(), O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && syscall(SYS_read, fd, found, sizeof found - 1) > 0)
            text += format(" %s %s", name, found);
        if (fd >= 0)
            syscall(SYS_close, fd);
    }
    for (char& c : text)
        c = c == '\n' ? ' ' : c;
    return text;
}

}  // namespace

Outcome Pending::finish() {
    return script_->run(actor_, what_, [&](Outcome& outcome) {
        Task& task = *tasks[static_cast<size_t>(task_)];
        if (!await([&] { return task.done.load(); })) {
            const std::string where = where_is(task.tid);
            // Slow is not hung: the kernel may keep it waiting for a lock of its own.
            const bool late = await([&] { return task.done.load(); }, 20'000);
            script_->line("!" + what_ + (late ? " returned late," : " did not return,") + where);
            _exit(4);
        }
        pthread_join(task.thread, nullptr);
        outcome = task.outcome;
    });
}

void Pending::interrupt(int signal) {
    script_->run(actor_, what_ + format(" <- %s", sigabbrev_np(signal)), [&](Outcome&) {
        Task& task = *tasks[static_cast<size_t>(task_)];
        if (task.done.load())
            return;
        struct sigaction action {};
        sigaction(signal, nullptr, &action);
        action.sa_handler = [](int) { handler_runs.fetch_add(1); };
        sigaction(signal, &action, nullptr);
        const int before = handler_runs.load();
        await_sleep(task.tid, task.done);  // again, if what came meanwhile has woken it
        if (task.done.load())
            return;
        pthread_kill(task.thread, signal);
        await([&] { return handler_runs.load() != before; });
        await_sleep(task.tid, task.done);
    });
}

void Pending::still_waiting() {
    script_->run(actor_, what_ + " still waits?", [&](Outcome& outcome) {
        const timespec pause{0, 20'000'000};
        nanosleep(&pause, nullptr);
        outcome.value = !tasks[static_cast<size_t>(task_)]->done.load();
    });
}

Outcome End::shutdown(int how) const {
    static constexpr const char* kNames[] = {"RD", "WR", "RDWR"};
    return call(how >= 0 && how <= 2 ? std::string("shutdown ") + kNames[how] : format("shutdown %d", how),
                [&] { return ::shutdown(fd_, how); });
}

Outcome End::close() const {
    return call("close", [&] { return ::close(fd_); });
}

Outcome End::reset() const {
    return call("reset", [&] {
        const linger off{1, 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &off, sizeof off);
        return ::close(fd_);
    });
}

Outcome End::poll(short events, int timeout) const {
    return call_with_text("poll " + event_names(static_cast<unsigned short>(events)), [&](Outcome& outcome) {
        pollfd entry{fd_, events, 0};
        outcome.value = ::poll(&entry, 1, timeout);
        outcome.error = errno;
        outcome.text = event_names(static_cast<unsigned short>(entry.revents));
    });
}

Outcome End::fionread() const {
    return call_with_text("FIONREAD", [&](Outcome& outcome) {
        int bytes = -1;
        outcome.value = ::ioctl(fd_, FIONREAD, &bytes);
        outcome.error = errno;
        outcome.text = std::to_string(bytes);
    });
}

Outcome End::outq() const {
    return call_with_text("SIOCOUTQ", [&](Outcome& outcome) {
        int bytes = -1;
        await(
            [&] {
                outcome.value = ::ioctl(fd_, SIOCOUTQ, &bytes);
                outcome.error = errno;
                return bytes == 0 || outcome.value < 0;
            },
            500);
        outcome.text = std::to_string(bytes);
    });
}

Outcome End::get(int level, int name) const {
    return call_with_text(format("getsockopt %d %d", level, name), [&](Outcome& outcome) {
        int value = -1;
        socklen_t size = sizeof value;
        outcome.value = ::getsockopt(fd_, level, name, &value, &size);
        outcome.error = errno;
        outcome.text = level == SOL_SOCKET && name == SO_ERROR ? error_name(value) : std::to_string(value);
    });
}

Outcome End::set(int level, int name, int value) const {
    return call(format("setsockopt %d %d = %d", level, name, value),
                [&] { return ::setsockopt(fd_, level, name, &value, sizeof value); });
}

Outcome End::set_time(int name, int milliseconds) const {
    return call(format("%s = %d ms", name == SO_RCVTIMEO ? "SO_RCVTIMEO" : "SO_SNDTIMEO", milliseconds), [&] {
        const timeval time{milliseconds / 1000, milliseconds % 1000 * 1000};
        return ::setsockopt(fd_, SOL_SOCKET, name, &time, sizeof time);
    });
}

Outcome End::getfl() const {
    return call("F_GETFL", [&] { return static_cast<long>(::fcntl(fd_, F_GETFL)); });
}

Outcome End::nonblocking(bool on, bool by_ioctl) const {
    return call(format("%s nonblocking=%d", by_ioctl ? "FIONBIO" : "F_SETFL", on), [&]() -> long {
        int value = on;
        if (by_ioctl)
            return ::ioctl(fd_, FIONBIO, &value);
        const int flags = ::fcntl(fd_, F_GETFL);
        return ::fcntl(fd_, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
    });
}

Outcome End::getpeername() const {
    return call_with_text("getpeername", [&](Outcome& outcome) {
        sockaddr_in6 address{};
        socklen_t size = sizeof address;
        outcome.value = ::getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &size);
        outcome.error = errno;
        if (outcome.value < 0)
            return;
        char text[INET6_ADDRSTRLEN] = "";
        const void* const bytes = address.sin6_family == AF_INET
                                      ? static_cast<void*>(&reinterpret_cast<sockaddr_in&>(address).sin_addr)
                                      : static_cast<void*>(&address.sin6_addr);
        inet_ntop(address.sin6_family, bytes, text, sizeof text);
        outcome.text = format("%s, %u bytes", text, size);
    });
}

End End::dup_with(const std::string& name, const std::string& what,
                  const std::function<int(int)>& how) const {
    End copy = *this;
    copy.name_ = name;
    call(what + " = " + name, [&]() -> long {
        copy.fd_ = how(fd_);
        return copy.fd_ < 0 ? -1 : 0;
    });
    return copy;
}

End End::dup(const std::string& name) const {
    return dup_with(name, "dup", [](int fd) { return ::dup(fd); });
}

void End::await_bytes(size_t size) const {
    quietly(format("await %zu bytes", size), [&](Outcome&) {
        int bytes = 0;
        if (!await([&] { return ::ioctl(fd_, FIONREAD, &bytes) < 0 || static_cast<size_t>(bytes) >= size; }))
            script_->line(name_ + format(": %zu bytes awaited, there are %d", size, bytes));
    });
}

void End::await_poll(short events) const {
    const std::string what = "await " + event_names(static_cast<unsigned short>(events));
    quietly(what, [&](Outcome&) {
        pollfd entry{fd_, events, 0};
        if (!await([&] { return ::poll(&entry, 1, 0) >= 0 && (entry.revents & events) == events; }))
            script_->line(name_ + ": " + what + ", there is " +
                          event_names(static_cast<unsigned short>(entry.revents)));
    });
}

void End::await_acknowledged_end() const {
    quietly("await the acknowledgement", [&](Outcome&) {
        await([&] {
            tcp_info info{};
            socklen_t size = sizeof info;
            return ::getsockopt(fd_, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
                   (info.tcpi_state != TCP_FIN_WAIT1 && info.tcpi_state != TCP_CLOSING &&
                    info.tcpi_state != TCP_LAST_ACK);
        });
    });
}

}  // namespace differential
