// See link.h.
#include "link/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <atomic>

#include "base/apart.h"
#include "base/hidden.h"
#include "base/ready.h"
#include "base/syscall.h"
#include "link/identity.h"

namespace loopfast {

namespace {
// A few, so that a stranger who connects first does not keep the real acceptor out.
constexpr int kBacklog = 8;

/// What a filter, a sandbox or a security module says.
bool not_allowed(int result) {
    return result == -EPERM || result == -EACCES || result == -EAFNOSUPPORT || result == -ENOSYS;
}

/// The most that the kernel lets one message have.
constexpr size_t kMostDescriptors = 253;

/// Looks at what waits, and leaves it there. `safe`: no descriptor comes with these bytes, so that they may
/// be thrown away.
long look_at(int link, void* bytes, size_t size, bool& safe) {
    iovec part{bytes, size};
    msghdr envelope{};
    envelope.msg_iov = &part;
    envelope.msg_iovlen = 1;
    const long seen = sys::recvmsg(link, &envelope, MSG_DONTWAIT | MSG_PEEK);
    safe = seen < 0 || (envelope.msg_flags & MSG_CTRUNC) == 0;
    return seen;
}

std::atomic<int> standing_offers{0};

Room room_beside(int offers, int kept, int wanted) {
    if (hidden_room() - kept >= wanted)
        return Room::kYes;
    return offers > 0 ? Room::kLater : Room::kNone;
}

int make_socket() { return sys::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }
}  // namespace

// Each offer needs a link, and gives its own descriptor back when it has got it: so acceptors may take half
// of what is kept for offers. They must, where those who offer live in the same process and wait for them.
Room room_for_offer() {
    const int offers = standing_offers.load(std::memory_order_relaxed);
    return room_beside(offers, offers, 2);
}
Room room_for_link() {
    const int offers = standing_offers.load(std::memory_order_relaxed);
    return room_beside(offers, offers / 2, 1);
}

int make_offer(const Tuple& tuple) {
    const int fd = make_socket();
    if (fd < 0)
        return not_allowed(fd) ? -2 : -1;
    sockaddr_un name;
    socklen_t size;
    offer_name(tuple, name, size);
    int result = sys::bind(fd, &name, size);
    if (result >= 0)
        result = sys::listen(fd, kBacklog);
    if (result < 0) {
        sys::close(fd);
        return not_allowed(result) ? -2 : -1;
    }
    const int listener = hide(fd);
    if (listener >= 0)
        standing_offers.fetch_add(1, std::memory_order_relaxed);
    return listener;
}

int take_offer_connection(int listener) {
    const int fd = sys::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return fd == -EMFILE || fd == -ENFILE ? -2 : -1;
    const int link = hide(fd);
    return link < 0 ? -2 : link;
}

Found find_offer(const Tuple& tuple, int& link) {
    link = -1;
    const int fd = make_socket();
    if (fd < 0)
        return not_allowed(fd) ? Found::kForbidden : Found::kNoRoom;
    sockaddr_un name;
    socklen_t size;
    // The answer's name first: the proof needs it to be held before the other end can be met.
    answer_name(tuple, name, size);
    int result = sys::bind(fd, &name, size);
    if (result < 0) {
        sys::close(fd);
        return not_allowed(result) ? Found::kForbidden : Found::kTaken;
    }
    offer_name(tuple, name, size);
    result = sys::connect(fd, &name, size);
    if (result < 0) {
        sys::close(fd);
        return not_allowed(result) ? Found::kForbidden : Found::kNobody;
    }
    link = hide(fd);
    return link < 0 ? Found::kNoRoom : Found::kYes;
}

void close_offer(int listener) {
    if (listener < 0)
        return;
    standing_offers.fetch_sub(1, std::memory_order_relaxed);
    // Nobody comes any more; then those who are there.
    sys::shutdown(listener, SHUT_RDWR);
    for (int i = 0; i <= 2 * kBacklog; ++i) {
        const int fd = sys::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd == -EINTR || fd == -ECONNABORTED)
            continue;
        if (fd == -EINVAL || fd == -EAGAIN) {
            close_hidden(listener);
            return;
        }
        if (fd < 0)
            break;
        close_link(fd, true);
    }
    close_apart(listener);
}

void close_link(int link, bool last_word) {
    if (link < 0)
        return;
    if (last_word)
        sys::shutdown(link, SHUT_RD);
    unsigned char notes[512];
    bool safe;
    const long seen = look_at(link, notes, sizeof notes, safe);
    if (!safe || seen == sizeof notes)
        close_apart(link);
    else if (is_hidden(link))
        close_hidden(link);
    else
        sys::close(link);
}

void unburden_link(int link) {
    unsigned char notes[512];
    bool safe;
    const long seen = look_at(link, notes, sizeof notes, safe);
    if (safe && seen != sizeof notes)
        return;
    int pair[2];
    if (sys::call(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sys::word(pair)) <
        0)
        return;
    const int burdened = hide_copy(link);
    if (burdened >= 0) {
        sys::call(SYS_dup3, pair[0], link, O_CLOEXEC);
        close_apart(burdened);
    }
    sys::close(pair[0]);
    sys::close(pair[1]);
}

bool comes_from_answerer(int link, const Tuple& tuple) {
    sockaddr_un expected;
    sockaddr_un found;
    socklen_t expected_size;
    socklen_t size;
    answer_name(tuple, expected, expected_size);
    return peer_name_of(link, found, size) && size == expected_size && memcmp(&found, &expected, size) == 0;
}

bool send_message(int link, const Message& message, int descriptor) {
    iovec part{const_cast<Message*>(&message), sizeof message};
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr envelope{};
    envelope.msg_iov = &part;
    envelope.msg_iovlen = 1;
    if (descriptor >= 0) {
        envelope.msg_control = control;
        envelope.msg_controllen = sizeof control;
        cmsghdr* header = CMSG_FIRSTHDR(&envelope);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    return sys::sendmsg(link, &envelope, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof message;
}

Received receive_message(int link, Kind kind, Message& message, int& descriptor) {
    descriptor = -1;
    bool safe;
    long size = look_at(link, &message, sizeof message, safe);
    if (size == -EAGAIN || size == -EINTR)
        return Received::kNothing;
    // A message has at least one byte. A link that was closed with our message unread is reset.
    if ((size == 0 && safe) || size == -ECONNRESET)
        return Received::kGone;
    // What is not as it must be stays where it is: the link will be closed.
    if (size != sizeof message || safe != (kind != kProposal) || message.magic != kMessageMagic ||
        message.version != kLinkVersion || message.kind != kind || message.segment_version != kSegmentVersion)
        return Received::kBad;
    if (safe)
        return sys::recv(link, &message, sizeof message, MSG_DONTWAIT) == sizeof message ? Received::kMessage
                                                                                         : Received::kBad;
    iovec part{&message, sizeof message};
    // Room for all that may come: the kernel would let go of the rest here and now.
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(kMostDescriptors * sizeof(int))] = {};
    msghdr envelope{};
    envelope.msg_iov = &part;
    envelope.msg_iovlen = 1;
    envelope.msg_control = control;
    envelope.msg_controllen = sizeof control;
    size = sys::recvmsg(link, &envelope, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    size_t count = 0;
    for (cmsghdr* header = size >= 0 ? CMSG_FIRSTHDR(&envelope) : nullptr; header != nullptr;
         header = CMSG_NXTHDR(&envelope, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t fds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < fds; ++i) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            if (count++ == 0)
                descriptor = fd;
            else
                close_apart(fd);
        }
    }
    if (size == sizeof message && count == 1 && (envelope.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) == 0)
        return Received::kMessage;
    close_apart(descriptor);
    descriptor = -1;
    return Received::kBad;
}

Sent send_note(int link, Note note) {
    // A bell that the kernel had no memory for would leave somebody asleep: so for some time. A queue that is
    // full holds bells enough.
    constexpr int kAttempts = 16;
    constexpr int kPatientAttempts = 400;
    long result = 0;
    for (int i = 0; i < kPatientAttempts; ++i) {
        result = sys::send(link, &note, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (result == 1)
            return Sent::kYes;
        if (result != -EAGAIN && result != -EINTR && result != -ENOBUFS && result != -ENOMEM)
            return Sent::kNobody;
        if (i < kAttempts)
            continue;
        if (result == -EAGAIN)
            break;
        sys::sleep_ns(100'000);
    }
    return Sent::kFull;
}

void drain_notes(int link) {
    unsigned char notes[256];  // on the stack of any wait
    // Bounded: a peer that floods the link gets its turn again at the next wake, and keeps nobody here.
    for (int round = 0; round < 16; ++round) {
        // Descriptors would be let go of here: who sends some has filled his own queue, and has rung once.
        bool safe;
        const long waiting = look_at(link, notes, sizeof notes, safe);
        if (waiting < 2 || !safe ||
            sys::recv(link, notes, static_cast<size_t>(waiting) - 1, MSG_DONTWAIT) <= 0)
            return;
    }
}

bool hung_up(int link) {
    // What the kernel could not answer is no hang-up: a peer that is there and goes on reading the ring must
    // never be taken for one that left.
    const int ready = ready_now(link, 0);
    return ready > 0 && (ready & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

}  // namespace loopfast
