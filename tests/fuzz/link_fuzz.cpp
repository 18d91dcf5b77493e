// A peer that says anything on the link, in any order, with any descriptors, at any step of the handshake and
// after it; that gives its sign or not, hangs up, writes into what it shares. One end of a real connection is
// under test, in either role; the peer is this file. The end goes on as over TCP.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>

#include "base/hidden.h"
#include "fuzz/end.h"
#include "link/identity.h"
#include "link/link.h"

namespace loopfast::fuzz {
namespace {

int link_socket() { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

class Peer {
public:
    explicit Peer(bool connects)
        : connects_(connects), opted_(connects ? sockets_.acceptor : sockets_.connector) {
        endpoints_of(sockets_.connector, tuple_.connector, tuple_.acceptor);
        if (connects_)
            listen_for_link();
        opt_in(opted_, connects ? Role::kAcceptor : Role::kConnector);
    }
    ~Peer() {
        door_close(opted_);
        (connects_ ? sockets_.acceptor : sockets_.connector) = -1;
        if (mapped_ != nullptr)
            munmap(mapped_, segment_size(kDefaultCapacity));
        for (const int fd : {link_, offer_, memory_})
            if (fd >= 0)
                close(fd);
    }
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;

    int end() const { return opted_; }

    void act(Input& input) {
        switch (input.byte() % 14) {
        case 0:
            meet(input);
            break;
        case 1:
        case 2:
        case 3:
            say(input);
            break;
        case 4:
            say_anything(input);
            break;
        case 5:
            give_sign(own(), sign_of(own()));
            break;
        case 6: {
            const int value = input.byte() & 1;
            setsockopt(own(), IPPROTO_IP, IP_MULTICAST_LOOP, &value, sizeof value);
            break;
        }
        case 7:
            if (input.byte() % 4 == 0 && link_ >= 0) {
                close(link_);
                link_ = -1;
            }
            break;
        case 8:
            if (link_ >= 0)
                shutdown(link_, input.byte() % 3);
            break;
        case 9:
            hear();
            break;
        case 10:
            ::send(own(), buffer().data(), input.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            break;
        case 11:
            ::recv(own(), buffer().data(), input.size(), MSG_DONTWAIT);
            break;
        default:
            write_word(input);
            break;
        }
    }

private:
    int own() const { return connects_ ? sockets_.connector : sockets_.acceptor; }

    void listen_for_link() {
        sockaddr_un name;
        socklen_t size;
        offer_name(tuple_, name, size);
        offer_ = link_socket();
        check(bind(offer_, reinterpret_cast<sockaddr*>(&name), size) == 0 && listen(offer_, 8) == 0,
              "listen");
    }

    void meet(Input& input) {
        if (connects_) {
            const int taken = accept4(offer_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (taken < 0)
                return;
            if (link_ >= 0)
                close(link_);
            link_ = taken;
            return;
        }
        if (link_ >= 0)
            close(link_);
        link_ = link_socket();
        sockaddr_un name;
        socklen_t size;
        answer_name(tuple_, name, size);
        if (input.byte() % 8 != 0)
            bind(link_, reinterpret_cast<sockaddr*>(&name), size);
        offer_name(tuple_, name, size);
        connect(link_, reinterpret_cast<sockaddr*>(&name), size);
    }

    /// A descriptor of some kind; the segment's is kept, to write into it.
    int some_descriptor(Input& input) {
        const uint8_t kind = input.byte();
        switch (kind % 16) {
        case 0:
            return open("/dev/null", O_RDWR | O_CLOEXEC);
        case 1:
            return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        case 2:
            return dup(own());
        case 3: {
            int ends[2];
            check(pipe2(ends, O_CLOEXEC) == 0, "pipe");
            close(ends[1]);
            return ends[0];
        }
        case 4:
            return open("/dev/zero", O_RDWR | O_CLOEXEC);
        case 5:
            return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        default:
            break;
        }
        const int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        uint64_t size = segment_size(kDefaultCapacity);
        SegmentHeader header{kSegmentMagic, kSegmentVersion, sizeof(Segment), kDefaultCapacity};
        int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
        if (kind % 16 == 6)
            size = input.number(4);
        if (kind % 16 == 7)
            seals = input.byte() & 31;
        if (kind % 16 == 8)
            header.capacity = input.value(header.capacity);
        if (kind % 16 == 9)
            header.version = static_cast<uint32_t>(input.value(header.version));
        check(ftruncate(fd, static_cast<off_t>(size)) == 0, "ftruncate");
        if (pwrite(fd, &header, size < sizeof header ? size : sizeof header, 0) < 0)
            abort();
        fcntl(fd, F_ADD_SEALS, seals);
        if (kind % 16 > 9 && memory_ < 0)
            take(dup(fd));
        return fd;
    }

    void take(int fd) {
        if (memory_ >= 0) {
            close(fd);
            return;
        }
        memory_ = fd;
        void* const at =
            mmap(nullptr, segment_size(kDefaultCapacity), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != MAP_FAILED)
            mapped_ = static_cast<Segment*>(at);
    }

    void send_with(const void* bytes, size_t size, const int* descriptors, size_t count) {
        iovec part{const_cast<void*>(bytes), size};
        alignas(cmsghdr) unsigned char control[CMSG_SPACE(253 * sizeof(int))] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (count != 0) {
            message.msg_control = control;
            message.msg_controllen = CMSG_SPACE(count * sizeof(int));
            cmsghdr* const head = CMSG_FIRSTHDR(&message);
            head->cmsg_level = SOL_SOCKET;
            head->cmsg_type = SCM_RIGHTS;
            head->cmsg_len = CMSG_LEN(count * sizeof(int));
            memcpy(CMSG_DATA(head), descriptors, count * sizeof(int));
        }
        sendmsg(link_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }

    /// A message as it should be, but for what the input changes.
    void say(Input& input) {
        if (link_ < 0)
            return;
        SocketFacts connector{};
        SocketFacts acceptor{};
        look_up_socket(tuple_.connector, tuple_.acceptor, connector);
        look_up_socket(tuple_.acceptor, tuple_.connector, acceptor);
        const auto kind = static_cast<Kind>(1 + input.byte() % 3);
        Message message = message_of(kind, connector.cookie, acceptor.cookie);
        const uint8_t how = input.byte();
        if (how % 8 == 0)
            reinterpret_cast<unsigned char*>(&message)[input.byte() % sizeof message] ^= input.byte();
        int descriptors[253];
        size_t count = kind == kProposal ? 1 : 0;
        if (how % 8 == 1)
            count = input.byte() % 4;
        if (how == 2)
            count = 253;
        const int one = count != 0 ? some_descriptor(input) : -1;
        for (size_t i = 0; i < count; ++i)
            descriptors[i] = one;
        const size_t size = how % 8 == 3 ? input.byte() % (sizeof message + 1) : sizeof message;
        send_with(&message, size, descriptors, count);
        if (one >= 0)
            close(one);
    }

    void say_anything(Input& input) {
        if (link_ < 0)
            return;
        const size_t size = input.size() % 70'000 + 1;
        const size_t count = input.byte() % 3;
        const int descriptors[] = {own(), own()};
        send_with(buffer().data(), size, descriptors, count);
    }

    void hear() {
        if (link_ < 0)
            return;
        Message message;
        int fd = -1;
        // As the honest peer would, so that a segment is taken.
        if (receive_message(link_, kProposal, message, fd) == Received::kMessage)
            take(fd);
    }

    void write_word(Input& input) {
        if (mapped_ == nullptr)
            return;
        uint64_t now;
        char* const place = reinterpret_cast<char*>(mapped_) + input.word();
        memcpy(&now, place, sizeof now);
        const uint64_t value = input.value(now);
        memcpy(place, &value, sizeof value);
    }

    TcpPair sockets_;
    bool connects_;
    int opted_;
    Tuple tuple_;
    int link_ = -1;
    int offer_ = -1;
    int memory_ = -1;
    Segment* mapped_ = nullptr;
};

void round(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    Peer peer((input.byte() & 1) != 0);
    for (int steps = 0; !input.empty() && steps < 128; ++steps) {
        if ((input.byte() & 1) != 0)
            peer.act(input);
        else
            step(peer.end(), input);
    }
}

}  // namespace
}  // namespace loopfast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    using namespace loopfast::fuzz;
    check_the_other_connection();
    const NoneIsLeft none;
    round(bytes, size);
    check_the_other_connection();
    return 0;
}
