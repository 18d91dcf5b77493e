/* inaddr.h: IPv4 addresses; see ws2def.h. */
#include "ws2def.h"
