// The link: offers and who finds them, the proposal in one piece with its descriptor, notes and their drain.
#include "link/link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "base/hidden.h"

namespace loopfast {
namespace {

int open_descriptors() {
    int count = 0;
    for (int fd = 0; fd < 1024; ++fd)
        count += fcntl(fd, F_GETFD) >= 0;
    for (int fd = next_hidden(0); fd >= 0; fd = next_hidden(fd + 1))
        ++count;
    return count;
}

/// Names are global to the network namespace: each test takes a tuple that nobody else has.
Tuple own_tuple() {
    static uint16_t port = 0;
    Tuple tuple;
    for (Endpoint* endpoint : {&tuple.connector, &tuple.acceptor}) {
        endpoint->family = AF_INET;
        endpoint->port = ++port;
    }
    const auto pid = static_cast<uint32_t>(getpid());
    tuple.connector.ip[0] = 127;
    memcpy(tuple.acceptor.ip, &pid, sizeof pid);
    return tuple;
}

struct LinkPair {
    LinkPair() {
        const Tuple tuple = own_tuple();
        offer = make_offer(tuple);
        EXPECT_EQ(find_offer(tuple, acceptor), Found::kYes);
        connector = take_offer_connection(offer);
        EXPECT_GE(offer, 0);
        EXPECT_GE(acceptor, 0);
        EXPECT_GE(connector, 0);
    }
    ~LinkPair() {
        close_hidden(offer);
        close_hidden(acceptor);
        close_hidden(connector);
    }
    LinkPair(const LinkPair&) = delete;
    LinkPair& operator=(const LinkPair&) = delete;
    int offer, acceptor, connector;
};

const Message kGood = message_of(kProposal, 11, 22);

/// Sends any bytes with any descriptors, as a peer that does not keep to the rules.
void send_raw(int link, const void* bytes, size_t size, const std::vector<int>& fds) {
    iovec part{const_cast<void*>(bytes), size};
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(64 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
        cmsghdr* const header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
        memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
    }
    ASSERT_EQ(sendmsg(link, &message, MSG_NOSIGNAL), static_cast<ssize_t>(size));
}

TEST(Offer, IsFoundOnlyWhileItStands) {
    const Tuple tuple = own_tuple();
    int link = -1;
    EXPECT_EQ(find_offer(tuple, link), Found::kNobody);
    EXPECT_EQ(link, -1);
    const int offer = make_offer(tuple);
    ASSERT_GE(offer, 0);
    EXPECT_TRUE(is_hidden(offer));
    EXPECT_EQ(take_offer_connection(offer), -1) << "nobody is there yet, and nothing waits";
    ASSERT_EQ(find_offer(tuple, link), Found::kYes);
    EXPECT_TRUE(is_hidden(link));
    const int other = take_offer_connection(offer);
    EXPECT_TRUE(is_hidden(other));
    EXPECT_NE(fcntl(other, F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_NE(fcntl(other, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_TRUE(comes_from_answerer(other, tuple));
    EXPECT_FALSE(comes_from_answerer(link, tuple));
    EXPECT_FALSE(comes_from_answerer(other, Tuple{tuple.acceptor, tuple.connector}));
    close_hidden(offer);
    EXPECT_FALSE(hung_up(link));
    close_hidden(other);
    EXPECT_TRUE(hung_up(link));
    close_hidden(link);
    EXPECT_EQ(find_offer(tuple, link), Found::kNobody);
}

TEST(Offer, TheAnswersNameBelongsToOne) {
    const int before = open_descriptors();
    const Tuple tuple = own_tuple();
    const int offer = make_offer(tuple);
    int link = -1;
    int second = -1;
    ASSERT_EQ(find_offer(tuple, link), Found::kYes);
    EXPECT_EQ(find_offer(tuple, second), Found::kTaken);
    EXPECT_EQ(second, -1);
    // Who comes without the name is told from who has it, and so is one that listened under it.
    sockaddr_un name;
    socklen_t size;
    offer_name(tuple, name, size);
    const int stranger = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(stranger, reinterpret_cast<sockaddr*>(&name), size), 0);
    const int first = take_offer_connection(offer);
    const int nameless = take_offer_connection(offer);
    EXPECT_TRUE(comes_from_answerer(first, tuple));
    EXPECT_FALSE(comes_from_answerer(nameless, tuple));
    for (const int fd : {offer, link, first, nameless})
        close_hidden(fd);
    close(stranger);
    EXPECT_EQ(open_descriptors(), before);
}

TEST(Offer, NameThatSomebodyHoldsIsNotTaken) {
    const int before = open_descriptors();
    const Tuple tuple = own_tuple();
    const int offer = make_offer(tuple);
    ASSERT_GE(offer, 0);
    EXPECT_EQ(make_offer(tuple), -1);
    Tuple reversed{tuple.acceptor, tuple.connector};
    const int other = make_offer(reversed);
    EXPECT_GE(other, 0) << "the other direction is another connection";
    close_hidden(other);
    close_hidden(offer);
    EXPECT_EQ(open_descriptors(), before);
}

TEST(Offer, FullBacklogIsNoOfferAndNoWait) {
    const Tuple tuple = own_tuple();
    const int offer = make_offer(tuple);
    std::vector<int> links;
    for (int i = 0; i < 64; ++i) {
        // Without the answer's name, which only one could have.
        sockaddr_un name;
        socklen_t size;
        offer_name(tuple, name, size);
        const int link = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(link, reinterpret_cast<sockaddr*>(&name), size) != 0) {
            close(link);
            break;
        }
        links.push_back(link);
    }
    EXPECT_GE(links.size(), 8U);
    EXPECT_LT(links.size(), 64U);
    int link = -1;
    EXPECT_EQ(find_offer(tuple, link), Found::kNobody);
    for (const int one : links)
        close(one);
    close_hidden(offer);
}

TEST(Messages, ArrivesWithItsDescriptor) {
    LinkPair pair;
    Message got{};
    int fd = 5;
    EXPECT_EQ(receive_message(pair.connector, kProposal, got, fd), Received::kNothing);
    EXPECT_EQ(fd, -1);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const int before = open_descriptors();
    ASSERT_TRUE(send_message(pair.acceptor, kGood, ends[0]));
    ASSERT_EQ(receive_message(pair.connector, kProposal, got, fd), Received::kMessage);
    EXPECT_EQ(memcmp(&got, &kGood, sizeof got), 0);
    ASSERT_GE(fd, 0);
    EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    ASSERT_EQ(write(ends[1], "x", 1), 1);
    char byte = 0;
    EXPECT_EQ(read(fd, &byte, 1), 1) << "the very pipe";
    close(fd);
    EXPECT_EQ(open_descriptors(), before);
    EXPECT_EQ(receive_message(pair.connector, kProposal, got, fd), Received::kNothing);
    close(ends[0]);
    close(ends[1]);
}

TEST(Messages, AnythingElseIsBadAndLeavesNoDescriptor) {
    Message wrong_magic = kGood;
    wrong_magic.magic ^= 1;
    Message wrong_version = kGood;
    ++wrong_version.version;
    Message wrong_kind = kGood;
    wrong_kind.kind = kHello;
    Message wrong_segment = kGood;
    ++wrong_segment.segment_version;
    unsigned char longer[2 * sizeof(Message)] = {};
    memcpy(longer, &kGood, sizeof kGood);
    unsigned char rubbish[300];
    memset(rubbish, 0xa5, sizeof rubbish);
    struct {
        const char* what;
        const void* bytes;
        size_t size;
        size_t descriptors;
    } const cases[] = {
        {"no descriptor", &kGood, sizeof kGood, 0},
        {"two descriptors", &kGood, sizeof kGood, 2},
        {"more than there is room for", &kGood, sizeof kGood, 40},
        {"half of it", &kGood, sizeof kGood / 2, 1},
        {"one byte", &kGood, 1, 1},
        {"one byte less", &kGood, sizeof kGood - 1, 1},
        {"wrong magic", &wrong_magic, sizeof kGood, 1},
        {"wrong version", &wrong_version, sizeof kGood, 1},
        {"wrong kind", &wrong_kind, sizeof kGood, 1},
        {"a segment of another version", &wrong_segment, sizeof kGood, 1},
        {"rubbish", rubbish, sizeof rubbish, 1},
        {"rubbish without a descriptor", rubbish, sizeof rubbish, 0},
        {"rubbish with many", rubbish, sizeof rubbish, 20},
    };
    for (const auto& one : cases) {
        SCOPED_TRACE(one.what);
        LinkPair pair;
        const int before = open_descriptors();
        send_raw(pair.acceptor, one.bytes, one.size, std::vector<int>(one.descriptors, 0));
        Message got{};
        int fd = 5;
        EXPECT_EQ(receive_message(pair.connector, kProposal, got, fd), Received::kBad);
        EXPECT_EQ(fd, -1);
        // They are closed in a thread (base/apart.h).
        while (open_descriptors() > before)
            usleep(1000);
    }
    // Longer than a proposal but beginning like one: the rest counts as notes, which say nothing.
    LinkPair pair;
    send_raw(pair.acceptor, longer, sizeof longer, {0});
    Message got{};
    int fd = -1;
    EXPECT_EQ(receive_message(pair.connector, kProposal, got, fd), Received::kMessage);
    close(fd);
}

TEST(Messages, WithoutADescriptor) {
    for (const Kind kind : {kHello, kSigned}) {
        LinkPair pair;
        Message got{};
        int fd = 5;
        ASSERT_TRUE(send_message(pair.acceptor, message_of(kind, 11, 22), -1));
        EXPECT_EQ(receive_message(pair.connector, kind, got, fd), Received::kMessage);
        EXPECT_EQ(fd, -1);
        const int before = open_descriptors();
        ASSERT_TRUE(send_message(pair.acceptor, message_of(kind, 11, 22), 0));
        EXPECT_EQ(receive_message(pair.connector, kind, got, fd), Received::kBad) << "there is one";
        EXPECT_EQ(fd, -1);
        EXPECT_EQ(open_descriptors(), before);
    }
}

TEST(Messages, PeerThatHangsUpIsGone) {
    LinkPair pair;
    close_hidden(pair.acceptor);
    pair.acceptor = -1;
    Message got{};
    int fd;
    EXPECT_EQ(receive_message(pair.connector, kProposal, got, fd), Received::kGone);
    EXPECT_FALSE(send_message(pair.connector, kGood, 0)) << "and no SIGPIPE";
}

int waiting(int link) {
    int count = -1;
    EXPECT_EQ(ioctl(link, FIONREAD, &count), 0);
    return count;
}

TEST(Notes, ManyAreDrainedToOne) {
    LinkPair pair;
    drain_notes(pair.connector);
    EXPECT_EQ(waiting(pair.connector), 0);
    send_note(pair.acceptor, Note::kBell);
    drain_notes(pair.connector);
    EXPECT_EQ(waiting(pair.connector), 1) << "the last one stays";
    for (int i = 0; i < 100; ++i)
        send_note(pair.acceptor, Note::kBell);
    drain_notes(pair.connector);
    EXPECT_EQ(waiting(pair.connector), 1);
}

TEST(Notes, AnEdgeComesForEachNoteThoughNoneIsRead) {
    LinkPair pair;
    const int set = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{EPOLLIN | EPOLLET, {}};
    ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, pair.connector, &event), 0);
    for (int i = 0; i < 200; ++i) {
        EXPECT_EQ(epoll_wait(set, &event, 1, 0), 0);
        send_note(pair.acceptor, Note::kBell);
        ASSERT_EQ(epoll_wait(set, &event, 1, 1000), 1) << i;
        if (i % 50 == 49)
            drain_notes(pair.connector);
    }
    close(set);
}

TEST(Notes, AFullQueueNeitherBlocksNorEndsAnything) {
    LinkPair pair;
    for (int i = 0; i < 5000; ++i)
        send_note(pair.acceptor, Note::kBell);
    const int full = waiting(pair.connector);
    EXPECT_GT(full, 100);
    EXPECT_LT(full, 5000);
    drain_notes(pair.connector);
    EXPECT_EQ(waiting(pair.connector), 1);
    send_note(pair.acceptor, Note::kBell);
    EXPECT_EQ(waiting(pair.connector), 2);
}

TEST(Notes, AFloodIsDrainedInBoundedSteps) {
    LinkPair pair;
    // Large messages: the queue holds far more bytes of these than of notes.
    std::vector<unsigned char> flood(1 << 16, 'f');
    while (send(pair.acceptor, flood.data(), flood.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
    }
    const int before = waiting(pair.connector);
    drain_notes(pair.connector);
    EXPECT_LT(waiting(pair.connector), before);
    EXPECT_GE(waiting(pair.connector), before - 8 * 512);
}

}  // namespace
}  // namespace loopfast
