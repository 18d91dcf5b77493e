/* winsock.h: the older name; one gets version 2. */
#include "winsock2.h"
