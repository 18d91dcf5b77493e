// The size of a memory file of ours. RLIMIT_FSIZE counts for it as for any other file, and who goes beyond it
// gets not only EFBIG but SIGXFSZ, which ends the program. A program that writes no files may well have a
// small limit, and is not to die for ours.
#pragma once

#include <cstddef>
#include <cstdint>

namespace loopfast {

/// Whether a file may have `size` bytes now.
bool allowed_file_size(uint64_t size);

/// ftruncate(2) without the signal: 0 or -errno, -EFBIG where the limit is lower.
int set_file_size(int fd, size_t size);

/// While it lives, SIGXFSZ does not come to this thread for what the library writes itself.
class NoSizeSignal {
public:
    NoSizeSignal();
    ~NoSizeSignal();
    NoSizeSignal(const NoSizeSignal&) = delete;
    NoSizeSignal& operator=(const NoSizeSignal&) = delete;

    /// The call failed with EFBIG: takes away the signal that came with it.
    void refused();

private:
    uint64_t before_ = 0;
    bool was_pending_ = false;
};

}  // namespace loopfast
