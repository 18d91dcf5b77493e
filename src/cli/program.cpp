// See program.h.
#include "cli/program.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include <fmt/format.h>

#include "cli/failure.h"
#include "cli/processes.h"

namespace loopfast::cli {

namespace {

#if defined(__x86_64__)
constexpr uint16_t kOurMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kOurMachine = EM_AARCH64;
#else
#error "loopfast has no lane for this architecture"
#endif

constexpr const char* kStatic =
    "it is statically linked, and the dynamic loader, which would load loopfast into it, takes no part in it";

/// Why this user's execution of the file would be a secure one, in which the loader ignores us.
std::string why_privileged(const std::string& path) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0)
        return "";
    if ((status.st_mode & S_ISUID) != 0 && status.st_uid != getuid())
        return "it is setuid, and the dynamic loader preloads nothing into programs that change their user";
    if ((status.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && status.st_gid != getgid())
        return "it is setgid, and the dynamic loader preloads nothing into programs that change their group";
    if (geteuid() != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0)
        return "it has file capabilities, and the dynamic loader preloads nothing into such programs";
    return "";
}

bool mentions(const std::string& path, const std::string& word) {
    const auto content = read_whole(path);
    return content && content->find(word) != std::string::npos;
}

/// Another libc's loader would load the library, miss functions of glibc's, and end the program. A name says
/// little (distributions have glibc's loader under names of their own), the versions that it defines do.
std::string why_wrong_loader(std::ifstream& file, const Elf64_Phdr& segment) {
    constexpr uint64_t kLongest = 4096;
    std::string loader(segment.p_filesz < kLongest ? segment.p_filesz : 0, '\0');
    file.seekg(static_cast<std::streamoff>(segment.p_offset));
    if (!file.read(loader.data(), static_cast<std::streamsize>(loader.size())))
        return "";
    loader.resize(strnlen(loader.data(), loader.size()));
    if (loader.empty() || access(loader.c_str(), R_OK) != 0 || mentions(loader, "GLIBC_PRIVATE"))
        return "";
    return fmt::format(
        "its dynamic loader, {}, is not that of glibc, and libloopfast.so is a library for glibc", loader);
}

std::string why_wrong_elf(std::ifstream& file, const Elf64_Ehdr& header) {
    if (header.e_ident[EI_CLASS] == ELFCLASS32)
        return "it is a 32-bit program, and libloopfast.so is a 64-bit library";
    if (header.e_machine != kOurMachine)
        return "it is built for another architecture than libloopfast.so";
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr segment{};
        file.seekg(static_cast<std::streamoff>(header.e_phoff + uint64_t{i} * header.e_phentsize));
        if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment))
            return "";
        if (segment.p_type == PT_INTERP)
            return why_wrong_loader(file, segment);
    }
    return kStatic;
}

/// The interpreter of a script's first line; empty if there is none.
std::string interpreter(std::ifstream& file) {
    file.clear();
    file.seekg(2);
    std::string line;
    std::getline(file, line);
    std::istringstream words(line);
    std::string first;
    words >> first;
    return first;
}

}  // namespace

std::string find_program(const std::string& name) {
    std::vector<std::string> candidates;
    if (name.find('/') != std::string::npos) {
        candidates.push_back(name);
    } else {
        const char* path = getenv("PATH");
        std::istringstream directories(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
        for (std::string directory; std::getline(directories, directory, ':');)
            candidates.push_back((directory.empty() ? "." : directory) + "/" + name);
    }
    std::string refused;
    for (const std::string& candidate : candidates) {
        struct stat status {};
        if (stat(candidate.c_str(), &status) != 0) {
            if (errno == EACCES && candidates.size() == 1)
                refused = candidate + ": permission denied on the way to it";
            continue;
        }
        if (S_ISREG(status.st_mode) && access(candidate.c_str(), X_OK) == 0)
            return candidate;
        if (refused.empty() && (S_ISREG(status.st_mode) || candidates.size() == 1))
            refused = candidate + (S_ISDIR(status.st_mode) ? ": a directory; expected a program"
                                                           : ": not executable; see chmod(1)");
    }
    if (!refused.empty())
        throw Failure(kCannotExecute, refused);
    if (name.empty())
        throw Failure(kNotFound, "the program's name is empty; expected a program of PATH, or a path");
    throw Failure(kNotFound, name.find('/') != std::string::npos
                                 ? fmt::format("{}: there is no such file", name)
                                 : fmt::format("{}: there is no such program in PATH", name));
}

std::string why_not_preloadable(const std::string& path) {
    std::string current = path;
    // The kernel follows a script's interpreter, which may be a script itself, four times.
    for (int depth = 0; depth < 5; ++depth) {
        std::ifstream file(current, std::ios::binary);
        Elf64_Ehdr header{};
        file.read(reinterpret_cast<char*>(&header), sizeof header);
        const auto size = file.gcount();
        if (size >= 2 && std::memcmp(header.e_ident, "#!", 2) == 0) {
            // Setuid has no effect on a script; its interpreter's counts.
            current = interpreter(file);
            continue;
        }
        if (std::string privileged = why_privileged(current); !privileged.empty())
            return privileged;
        if (size < EI_NIDENT || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
            return "";
        return why_wrong_elf(file, header);
    }
    return "";
}

bool needs_library(const std::string& path, const std::string& prefix) {
    std::ifstream file(path, std::ios::binary);
    const auto read_at = [&file](uint64_t offset, void* into, size_t size) {
        file.clear();
        file.seekg(static_cast<std::streamoff>(offset));
        return static_cast<bool>(file.read(static_cast<char*>(into), static_cast<std::streamsize>(size)));
    };
    Elf64_Ehdr header{};
    if (!read_at(0, &header, sizeof header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64)
        return false;
    std::vector<Elf64_Phdr> segments(header.e_phnum);
    for (size_t i = 0; i < segments.size(); ++i)
        if (!read_at(header.e_phoff + i * header.e_phentsize, &segments[i], sizeof segments[i]))
            return false;
    std::vector<uint64_t> names;
    uint64_t table = 0;
    for (const Elf64_Phdr& segment : segments) {
        Elf64_Dyn entry{};
        for (uint64_t at = 0; segment.p_type == PT_DYNAMIC && at < segment.p_filesz; at += sizeof entry) {
            if (!read_at(segment.p_offset + at, &entry, sizeof entry) || entry.d_tag == DT_NULL)
                break;
            if (entry.d_tag == DT_NEEDED)
                names.push_back(entry.d_un.d_val);
            else if (entry.d_tag == DT_STRTAB)
                table = entry.d_un.d_ptr;
        }
    }
    for (const Elf64_Phdr& segment : segments) {
        if (segment.p_type != PT_LOAD || table < segment.p_vaddr ||
            table - segment.p_vaddr >= segment.p_filesz)
            continue;
        for (const uint64_t name : names) {
            std::string start(prefix.size(), '\0');
            if (read_at(segment.p_offset + (table - segment.p_vaddr) + name, start.data(), start.size()) &&
                start == prefix)
                return true;
        }
    }
    return false;
}

std::string own_path() {
    std::error_code error;
    std::string path = std::filesystem::read_symlink("/proc/self/exe", error).string();
    if (error)
        throw Failure(kFailed, "/proc/self/exe cannot be read: is /proc mounted? " + error.message());
    return path;
}

std::string find_library() {
    std::error_code ignored;
    if (const char* named = getenv("LOOPFAST_LIBRARY"); named != nullptr && *named != 0) {
        const auto path = std::filesystem::absolute(named, ignored);
        if (access(path.c_str(), R_OK) != 0)
            throw Failure(kFailed, fmt::format("LOOPFAST_LIBRARY={}: {}", named, strerror(errno)));
        // The loader takes any library, and the program would run without loopfast.
        if (!mentions(path.string(), "loopfast_reason_name"))
            throw Failure(
                kFailed,
                fmt::format("LOOPFAST_LIBRARY={}: expected libloopfast.so; this is another file", named));
        return path.string();
    }
    const std::filesystem::path directory = std::filesystem::path(own_path()).parent_path();
    const std::vector<std::string> places = {"", "../lib", "../lib/" LOOPFAST_MULTIARCH, "../lib64"};
    std::string looked;
    for (const std::string& place : places) {
        for (const char* name : {"libloopfast.so", "libloopfast.so.0"}) {
            const auto path = (directory / place / name).lexically_normal();
            if (access(path.c_str(), R_OK) == 0)
                return path.string();
        }
        looked += "\n  " + (directory / place).lexically_normal().string();
    }
    throw Failure(kFailed,
                  "libloopfast.so is not there. Set LOOPFAST_LIBRARY to its path. Looked in:" + looked);
}

std::string preload_name(const std::string& library) {
    const auto directory = std::filesystem::path(library).parent_path() / "loopfast-preload";
    std::error_code error;
    if (!std::filesystem::equivalent(directory / "libloopfast.so", library, error) || error)
        return library;
    // What $LIB stands for is the loader's business: it is asked whether there is something to be loaded.
    const std::string name = (directory / "$LIB" / "libloopfast.so").string();
    dlerror();
    if (void* const loaded = dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD))
        dlclose(loaded);
    return dlerror() == nullptr ? name : library;
}

}  // namespace loopfast::cli
