/* in6addr.h: IPv6 addresses; see ws2def.h. */
#include "ws2def.h"
