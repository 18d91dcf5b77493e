/* sys/select.h: the system's own, but a program's FD_SETSIZE outlives it; the system's would take its place
 * without a word, and a set would then have room for 64 sockets only. */
#pragma GCC system_header
#if defined(FD_SETSIZE) && !defined(_SYS_SELECT_H)
#pragma push_macro("FD_SETSIZE")
#undef FD_SETSIZE
#include_next <sys/select.h>
#undef FD_SETSIZE
#pragma pop_macro("FD_SETSIZE")
#else
#include_next <sys/select.h>
#endif
