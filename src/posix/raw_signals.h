// syscall() for signals: see raw.cpp.
#pragma once

namespace loopfast {

/// The kernel's call in the words of masks.h. @return false when `number` is none of these, or the kernel
/// shall say what is wrong with the arguments; else `result` is a value or -errno.
bool raw_signal_call(long number, const long (&arguments)[4], long& result);

}  // namespace loopfast
