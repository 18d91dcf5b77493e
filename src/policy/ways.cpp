// See ways.h.
#include "policy/ways.h"

#include "base/hidden.h"
#include "base/syscall.h"
#include "filters/inspect.h"

namespace loopfast {

namespace {

/// Where routes come and go all the time, streams are not asked about for each of them.
constexpr int64_t kBetween = 200'000'000;

int notices = -1;
int64_t opened = 0;  ///< when it was; 0: never

}  // namespace

bool ways_changed(int64_t now) {
    // Without a socket, for want of memory or of a right, there is a change each time.
    const bool ours = notices >= 0 && is_hidden(notices);
    if ((ours && !has_way_notice(notices)) || (opened != 0 && now - opened < kBetween))
        return false;
    const bool first = opened == 0;
    if (ours)
        close_hidden(notices);
    const int fd = open_way_notices();
    notices = fd >= 0 ? hide(fd) : fd;
    opened = now;
    return !first;
}

void forget_ways() {
    if (notices >= 0 && is_hidden(notices))
        close_hidden(notices);
    notices = -1;
    opened = 0;
}

}  // namespace loopfast
