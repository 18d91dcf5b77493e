// The processes that have loopfast in them: those with its arena mapped, as /proc tells.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace loopfast::cli {

/// One mapping of the arena that a process and its forked relatives share.
struct ArenaMapping {
    uint64_t address;
    uint64_t size;
    uint64_t offset;  ///< in the memfd
    uint64_t inode;   ///< relatives map the same one
};

struct LoopfastProcess {
    pid_t pid;
    std::string program;
    std::vector<ArenaMapping> mappings;
};

struct Scan {
    std::vector<LoopfastProcess> processes;  ///< in the order of their ids
    int unreadable = 0;                      ///< processes that the caller may not inspect
};

/// Looks at every process, or at one.
Scan scan_processes(std::optional<pid_t> only);

/// One that is not to be read, and what to do about it.
struct Unreadable {
    std::string text;
    std::string advice;
};
Unreadable unreadable(pid_t pid);

/// All of a file, unless it cannot be opened or a read fails: one of /proc does when its process ends
/// meanwhile.
std::optional<std::string> read_whole(const std::string& path);

/// The mappings of the arena in the text of a /proc/PID/maps.
std::vector<ArenaMapping> arena_mappings(const std::string& maps);

}  // namespace loopfast::cli
