// See log.h. One write per line, so that lines of several processes do not mix.
#include "base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/file_size.h"
#include "base/hidden.h"
#include "base/syscall.h"

namespace loopfast {

namespace {
int log_fd = -1;
}

void log_open(const char* where) {
    if (where == nullptr || *where == 0)
        return;
    if (strcmp(where, "stderr") == 0) {
        log_fd = 2;
    } else {
        const long fd = sys::call(SYS_openat, AT_FDCWD, sys::word(where),
                                  O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
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
