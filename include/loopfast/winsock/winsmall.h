/* winsmall.h: small things of windows.h that socket sources use and the C library has under other names. All
 * of it is in the source that includes it: nothing is exported. */
#ifndef LOOPFAST_WINSOCK_WINSMALL_H
#define LOOPFAST_WINSOCK_WINSMALL_H

#include <stdarg.h>
#include <stdio.h>

#include "winbase.h"

/* Memory: one heap, the C library's. */
#define HEAP_NO_SERIALIZE 0x1
#define HEAP_GENERATE_EXCEPTIONS 0x4
#define HEAP_ZERO_MEMORY 0x8
#define GMEM_FIXED 0x0
#define GMEM_ZEROINIT 0x40
#define GPTR 0x40
#define LMEM_FIXED 0x0
#define LMEM_ZEROINIT 0x40
#define LPTR 0x40
static __inline HANDLE GetProcessHeap(void) { return (HANDLE)(ULONG_PTR)1; }
static __inline LPVOID HeapAlloc(HANDLE heap, DWORD flags, SIZE_T size) {
    (void)heap;
    if (size == 0)
        size = 1;
    return (flags & HEAP_ZERO_MEMORY) != 0 ? calloc(1, size) : malloc(size);
}
static __inline LPVOID HeapReAlloc(HANDLE heap, DWORD flags, LPVOID memory, SIZE_T size) {
    (void)heap;
    if ((flags & HEAP_ZERO_MEMORY) != 0)
        return NULL; /* how much of it is new nobody knows */
    return realloc(memory, size == 0 ? 1 : size);
}
static __inline BOOL HeapFree(HANDLE heap, DWORD flags, LPVOID memory) {
    (void)heap;
    (void)flags;
    free(memory);
    return TRUE;
}
static __inline HGLOBAL GlobalAlloc(UINT flags, SIZE_T size) {
    return HeapAlloc(NULL, (flags & GMEM_ZEROINIT) != 0 ? HEAP_ZERO_MEMORY : 0, size);
}
static __inline HGLOBAL GlobalFree(HGLOBAL memory) {
    free(memory);
    return NULL;
}
static __inline HLOCAL LocalAlloc(UINT flags, SIZE_T size) { return GlobalAlloc(flags, size); }
static __inline HLOCAL LocalFree(HLOCAL memory) { return GlobalFree(memory); }

/* The process and the system. */
#define HANDLE_FLAG_INHERIT 0x1
/** Sockets are not inherited here, whatever is set. */
static __inline BOOL SetHandleInformation(HANDLE object, DWORD mask, DWORD flags) {
    (void)object;
    (void)mask;
    (void)flags;
    return TRUE;
}
static __inline HANDLE GetCurrentProcess(void) { return (HANDLE)(LONG_PTR)-1; }
static __inline void ExitProcess(UINT code) { exit((int)code); }
typedef struct _SYSTEM_INFO {
    WORD wProcessorArchitecture;
    WORD wReserved;
    DWORD dwPageSize;
    LPVOID lpMinimumApplicationAddress;
    LPVOID lpMaximumApplicationAddress;
    DWORD_PTR dwActiveProcessorMask;
    DWORD dwNumberOfProcessors;
    DWORD dwProcessorType;
    DWORD dwAllocationGranularity;
    WORD wProcessorLevel;
    WORD wProcessorRevision;
} SYSTEM_INFO, *LPSYSTEM_INFO;
#define PROCESSOR_ARCHITECTURE_AMD64 9
/** Processors and the size of a page; the rest is 0. */
static __inline void GetSystemInfo(LPSYSTEM_INFO info) {
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    memset(info, 0, sizeof *info);
    info->wProcessorArchitecture = PROCESSOR_ARCHITECTURE_AMD64;
    info->dwPageSize = (DWORD)sysconf(_SC_PAGESIZE);
    info->dwNumberOfProcessors = processors > 0 ? (DWORD)processors : 1;
    info->dwAllocationGranularity = 0x10000;
}

typedef BOOL(WINAPI *PHANDLER_ROUTINE)(DWORD CtrlType);
#define CTRL_C_EVENT 0
#define CTRL_BREAK_EVENT 1
#define CTRL_CLOSE_EVENT 2
#define CTRL_LOGOFF_EVENT 5
#define CTRL_SHUTDOWN_EVENT 6
/** Accepted; signals do here what they do, no handler is called. */
static __inline BOOL SetConsoleCtrlHandler(PHANDLER_ROUTINE handler, BOOL add) {
    (void)handler;
    (void)add;
    return TRUE;
}

/* Texts of errors: the number in words. */
#define FORMAT_MESSAGE_ALLOCATE_BUFFER 0x100
#define FORMAT_MESSAGE_IGNORE_INSERTS 0x200
#define FORMAT_MESSAGE_FROM_STRING 0x400
#define FORMAT_MESSAGE_FROM_HMODULE 0x800
#define FORMAT_MESSAGE_FROM_SYSTEM 0x1000
#define FORMAT_MESSAGE_MAX_WIDTH_MASK 0xff
#define LANG_NEUTRAL 0x00
#define SUBLANG_NEUTRAL 0x00
#define SUBLANG_DEFAULT 0x01
#define MAKELANGID(language, sub) ((WORD)((((WORD)(sub)) << 10) | (WORD)(language)))
/** @return characters, 0 if there is no room. With FORMAT_MESSAGE_ALLOCATE_BUFFER `text` points at a pointer,
 *  to be given to LocalFree. */
static __inline DWORD FormatMessageA(DWORD flags, LPCVOID source, DWORD id, DWORD language, LPSTR text,
                                     DWORD size, va_list *arguments) {
    char *memory = text;
    (void)source;
    (void)language;
    (void)arguments;
    if ((flags & FORMAT_MESSAGE_ALLOCATE_BUFFER) != 0) {
        size = 32;
        memory = (char *)malloc(size);
        if (memory == NULL)
            return 0;
        memcpy(text, &memory, sizeof memory);
    }
    return size >= 32 ? (DWORD)sprintf(memory, "Error %u.\r\n", id) : 0;
}
#define FormatMessage FormatMessageA

/* Microsoft's spellings of the C library's names. */
#ifndef _stricmp
#define _stricmp strcasecmp
#define _strnicmp strncasecmp
#define stricmp strcasecmp
#define _strdup strdup
#define _snprintf snprintf
#define _vsnprintf vsnprintf
#define sprintf_s snprintf
#define printf_s printf
#define fprintf_s fprintf
#define lstrlenA(text) ((int)strlen(text))
#define lstrlen(text) ((int)strlen(text))
#define _getpid getpid
#endif

#endif
