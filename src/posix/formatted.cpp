// dprintf and its relatives write inside libc, where we do not see it: for a stream the text is made here and
// written as any other bytes are.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "posix/posix.h"

extern "C" int __vasprintf_chk(char** text, int flag, const char* format, va_list arguments);

namespace loopfast {

namespace {

/// Takes over `text`, as vasprintf made it of `size` bytes. What libc could not write whole it calls failed.
int write_whole(int fd, char* text, int size) {
    if (size < 0)
        return -1;
    int done = 0;
    while (done < size) {
        const ssize_t written = ::write(fd, text + done, static_cast<size_t>(size - done));
        if (written < 0)
            break;
        done += static_cast<int>(written);
    }
    const int error = errno;
    free(text);
    errno = error;
    return done < size ? -1 : size;
}

}  // namespace

LOOPFAST_PUBLIC int vdprintf(int fd, const char* format, va_list arguments) {
    if (find_stream(fd) == nullptr)
        return real::vdprintf(fd, format, arguments);
    char* text = nullptr;
    const int size = vasprintf(&text, format, arguments);
    return write_whole(fd, text, size);
}

LOOPFAST_PUBLIC int __vdprintf_chk(int fd, int flag, const char* format, va_list arguments) {
    if (find_stream(fd) == nullptr)
        return real::__vdprintf_chk(fd, flag, format, arguments);
    char* text = nullptr;
    const int size = __vasprintf_chk(&text, flag, format, arguments);
    return write_whole(fd, text, size);
}

LOOPFAST_PUBLIC int dprintf(int fd, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int result = vdprintf(fd, format, arguments);
    va_end(arguments);
    return result;
}

LOOPFAST_PUBLIC int __dprintf_chk(int fd, int flag, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int result = __vdprintf_chk(fd, flag, format, arguments);
    va_end(arguments);
    return result;
}

}  // namespace loopfast
