// Rubbish on the link and names that somebody else holds: the connection stays in the kernel and works.
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "attacker.h"
#include "link/identity.h"
#include "link/possession.h"
#include "loopfast.h"

namespace loopfast::hostile {
namespace {

struct Move {
    const char* name;
    std::function<void(Attack&)> play;
};

void PrintTo(const Move& move, std::ostream* out) { *out << move.name; }
std::string name_of(const ::testing::TestParamInfo<Move>& test) { return test.param.name; }

void join(Attack& attack) {
    attack.link = connect_link(attack.tuple);
    ASSERT_GE(attack.link, 0) << "the victim's offer is there";
}

/// All that comes before the proposal, as it should be.
void shake_hands(Attack& attack) { ASSERT_TRUE(attack.shake_hands()) << "the victim gives its sign"; }

/// Sends the good proposal with this descriptor, which is ours no longer.
void propose(Attack& attack, int descriptor) {
    shake_hands(attack);
    const Message proposal = attack.good_message(kProposal);
    EXPECT_TRUE(send_raw(attack.link, &proposal, sizeof proposal, {descriptor}));
    close(descriptor);
}

void propose_forged(Attack& attack, const std::function<void(Forged&)>& change) {
    Forged forged;
    change(forged);
    propose(attack, forged.make());
}

void send_altered(Attack& attack, const std::function<void(Message&)>& change) {
    shake_hands(attack);
    Message proposal = attack.good_message(kProposal);
    change(proposal);
    const int memory = Forged().make();
    EXPECT_TRUE(send_raw(attack.link, &proposal, sizeof proposal, {memory}));
    close(memory);
}

/// A hello that is not one, and after it what would be good.
void say(Attack& attack, const std::function<void(Message&)>& change,
         const std::vector<int>& descriptors = {}) {
    join(attack);
    Message hello = attack.good_message(kHello);
    change(hello);
    EXPECT_TRUE(send_raw(attack.link, &hello, sizeof hello, descriptors));
    attack.sign();
}

void send_part(Attack& attack, size_t size, size_t descriptors, Kind kind = kProposal) {
    if (kind == kProposal)
        shake_hands(attack);
    else
        join(attack);
    unsigned char bytes[65536];
    memset(bytes, 0x5a, sizeof bytes);
    const Message proposal = attack.good_message(kind);
    memcpy(bytes, &proposal, sizeof proposal);
    const int memory = Forged().make();
    EXPECT_TRUE(send_raw(attack.link, bytes, size, std::vector<int>(descriptors, memory)));
    close(memory);
}

int regular_file() {
    FILE* const file = tmpfile();
    const int fd = dup(fileno(file));
    fclose(file);
    if (ftruncate(fd, static_cast<off_t>(segment_size(kDefaultCapacity))) != 0)
        abort();
    return fd;
}

const Move kOnTheOffer[] = {
    {"hello_and_silence", [](Attack& a) { EXPECT_TRUE(a.greet()); }},
    {"hello_and_sign_and_silence", [](Attack& a) { shake_hands(a); }},
    {"hello_and_hangs_up", [](Attack& a) { EXPECT_TRUE(a.greet()), a.hang_up(); }},
    {"proposal_without_a_sign",
     [](Attack& a) {
         ASSERT_TRUE(a.greet());
         const int memory = Forged().make();
         EXPECT_TRUE(send_message(a.link, a.good_message(kProposal), memory));
         close(memory);
     }},
    {"half_a_sign",
     [](Attack& a) {
         ASSERT_TRUE(a.greet());
         const int off = 0;
         setsockopt(a.tcp, IPPROTO_IP, IP_MULTICAST_LOOP, &off, sizeof off);
         const int memory = Forged().make();
         EXPECT_TRUE(send_message(a.link, a.good_message(kProposal), memory));
         close(memory);
     }},
    {"sign_before_the_first_look",
     [](Attack& a) {
         a.sign();
         ASSERT_TRUE(a.greet());
         const int memory = Forged().make();
         EXPECT_TRUE(send_message(a.link, a.good_message(kProposal), memory));
         close(memory);
     }},
    {"proposal_without_a_hello",
     [](Attack& a) {
         join(a);
         a.sign();
         const int memory = Forged().make();
         EXPECT_TRUE(send_message(a.link, a.good_message(kProposal), memory));
         close(memory);
     }},
    {"no_name",
     [](Attack& a) {
         a.link = connect_link(a.tuple, false);
         EXPECT_FALSE(a.shake_hands());
     }},
    {"hello_of_another_version", [](Attack& a) { say(a, [](Message& m) { ++m.version; }); }},
    {"hello_of_another_segment", [](Attack& a) { say(a, [](Message& m) { ++m.segment_version; }); }},
    {"hello_of_another_connection", [](Attack& a) { say(a, [](Message& m) { ++m.acceptor_cookie; }); }},
    {"hello_to_another_connection", [](Attack& a) { say(a, [](Message& m) { ++m.connector_cookie; }); }},
    {"hello_without_magic", [](Attack& a) { say(a, [](Message& m) { m.magic = 0; }); }},
    {"hello_with_a_descriptor", [](Attack& a) { say(a, [](Message&) {}, {0}); }},
    {"hello_with_many_descriptors",
     [](Attack& a) {
         say(
             a, [](Message&) {}, std::vector<int>(60, 0));
     }},
    {"half_a_hello", [](Attack& a) { send_part(a, sizeof(Message) / 2, 0, kHello); }},
    {"hello_and_rubbish", [](Attack& a) { send_part(a, 60'000, 0, kHello); }},
    {"nobody_comes", [](Attack&) {}},
    {"silence", [](Attack& a) { join(a); }},
    {"hangs_up_at_once", [](Attack& a) { join(a), a.hang_up(); }},
    {"closes_its_sending_half", [](Attack& a) { join(a), shutdown(a.link, SHUT_WR); }},
    {"one_byte", [](Attack& a) { send_part(a, 1, 0); }},
    {"one_byte_with_a_descriptor", [](Attack& a) { send_part(a, 1, 1); }},
    {"half_a_message", [](Attack& a) { send_part(a, sizeof(Message) / 2, 1); }},
    {"half_a_message_and_hangs_up", [](Attack& a) { send_part(a, sizeof(Message) / 2, 1), a.hang_up(); }},
    {"two_halves",
     [](Attack& a) {
         shake_hands(a);
         const Message proposal = a.good_message(kProposal);
         const auto* const bytes = reinterpret_cast<const char*>(&proposal);
         const int memory = Forged().make();
         send_raw(a.link, bytes, 16, {memory});
         a.victim.ask("recv 1 64");
         send_raw(a.link, bytes + 16, sizeof proposal - 16, {memory});
         close(memory);
     }},
    {"rubbish",
     [](Attack& a) {
         shake_hands(a);
         const std::string rubbish(60'000, '\xa5');
         send_raw(a.link, rubbish.data(), rubbish.size(), {});
     }},
    {"rubbish_of_the_right_size",
     [](Attack& a) {
         shake_hands(a);
         const std::string rubbish(sizeof(Message), '\xa5');
         send_raw(a.link, rubbish.data(), rubbish.size(), {0});
     }},
    {"no_descriptor", [](Attack& a) { send_part(a, sizeof(Message), 0); }},
    {"two_descriptors", [](Attack& a) { send_part(a, sizeof(Message), 2); }},
    {"many_descriptors", [](Attack& a) { send_part(a, sizeof(Message), 60); }},
    {"many_messages_with_many_descriptors",
     [](Attack& a) {
         join(a);
         for (int i = 0; i < 50; ++i)
             send_raw(a.link, "x", 1, std::vector<int>(8, 0));
     }},
    {"a_pipe",
     [](Attack& a) {
         int ends[2];
         ASSERT_EQ(pipe(ends), 0);
         close(ends[1]);
         propose(a, ends[0]);
     }},
    {"dev_null", [](Attack& a) { propose(a, open("/dev/null", O_RDWR)); }},
    {"dev_zero", [](Attack& a) { propose(a, open("/dev/zero", O_RDWR)); }},
    {"a_directory", [](Attack& a) { propose(a, open("/", O_RDONLY | O_DIRECTORY)); }},
    {"a_regular_file", [](Attack& a) { propose(a, regular_file()); }},
    {"a_socket", [](Attack& a) { propose(a, socket(AF_INET, SOCK_STREAM, 0)); }},
    {"the_link_itself", [](Attack& a) { propose(a, dup(a.tcp)); }},
    {"unsealed", [](Attack& a) { propose_forged(a, [](Forged& f) { f.seals = 0; }); }},
    {"can_shrink", [](Attack& a) { propose_forged(a, [](Forged& f) { f.seals &= ~F_SEAL_SHRINK; }); }},
    {"can_grow", [](Attack& a) { propose_forged(a, [](Forged& f) { f.seals &= ~F_SEAL_GROW; }); }},
    {"can_be_sealed", [](Attack& a) { propose_forged(a, [](Forged& f) { f.seals &= ~F_SEAL_SEAL; }); }},
    {"cannot_be_written", [](Attack& a) { propose_forged(a, [](Forged& f) { f.seals |= F_SEAL_WRITE; }); }},
    {"cannot_be_mapped_for_writing",
     [](Attack& a) { propose_forged(a, [](Forged& f) { f.seals |= F_SEAL_FUTURE_WRITE; }); }},
    {"empty", [](Attack& a) { propose_forged(a, [](Forged& f) { f.size = 0; }); }},
    {"short", [](Attack& a) { propose_forged(a, [](Forged& f) { f.size = 4096; }); }},
    {"a_page_too_short", [](Attack& a) { propose_forged(a, [](Forged& f) { f.size -= 4096; }); }},
    {"tiny_rings",
     [](Attack& a) {
         propose_forged(a, [](Forged& f) { f.size = segment_size(f.header.capacity = 4096); });
     }},
    {"not_a_power_of_two",
     [](Attack& a) {
         propose_forged(a,
                        [](Forged& f) { f.size = segment_size(f.header.capacity = 3 * kDefaultCapacity); });
     }},
    {"huge", [](Attack& a) { propose_forged(a, [](Forged& f) { f.size = uint64_t{1} << 40; }); }},
    {"huge_and_says_so",
     [](Attack& a) {
         propose_forged(a, [](Forged& f) { f.size = segment_size(f.header.capacity = uint64_t{1} << 36); });
     }},
    {"wrong_magic", [](Attack& a) { propose_forged(a, [](Forged& f) { ++f.header.magic; }); }},
    {"wrong_version", [](Attack& a) { propose_forged(a, [](Forged& f) { ++f.header.version; }); }},
    {"wrong_header_size", [](Attack& a) { propose_forged(a, [](Forged& f) { ++f.header.header_size; }); }},
    {"promises_more", [](Attack& a) { propose_forged(a, [](Forged& f) { f.header.capacity *= 2; }); }},
    {"zeros", [](Attack& a) { propose_forged(a, [](Forged& f) { f.header = {}; }); }},
    {"another_proposals_version", [](Attack& a) { send_altered(a, [](Message& p) { ++p.version; }); }},
    {"another_connectors_cookie",
     [](Attack& a) { send_altered(a, [](Message& p) { ++p.connector_cookie; }); }},
    {"another_acceptors_cookie", [](Attack& a) { send_altered(a, [](Message& p) { ++p.acceptor_cookie; }); }},
    {"no_cookies",
     [](Attack& a) { send_altered(a, [](Message& p) { p.acceptor_cookie = p.connector_cookie = 0; }); }},
    {"somebody_elses_connection",
     [](Attack& a) {
         // A proposal that was good for another connection, played again here.
         static Message replayed;
         Victim other;
         const Attack first(other, Attack::kVictimConnects);
         replayed = first.good_message(kProposal);
         send_altered(a, [](Message& p) { p = replayed; });
     }},
    {"a_crowd_that_stays",
     [](Attack& a) {
         for (int i = 0; i < 30; ++i)
             connect_link(a.tuple, i == 0);  // left open: the test's process keeps them to its end
     }},
    {"a_crowd_that_goes",
     [](Attack& a) {
         for (int i = 0; i < 30; ++i) {
             const int link = connect_link(a.tuple, i % 2 == 0);
             send_raw(link, "x", 1, {});
             close(link);
             if (i % 8 == 0)
                 a.victim.ask("recv 1 64");
         }
     }},
};

class OnTheOffer : public ::testing::TestWithParam<Move> {};

TEST_P(OnTheOffer, TheConnectionStaysInTheKernel) {
    Victim victim;
    for (int round = 0; round < 2; ++round) {
        NothingLeaks leaks(victim);
        {
            Attack attack(victim, Attack::kVictimConnects);
            GetParam().play(attack);
            ASSERT_TRUE(attack.converse());
            EXPECT_EQ(victim.result("lane"), 0);
            // The rest of what the attacker can still do with the link.
            if (attack.link >= 0) {
                send_raw(attack.link, "bbbbbbbb", 8, {0, 0});
                ASSERT_TRUE(attack.converse());
                attack.hang_up();
                ASSERT_TRUE(attack.converse());
            }
        }
        EXPECT_EQ(victim.result("recv 10"), 0) << "and then the end";
        leaks.check(round == 0 ? 1 : 0);
    }
    EXPECT_TRUE(victim.exits());
}

INSTANTIATE_TEST_SUITE_P(Hostile, OnTheOffer, ::testing::ValuesIn(kOnTheOffer), name_of);

/// Reads what the victim proposes, and drops the segment.
void take_and_drop(Attack& attack) {
    const int memory = attack.take_proposal();
    EXPECT_GE(memory, 0);
    close(memory);
}

const Move kAgainstAnAcceptor[] = {
    {"never_takes_the_link", [](Attack&) {}},
    {"takes_it_and_is_silent",
     [](Attack& a) { a.link = accept4(a.offer, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC); }},
    {"takes_it_and_hangs_up",
     [](Attack& a) {
         a.link = accept4(a.offer, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
         a.hang_up();
     }},
    {"takes_the_hello_and_is_silent", [](Attack& a) { EXPECT_TRUE(a.take_hello()); }},
    {"says_signed_without_a_sign",
     [](Attack& a) {
         EXPECT_TRUE(a.take_hello());
         EXPECT_TRUE(send_message(a.link, a.good_message(kSigned), -1));
     }},
    {"signs_before_the_first_look",
     [](Attack& a) {
         // What stands at the look is what was there before: then nothing is seen to change.
         EXPECT_TRUE(a.take_hello());
         a.sign();
         take_sign_back(a.tcp, kSignLoop | kSignAll);
         EXPECT_TRUE(send_message(a.link, a.good_message(kSigned), -1));
     }},
    {"signs_and_names_other_sockets",
     [](Attack& a) {
         EXPECT_TRUE(a.take_hello());
         a.sign();
         Message message = a.good_message(kSigned);
         ++message.acceptor_cookie;
         EXPECT_TRUE(send_message(a.link, message, -1));
     }},
    {"signed_with_a_descriptor",
     [](Attack& a) {
         EXPECT_TRUE(a.take_hello());
         a.sign();
         EXPECT_TRUE(send_message(a.link, a.good_message(kSigned), 0));
     }},
    {"signed_and_hung_up",
     [](Attack& a) {
         EXPECT_TRUE(a.take_hello());
         a.sign();
         EXPECT_TRUE(send_message(a.link, a.good_message(kSigned), -1));
         a.hang_up();
     }},
    {"closes_the_offer", [](Attack& a) { close(a.offer), a.offer = -1; }},
    {"drops_the_segment", [](Attack& a) { take_and_drop(a); }},
    {"drops_everything", [](Attack& a) { take_and_drop(a), a.hang_up(); }},
    {"answers_with_rubbish",
     [](Attack& a) {
         take_and_drop(a);
         const std::string rubbish(60'000, 'r');
         send_raw(a.link, rubbish.data(), rubbish.size(), {0, 0, 0});
     }},
    {"answers_with_a_proposal",
     [](Attack& a) {
         take_and_drop(a);
         const Message proposal = a.good_message(kProposal);
         const int memory = Forged().make();
         send_raw(a.link, &proposal, sizeof proposal, {memory});
         close(memory);
     }},
    {"maps_and_never_confirms", [](Attack& a) { a.map(a.take_proposal()); }},
    {"publishes_a_cut_without_confirming",
     [](Attack& a) {
         a.map(a.take_proposal());
         a.ours().producer.cut.store(1'000'000, std::memory_order_release);
     }},
};

class AgainstAnAcceptor : public ::testing::TestWithParam<Move> {};

TEST_P(AgainstAnAcceptor, TheConnectionStaysInTheKernel) {
    Victim victim;
    for (int round = 0; round < 2; ++round) {
        NothingLeaks leaks(victim);
        {
            Attack attack(victim, Attack::kVictimAccepts,
                          [](Attack& a) { ASSERT_GE(a.offer = listen_link(a.tuple), 0); });
            GetParam().play(attack);
            ASSERT_TRUE(attack.converse());
            EXPECT_EQ(victim.result("lane"), 0);
            if (attack.link >= 0) {
                attack.hang_up();
                ASSERT_TRUE(attack.converse());
            }
        }
        EXPECT_EQ(victim.result("recv 10"), 0);
        leaks.check(round == 0 ? 1 : 0);
    }
    EXPECT_TRUE(victim.exits());
}

INSTANTIATE_TEST_SUITE_P(Hostile, AgainstAnAcceptor, ::testing::ValuesIn(kAgainstAnAcceptor), name_of);

/// Somebody who holds the name without listening, or with a socket of another kind.
TEST(SquattedName, BoundButDeaf) {
    for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
        Victim victim;
        NothingLeaks leaks(victim);
        {
            Attack attack(victim, Attack::kVictimAccepts, [&](Attack& a) {
                sockaddr_un name;
                socklen_t size;
                offer_name(a.tuple, name, size);
                a.offer = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
                ASSERT_EQ(bind(a.offer, reinterpret_cast<sockaddr*>(&name), size), 0);
            });
            ASSERT_TRUE(attack.converse());
            EXPECT_EQ(victim.result("lane"), 0);
        }
        leaks.check(1);
    }
}

/// Runs as another user, in another process: `play` returns a descriptor or -1, and keeps the process until
/// the test lets go of it.
class Stranger {
public:
    explicit Stranger(const std::function<int()>& play) {
        int hold[2];
        int ready[2];
        if (pipe(hold) != 0 || pipe(ready) != 0)
            abort();
        pid_ = fork();
        if (pid_ == 0) {
            close(hold[1]);
            char byte = setuid(54321) == 0 && play() >= 0 ? 'y' : 'n';
            if (write(ready[1], &byte, 1) != 1)
                _exit(1);
            _exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
        }
        close(hold[0]);
        close(ready[1]);
        hold_ = hold[1];
        char byte = 'n';
        EXPECT_EQ(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        good = byte == 'y';
    }
    ~Stranger() {
        close(hold_);
        waitpid(pid_, nullptr, 0);
    }
    Stranger(const Stranger&) = delete;
    Stranger& operator=(const Stranger&) = delete;
    bool good = false;

private:
    pid_t pid_;
    int hold_;
};

int sign_of_the_victim(const Attack& attack) {
    SocketFacts facts{};
    const bool connects = attack.side == Attack::kVictimConnects;
    const Endpoint& own = connects ? attack.tuple.connector : attack.tuple.acceptor;
    const Endpoint& other = connects ? attack.tuple.acceptor : attack.tuple.connector;
    return look_up_socket(own, other, facts) ? facts.sign : kNoSign;
}

TEST(Stranger, OfAnotherUserHoldsTheName) {
    if (getuid() != 0)
        GTEST_SKIP() << "needs root to become somebody else";
    Victim victim;
    NothingLeaks leaks(victim);
    {
        std::unique_ptr<Stranger> stranger;
        Attack attack(victim, Attack::kVictimAccepts, [&](Attack& a) {
            stranger = std::make_unique<Stranger>([&] { return listen_link(a.tuple); });
            ASSERT_TRUE(stranger->good);
        });
        ASSERT_TRUE(attack.converse());
        EXPECT_EQ(victim.result("lane"), 0);
        EXPECT_EQ(victim.result("reason"), LOOPFAST_REASON_IDENTITY);
    }
    leaks.check(1);
}

TEST(Stranger, OfAnotherUserHoldsTheAnswersName) {
    if (getuid() != 0)
        GTEST_SKIP() << "needs root to become somebody else";
    Victim victim;
    NothingLeaks leaks(victim);
    {
        std::unique_ptr<Stranger> stranger;
        Attack attack(victim, Attack::kVictimAccepts, [&](Attack& a) {
            a.offer = listen_link(a.tuple);
            stranger = std::make_unique<Stranger>([&] {
                sockaddr_un name;
                socklen_t size;
                answer_name(a.tuple, name, size);
                const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                return bind(fd, reinterpret_cast<sockaddr*>(&name), size) == 0 ? fd : -1;
            });
            ASSERT_TRUE(stranger->good);
        });
        ASSERT_TRUE(attack.converse());
        EXPECT_FALSE(attack.take_hello()) << "without the name there is no meeting";
        EXPECT_EQ(victim.result("lane"), 0);
        EXPECT_EQ(victim.result("reason"), LOOPFAST_REASON_LIMIT);
    }
    leaks.check(1);
}

TEST(Stranger, OfAnotherUserAnswersTheOffer) {
    if (getuid() != 0)
        GTEST_SKIP() << "needs root to become somebody else";
    Victim victim;
    Attack attack(victim, Attack::kVictimConnects);
    // All that it says is true but one thing: it is not the other end.
    const Message hello = attack.good_message(kHello);
    {
        const Stranger stranger([&] {
            const int link = connect_link(attack.tuple);
            return link >= 0 && send_message(link, hello, -1) ? link : -1;
        });
        ASSERT_TRUE(stranger.good);
        ASSERT_TRUE(attack.converse());
        EXPECT_EQ(victim.result("lane"), 0);
        EXPECT_EQ(sign_of_the_victim(attack), 3) << "no sign is given to a stranger";
    }
    // And the right one still gets what the stranger wanted.
    EXPECT_TRUE(attack.fuse());
}

/// A sign is to be seen only while its giver holds the name. So one is not given while a relative holds the
/// socket as well: it would leave the sign on, or take it back, after the giver was killed.
TEST(Relatives, AConnectorSignsAlone) {
    Victim victim;
    Attack attack(victim, Attack::kVictimConnects);
    ASSERT_EQ(victim.result("fork"), 0);
    victim.result("send 1");  // offers anew
    SocketFacts before{};
    SocketFacts facts{};
    ASSERT_TRUE(look_up_socket(attack.tuple.connector, attack.tuple.acceptor, before));
    EXPECT_FALSE(attack.greet());
    ASSERT_TRUE(look_up_socket(attack.tuple.connector, attack.tuple.acceptor, facts));
    EXPECT_EQ(facts.sign, before.sign);
    EXPECT_EQ(victim.result("reason"), LOOPFAST_REASON_SHARED);
    ASSERT_EQ(victim.result("unfork"), 0);
    Message message{};
    int none = -1;
    bool signed_now = false;
    for (int i = 0; i < 200 && !signed_now; ++i) {
        victim.ask("recv 1 64");  // MSG_DONTWAIT
        signed_now = receive_message(attack.link, kSigned, message, none) == Received::kMessage;
    }
    EXPECT_TRUE(signed_now);
}

TEST(SquattedName, TakenBeforeTheVictimConnects) {
    // Connect chooses among the ports of the lower end's parity first: these are so many that all their names
    // can be held. Where they cannot (few descriptors), a connection that escapes is an ordinary case.
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    uint16_t port = 0;
    const int listener = plain_listen(port);
    Tuple tuple;
    tuple.acceptor.family = tuple.connector.family = AF_INET;
    tuple.acceptor.ip[0] = tuple.connector.ip[0] = 127;
    tuple.acceptor.ip[3] = tuple.connector.ip[3] = 1;
    tuple.acceptor.port = htons(port);
    std::map<uint16_t, int> squatted;
    Victim victim;  // started before, so that it does not inherit them
    for (uint32_t from = 32768; from < 61000; from += 2) {
        tuple.connector.port = htons(static_cast<uint16_t>(from));
        const int fd = listen_link(tuple);
        if (fd < 0)
            break;
        squatted[tuple.connector.port] = fd;
    }
    NothingLeaks leaks(victim);
    EXPECT_EQ(victim.result("connect " + std::to_string(port)), 0);
    sockaddr_in from{};
    socklen_t size = sizeof from;
    const int tcp = accept(listener, reinterpret_cast<sockaddr*>(&from), &size);
    EXPECT_EQ(victim.result("send 5"), 5);
    char text[8];
    EXPECT_EQ(recv(tcp, text, sizeof text, 0), 5);
    EXPECT_TRUE(squatted.count(from.sin_port) == 0 || victim.result("reason") == LOOPFAST_REASON_LIMIT);
    close(tcp);
    EXPECT_EQ(victim.result("recv 5"), 0);
    leaks.check(1);
    for (const auto& [number, fd] : squatted)
        close(fd);
    close(listener);
}

}  // namespace
}  // namespace loopfast::hostile
