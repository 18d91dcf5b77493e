// See burden.h.
#include "burden.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace loopfast::hostile {

Lingering::Lingering() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int little = 4096;  // what it accepts inherits it
    setsockopt(listener_, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        listen(listener_, 512) != 0)
        abort();
}

Lingering::~Lingering() { close(listener_); }  // and all that nobody accepted, which ends the waits

int Lingering::make() {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int little = 4096;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        abort();
    const char bytes[4096] = {};
    while (send(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
    }
    const linger hour{1, 3600};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hour, sizeof hour);
    return fd;
}

}  // namespace loopfast::hostile
