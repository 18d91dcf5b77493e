/* windef.h: the basic types of the Windows API, as 64-bit Windows lays them out, for Linux x86-64.
 *
 * `long` has 32 bits on Windows and 64 here, so the types that are `long` there (LONG, ULONG, DWORD, u_long)
 * are `int` here: widths, offsets and signs agree, and what a source stores in them does too. A source that
 * prints a DWORD with %lu casts it to unsigned long first, which is right on both systems.
 *
 * Characters of the W functions have 16 bits. Two ways to compile a source that uses them:
 *   -fshort-wchar     WCHAR is wchar_t, L"..." works; the C library's own wcs* functions do not
 *   otherwise         WCHAR is char16_t, written u"..."; an L"..." given to a W function does not compile,
 *                     and UNICODE (which turns the plain names into W) is refused right here
 */
#ifndef LOOPFAST_WINSOCK_WINDEF_H
#define LOOPFAST_WINSOCK_WINDEF_H

#if !defined(__linux__) || !defined(__x86_64__) || defined(__ILP32__)
#error "loopfast's Winsock headers are for 64-bit Linux on x86-64; on Windows use the system's own"
#endif
#if defined(UNICODE) && __SIZEOF_WCHAR_T__ != 2
#error \
    "UNICODE is defined and wchar_t has 32 bits: compile with -fshort-wchar, W functions take 16-bit characters"
#endif
#if !defined(__cplusplus) && __SIZEOF_WCHAR_T__ != 2
#pragma GCC diagnostic error "-Wincompatible-pointer-types" /* an L"..." where 16-bit characters belong */
#endif

#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifndef WINAPI
#define WINAPI
#endif
#define APIENTRY WINAPI
#define CALLBACK
#define PASCAL
#define WINAPIV
#define FAR
#define NEAR
#define CONST const
#ifndef __stdcall
#define __stdcall
#endif
#ifndef __cdecl
#define __cdecl
#endif
#ifndef __fastcall
#define __fastcall
#endif
#ifndef __declspec
#define __declspec(attribute)
#endif
#ifndef __forceinline
#define __forceinline static inline
#endif
#ifndef _In_ /* the annotations that samples carry */
#define _In_
#define _In_opt_
#define _Out_
#define _Out_opt_
#define _Inout_
#define _Inout_opt_
#define _In_reads_(count)
#define _In_reads_bytes_opt_(count)
#define _Out_writes_bytes_to_opt_(count, used)
#define _Out_writes_bytes_(count)
#endif

#ifdef __cplusplus
#define LOOPFAST_WINSOCK_BEGIN extern "C" {
#define LOOPFAST_WINSOCK_END }
#else
#define LOOPFAST_WINSOCK_BEGIN
#define LOOPFAST_WINSOCK_END
#endif
/* Functions whose names the C library has too, with other meanings: same name in the source, another symbol.
 */
#define LOOPFAST_WINSOCK_SYMBOL(name) __asm__("loopfast_winsock_" #name)

typedef void VOID;
typedef void *PVOID, *LPVOID;
typedef const void *LPCVOID, *PCVOID;
typedef char CHAR, *PCHAR, *LPSTR, *PSTR;
typedef const char *LPCSTR, *PCSTR;
typedef signed char INT8;
typedef unsigned char UCHAR, *PUCHAR, BYTE, *PBYTE, *LPBYTE, BOOLEAN, *PBOOLEAN, UINT8;
typedef short SHORT, *PSHORT, INT16;
typedef unsigned short USHORT, *PUSHORT, WORD, *PWORD, *LPWORD, UINT16;
typedef int INT, *PINT, *LPINT, LONG, *PLONG, *LPLONG, INT32, LONG32, BOOL, *PBOOL, *LPBOOL, WINBOOL;
typedef unsigned int UINT, *PUINT, *LPUINT, ULONG, *PULONG, DWORD, *PDWORD, *LPDWORD, UINT32, ULONG32,
    DWORD32;
typedef long long LONGLONG, *PLONGLONG, INT64, LONG64, INT_PTR, *PINT_PTR, LONG_PTR, *PLONG_PTR, SSIZE_T;
typedef unsigned long long ULONGLONG, *PULONGLONG, UINT64, ULONG64, DWORD64, DWORDLONG, UINT_PTR, *PUINT_PTR;
typedef unsigned long long ULONG_PTR, *PULONG_PTR, DWORD_PTR, *PDWORD_PTR;
typedef unsigned long SIZE_T, *PSIZE_T; /* size_t itself, as there */
typedef float FLOAT;
typedef int HRESULT, NTSTATUS;

#if __SIZEOF_WCHAR_T__ == 2
typedef wchar_t WCHAR;
#elif defined(__cplusplus)
typedef char16_t WCHAR;
#else
typedef __CHAR16_TYPE__ WCHAR;
#endif
typedef WCHAR *PWCHAR, *LPWCH, *PWCH, *LPWSTR, *PWSTR;
typedef const WCHAR *LPCWSTR, *PCWSTR;
#ifdef UNICODE
typedef WCHAR TCHAR, *LPTSTR, *PTSTR;
typedef LPCWSTR LPCTSTR;
#define TEXT(text) L##text
#define LOOPFAST_WINSOCK_AW(name) name##W
#else
typedef char TCHAR, *LPTSTR, *PTSTR;
typedef LPCSTR LPCTSTR;
#define TEXT(text) text
#define LOOPFAST_WINSOCK_AW(name) name##A
#endif

typedef void *HANDLE, **PHANDLE, **LPHANDLE;
typedef HANDLE HWND, HINSTANCE, HMODULE, HLOCAL, HGLOBAL;
typedef UINT_PTR WPARAM;
typedef LONG_PTR LPARAM, LRESULT;
typedef INT_PTR(WINAPI *FARPROC)(void);
typedef INT_PTR(WINAPI *PROC)(void);

typedef union _LARGE_INTEGER {
    __extension__ struct {
        DWORD LowPart;
        LONG HighPart;
    };
    struct {
        DWORD LowPart;
        LONG HighPart;
    } u;
    LONGLONG QuadPart;
} LARGE_INTEGER, *PLARGE_INTEGER;
typedef union _ULARGE_INTEGER {
    __extension__ struct {
        DWORD LowPart;
        DWORD HighPart;
    };
    struct {
        DWORD LowPart;
        DWORD HighPart;
    } u;
    ULONGLONG QuadPart;
} ULARGE_INTEGER, *PULARGE_INTEGER;
typedef struct _FILETIME {
    DWORD dwLowDateTime;
    DWORD dwHighDateTime;
} FILETIME, *PFILETIME, *LPFILETIME;

#ifndef TRUE
#define TRUE 1
#endif
#ifndef FALSE
#define FALSE 0
#endif
#ifndef MAXDWORD
#define MAXDWORD 0xffffffffu
#endif
#ifndef MAX_PATH
#define MAX_PATH 260
#endif
#define MAKEWORD(low, high) ((WORD)(((BYTE)(low)) | ((WORD)((BYTE)(high))) << 8))
#define MAKELONG(low, high) ((LONG)(((WORD)(low)) | ((DWORD)((WORD)(high))) << 16))
#define LOWORD(value) ((WORD)((DWORD_PTR)(value)&0xffff))
#define HIWORD(value) ((WORD)(((DWORD_PTR)(value) >> 16) & 0xffff))
#define LOBYTE(value) ((BYTE)((DWORD_PTR)(value)&0xff))
#define HIBYTE(value) ((BYTE)(((DWORD_PTR)(value) >> 8) & 0xff))
#ifndef CONTAINING_RECORD
#define CONTAINING_RECORD(address, type, field) ((type *)((char *)(address)-offsetof(type, field)))
#endif
/* As MinGW has it: not in C++, whose library has its own. */
#if !defined(NOMINMAX) && !defined(__cplusplus)
#ifndef max
#define max(a, b) ((a) > (b) ? (a) : (b))
#endif
#ifndef min
#define min(a, b) ((a) < (b) ? (a) : (b))
#endif
#endif
#ifndef FIELD_OFFSET
#define FIELD_OFFSET(type, field) ((LONG)offsetof(type, field))
#endif
#ifndef UNREFERENCED_PARAMETER
#define UNREFERENCED_PARAMETER(name) ((void)(name))
#endif
#ifndef ARRAYSIZE
#define ARRAYSIZE(array) (sizeof(array) / sizeof((array)[0]))
#endif
#ifndef _countof
#define _countof(array) (sizeof(array) / sizeof((array)[0]))
#endif

#endif
