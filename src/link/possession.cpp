// See possession.h.
#include "link/possession.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/syscall.h"

#ifndef IP_RECVERR_RFC4884
#define IP_RECVERR_RFC4884 26
#endif

namespace loopfast {

namespace {

// The same level for IPv6 sockets: the switches belong to the part that both families have.
struct Switch {
    int name;
    int bit;
};
constexpr Switch kSwitches[] = {
    {IP_MULTICAST_LOOP, kSignLoop}, {IP_MULTICAST_ALL, kSignAll}, {IP_RECVERR_RFC4884, kSignErrors}};

bool turn(int fd, const Switch& one, int sign) {
    const int value = (sign & one.bit) != 0 ? 1 : 0;
    return sys::setsockopt(fd, IPPROTO_IP, one.name, &value, sizeof value) == 0;
}

void turn_back(int fd, const Switch& one, int sign) {
    const int value = (sign & one.bit) != 0 ? 1 : 0;
    sys::insisting([&] { return sys::setsockopt(fd, IPPROTO_IP, one.name, &value, sizeof value); });
}

}  // namespace

int sign_of(int fd) {
    int sign = 0;
    for (const Switch& one : kSwitches) {
        int value = 0;
        socklen_t size = sizeof value;
        if (sys::getsockopt(fd, IPPROTO_IP, one.name, &value, &size) < 0)
            return kNoSign;
        sign |= value != 0 ? one.bit : 0;
    }
    return sign;
}

bool give_sign(int fd, int before) {
    for (const Switch& one : kSwitches)
        if (!turn(fd, one, ~before)) {
            take_sign_back(fd, before);
            return false;
        }
    return true;
}

void take_sign_back(int fd, int before) {
    const int now = sign_of(fd);
    // Where it cannot be told what is there, all three are set.
    for (const Switch& one : kSwitches)
        if (now == kNoSign || ((now ^ before) & one.bit) != 0)
            turn_back(fd, one, before);
}

bool belongs_to_sign(int level, int name) {
    if (level != IPPROTO_IP)
        return false;
    for (const Switch& one : kSwitches)
        if (one.name == name)
            return true;
    return false;
}

}  // namespace loopfast
