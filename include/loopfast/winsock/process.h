/* process.h: threads, as Microsoft's C library begins them. */
#ifndef LOOPFAST_WINSOCK_PROCESS_H
#define LOOPFAST_WINSOCK_PROCESS_H

#include "winbase.h"

/** CreateThread with other types. @return the handle, to be closed, or 0. */
static __inline uintptr_t _beginthreadex(void *security, unsigned stack_size,
                                         unsigned(__stdcall *start)(void *), void *argument, unsigned flags,
                                         unsigned *number) {
    return (uintptr_t)CreateThread((LPSECURITY_ATTRIBUTES)security, stack_size, (LPTHREAD_START_ROUTINE)start,
                                   argument, flags, number);
}
#define _endthreadex(code) ExitThread(code)

#endif
