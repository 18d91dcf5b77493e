// See findings.h.
#include "filters/findings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

namespace loopfast {

const char* kind_name(Kind kind) {
    static constexpr const char* kNames[] = {"none",   "nftables", "iptables", "tc",           "xdp",
                                             "cgroup", "ipsec",    "capture",  "socket-filter"};
    const auto number = static_cast<uint32_t>(kind);
    return number < sizeof kNames / sizeof *kNames ? kNames[number] : "unknown";
}

void Findings::add(Kind kind, const char* format, ...) {
    if (count == kMost) {
        ++more;
        return;
    }
    Objection& objection = list[count++];
    memset(&objection, 0, sizeof objection);
    objection.kind = kind;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(objection.text, sizeof objection.text, format, arguments);
    va_end(arguments);
    // Names of tables, programs and comments are chosen by others, and are printed on somebody's terminal.
    for (char* c = objection.text; *c != 0; ++c)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

void Findings::append(const Findings& other) {
    for (uint32_t i = 0; i < other.count; ++i) {
        if (count == kMost)
            ++more;
        else
            list[count++] = other.list[i];
    }
    more += other.more;
    incomplete = incomplete || other.incomplete;
}

bool Findings::unanswered(long error) {
    const bool for_now = error == -ENOMEM || error == -ENOBUFS || error == -EMFILE || error == -ENFILE ||
                         error == -EINTR || error == -EAGAIN;
    incomplete = incomplete || for_now;
    return for_now;
}

bool Findings::same_as(const Findings& other) const {
    return count == other.count && more == other.more && incomplete == other.incomplete &&
           memcmp(list, other.list, sizeof(Objection) * count) == 0;
}

}  // namespace loopfast
