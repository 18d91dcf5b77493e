// Ends the test, and says where, when a condition does not hold.
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#define REQUIRE(condition)                                                                                 \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            std::fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            std::_Exit(1);                                                                                 \
        }                                                                                                  \
    } while (false)
