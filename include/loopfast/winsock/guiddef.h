/* guiddef.h: the 16-byte identifiers by which extension functions are asked for. */
#ifndef LOOPFAST_WINSOCK_GUIDDEF_H
#define LOOPFAST_WINSOCK_GUIDDEF_H
#define GUID_DEFINED

#include "windef.h"

typedef struct _GUID {
    UINT Data1;
    USHORT Data2;
    USHORT Data3;
    UCHAR Data4[8];
} GUID, *LPGUID;
typedef const GUID *LPCGUID;

#ifdef __cplusplus
inline bool operator==(const GUID &one, const GUID &other) { return memcmp(&one, &other, sizeof one) == 0; }
inline bool operator!=(const GUID &one, const GUID &other) { return memcmp(&one, &other, sizeof one) != 0; }
#define IsEqualGUID(one, other) ((one) == (other))
#else
#define IsEqualGUID(one, other) (memcmp((one), (other), sizeof(GUID)) == 0)
#endif

#endif
