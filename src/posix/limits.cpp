// The limit on descriptors, as the program knows it: see base/hidden.h.
#include <sys/resource.h>
#include <unistd.h>

#include "base/hidden.h"
#include "base/ready.h"
#include "policy/policy.h"
#include "posix/posix.h"

namespace loopfast {

namespace {
/// The header promises that nobody passes a null pointer here, and the compiler would believe it; programs
/// do, and the kernel says EFAULT.
bool is_given(const void* pointer) {
    const void* volatile unpromised = pointer;
    return unpromised != nullptr;
}

/// Without any descriptors the kernel says no more what one is ready for. And a server that lowers its hard
/// limit to the connections that it wants (memcached) shall have all of these, so ours need numbers above
/// them.
void before_limit(const rlimit* limit) {
    if (!is_given(limit) || !readable(limit, sizeof *limit))
        return;
    if (had_streams() && limit->rlim_cur == 0)
        prepare_ready_set();
    if ((any_opted_in() || had_streams()) && !setups_forbidden())
        keep_room_above(*limit);
}
}  // namespace

LOOPFAST_PUBLIC int getrlimit(__rlimit_resource_t resource, rlimit* limit) noexcept {
    if (resource == RLIMIT_NOFILE && is_given(limit) && visible_limit(*limit))
        return 0;
    return real::getrlimit(resource, limit);
}
LOOPFAST_PUBLIC int getrlimit64(__rlimit_resource_t resource, rlimit64* limit) noexcept {
    return getrlimit(resource, reinterpret_cast<rlimit*>(limit));
}

LOOPFAST_PUBLIC int setrlimit(__rlimit_resource_t resource, const rlimit* limit) noexcept {
    rlimit visible;
    if (resource == RLIMIT_NOFILE)
        before_limit(limit);
    if (resource == RLIMIT_NOFILE && is_given(limit) && visible_limit(visible))
        return returned<int>(set_visible_limit(*limit));
    const int result = real::setrlimit(resource, limit);
    if (result == 0 && resource == RLIMIT_NOFILE)
        limit_changed();
    return result;
}
LOOPFAST_PUBLIC int setrlimit64(__rlimit_resource_t resource, const rlimit64* limit) noexcept {
    return setrlimit(resource, reinterpret_cast<const rlimit*>(limit));
}

LOOPFAST_PUBLIC int prlimit(pid_t pid, enum __rlimit_resource resource, const rlimit* limit,
                            rlimit* old) noexcept {
    const bool own = resource == RLIMIT_NOFILE && (pid == 0 || pid == sys::getpid());
    rlimit visible;
    if (own)
        before_limit(limit);
    if (!own || !visible_limit(visible)) {
        const int result = real::prlimit(pid, resource, limit, old);
        if (result == 0 && own && limit != nullptr)
            limit_changed();
        return result;
    }
    if (limit != nullptr) {
        const int result = set_visible_limit(*limit);
        if (result < 0)
            return returned<int>(result);
    }
    if (old != nullptr)
        *old = visible;
    return 0;
}
LOOPFAST_PUBLIC int prlimit64(pid_t pid, enum __rlimit_resource resource, const rlimit64* limit,
                              rlimit64* old) noexcept {
    return prlimit(pid, resource, reinterpret_cast<const rlimit*>(limit), reinterpret_cast<rlimit*>(old));
}

LOOPFAST_PUBLIC int getdtablesize() noexcept {
    rlimit limit{};
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < INT32_MAX
               ? static_cast<int>(limit.rlim_cur)
               : INT32_MAX;
}

}  // namespace loopfast
