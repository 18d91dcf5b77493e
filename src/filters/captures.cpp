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

constexpr uint64_t kAllDevices = 0;
constexpr uint64_t kLo = 1;

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

/// The words of a line, one after the other.
class Fields {
public:
    explicit Fields(const char* line) : at_(line) {}

    void skip(int count) {
        for (int i = 0; i < count; ++i) {
            at_ += strspn(at_, " ");
            at_ += strcspn(at_, " ");
        }
    }
    uint64_t number(unsigned base) {
        at_ += strspn(at_, " ");
        uint64_t value = 0;
        int digits = 0;
        for (; *at_ != 0 && *at_ != ' '; ++at_, ++digits) {
            const char c = *at_;
            const unsigned digit = c >= '0' && c <= '9'   ? static_cast<unsigned>(c - '0')
                                   : c >= 'A' && c <= 'F' ? static_cast<unsigned>(c - 'A') + 10
                                   : c >= 'a' && c <= 'f' ? static_cast<unsigned>(c - 'a') + 10
                                                          : 16;
            good_ = good_ && digit < base;
            value = value * base + digit;
        }
        good_ = good_ && digits > 0;
        return value;
    }
    /// All that was read were numbers.
    bool good() const { return good_; }

private:
    const char* at_;
    bool good_ = true;
};

bool sees_internet(uint64_t protocol) {
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
    if (line == nullptr || strncmp(line, "sk ", 3) != 0) {
        findings.unanswered(lines.error());
        return Sight::kNotPermitted;
    }
    while ((line = lines.next()) != nullptr) {
        // sk RefCnt Type Proto Iface R Rmem User Inode
        Fields fields(line);
        fields.skip(3);
        const uint64_t protocol = fields.number(16);
        const uint64_t device = fields.number(10);
        const uint64_t running = fields.number(10);
        fields.skip(1);
        const uint64_t user = fields.number(10);
        const uint64_t inode = fields.number(10);
        if (!fields.good())
            continue;
        if (running != 0 && (device == kAllDevices || device == kLo) && sees_internet(protocol))
            findings.add(Kind::kCapture, "capture: packet socket %llu on %s, user %llu",
                         static_cast<unsigned long long>(inode), device == kLo ? "lo" : "all devices",
                         static_cast<unsigned long long>(user));
    }
    findings.unanswered(lines.error());
    return lines.error() == 0 ? Sight::kSeen : Sight::kNotPermitted;
}

Sight inspect_raw_sockets(Findings& findings) {
    for (const char* const path : {"/proc/self/net/raw", "/proc/self/net/raw6"}) {
        const long fd = open_file(path);
        if (fd < 0) {
            findings.unanswered(fd);
            continue;
        }
        Lines lines(static_cast<int>(fd));
        while (const char* const line = lines.next()) {
            // sl local_address ...: the "port" is the protocol.
            const char* const colon = strchr(line, ':');
            const char* const port = colon != nullptr ? strchr(colon + 1, ':') : nullptr;
            Fields fields(port != nullptr ? port + 1 : "");
            const uint64_t protocol = fields.number(16);
            if (fields.good() && protocol == IPPROTO_TCP)
                findings.add(Kind::kCapture, "capture: a raw socket for TCP%s",
                             path[sizeof "/proc/self/net/raw" - 1] == '6' ? " over IPv6" : "");
        }
        findings.unanswered(lines.error());
        sys::close(static_cast<int>(fd));
    }
    return Sight::kSeen;
}

bool has_socket_filter(int fd) {
    // With no room given the kernel only says how long the filter is; for an eBPF program EACCES.
    socklen_t length = 0;
    sock_filter none{};
    const int result = sys::getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, &none, &length);
    // Where it is not told, there may be one.
    return result == 0 ? length != 0 : result != -ENOPROTOOPT;
}

}  // namespace loopfast
