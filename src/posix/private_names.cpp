// Names under which libc exports some of these functions once more, for its own libraries. A few old programs
// know them.
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include "posix/posix.h"

namespace loopfast {

LOOPFAST_PUBLIC ssize_t __read(int fd, void* buffer, size_t size) { return ::read(fd, buffer, size); }
LOOPFAST_PUBLIC ssize_t __write(int fd, const void* buffer, size_t size) { return ::write(fd, buffer, size); }
LOOPFAST_PUBLIC ssize_t __send(int fd, const void* buffer, size_t size, int flags) {
    return ::send(fd, buffer, size, flags);
}
LOOPFAST_PUBLIC int __connect(int fd, const sockaddr* address, socklen_t size) {
    return ::connect(fd, address, size);
}
LOOPFAST_PUBLIC int __close(int fd) { return ::close(fd); }
LOOPFAST_PUBLIC int __dup2(int fd, int onto) noexcept { return ::dup2(fd, onto); }
LOOPFAST_PUBLIC int __poll(pollfd* fds, nfds_t count, int timeout) { return ::poll(fds, count, timeout); }
LOOPFAST_PUBLIC int __select(int count, fd_set* read, fd_set* write, fd_set* except, timeval* timeout) {
    return ::select(count, read, write, except, timeout);
}

}  // namespace loopfast
