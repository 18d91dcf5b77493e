// Looks the real functions up, at the first call or at load, whichever comes first.
#include "base/real.h"

#include <dlfcn.h>
#include <errno.h>

#include "base/clock.h"

namespace loopfast::real {

namespace {

/// A stub has its function's own signature: it resolves everything and calls the real one. The variadic
/// ones (ioctl, fcntl) take at most one argument of register size, which is passed on as such.
template <typename Function, Function* slot> struct Stub;

template <typename Result, typename... Arguments, Result (**slot)(Arguments...)>
struct Stub<Result (*)(Arguments...), slot> {
    static Result call(Arguments... arguments) {
        resolve();
        return (*slot)(arguments...);
    }
};

template <typename Result, typename First, typename Second, Result (**slot)(First, Second, ...)>
struct Stub<Result (*)(First, Second, ...), slot> {
    static Result call(First first, Second second, ...) {
        __builtin_va_list list;
        __builtin_va_start(list, second);
        void* argument = __builtin_va_arg(list, void*);
        __builtin_va_end(list);
        resolve();
        return (*slot)(first, second, argument);
    }
};

/// What stands for a function that this libc does not have (close_range and epoll_pwait2 are recent).
long not_there(...) {
    errno = ENOSYS;
    return -1;
}

template <typename Function> void look_up(Function& slot, const char* name) {
    void* found = dlsym(RTLD_NEXT, name);
    slot = reinterpret_cast<Function>(found != nullptr ? found : reinterpret_cast<void*>(&not_there));
}

}  // namespace

#define LOOPFAST_DEFINE_REAL(result, name, parameters) \
    result(*name) parameters = &Stub<result(*) parameters, &name>::call;
LOOPFAST_REAL_FUNCTIONS(LOOPFAST_DEFINE_REAL)
#undef LOOPFAST_DEFINE_REAL

void resolve() {
    // Two threads may do this at once: both store the same values, and a pointer is stored whole.
#define LOOPFAST_LOOK_UP(result, name, parameters) look_up(name, #name);
    LOOPFAST_REAL_FUNCTIONS(LOOPFAST_LOOK_UP)
#undef LOOPFAST_LOOK_UP
    find_clock();
}

void* next_symbol(const char* name) { return dlsym(RTLD_NEXT, name); }

}  // namespace loopfast::real
