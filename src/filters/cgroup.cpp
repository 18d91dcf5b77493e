// Socket-buffer programs of control groups: the kernel runs those of a socket's group and of all above it for
// every packet that goes out of or comes in to the socket, those of lo as well. (Programs for connect, bind
// and the like decide before there is data, and do not count.)
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <initializer_list>

#include "base/syscall.h"
#include "filters/inspect.h"

namespace loopfast {

Sight inspect_cgroup(int directory, const char* name, Findings& findings) {
    for (const bpf_attach_type type : {BPF_CGROUP_INET_INGRESS, BPF_CGROUP_INET_EGRESS}) {
        uint32_t programs[64] = {};
        union bpf_attr attributes;
        memset(&attributes, 0, sizeof attributes);
        attributes.query.target_fd = static_cast<uint32_t>(directory);
        attributes.query.attach_type = type;
        attributes.query.query_flags = BPF_F_QUERY_EFFECTIVE;
        attributes.query.prog_ids = reinterpret_cast<uint64_t>(programs);
        attributes.query.prog_cnt = sizeof programs / sizeof *programs;
        const long result = sys::bpf(BPF_PROG_QUERY, &attributes, sizeof attributes.query);
        findings.unanswered(result);
        if (result == -EPERM || result == -EACCES)
            return Sight::kNotPermitted;
        if ((result == 0 || result == -ENOSPC) && attributes.query.prog_cnt != 0) {
            findings.add(Kind::kCgroup, "cgroup: program %u (%s) in effect in %s", programs[0],
                         type == BPF_CGROUP_INET_INGRESS ? "ingress" : "egress", name);
            return Sight::kSeen;
        }
        if (result == -EINVAL || result == -ENOSYS)
            return Sight::kNotThere;
    }
    return Sight::kSeen;
}

uint64_t number_of_cgroup(int directory) {
    // A group's number is its directory's.
    struct stat status {};
    return sys::call(SYS_fstat, directory, sys::word(&status)) == 0 ? status.st_ino : 0;
}

int open_cgroup(int directory, uint64_t number) {
    constexpr int kKernfs = 0xfe;  // the type of such a handle: FILEID_KERNFS
    struct {
        unsigned bytes = sizeof(uint64_t);
        int type = kKernfs;
        uint64_t number;
    } handle;
    static_assert(sizeof handle == 16);
    handle.number = number;
    return static_cast<int>(
        sys::call(SYS_open_by_handle_at, directory, sys::word(&handle), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

int open_own_cgroup(char* path, unsigned size) {
    long fd = sys::call(SYS_openat, AT_FDCWD, sys::word("/proc/self/cgroup"), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return static_cast<int>(fd);
    char text[4096];
    const long length = sys::read(static_cast<int>(fd), text, sizeof text - 1);
    sys::close(static_cast<int>(fd));
    if (length <= 0)
        return length < 0 ? static_cast<int>(length) : -ENOENT;
    text[length] = 0;
    // The line of the unified hierarchy.
    const char* line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (line != nullptr)
        line = strchr(line, '/');
    if (line == nullptr)
        return -ENOENT;
    const auto end = static_cast<int>(strcspn(line, "\n"));
    int problem = -ENOENT;
    for (const char* const root : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
        snprintf(path, size, "%s%.*s", root, end, line);
        fd = sys::call(SYS_openat, AT_FDCWD, sys::word(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
            problem = fd == -ENOENT ? problem : static_cast<int>(fd);
            continue;
        }
        struct statfs system {};
        if (sys::call(SYS_fstatfs, fd, sys::word(&system)) == 0 && system.f_type == CGROUP2_SUPER_MAGIC)
            return static_cast<int>(fd);
        sys::close(static_cast<int>(fd));
    }
    return problem;
}

}  // namespace loopfast
