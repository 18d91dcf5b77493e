/* tchar.h: names that mean characters of one or of two bytes, as UNICODE says; here those of one. */
#ifndef LOOPFAST_WINSOCK_TCHAR_H
#define LOOPFAST_WINSOCK_TCHAR_H

#include "windef.h"

#ifdef UNICODE
#error "tchar.h: the C library has no functions for 16-bit characters; compile without UNICODE"
#endif
typedef char _TCHAR;
#define _T(text) text
#define _TEXT(text) text
#define _tmain main
#define _tprintf printf
#define _ftprintf fprintf
#define _stprintf sprintf
#define _sntprintf snprintf
#define _ttoi atoi
#define _tcslen strlen
#define _tcscmp strcmp
#define _tcsicmp strcasecmp
#define _tcscpy strcpy
#define _tcsncpy strncpy
#define _tcschr strchr

#endif
