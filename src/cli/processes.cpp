// See processes.h.
#include "cli/processes.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

namespace loopfast::cli {

namespace {

constexpr const char* kArenaName = "/memfd:loopfast-family";

bool has_ended(const std::string& directory) { return access(directory.c_str(), F_OK) != 0; }

void look_at(pid_t pid, Scan& scan) {
    const std::string directory = "/proc/" + std::to_string(pid);
    const std::optional<std::string> maps = read_whole(directory + "/maps");
    if (!maps) {
        scan.unreadable += has_ended(directory) ? 0 : 1;
        return;
    }
    auto mappings = arena_mappings(*maps);
    if (mappings.empty())
        return;
    std::string program = read_whole(directory + "/comm").value_or("");
    while (!program.empty() && program.back() == '\n')
        program.pop_back();
    // A process chooses its own name; it does not get to send sequences to somebody's terminal.
    std::replace_if(
        program.begin(), program.end(), [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
    scan.processes.push_back({pid, program, std::move(mappings)});
}

}  // namespace

std::optional<std::string> read_whole(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string text;
    // Not by an iterator over the buffer: that throws where a read fails. Some kernels let one open the maps
    // of a stranger and refuse the reading; those of a process that has ended say ESRCH.
    for (char part[4096]; file.read(part, sizeof part) || file.gcount() > 0;)
        text.append(part, static_cast<size_t>(file.gcount()));
    if (!file.is_open() || file.bad())
        return std::nullopt;
    return text;
}

Unreadable unreadable(pid_t pid) {
    if (geteuid() != 0)
        return {fmt::format("process {} may not be inspected by this user", pid),
                "Ask as its user, or as root."};
    return {
        fmt::format("process {} may not be inspected, not even by root", pid),
        "CAP_SYS_PTRACE is missing here, or a security module is in the way: ask outside of the container."};
}

std::vector<ArenaMapping> arena_mappings(const std::string& maps) {
    std::vector<ArenaMapping> found;
    std::istringstream lines(maps);
    for (std::string line; std::getline(lines, line);) {
        if (line.find(kArenaName) == std::string::npos)
            continue;
        // begin-end permissions offset device inode path
        uint64_t begin = 0, end = 0, offset = 0, inode = 0;
        char dash = 0;
        std::string permissions, device;
        std::istringstream fields(line);
        fields >> std::hex >> begin >> dash >> end >> permissions >> offset >> device >> std::dec >> inode;
        if (fields)
            found.push_back({begin, end - begin, offset, inode});
    }
    return found;
}

Scan scan_processes(std::optional<pid_t> only) {
    Scan scan;
    if (only) {
        look_at(*only, scan);
        return scan;
    }
    std::vector<pid_t> pids;
    if (DIR* proc = opendir("/proc")) {
        while (const dirent* entry = readdir(proc))
            if (isdigit(static_cast<unsigned char>(entry->d_name[0])) != 0)
                pids.push_back(static_cast<pid_t>(strtol(entry->d_name, nullptr, 10)));
        closedir(proc);
    }
    std::sort(pids.begin(), pids.end());
    for (const pid_t pid : pids)
        look_at(pid, scan);
    return scan;
}

}  // namespace loopfast::cli
