// Programs that are executed: exec in all its forms, and the calls that fork and execute inside libc.
//
// The new image knows no streams. A descriptor that stays open over exec leaves the ring first; which of them
// do is known at the call, so that is when it happens. A child of vfork runs on its parent's memory and is
// the one who calls exec or dup2: what it leaves, it leaves for both.
#include <alloca.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/apart.h"
#include "base/hidden.h"
#include "link/link.h"
#include "policy/policy.h"
#include "posix/masks.h"
#include "posix/posix.h"
#include "posix/signals.h"
#include "stream/setup.h"
#include "wait/steward.h"

namespace loopfast {

namespace {

/// While it exists, the kernel has of signals what a new image shall inherit.
class Inheritance {
public:
    Inheritance() : ignored_(show_ignored()) {}
    ~Inheritance() {
        if (ignored_)
            hide_ignored();
    }
    Inheritance(const Inheritance&) = delete;
    Inheritance& operator=(const Inheritance&) = delete;

private:
    BelievedMask mask_;
    bool ignored_;
};

/// The exec closes what is ours, and would wait for what strangers have put there (base/apart.h).
void leave_strangers_behind() {
    if (!had_streams() || setups_forbidden())
        return;
    for_each_stream([](Stream& stream) {
        if (stream.offer.load(std::memory_order_relaxed) >= 0 ||
            stream.pending_link.load(std::memory_order_relaxed) >= 0) {
            if (hold_setup(stream)) {
                withdraw_offer(stream);
                release_setup(stream);
            }
        }
        if (const Watching watching(stream); watching.alive())
            unburden_link(stream.link.load(std::memory_order_relaxed));
    });
    finish_apart();
}

template <typename Exec> int exec_with(Exec exec) {
    const bool own_memory = !in_borrowed_memory();
    part_with_inherited();
    if (own_memory) {
        before_exec();
        finish_outputs([](const Stream& stream) { return !stream.stays_over_exec; }, false);
        leave_strangers_behind();
    }
    lower_limit_for_exec();
    const int result = [&] {
        const Inheritance inheritance;
        return exec();
    }();
    const int error = errno;
    raise_limit_after_exec();
    if (own_memory)
        after_failed_exec();
    errno = error;
    return result;
}

using WithEnvironment = int (*)(const char*, char* const*, char* const*);

}  // namespace

LOOPFAST_PUBLIC int execve(const char* path, char* const* arguments, char* const* environment) noexcept {
    return exec_with([&] { return real::next<WithEnvironment>("execve")(path, arguments, environment); });
}
LOOPFAST_PUBLIC int execv(const char* path, char* const* arguments) noexcept {
    return exec_with([&] { return real::next<WithEnvironment>("execve")(path, arguments, environ); });
}
LOOPFAST_PUBLIC int execvpe(const char* path, char* const* arguments, char* const* environment) noexcept {
    return exec_with([&] { return real::next<WithEnvironment>("execvpe")(path, arguments, environment); });
}
LOOPFAST_PUBLIC int execvp(const char* path, char* const* arguments) noexcept {
    return exec_with([&] { return real::next<WithEnvironment>("execvpe")(path, arguments, environ); });
}
LOOPFAST_PUBLIC int fexecve(int fd, char* const* arguments, char* const* environment) noexcept {
    using Function = int (*)(int, char* const*, char* const*);
    return exec_with([&] { return real::next<Function>("fexecve")(fd, arguments, environment); });
}
LOOPFAST_PUBLIC int execveat(int at, const char* path, char* const* arguments, char* const* environment,
                             int flags) noexcept {
    using Function = int (*)(int, const char*, char* const*, char* const*, int);
    return exec_with(
        [&] { return real::next<Function>("execveat")(at, path, arguments, environment, flags); });
}

namespace {

/// The arguments of execl and friends as a vector: counted first, then copied, on the caller's stack.
int count_arguments(va_list list) {
    int count = 1;
    while (va_arg(list, char*) != nullptr)
        ++count;
    return count;
}

}  // namespace

#define LOOPFAST_GATHER_ARGUMENTS                                                                           \
    va_list list;                                                                                           \
    va_start(list, first);                                                                                  \
    const int count = first == nullptr ? 0 : count_arguments(list);                                         \
    va_end(list);                                                                                           \
    char** const arguments = static_cast<char**>(alloca((static_cast<size_t>(count) + 1) * sizeof(char*))); \
    va_start(list, first);                                                                                  \
    arguments[0] = const_cast<char*>(first);                                                                \
    for (int i = 1; i <= count; ++i)                                                                        \
    arguments[i] = va_arg(list, char*)

LOOPFAST_PUBLIC int execl(const char* path, const char* first, ...) noexcept {
    LOOPFAST_GATHER_ARGUMENTS;
    va_end(list);
    return execv(path, arguments);
}
LOOPFAST_PUBLIC int execlp(const char* path, const char* first, ...) noexcept {
    LOOPFAST_GATHER_ARGUMENTS;
    va_end(list);
    return execvp(path, arguments);
}
LOOPFAST_PUBLIC int execle(const char* path, const char* first, ...) noexcept {
    LOOPFAST_GATHER_ARGUMENTS;
    char** const environment = va_arg(list, char**);
    va_end(list);
    return execve(path, arguments, environment);
}

// These fork and execute inside libc, and dup what they were told to where we do not see it.

LOOPFAST_PUBLIC int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                                const posix_spawnattr_t* attributes, char* const* arguments,
                                char* const* environment) {
    part_with_inherited();
    const Inheritance inheritance;
    return real::next<decltype(&::posix_spawn)>("posix_spawn")(pid, path, actions, attributes, arguments,
                                                               environment);
}
LOOPFAST_PUBLIC int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                                 const posix_spawnattr_t* attributes, char* const* arguments,
                                 char* const* environment) {
    part_with_inherited();
    const Inheritance inheritance;
    return real::next<decltype(&::posix_spawnp)>("posix_spawnp")(pid, file, actions, attributes, arguments,
                                                                 environment);
}
LOOPFAST_PUBLIC int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t* actions, int fd,
                                                     int onto) noexcept {
    if (Stream* const stream = find_stream(fd))
        part_with(*stream, fd, Reason::kOption);
    return real::next<int (*)(posix_spawn_file_actions_t*, int, int)>("posix_spawn_file_actions_adddup2")(
        actions, fd, onto);
}
LOOPFAST_PUBLIC int system(const char* command) {
    part_with_inherited();
    const Inheritance inheritance;
    return real::next<int (*)(const char*)>("system")(command);
}
LOOPFAST_PUBLIC FILE* popen(const char* command, const char* mode) {
    part_with_inherited();
    const Inheritance inheritance;
    return real::next<FILE* (*)(const char*, const char*)>("popen")(command, mode);
}

}  // namespace loopfast
