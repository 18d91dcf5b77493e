// Descriptors that are a burden to close, sent where others and none are awaited: no call of the victim waits
// for them.
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "attacker.h"
#include "burden.h"
#include "link/possession.h"
#include "loopfast.h"

namespace loopfast::hostile {
namespace {

constexpr int64_t kPromptly = 1'000'000;

struct Burden {
    const char* name;
    Attack::Side side;
    std::function<void(Attack&, Lingering&)> play;
};
void PrintTo(const Burden& burden, std::ostream* out) { *out << burden.name; }

/// Sends lingering sockets, of which none is left here.
void burden(int link, Lingering& lingering, const void* bytes, size_t size, int count = 1,
            const std::vector<int>& first = {}) {
    std::vector<int> fds = first;
    for (int i = 0; i < count; ++i)
        fds.push_back(lingering.make());
    EXPECT_TRUE(send_raw(link, bytes, size, fds));
    for (const int fd : fds)
        close(fd);
}

void burden(Attack& attack, Lingering& lingering, Kind kind, const std::vector<int>& first = {}) {
    const Message message = attack.good_message(kind);
    burden(attack.link, lingering, &message, sizeof message, 1, first);
}

const Burden kBurdens[] = {
    {"from_somebody_without_the_name", Attack::kVictimConnects,
     [](Attack& a, Lingering& l) {
         a.link = connect_link(a.tuple, false);
         burden(a.link, l, "x", 1, 3);
     }},
    {"before_the_hello", Attack::kVictimConnects,
     [](Attack& a, Lingering& l) {
         a.link = connect_link(a.tuple);
         burden(a.link, l, "x", 1);
     }},
    {"with_the_hello", Attack::kVictimConnects,
     [](Attack& a, Lingering& l) {
         a.link = connect_link(a.tuple);
         burden(a, l, kHello);
     }},
    {"behind_the_hello", Attack::kVictimConnects,
     [](Attack& a, Lingering& l) {
         ASSERT_TRUE(a.greet());
         burden(a.link, l, "x", 1);
     }},
    {"in_place_of_a_segment", Attack::kVictimConnects,
     [](Attack& a, Lingering& l) {
         ASSERT_TRUE(a.shake_hands());
         burden(a, l, kProposal);
     }},
    {"beside_a_segment", Attack::kVictimConnects,
     [](Attack& a, Lingering& l) {
         ASSERT_TRUE(a.shake_hands());
         burden(a, l, kProposal, {Forged().make()});
     }},
    {"with_the_sign", Attack::kVictimAccepts,
     [](Attack& a, Lingering& l) {
         EXPECT_TRUE(a.take_hello());
         a.sign();
         burden(a, l, kSigned);
     }},
    {"in_place_of_the_sign", Attack::kVictimAccepts,
     [](Attack& a, Lingering& l) {
         EXPECT_TRUE(a.take_hello());
         burden(a.link, l, "x", 1);
     }},
};

/// Strangers on the victim's offer, who are let in and turned away as far as its calls come to that.
void crowd(Attack& attack, Victim& victim, Lingering& lingering, int count) {
    for (int i = 0; i < count; ++i) {
        const int link = connect_link(attack.tuple, false);
        if (link >= 0)
            burden(link, lingering, "x", 1);
        if (i % 8 == 7) {
            ASSERT_EQ(send(attack.tcp, "a", 1, 0), 1);
            const Answer got = victim.ask("recv 1");
            EXPECT_EQ(got.bytes, "a");
            EXPECT_LT(got.elapsed_us, kPromptly);
        }
    }
}

void expect_promptly(Victim& victim, const char* command) {
    const Answer done = victim.ask(command);
    EXPECT_TRUE(done.came);
    EXPECT_LT(done.elapsed_us, kPromptly);
}

class Burdens : public ::testing::TestWithParam<Burden> {};

TEST_P(Burdens, NoCallWaitsForThem) {
    Lingering lingering;
    Victim victim;
    for (int round = 0; round < 2; ++round) {
        NothingLeaks leaks(victim);
        {
            Attack attack(victim, GetParam().side, [](Attack& a) {
                if (GetParam().side == Attack::kVictimAccepts) {
                    ASSERT_GE(a.offer = listen_link(a.tuple), 0);
                }
            });
            GetParam().play(attack, lingering);
            ASSERT_TRUE(attack.converse());
            EXPECT_EQ(victim.result("lane"), 0);
            EXPECT_LT(victim.ask("close").elapsed_us, kPromptly);
        }
        leaks.check(1);
    }
    EXPECT_TRUE(victim.exits());
}

INSTANTIATE_TEST_SUITE_P(Hostile, Burdens, ::testing::ValuesIn(kBurdens),
                         [](const ::testing::TestParamInfo<Burden>& test) { return test.param.name; });

/// They are there when the offer is closed, and were never let in.
TEST(Burden, OnAnOfferThatIsClosed) {
    Lingering lingering;
    Victim victim;
    {
        Attack attack(victim, Attack::kVictimConnects);
        for (int i = 0; i < 9; ++i)
            burden(connect_link(attack.tuple, false), lingering, "x", 1);
        expect_promptly(victim, "close");
    }
    // And a crowd of them, more than there are threads for.
    {
        Attack attack(victim, Attack::kVictimConnects);
        crowd(attack, victim, lingering, 40);
        expect_promptly(victim, "close");
    }
    EXPECT_TRUE(victim.exits());
}

/// They come with bells, and are there when the link is closed.
TEST(Burden, WithBells) {
    Lingering lingering;
    Victim victim;
    {
        Attack attack(victim, Attack::kVictimConnects);
        ASSERT_TRUE(attack.fuse());
        for (int i = 0; i < 3; ++i) {
            burden(attack.link, lingering, "b", 1, 2);
            for (int j = 0; j < 100; ++j) {
                const Answer nothing = victim.ask("recv 10 64");
                ASSERT_TRUE(nothing.came);
                ASSERT_LT(nothing.elapsed_us, kPromptly);
            }
        }
        expect_promptly(victim, "close");
    }
    EXPECT_TRUE(victim.exits());
}

/// The kernel closes what is ours in the exec itself, whatever came meanwhile.
TEST(Burden, OnWhatAnExecCloses) {
    Lingering lingering;
    Victim victim;
    {
        Attack attack(victim, Attack::kVictimConnects);
        for (int i = 0; i < 9; ++i)
            burden(connect_link(attack.tuple, false), lingering, "x", 1);
        expect_promptly(victim, "exec");
    }
    // One that is fused, and whose peer rings with them.
    {
        Attack attack(victim, Attack::kVictimConnects);
        ASSERT_TRUE(attack.fuse());
        burden(attack.link, lingering, "b", 1, 2);
        expect_promptly(victim, "exec");
    }
    // More on their way out than there are threads.
    {
        Attack attack(victim, Attack::kVictimConnects);
        crowd(attack, victim, lingering, 48);
        expect_promptly(victim, "exec");
    }
    EXPECT_TRUE(victim.exits());
}

/// An exec that fails costs an honest peer nothing, and nobody a byte over the kernel.
TEST(Burden, OnWhatAFailedExecKeeps) {
    Lingering lingering;
    Victim victim;
    {
        Attack attack(victim, Attack::kVictimConnects);
        burden(connect_link(attack.tuple, false), lingering, "x", 1);
        EXPECT_EQ(victim.result("noexec"), -1);
        ASSERT_TRUE(attack.converse());
        EXPECT_EQ(victim.result("close"), 0);
    }
    {
        Attack attack(victim, Attack::kVictimConnects);
        ASSERT_TRUE(attack.fuse());
        EXPECT_EQ(victim.result("noexec"), -1);
        EXPECT_EQ(victim.result("lane"), 1);
        burden(attack.link, lingering, "b", 1, 2);
        EXPECT_EQ(victim.result("noexec"), -1);
        const Answer got = victim.ask("recv 1 64");
        EXPECT_TRUE(got.came);
        EXPECT_EQ(victim.result("close"), 0);
    }
    EXPECT_TRUE(victim.exits());
}

/// Threads that close what lingers do not stay, so that a call that wants one thread gets it.
TEST(Burden, WhileTheProcessWantsToBeAlone) {
    Lingering lingering;
    Victim victim;
    {
        Attack attack(victim, Attack::kVictimConnects);
        for (int i = 0; i < 3; ++i)
            burden(connect_link(attack.tuple, false), lingering, "x", 1);
        ASSERT_TRUE(attack.converse());
        EXPECT_EQ(victim.result("close"), 0);
        EXPECT_EQ(victim.result("unshare " + std::to_string(CLONE_THREAD)), 0);
    }
    EXPECT_TRUE(victim.exits());
}

}  // namespace
}  // namespace loopfast::hostile
