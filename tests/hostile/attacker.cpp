// See attacker.h.
#include "attacker.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include <gtest/gtest.h>

#include "link/identity.h"
#include "link/possession.h"

namespace loopfast::hostile {

Forged::Forged()
    : size(segment_size(kDefaultCapacity)),
      seals(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), header{kSegmentMagic, kSegmentVersion,
                                                               sizeof(Segment), kDefaultCapacity} {}

int Forged::make() const {
    const int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ftruncate(fd, static_cast<off_t>(size)) != 0)
        abort();
    const size_t length = size < sizeof header ? size : sizeof header;
    if (pwrite(fd, &header, length, 0) != static_cast<ssize_t>(length))
        abort();
    if (seals != 0)
        fcntl(fd, F_ADD_SEALS, seals);
    return fd;
}

int plain_listen(uint16_t& port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd, 8) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
        abort();
    port = ntohs(address.sin_port);
    return fd;
}

bool send_raw(int link, const void* bytes, size_t size, const std::vector<int>& descriptors) {
    iovec part{const_cast<void*>(bytes), size};
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(64 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
        cmsghdr* const header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
        memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
    }
    return sendmsg(link, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(size);
}

namespace {
int link_socket() { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }
}  // namespace

int connect_link(const Tuple& tuple, bool named) {
    sockaddr_un name;
    socklen_t size;
    const int fd = link_socket();
    if (named) {
        answer_name(tuple, name, size);
        if (bind(fd, reinterpret_cast<sockaddr*>(&name), size) != 0) {
            close(fd);
            return -1;
        }
    }
    offer_name(tuple, name, size);
    if (connect(fd, reinterpret_cast<sockaddr*>(&name), size) == 0)
        return fd;
    close(fd);
    return -1;
}

int listen_link(const Tuple& tuple) {
    sockaddr_un name;
    socklen_t size;
    offer_name(tuple, name, size);
    const int fd = link_socket();
    if (bind(fd, reinterpret_cast<sockaddr*>(&name), size) == 0 && listen(fd, 8) == 0)
        return fd;
    close(fd);
    return -1;
}

Attack::Attack(Victim& target, Side whose, const std::function<void(Attack&)>& before_connect)
    : victim(target), side(whose) {
    Endpoint local;
    Endpoint remote;
    if (side == kVictimConnects) {
        uint16_t port = 0;
        const int listener = plain_listen(port);
        EXPECT_EQ(victim.result("connect " + std::to_string(port)), 0);
        tcp = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        close(listener);
        EXPECT_EQ(endpoints_of(tcp, local, remote), 0);
        tuple = {remote, local};
    } else {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT_EQ(bind(tcp, reinterpret_cast<sockaddr*>(&address), size), 0);
        getsockname(tcp, reinterpret_cast<sockaddr*>(&address), &size);
        to_endpoint(reinterpret_cast<sockaddr*>(&address), size, local);
        const long port = victim.result("listen");
        address.sin_port = htons(static_cast<uint16_t>(port));
        to_endpoint(reinterpret_cast<sockaddr*>(&address), size, remote);
        tuple = {local, remote};
        if (before_connect)
            before_connect(*this);
        EXPECT_EQ(connect(tcp, reinterpret_cast<sockaddr*>(&address), size), 0);
        EXPECT_EQ(victim.result("accept"), 0);
        victim.result("unlisten");
    }
    const int on = 1;
    setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Attack::~Attack() {
    unmap_segment(segment);
    for (const int fd : {tcp, link, offer, memory})
        if (fd >= 0)
            close(fd);
}

Message Attack::good_message(Kind kind) const {
    SocketFacts connector{};
    SocketFacts acceptor{};
    look_up_socket(tuple.connector, tuple.acceptor, connector);
    look_up_socket(tuple.acceptor, tuple.connector, acceptor);
    return message_of(kind, connector.cookie, acceptor.cookie);
}

namespace {
/// One of those calls of the victim's at which it takes a step.
void call(Victim& victim) { victim.ask("recv 1 64"); }  // MSG_DONTWAIT
}  // namespace

bool Attack::greet() {
    if (link < 0)
        link = connect_link(tuple);
    if (link < 0 || !send_message(link, good_message(kHello), -1))
        return false;
    Message message{};
    int none = -1;
    for (int i = 0; i < 40; ++i) {
        call(victim);
        if (receive_message(link, kSigned, message, none) == Received::kMessage)
            return true;
    }
    return false;
}

void Attack::sign() { give_sign(tcp, sign_of(tcp)); }

bool Attack::take_hello() {
    if (link < 0)
        link = accept4(offer, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    Message message{};
    int none = -1;
    return link >= 0 && receive_message(link, kHello, message, none) == Received::kMessage;
}

int Attack::take_proposal() {
    if (!take_hello())
        return -1;
    sign();
    send_message(link, good_message(kSigned), -1);
    Message message{};
    int descriptor = -1;
    for (int i = 0; i < 40; ++i) {
        call(victim);
        if (receive_message(link, kProposal, message, descriptor) == Received::kMessage)
            break;
    }
    return descriptor;
}

bool Attack::map(int descriptor) {
    memory = descriptor;
    void* const at =
        mmap(nullptr, segment_size(kDefaultCapacity), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (at == MAP_FAILED)
        return false;
    segment = {static_cast<Segment*>(at), kDefaultCapacity};
    return true;
}

bool Attack::fuse() {
    if (side == kVictimConnects) {
        const int made = Forged().make();
        if (!shake_hands() || !map(made) || !send_message(link, good_message(kProposal), made))
            return false;
    } else {
        if (!map(take_proposal()))
            return false;
        segment.segment->side[0].confirmed.store(1, std::memory_order_release);
    }
    publish_cut();
    // A few calls of the victim's settle it; it looks at ever larger distances.
    for (int i = 0; i < 64; ++i) {
        call(victim);
        if (!theirs().producer.cut.load(std::memory_order_acquire).equals(kNoCut))
            return true;
    }
    return false;
}

void Attack::publish_cut() { ours().producer.cut.store(sent_in_tcp + 1, std::memory_order_release); }

void Attack::hang_up() {
    close(link);
    link = -1;
}

void Attack::write_ring(const std::string& bytes) {
    const uint64_t head = ours().producer.head.load(std::memory_order_relaxed).harmless();
    memcpy(our_data() + head, bytes.data(), bytes.size());
    ours().producer.head.store(head + bytes.size(), std::memory_order_seq_cst);
    bell();
}

void Attack::bell() { ::send(link, "b", 1, MSG_DONTWAIT | MSG_NOSIGNAL); }

bool Attack::converse(int rounds) {
    victim.ask("timeout 5000");
    for (int i = 0; i < rounds; ++i) {
        const std::string text = "round " + std::to_string(i);
        if (::send(tcp, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
            return false;
        sent_in_tcp += text.size();
        const Answer got = victim.ask("recv 64");
        EXPECT_EQ(got.bytes, text);
        EXPECT_LT(got.elapsed_us, kAtOnce);
        const Answer sent = victim.ask("send 10");
        EXPECT_EQ(sent.result, 10);
        EXPECT_LT(sent.elapsed_us, kAtOnce);
        char back[64];
        pollfd one{tcp, POLLIN, 0};
        EXPECT_EQ(poll(&one, 1, 5000), 1) << "the victim's bytes did not come over TCP";
        const ssize_t size = recv(tcp, back, sizeof back, MSG_DONTWAIT);
        EXPECT_EQ(size, 10);
        if (::testing::Test::HasFailure())
            return false;
    }
    return true;
}

NothingLeaks::NothingLeaks(Victim& victim) : victim_(victim), descriptors_(victim.result("descriptors")) {}

void NothingLeaks::check(int slack) {
    victim_.result("close");
    // Once per process, whatever the number of connections: what the steward sleeps in (wait/steward.cpp),
    // the file that tells of captures, and the socket that tells of changed addresses and routes.
    constexpr int kOnce = 4;
    // What strangers sent is closed by a thread of its own (base/apart.h), which need not have run yet.
    auto now = victim_.result("descriptors");
    for (int i = 0; i < 2000 && now > descriptors_ + slack + kOnce; ++i) {
        usleep(5000);
        now = victim_.result("descriptors");
    }
    EXPECT_LE(now, descriptors_ + slack + kOnce);
}

}  // namespace loopfast::hostile
