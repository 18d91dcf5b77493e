// The log that one asks for with LOOPFAST_LOG=stderr or LOOPFAST_LOG=/path. Without it the library writes
// nothing, anywhere, ever.
#pragma once

namespace loopfast {

inline bool log_enabled = false;

/// Where to log: "stderr", a path (opened for appending), or nullptr for nowhere.
void log_open(const char* where);

/// One line, printf-like, with the process id in front. Async-signal-safe, at most 512 bytes.
[[gnu::format(printf, 1, 2)]] void log_line(const char* format, ...);

}  // namespace loopfast

/// Arguments are not evaluated unless the log is open.
#define LOOPFAST_LOG(...)                      \
    do {                                       \
        if (::loopfast::log_enabled)           \
            ::loopfast::log_line(__VA_ARGS__); \
    } while (0)
