// See socket_maps.h.
#include "posix/socket_maps.h"

#include <linux/bpf.h>
#include <string.h>

#include "base/syscall.h"
#include "policy/policy.h"
#include "posix/posix.h"

namespace loopfast {

void note_map_update(const void* attributes, size_t size) {
    if (setups_forbidden())
        return;  // there is nothing on a ring
    // The kernel has read the attributes, so we may; and the value, if it is a descriptor.
    union bpf_attr update;
    memset(&update, 0, sizeof update);
    memcpy(&update, attributes, size < sizeof update ? size : sizeof update);
    bpf_map_info info{};
    union bpf_attr question;
    memset(&question, 0, sizeof question);
    question.info.bpf_fd = update.map_fd;
    question.info.info_len = sizeof info;
    question.info.info = reinterpret_cast<uintptr_t>(&info);
    if (sys::bpf(BPF_OBJ_GET_INFO_BY_FD, &question, sizeof question.info) < 0 ||
        (info.type != BPF_MAP_TYPE_SOCKMAP && info.type != BPF_MAP_TYPE_SOCKHASH))
        return;
    int fd;
    memcpy(&fd, reinterpret_cast<const void*>(static_cast<uintptr_t>(update.value)), sizeof fd);
    if (Stream* const stream = find_stream(fd); stream != nullptr)
        leave_ring(*stream, fd);
}

}  // namespace loopfast
