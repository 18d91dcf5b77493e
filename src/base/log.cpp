// See log.h. One write per line, so that lines of several processes do not mix.
#include "base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_size.h"
#include "base/hidden.h"
#include "base/syscall.h"

namespace loopfast {

namespace {
int log_fd = -1;
/// Which file standard error was when the log began: a program may use that number for something else, which
/// no line of ours belongs into. A copy of the descriptor would keep a pipe open that the program has closed.
struct stat standard_error;

bool is_still_standard_error() {
    struct stat now;
    return sys::call(SYS_fstat, STDERR_FILENO, sys::word(&now)) == 0 && now.st_dev == standard_error.st_dev &&
           now.st_ino == standard_error.st_ino;
}
}  // namespace

void log_open(const char* where) {
    if (where == nullptr || *where == 0)
        return;
    if (strcmp(where, "stderr") == 0) {
        if (sys::call(SYS_fstat, STDERR_FILENO, sys::word(&standard_error)) < 0)
            return;
        log_fd = STDERR_FILENO;
    } else {
        // Not blocking: a pipe that nobody reads stops no program.
        const long fd = sys::call(SYS_openat, AT_FDCWD, sys::word(where),
                                  O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
        if (fd < 0)
            return;
        log_fd = hide(static_cast<int>(fd));
        if (log_fd < 0) {
            return;
        }
    }
    log_enabled = true;
}

void log_line(const char* format, ...) {
    if (log_fd == STDERR_FILENO && !is_still_standard_error())
        return;
    char line[512];
    int size = snprintf(line, sizeof line, "loopfast[%d]: ", sys::getpid());
    va_list list;
    va_start(list, format);
    size += vsnprintf(line + size, sizeof line - static_cast<size_t>(size) - 1, format, list);
    va_end(list);
    if (size > static_cast<int>(sizeof line) - 2)
        size = static_cast<int>(sizeof line) - 2;
    line[size++] = '\n';
    // The log of a program that may not write so much ends there.
    NoSizeSignal quiet;
    if (sys::write(log_fd, line, static_cast<size_t>(size)) == -EFBIG)
        quiet.refused();
}

}  // namespace loopfast
