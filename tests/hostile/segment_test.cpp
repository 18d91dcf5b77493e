// After a good handshake: every word of the segment set to every interesting value while the victim reads,
// writes, polls and sleeps. Each of its calls ends as a call on TCP could, in the time that it was given, and
// without a processor at full load; the connection can be closed and leaves nothing behind.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "attacker.h"
#include "base/clock.h"

namespace loopfast::hostile {
namespace {

constexpr int64_t kWait = 30;  // milliseconds that the victim's blocking calls are given

/// One call; `may_wait`: it may take the victim's timeout.
void expect_tcp_like(Victim& victim, const std::string& command, bool may_wait) {
    SCOPED_TRACE(command);
    const Answer answer = victim.ask(command);
    ASSERT_TRUE(answer.came) << (victim.alive() ? "the victim hangs" : "the victim died");
    EXPECT_TRUE(answer.as_tcp()) << answer.result << ", " << strerror(answer.error);
    EXPECT_LT(answer.elapsed_us, may_wait ? kInTime : kAtOnce);
    // A call that slept must not have spun: the few that do, before they sleep, take 50 us.
    EXPECT_TRUE(answer.elapsed_us < 25'000 || answer.cpu_us < answer.elapsed_us / 2)
        << answer.cpu_us << " us of processor in " << answer.elapsed_us;
}

void try_all_calls(Victim& victim) {
    for (int round = 0; round < 2; ++round) {
        expect_tcp_like(victim, "poll 5 0", false);
        expect_tcp_like(victim, "poll 1 30", true);
        expect_tcp_like(victim, "epoll 5 0", false);
        expect_tcp_like(victim, "epoll 2147483653 30", true);  // EPOLLIN | EPOLLOUT | EPOLLET
        expect_tcp_like(victim, "recv 100 66", false);         // MSG_DONTWAIT | MSG_PEEK
        expect_tcp_like(victim, "send 100 64", false);
        expect_tcp_like(victim, "send 20000 64", false);
        expect_tcp_like(victim, "recv 100 64", false);
        expect_tcp_like(victim, "recv 5000", true);
        expect_tcp_like(victim, "send 5000", true);
        if (::testing::Test::HasFatalFailure())
            return;
    }
}

struct Word {
    std::string name;
    size_t offset;
    size_t size;
};

std::vector<Word> all_words() {
    std::vector<Word> words = {
        {"magic", 0, 8}, {"version", 8, 4}, {"header_size", 12, 4}, {"capacity", 16, 8}};
    const auto add = [&](const std::string& name, size_t offset, size_t size) {
        words.push_back({name, offset, size});
    };
    for (size_t i = 0; i < 2; ++i) {
        const std::string of = i == 0 ? " of the connector" : " of the acceptor";
        const size_t side = offsetof(Segment, side) + i * sizeof(SideWords);
        add("confirmed" + of, side + offsetof(SideWords, confirmed), 4);
        add("closing" + of, side + offsetof(SideWords, closing), 4);
        add("cpu" + of, side + offsetof(SideWords, cpu), 4);
        const size_t direction = offsetof(Segment, direction) + i * sizeof(Direction);
        add("head" + of, direction + offsetof(Direction, producer) + offsetof(ProducerLine, head), 8);
        add("jump 0" + of, direction + offsetof(Direction, producer) + offsetof(ProducerLine, jump), 8);
        add("jump 1" + of, direction + offsetof(Direction, producer) + offsetof(ProducerLine, jump) + 8, 8);
        add("cut" + of, direction + offsetof(Direction, producer) + offsetof(ProducerLine, cut), 8);
        add("turned away" + of,
            direction + offsetof(Direction, producer) + offsetof(ProducerLine, turned_away), 8);
        add("tail" + of, direction + offsetof(Direction, consumer) + offsetof(ConsumerLine, tail), 8);
        add("receive size" + of, side + offsetof(SideWords, receive_size), 8);
        add("drained" + of, direction + offsetof(Direction, consumer) + offsetof(ConsumerLine, drained), 8);
        add("sleeping consumer" + of, direction + offsetof(Direction, sleep) + offsetof(SleepLine, consumer),
            8);
        add("sleeping producer" + of, direction + offsetof(Direction, sleep) + offsetof(SleepLine, producer),
            8);
    }
    return words;
}

const uint64_t kValues[] = {0,
                            1,
                            2,
                            (3 << 3) | 1,
                            (3 << 3) | 4 | 1,
                            100'000,
                            kDefaultCapacity,
                            kDefaultCapacity + 1,
                            uint64_t{0} - 300'000,
                            uint64_t{0} - kDefaultCapacity,
                            uint64_t{1} << 32,
                            uint64_t{1} << 61,
                            uint64_t{1} << 63,
                            ~uint64_t{0} - 1,
                            ~uint64_t{0}};

class Words : public ::testing::TestWithParam<Attack::Side> {};

TEST_P(Words, EachSetToEachValue) {
    Victim victim;
    NothingLeaks leaks(victim);
    int place = 0;
    for (const Word& word : all_words()) {
        for (const uint64_t value : kValues) {
            // Each second one: with those of the other role all are tried.
            if (++place % 2 != (GetParam() == Attack::kVictimConnects ? 0 : 1))
                continue;
            SCOPED_TRACE(word.name + " = " + std::to_string(static_cast<int64_t>(value)));
            {
                Attack attack(victim, GetParam(), [](Attack& a) { a.offer = listen_link(a.tuple); });
                ASSERT_TRUE(attack.fuse());
                victim.result("timeout " + std::to_string(kWait));
                attack.write_ring("some bytes that the victim does not read at once");
                memcpy(reinterpret_cast<char*>(attack.segment.segment) + word.offset, &value, word.size);
                attack.bell();
                try_all_calls(victim);
                ASSERT_FALSE(HasFatalFailure());
            }
            // The attacker is gone: the end comes, after what errors there are.
            bool ended = false;
            for (int i = 0; i < 20 && !ended; ++i) {
                const Answer answer = victim.ask("recv 100000");
                ASSERT_TRUE(answer.as_tcp());
                ended = answer.result == 0 || answer.error == ECONNRESET;
            }
            EXPECT_TRUE(ended) << "the end of the connection never comes";
            victim.result("close");
        }
    }
    for (int i = 0; i < 3; ++i)  // the first ones are the handshake
        EXPECT_EQ(victim.result("own"), 0);
    leaks.check(5);  // the connection to itself with its links, and the thread's set
    EXPECT_TRUE(victim.exits());
}

INSTANTIATE_TEST_SUITE_P(Hostile, Words, ::testing::Values(Attack::kVictimConnects, Attack::kVictimAccepts),
                         [](const auto& test) {
                             return test.param == Attack::kVictimConnects ? "victim_connects"
                                                                          : "victim_accepts";
                         });

/// A good connection for the cases below, in the victim's accepting role: the segment is of its making.
class Fused : public ::testing::Test {
protected:
    void SetUp() override {
        attack = std::make_unique<Attack>(victim, Attack::kVictimAccepts,
                                          [](Attack& a) { a.offer = listen_link(a.tuple); });
        ASSERT_TRUE(attack->fuse());
        victim.result("timeout 100");
    }
    Victim victim;
    std::unique_ptr<Attack> attack;
};

TEST_F(Fused, WorksAsLongAsTheAttackerBehaves) {
    attack->write_ring("hello");
    EXPECT_EQ(victim.ask("recv 100").bytes, "hello");
    EXPECT_EQ(victim.result("send 7"), 7);
    EXPECT_TRUE(attack->theirs().producer.head.load(std::memory_order_acquire).equals(7));
    EXPECT_EQ(victim.result("lane"), 1);
}

TEST_F(Fused, TheSegmentCannotBeTakenAway) {
    EXPECT_EQ(ftruncate(attack->memory, 4096), -1);
    EXPECT_EQ(ftruncate(attack->memory, 0), -1);
    EXPECT_EQ(fcntl(attack->memory, F_ADD_SEALS, F_SEAL_WRITE), -1);
    EXPECT_EQ(fcntl(attack->memory, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
    attack->write_ring("still here");
    EXPECT_EQ(victim.ask("recv 100").bytes, "still here");
}

TEST_F(Fused, APeerThatStopsForEver) {
    const Answer received = victim.ask("recv 10");
    EXPECT_EQ(received.error, EAGAIN);
    EXPECT_GE(received.elapsed_us, 100'000);
    EXPECT_LT(received.elapsed_us, kInTime);
    EXPECT_LT(received.cpu_us, 50'000);
    long sent = 0;
    for (int i = 0; i < 100; ++i) {
        const long result = victim.result("send 1000000");
        if (result <= 0)
            break;
        sent += result;
    }
    EXPECT_GT(sent, 100'000);
    EXPECT_LE(sent, static_cast<long>(kDefaultCapacity));
    const Answer answer = victim.ask("send 10");
    EXPECT_EQ(answer.error, EAGAIN);
    EXPECT_GE(answer.elapsed_us, 100'000);
    EXPECT_LT(answer.cpu_us, 50'000);
    EXPECT_EQ(victim.result("poll 4 100"), 0) << "not writable";
    EXPECT_TRUE(victim.exits());
}

TEST_F(Fused, ASecondProposalAndOldNotesMeanNothing) {
    const Message proposal = attack->good_message(kProposal);
    const int memory = Forged().make();
    for (int i = 0; i < 20; ++i)
        send_raw(attack->link, &proposal, sizeof proposal, {memory, 0, 0});
    close(memory);
    attack->write_ring("one ");
    EXPECT_EQ(victim.ask("recv 100").bytes, "one ");
    const Answer answer = victim.ask("recv 10");
    EXPECT_EQ(answer.error, EAGAIN) << "a note without bytes is no news";
    EXPECT_GE(answer.elapsed_us, 100'000);
}

TEST_F(Fused, AFloodOnTheLink) {
    std::atomic<bool> done{false};
    std::thread flood([&] {
        const std::string rubbish(4000, 'f');
        while (!done.load()) {
            ::send(attack->link, rubbish.data(), rubbish.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            usleep(100);
        }
    });
    for (int i = 0; i < 20; ++i) {
        attack->write_ring("drop " + std::to_string(i % 10));
        EXPECT_EQ(victim.ask("recv 100").bytes, "drop " + std::to_string(i % 10));
        EXPECT_EQ(victim.result("send 100"), 100);
    }
    const Answer answer = victim.ask("recv 10");
    EXPECT_EQ(answer.error, EAGAIN);
    EXPECT_LT(answer.elapsed_us, kInTime) << "the timeout holds under a flood";
    done = true;
    flood.join();
}

TEST_F(Fused, DescriptorsSentWithNotesDoNotPileUp) {
    const long before = victim.result("descriptors");
    for (int i = 0; i < 200; ++i) {
        send_raw(attack->link, "b", 1, std::vector<int>(20, 0));
        if (i % 4 == 0)
            victim.ask("recv 10 64");
    }
    EXPECT_EQ(victim.result("descriptors"), before);
}

TEST_F(Fused, HolesArePunchedWhileTheVictimWorks) {
    std::atomic<bool> done{false};
    std::thread puncher([&] {
        while (!done.load())
            fallocate(attack->memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      static_cast<off_t>(segment_size(kDefaultCapacity)));
    });
    for (int i = 0; i < 30; ++i) {
        for (const char* command :
             {"send 100000 64", "recv 100000 64", "send 100", "recv 100 64", "poll 5 20"}) {
            const Answer answer = victim.ask(command);
            ASSERT_TRUE(answer.came) << command;
            EXPECT_TRUE(answer.as_tcp()) << command;
            EXPECT_LT(answer.elapsed_us, kInTime) << command;
        }
    }
    done = true;
    puncher.join();
    EXPECT_EQ(victim.result("own"), 0);
    attack.reset();
    EXPECT_EQ(victim.result("close"), 0);
    EXPECT_TRUE(victim.exits());
}

TEST_F(Fused, LinkThatHangsUpWithBytesUnderWay) {
    EXPECT_EQ(victim.result("send 5000"), 5000);
    attack->write_ring("last words");
    attack->hang_up();
    EXPECT_EQ(victim.ask("recv 100").bytes, "last words");
    // What the attacker did not read comes over TCP, and so does what follows.
    EXPECT_EQ(victim.ask("recv 1").error, EAGAIN);  // a wait, in which it hears of the hang-up
    EXPECT_EQ(victim.result("send 10"), 10);
    std::string got(5010, 0);
    const timeval limit{20, 0};
    setsockopt(attack->tcp, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    EXPECT_EQ(recv(attack->tcp, got.data(), got.size(), MSG_WAITALL), 5010);
    EXPECT_TRUE(got == std::string(5010, 'v'));
    ASSERT_TRUE(attack->converse());
}

TEST_F(Fused, WhoTakesBytesBackIsNotKeptAtItForEver) {
    // The link is down, so the victim sends what is unread over TCP, by the tail that the attacker shows. The
    // attacker reads and keeps putting the tail back.
    EXPECT_EQ(victim.result("send 60000"), 60'000);
    attack->hang_up();
    std::atomic<bool> done{false};
    std::thread rewinder([&] {
        while (!done.load())
            attack->theirs().consumer.tail.store(0, std::memory_order_relaxed);
    });
    std::thread reader([&] {
        std::vector<char> bytes(1 << 20);
        while (!done.load()) {
            pollfd one{attack->tcp, POLLIN, 0};
            if (poll(&one, 1, 10) > 0 && recv(attack->tcp, bytes.data(), bytes.size(), MSG_DONTWAIT) == 0)
                break;
        }
    });
    for (int i = 0; i < 5; ++i) {
        const Answer answer = victim.ask("recv 10");
        EXPECT_TRUE(answer.came) << "a call with a timeout never ended";
        EXPECT_LT(answer.elapsed_us, kInTime);
        const Answer sent = victim.ask("send 10 64");
        EXPECT_TRUE(sent.came) << "a call that does not wait never ended";
    }
    done = true;
    rewinder.join();
    reader.join();
}

TEST_F(Fused, ANonsenseTailWhenTheLinkGoesDown) {
    for (const uint64_t value : kValues) {
        SCOPED_TRACE(static_cast<int64_t>(value));
        Victim one;
        Attack against(one, Attack::kVictimConnects);
        ASSERT_TRUE(against.fuse());
        one.result("timeout 30");
        EXPECT_EQ(one.result("send 5000"), 5000);
        against.theirs().consumer.tail.store(value, std::memory_order_relaxed);
        against.hang_up();
        try_all_calls(one);
        ASSERT_FALSE(HasFatalFailure());
        EXPECT_TRUE(one.exits());
    }
}

}  // namespace
}  // namespace loopfast::hostile
