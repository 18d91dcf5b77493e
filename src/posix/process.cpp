// The start of a process, its forks, and what exec needs.
#include <alloca.h>
#include <pthread.h>
#include <stdarg.h>
#include <unistd.h>

#include "base/hidden.h"
#include "policy/policy.h"
#include "posix/posix.h"
#include "wait/epoll_set.h"

namespace loopfast {

namespace {

[[gnu::constructor(101)]] void start() {
    real::resolve();
    load_policy();
    connect_sets();
    // pthread_atfork rather than a wrapper around fork: daemon(), forkpty() and others fork inside libc.
    pthread_atfork(before_fork, after_fork_in_parent, [] {
        after_fork_in_child();
        fault_handlers_forked();
    });
}

int exec_with(const char* name, int (*next)(const char*, char* const*, char* const*), const char* path,
              char* const* arguments, char* const* environment) {
    if (next == nullptr)
        next = reinterpret_cast<int (*)(const char*, char* const*, char* const*)>(real::next_symbol(name));
    lower_limit_for_exec();
    const int result = next(path, arguments, environment);
    const int error = errno;
    raise_limit_after_exec();
    errno = error;
    return result;
}

}  // namespace

LOOPFAST_PUBLIC int execve(const char* path, char* const* arguments, char* const* environment) noexcept {
    return exec_with("execve", nullptr, path, arguments, environment);
}
LOOPFAST_PUBLIC int execv(const char* path, char* const* arguments) noexcept {
    return exec_with("execve", nullptr, path, arguments, environ);
}
LOOPFAST_PUBLIC int execvpe(const char* path, char* const* arguments, char* const* environment) noexcept {
    return exec_with("execvpe", nullptr, path, arguments, environment);
}
LOOPFAST_PUBLIC int execvp(const char* path, char* const* arguments) noexcept {
    return exec_with("execvpe", nullptr, path, arguments, environ);
}
LOOPFAST_PUBLIC int fexecve(int fd, char* const* arguments, char* const* environment) noexcept {
    using Function = int (*)(int, char* const*, char* const*);
    const auto next = reinterpret_cast<Function>(real::next_symbol("fexecve"));
    lower_limit_for_exec();
    const int result = next(fd, arguments, environment);
    const int error = errno;
    raise_limit_after_exec();
    errno = error;
    return result;
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

}  // namespace loopfast
