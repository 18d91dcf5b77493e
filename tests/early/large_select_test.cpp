// A select over more descriptors than fd_set has, for which the library needs memory and a file: without
// either it says ENOMEM, as the kernel does where it has none for its part, and does not wait in the kernel
// for what is in the ring.
#include <arpa/inet.h>
#include <fcntl.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "require.h"

namespace {

constexpr int kHigh = 1500;  // beyond an fd_set
constexpr int kSetBytes = 2048 / 8;

/// The soft limit of a resource while it lives.
class Limit {
public:
    Limit(__rlimit_resource resource, rlim_t value) : resource_(resource) {
        REQUIRE(getrlimit(resource, &before_) == 0);
        const rlimit now{value, before_.rlim_max};
        REQUIRE(setrlimit(resource, &now) == 0);
    }
    ~Limit() { REQUIRE(setrlimit(resource_, &before_) == 0); }
    Limit(const Limit&) = delete;
    Limit& operator=(const Limit&) = delete;

private:
    __rlimit_resource resource_;
    rlimit before_{};
};

/// @return what select says of reading from `fd`, which is beyond an fd_set, within `seconds`.
int selected(int fd, long seconds) {
    alignas(fd_set) unsigned char bits[kSetBytes] = {};
    bits[fd / 8] = static_cast<unsigned char>(1 << fd % 8);
    timeval time{seconds, 0};
    const int result = select(fd + 1, reinterpret_cast<fd_set*>(bits), nullptr, nullptr, &time);
    REQUIRE(result != 1 || (bits[fd / 8] >> fd % 8 & 1) != 0);
    return result < 0 ? -errno : result;
}

}  // namespace

int main() {
    alarm(60);
    rlimit files{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &files) == 0);
    if (files.rlim_max <= kHigh) {
        std::puts("too few descriptors are allowed here");
        return 0;
    }
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &files) == 0);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    const int low = socket(AF_INET, SOCK_STREAM, 0);
    const int client = fcntl(low, F_DUPFD, kHigh);
    REQUIRE(client >= kHigh);
    close(low);
    int on = 1;
    REQUIRE(ioctl(listener, SIO_LOOPBACK_FAST_PATH, &on) == 0);
    REQUIRE(ioctl(client, SIO_LOOPBACK_FAST_PATH, &on) == 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener, 1) == 0);
    REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    REQUIRE(connect(client, reinterpret_cast<sockaddr*>(&address), size) == 0);
    const int server = accept(listener, nullptr, nullptr);
    REQUIRE(server >= 0);
    char bytes[16] = {};
    for (int i = 0; i < 50; ++i) {
        REQUIRE(send(client, bytes, 1, 0) == 1 && recv(server, bytes, 1, 0) == 1);
        REQUIRE(send(server, bytes, 1, 0) == 1 && recv(client, bytes, 1, 0) == 1);
    }
    if (loopfast_lane(client) != LOOPFAST_LANE_RING)
        std::printf("on the kernel lane: %s\n", loopfast_reason_name(loopfast_reason(client)));
    REQUIRE(selected(client, 0) == 0);
    REQUIRE(send(server, "x", 1, 0) == 1);
    REQUIRE(selected(client, 10) == 1);
    {
        const Limit no_memory(RLIMIT_AS, 0);
        REQUIRE(selected(client, 10) == -ENOMEM);
    }
    REQUIRE(selected(client, 10) == 1);
    {
        const Limit no_descriptors(RLIMIT_NOFILE, 0);
        REQUIRE(selected(client, 10) == -ENOMEM);
    }
    REQUIRE(selected(client, 10) == 1);
    REQUIRE(recv(client, bytes, sizeof bytes, 0) == 1 && bytes[0] == 'x');
    REQUIRE(selected(client, 0) == 0);
    return 0;
}
