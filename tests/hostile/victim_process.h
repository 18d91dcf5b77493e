// The victim as seen from the test: started under the library, asked one thing at a time. An answer that
// does not come in time, or a victim that ends, is a failure and not a hang.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

namespace loopfast::hostile {

struct Answer {
    bool came = false;
    long result = -1;
    int error = 0;
    int64_t elapsed_us = 0;
    int64_t cpu_us = 0;
    std::string bytes;  ///< the first ones received

    /// What a program on TCP would see as well: bytes, nothing yet, or the end.
    bool as_tcp() const;
};

/// How long a call may take that waits for nobody, and one that waits for the victim's short timeout, in
/// microseconds. A machine that runs ten other things may stop a process for a good part of a second; who
/// waits for its peer waits for ever.
constexpr int64_t kAtOnce = 2'000'000;
constexpr int64_t kInTime = 3'000'000;

class Victim {
public:
    /// `uid` not 0: runs as that user. `setting`: "NAME=VALUE", several with spaces between them, or empty.
    /// `before`: what it does to itself before it executes the program; `program`: another copy of it.
    explicit Victim(uid_t uid = 0, const char* setting = "", const std::function<void()>& before = nullptr,
                    const char* program = nullptr);
    ~Victim();
    Victim(const Victim&) = delete;
    Victim& operator=(const Victim&) = delete;

    /// Asks, and waits at most `limit_ms` for the answer.
    Answer ask(const std::string& command, int limit_ms = 20'000);
    /// The two halves of it.
    bool tell(const std::string& command);
    Answer answer(int limit_ms);
    /// The result alone; a missing answer is a failure of the test.
    long result(const std::string& command, int limit_ms = 20'000);
    bool alive();
    /// Ends its input: it must exit by itself, at once and with status 0.
    bool exits(int limit_ms = 20'000);
    pid_t pid() const { return pid_; }

private:
    pid_t pid_ = -1;
    int in_ = -1;
    int out_ = -1;
    std::string pending_;
};

}  // namespace loopfast::hostile
