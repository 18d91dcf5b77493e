// A thread that holds descriptors too, and lets go of them by ending.
//
// Who lets go of a TCP socket with SO_LINGER as the last one waits until its bytes are acknowledged, but not
// who is ending himself: the kernel asks for that (PF_EXITING, inet_release). So a thread with a table of its
// own takes a second hold, the caller closes what it has, which is not the last hold, and then the thread
// ends. Its table is made empty, not copied: a copy would hold the program's sockets for a moment, too.
#pragma once

#include <atomic>
#include <cstdint>

namespace loopfast {

/// While it exists, closing these descriptors waits for nobody. Its end waits for the thread to have seen it,
/// and not for what the thread then does.
class Heir {
public:
    static constexpr int kMost = 32;

    /// Where a filter for system calls may end the process for those that are needed, or the kernel has none
    /// of them: there is no heir then.
    static bool possible();

    /// `count` descriptors, kMost at most, which stay open meanwhile. With no socket among them there is no
    /// heir: only sockets linger.
    Heir(const int* fds, int count);
    ~Heir();
    Heir(const Heir&) = delete;
    Heir& operator=(const Heir&) = delete;

    bool has_all() const { return has_all_; }

private:
    enum Stage : uint32_t { kBegun, kHeld, kClosed, kOver };

    static void* inherit(void* self);
    bool take_all(int process) const;
    void advance(Stage stage);
    void wait_for(Stage stage) const;

    const int* fds_;
    int count_;
    /// Which of them is a socket, and its cookie. By that the thread sees that the process's main thread,
    /// from whom it takes, has the caller's table. One made for that would take a number of the program's.
    int known_ = 0;
    uint64_t known_cookie_ = 0;
    bool started_ = false;
    bool has_all_ = false;
    /// Release by who advances it pairs with the acquire of who waits for that: the fields above are the
    /// thread's until kHeld, and the caller's after it. After kOver the thread touches nothing of this.
    std::atomic<uint32_t> stage_{kBegun};
};

}  // namespace loopfast
