// See netlink.h.
#include "filters/netlink.h"

#include <errno.h>
#include <sys/mman.h>

#include <atomic>

#include "base/syscall.h"

namespace loopfast {

namespace {

constexpr size_t kBuffer = 64 * 1024;  // the kernel fills at most 32 KiB at once

/// For one socket at a time. A mapping for each would cost more than the questions: a look at everything has
/// half a dozen of them, and to unmap one interrupts the process's other threads.
alignas(4096) unsigned char standing_buffer[kBuffer];
/// Acquire when it is taken pairs with release when it is given back: its contents. A second socket, in
/// another thread, in a handler on top, or in the child of a fork in the middle of it, maps its own.
std::atomic<bool> standing_taken{false};

}  // namespace

Netlink::Netlink(int protocol) : fd_(sys::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)) {
    if (fd_ < 0)
        return;
    if (!standing_taken.exchange(true, std::memory_order_acquire)) {
        buffer_ = standing_buffer;
        return;
    }
    void* const memory =
        sys::mmap(nullptr, kBuffer, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!sys::mmap_failed(memory)) {
        buffer_ = static_cast<unsigned char*>(memory);
        return;
    }
    sys::close(fd_);
    fd_ = -ENOMEM;
}

Netlink::~Netlink() {
    if (fd_ >= 0)
        sys::close(fd_);
    if (buffer_ == standing_buffer)
        standing_taken.store(false, std::memory_order_release);
    else if (buffer_ != nullptr)
        sys::munmap(buffer_, kBuffer);
}

long Netlink::exchange(Request& request, void (*visit)(void*, const Answer&), void* context) {
    if (fd_ < 0)
        return fd_;
    const void* const message = request.finish(++number_);
    const long sent = sys::send(fd_, message, request.size(), MSG_DONTWAIT);
    if (sent < 0)
        return sent;
    nlmsghdr header;
    memcpy(&header, message, sizeof header);
    const bool dump = (header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    bool overtaken = false;
    for (;;) {
        // The kernel answers within the send, and continues a dump within the receive: nothing can block, and
        // MSG_DONTWAIT makes sure of it.
        const long received = sys::recv(fd_, buffer_, kBuffer, MSG_DONTWAIT);
        if (received < 0)
            return received;
        for (long at = 0; received - at >= static_cast<long>(sizeof header);) {
            memcpy(&header, buffer_ + at, sizeof header);
            if (header.nlmsg_len < sizeof header || header.nlmsg_len > received - at)
                return -EBADMSG;
            const Answer answer{header.nlmsg_type, buffer_ + at + NLMSG_HDRLEN,
                                header.nlmsg_len - NLMSG_HDRLEN};
            at += NLMSG_ALIGN(header.nlmsg_len);
            if (header.nlmsg_seq != number_)
                continue;
            overtaken = overtaken || (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
            if (header.nlmsg_type == NLMSG_ERROR || header.nlmsg_type == NLMSG_DONE) {
                const int error = answer.header<int>();
                answered_ = true;
                return error != 0 ? error : (overtaken ? -EINTR : 0);
            }
            visit(context, answer);
            if (!dump)
                return 0;
        }
    }
}

}  // namespace loopfast
