// See link.h.
#include "link/link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/hidden.h"
#include "base/syscall.h"

namespace loopfast {

namespace {
// A few, so that a stranger who connects first does not keep the real acceptor out.
constexpr int kBacklog = 8;

int make_socket() { return sys::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }
}  // namespace

int make_offer(const Tuple& tuple) {
    const int fd = make_socket();
    if (fd < 0)
        return -1;
    sockaddr_un name;
    socklen_t size;
    offer_name(tuple, name, size);
    if (sys::bind(fd, &name, size) < 0 || sys::listen(fd, kBacklog) < 0) {
        sys::close(fd);
        return -1;
    }
    return hide(fd);
}

int take_offer_connection(int listener) {
    const int fd = sys::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return fd < 0 ? -1 : hide(fd);
}

int find_offer(const Tuple& tuple) {
    const int fd = make_socket();
    if (fd < 0)
        return -1;
    sockaddr_un name;
    socklen_t size;
    offer_name(tuple, name, size);
    if (sys::connect(fd, &name, size) < 0) {
        sys::close(fd);
        return -1;
    }
    return hide(fd);
}

bool send_proposal(int link, const Proposal& proposal, int segment_fd) {
    iovec part{const_cast<Proposal*>(&proposal), sizeof proposal};
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &segment_fd, sizeof segment_fd);
    return sys::sendmsg(link, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof proposal;
}

Received receive_proposal(int link, Proposal& proposal, int& segment_fd) {
    segment_fd = -1;
    iovec part{&proposal, sizeof proposal};
    // Room for a few descriptors, so that a peer that sends more than one does not make the kernel hide the
    // fact; all of them are closed.
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(8 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const long size = sys::recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size == -EAGAIN || size == -EINTR)
        return Received::kNothing;
    if (size == 0)  // a message with a descriptor has at least one byte
        return Received::kGone;
    int count = 0;
    for (cmsghdr* header = size >= 0 ? CMSG_FIRSTHDR(&message) : nullptr; header != nullptr;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t fds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < fds; ++i) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            if (count++ == 0)
                segment_fd = fd;
            else
                sys::close(fd);
        }
    }
    if (size == sizeof proposal && count == 1 && proposal.magic == kProposalMagic &&
        proposal.version == kProposalVersion && proposal.size == sizeof proposal)
        return Received::kProposal;
    if (segment_fd >= 0)
        sys::close(segment_fd);
    segment_fd = -1;
    return Received::kBad;
}

Sent send_note(int link, Note note) {
    const long result = sys::send(link, &note, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result == 1)
        return Sent::kYes;
    return result == -EAGAIN || result == -EINTR || result == -ENOBUFS ? Sent::kFull : Sent::kNobody;
}

void drain_notes(int link) {
    unsigned char notes[512];
    // Bounded: a peer that floods the link gets its turn again at the next wake, and keeps nobody here.
    for (int round = 0; round < 8; ++round) {
        int waiting = 0;
        if (sys::ioctl(link, FIONREAD, &waiting) < 0 || waiting < 2)
            return;
        const size_t wanted = static_cast<size_t>(waiting) - 1;
        if (sys::recv(link, notes, wanted < sizeof notes ? wanted : sizeof notes, MSG_DONTWAIT) <= 0)
            return;
    }
}

bool hung_up(int link) {
    const int ready = sys::ready_now(link, 0);
    return ready < 0 || (ready & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

}  // namespace loopfast
