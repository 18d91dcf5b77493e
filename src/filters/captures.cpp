// Sockets that get copies of loopback packets: AF_PACKET (tcpdump, Wireshark, intrusion detection) and raw
// sockets for TCP. /proc lists both, to everybody.
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <initializer_list>

#include "base/syscall.h"
#include "filters/inspect.h"

#ifndef SO_GET_FILTER
#define SO_GET_FILTER SO_ATTACH_FILTER
#endif

namespace loopfast {

namespace {

constexpr unsigned kAllDevices = 0;
constexpr unsigned kLo = 1;

/// A file read line by line, from its beginning, through a small buffer.
class Lines {
public:
    explicit Lines(int fd) : fd_(fd) {}

    /// The next line without its end, or nullptr; then error() says whether the file has ended. Longer ones
    /// than the buffer are cut.
    const char* next() {
        for (;;) {
            buffer_[filled_] = 0;
            char* const end = strchr(buffer_ + at_, '\n');
            if (end != nullptr) {
                const char* const line = buffer_ + at_;
                *end = 0;
                at_ = end + 1 - buffer_;
                return line;
            }
            if (at_ == 0 && filled_ == kSize)
                filled_ = 0;
            memmove(buffer_, buffer_ + at_, static_cast<size_t>(filled_ - at_));
            filled_ -= at_;
            at_ = 0;
            const long size =
                sys::call(SYS_pread64, fd_, sys::word(buffer_ + filled_), kSize - filled_, offset_);
            if (size <= 0) {
                error_ = size;
                return nullptr;
            }
            offset_ += size;
            filled_ += size;
        }
    }
    long error() const { return error_; }

private:
    static constexpr long kSize = 1024;
    int fd_;
    char buffer_[kSize + 1];
    long at_ = 0;
    long filled_ = 0;
    long offset_ = 0;
    long error_ = 0;
};

bool sees_internet(unsigned protocol) {
    return protocol == ETH_P_ALL || protocol == ETH_P_IP || protocol == ETH_P_IPV6;
}

long open_file(const char* path) {
    return sys::call(SYS_openat, AT_FDCWD, sys::word(path), O_RDONLY | O_CLOEXEC);
}

}  // namespace

int open_captures() { return static_cast<int>(open_file("/proc/self/net/packet")); }

Sight inspect_captures(int fd, Findings& findings) {
    Lines lines(fd);
    const char* line = lines.next();
    // The number may belong to another file by now: a program that closes what is not its own.
    if (line == nullptr || strncmp(line, "sk ", 3) != 0)
        return Sight::kNotPermitted;
    while ((line = lines.next()) != nullptr) {
        // sk RefCnt Type Proto Iface R Rmem User Inode
        char address[32];
        unsigned references = 0, type = 0, protocol = 0, device = 0, running = 0, memory = 0, user = 0;
        unsigned long inode = 0;
        if (sscanf(line, "%31s %u %u %x %u %u %u %u %lu", address, &references, &type, &protocol, &device,
                   &running, &memory, &user, &inode) != 9)
            continue;
        if (running != 0 && (device == kAllDevices || device == kLo) && sees_internet(protocol))
            findings.add(Kind::kCapture, "capture: packet socket %lu on %s, user %u", inode,
                         device == kLo ? "lo" : "all devices", user);
    }
    return lines.error() == 0 ? Sight::kSeen : Sight::kNotPermitted;
}

Sight inspect_raw_sockets(Findings& findings) {
    for (const char* const path : {"/proc/self/net/raw", "/proc/self/net/raw6"}) {
        const long fd = open_file(path);
        if (fd < 0)
            continue;
        Lines lines(static_cast<int>(fd));
        while (const char* const line = lines.next()) {
            // sl local_address ...: the "port" is the protocol.
            char address[40];
            unsigned slot = 0, protocol = 0;
            if (sscanf(line, "%u: %39[0-9A-F]:%x", &slot, address, &protocol) == 3 && protocol == IPPROTO_TCP)
                findings.add(Kind::kCapture, "capture: a raw socket for TCP%s",
                             path[sizeof "/proc/self/net/raw" - 1] == '6' ? " over IPv6" : "");
        }
        sys::close(static_cast<int>(fd));
    }
    return Sight::kSeen;
}

bool has_socket_filter(int fd) {
    // With no room given the kernel only says how long the filter is; for an eBPF program EACCES.
    socklen_t length = 0;
    sock_filter none{};
    const int result = sys::getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, &none, &length);
    return result == -EACCES || (result == 0 && length != 0);
}

}  // namespace loopfast
