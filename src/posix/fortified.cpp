// The names that programs built with _FORTIFY_SOURCE call: the same, after one check of the buffer's size.
#include <poll.h>
#include <sys/socket.h>

#include "posix/posix.h"

extern "C" [[noreturn]] void __chk_fail(void);

namespace loopfast {

LOOPFAST_PUBLIC ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room) {
    if (size > room)
        __chk_fail();
    return read(fd, buffer, size);
}
LOOPFAST_PUBLIC ssize_t __recv_chk(int fd, void* buffer, size_t size, size_t room, int flags) {
    if (size > room)
        __chk_fail();
    return recv(fd, buffer, size, flags);
}
LOOPFAST_PUBLIC ssize_t __recvfrom_chk(int fd, void* buffer, size_t size, size_t room, int flags,
                                       sockaddr* address, socklen_t* length) {
    if (size > room)
        __chk_fail();
    return recvfrom(fd, buffer, size, flags, address, length);
}

LOOPFAST_PUBLIC int __poll_chk(pollfd* fds, nfds_t count, int timeout, size_t room) {
    if (room / sizeof(pollfd) < count)
        __chk_fail();
    return poll(fds, count, timeout);
}
LOOPFAST_PUBLIC int __ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask,
                                size_t room) {
    if (room / sizeof(pollfd) < count)
        __chk_fail();
    return ppoll(fds, count, timeout, mask);
}

}  // namespace loopfast
