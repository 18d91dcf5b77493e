/* The same header under another spelling that sources use: file names are case-insensitive on Windows. */
#include "winsock.h"
