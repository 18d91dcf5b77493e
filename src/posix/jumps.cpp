// longjmp and its relatives. A signal handler that jumps out of a call which it interrupted in the middle of
// a copy leaves that copy's lock behind; others, in this process and in its relatives, would wait for it for
// ever. What the jump leaves is known from its target, so the locks are let go of here, and the calls that it
// ends no longer keep their connections. Nothing else is undone: a copy that has not been committed has not
// happened.
#include <setjmp.h>

#include "base/lock.h"
#include "posix/jumps.h"
#include "posix/posix.h"
#include "wait/caller.h"

namespace loopfast {

namespace {

using JumpFunction = void (*)(__jmp_buf_tag*, int);
// Found at load: a handler must not search. A jump before that is nobody's who holds a lock.
JumpFunction real_longjmp = nullptr;
JumpFunction real_underscore_longjmp = nullptr;
JumpFunction real_siglongjmp = nullptr;
JumpFunction real_longjmp_chk = nullptr;

#if defined(__x86_64__)
/// The stack pointer to which the jump goes. glibc keeps it in the seventh word, rotated and combined with
/// the thread's pointer guard; both have been so since 2005, and compilers rely on them no less.
uintptr_t target_of(const __jmp_buf_tag* place) {
    uintptr_t word = static_cast<uintptr_t>(place->__jmpbuf[6]);
    asm("ror $17, %0\n\txor %%fs:0x30, %0" : "+r"(word));
    return word;
}
#else
// Elsewhere the thread finds out at its next lock, see base/lock.cpp.
uintptr_t target_of(const __jmp_buf_tag*) { return 0; }
#endif

[[noreturn]] void jump(JumpFunction& next, const char* name, __jmp_buf_tag* place, int value) {
    if (held_locks != 0) [[unlikely]]
        leave_sections_below(target_of(place));
    end_calls_below(target_of(place));
    if (next == nullptr) [[unlikely]]
        next = reinterpret_cast<JumpFunction>(real::next_symbol(name));
    next(place, value);
    __builtin_unreachable();
}

}  // namespace

void resolve_jumps() {
    real_longjmp = reinterpret_cast<JumpFunction>(real::next_symbol("longjmp"));
    real_underscore_longjmp = reinterpret_cast<JumpFunction>(real::next_symbol("_longjmp"));
    real_siglongjmp = reinterpret_cast<JumpFunction>(real::next_symbol("siglongjmp"));
    real_longjmp_chk = reinterpret_cast<JumpFunction>(real::next_symbol("__longjmp_chk"));
}

LOOPFAST_PUBLIC void longjmp(__jmp_buf_tag* place, int value) { jump(real_longjmp, "longjmp", place, value); }
LOOPFAST_PUBLIC void _longjmp(__jmp_buf_tag* place, int value) {
    jump(real_underscore_longjmp, "_longjmp", place, value);
}
LOOPFAST_PUBLIC void siglongjmp(__jmp_buf_tag* place, int value) {
    jump(real_siglongjmp, "siglongjmp", place, value);
}
LOOPFAST_PUBLIC void __longjmp_chk(__jmp_buf_tag* place, int value) {
    jump(real_longjmp_chk, "__longjmp_chk", place, value);
}

}  // namespace loopfast
