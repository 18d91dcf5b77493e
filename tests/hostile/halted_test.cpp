// One end of a connection is stopped at each of its system calls between the connect and the ring, before it
// and after it, one after the other: for a while, or killed there. The other end goes on as over TCP, and
// what was sent arrives once; who went on is on either lane afterwards, and nobody has left anything behind.
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "attacker.h"
#include "halt.h"
#include "impostor.h"

namespace loopfast::hostile {
namespace {

constexpr int kNever = 1 << 30;
constexpr int kRounds = 7;  ///< enough for the ring, with one to spare
/// Descriptors that the library makes once: its sets, its look at captures, what tells of changed ways.
constexpr int kKept = 5;

/// Of a connection between these ports, the connector's first.
bool a_name_is_left(long from, long to) {
    char name[64];
    snprintf(name, sizeof name, "7f000001.%04lx-7f000001.%04lx", from, to);
    std::ifstream table("/proc/net/unix");
    for (std::string line; std::getline(table, line);)
        if (line.find(name) != std::string::npos)
            return true;
    return false;
}

struct End {
    std::unique_ptr<Victim> victim;
    long sent = 0;
    long received = 0;
    bool connected = false;
    long descriptors = 0;
};

/// The long form halts and kills at every place, the short one, for want of time, at every third or so.
bool all_places() { return getenv("LOOPFAST_TEST_LONG") != nullptr; }

enum class Then { kGoesOn, kKilled };

/// Two victims, of which one is halted at most once in a connection.
class Meeting {
public:
    void begin() {
        if (!ends[0].victim)
            ends[0].victim = std::make_unique<Victim>();
        if (!ends[1].victim) {
            ends[1].victim = std::make_unique<Victim>();
            service = ends[1].victim->result("listen");
        }
        uint16_t port = 0;
        close(plain_listen(port));
        from = port;
        for (End& end : ends) {
            end.sent = end.received = 0;
            end.connected = false;
            if (end.descriptors == 0)
                end.descriptors = end.victim->result("descriptors");
        }
    }

    /// One step of an end; if it is halted meanwhile, what there is to do then is done. @return its result.
    long step(int who, const std::string& command) {
        End& end = ends[who];
        if (!end.victim->tell(command))
            return -1000;
        for (int waited = 0; waited < 20'000; ++waited) {
            const Answer answer = end.victim->answer(1);
            if (answer.came) {
                if (answer.result < 0)
                    printf("end %d: %s: %s after %lld us\n", who, command.c_str(), strerror(answer.error),
                           static_cast<long long>(answer.elapsed_us));
                note(end, command, answer.result);
                return answer.result;
            }
            if (who == followed && !handled && halt && halt->halted()) {
                handled = true;
                EXPECT_NO_FATAL_FAILURE(while_halted(1 - who));
                if (then == Then::kKilled) {
                    halt->kill();
                    return -2000;
                }
                halt->go_on();
            }
        }
        ADD_FAILURE() << "no answer to " << command << " of end " << who;
        return -1000;
    }

    static void note(End& end, const std::string& command, long result) {
        if (command.compare(0, 6, "stream") == 0 && result > 0)
            end.sent += result;
        if (command.compare(0, 5, "check") == 0) {
            EXPECT_NE(result, -4) << "wrong bytes";
            end.received += result > 0 ? result : 0;
        }
        if ((command.compare(0, 7, "connect") == 0 || command == "accept") && result == 0)
            end.connected = true;
    }

    /// The other one goes on as if nothing were; first, whoever else is there has his moment.
    void while_halted(int who) {
        if (stranger)
            stranger(*this);
        go_on_alone(who);
    }

    /// What the other one does: some sends, some looks, one wait. None may take long or burn time.
    void go_on_alone(int who) {
        End& end = ends[who];
        if (!end.connected) {
            if (who != 1 || end.victim->result("pending") != 1)
                return;
            ASSERT_EQ(step(1, "accept"), 0);
        }
        for (int round = 0; round < 3; ++round) {
            const Answer sent = end.victim->ask("stream 20");
            ASSERT_EQ(sent.result, 20) << strerror(sent.error);
            EXPECT_LT(sent.elapsed_us, kAtOnce);
            end.sent += 20;
            const Answer got = end.victim->ask("check 1000 " + std::to_string(MSG_DONTWAIT));
            ASSERT_TRUE(got.result > 0 || (got.result == -1 && got.error == EAGAIN))
                << got.result << " " << got.error;
            EXPECT_LT(got.elapsed_us, kAtOnce);
            end.received += std::max(0L, got.result);
        }
        // Nothing comes any more: a wait waits, and does nothing else. What burns time does so each time; a
        // busy machine counts somebody else's to us now and then.
        const char* const wait = end.sent % 40 == 0 ? "poll 1 15" : "epoll 1 15";
        Answer waited;
        for (int round = 0; round < 4; ++round) {
            waited = end.victim->ask(wait);
            ASSERT_EQ(waited.result, 0);
            if (waited.cpu_us < 8'000)
                break;
        }
        EXPECT_LT(waited.cpu_us, 8'000) << "of " << waited.elapsed_us;
    }

    /// A whole connection. `place`: where `whom` is halted.
    void run(int whom, int place, Then what, bool whole) {
        begin();
        followed = whom;
        handled = false;
        then = what;
        halt = std::make_unique<Halt>(ends[whom].victim->pid(), place, whole);
        converse();
        if (handled && then == Then::kKilled) {
            mourn();
            return;
        }
        halt->leave();
        both("lane");
        seen = halt->seen();
        where = halt->halted() ? halt->where() : "nowhere";
        halt.reset();
        if (handled)
            for (int round = 0; round < 3; ++round)
                exchange();
        // All that was sent arrived.
        for (const int who : {0, 1})
            while (ends[who].received < ends[1 - who].sent)
                if (step(who, "check 1000") <= 0) {
                    ADD_FAILURE() << "end " << who << " has " << ends[who].received << " of "
                                  << ends[1 - who].sent;
                    break;
                }
        fused += ends[0].victim->result("lane") == 1 && ends[1].victim->result("lane") == 1 ? 1 : 0;
        ++connections;
        both("close");
        if (stranger_leaves)
            stranger_leaves();
        nothing_left();
    }

    void converse() {
        if (step(0, "connect " + std::to_string(service) + " " + std::to_string(from)) == -2000)
            return;
        if (!ends[1].connected && step(1, "accept") == -2000)
            return;
        for (const int who : {0, 1})
            if (step(who, "timeout 10000") == -2000)
                return;
        for (int round = 0; round < kRounds; ++round)
            if (!exchange())
                return;
    }

    /// @return false when one was killed.
    bool exchange() {
        for (const int who : {0, 1}) {
            const long sent = step(who, "stream 20");
            if (sent == -2000)
                return false;
            EXPECT_EQ(sent, 20);
            // Unless they were received while the sender was halted.
            while (ends[1 - who].received < ends[who].sent) {
                const long got = step(1 - who, "check 1000");
                if (got == -2000)
                    return false;
                EXPECT_GT(got, 0);
                if (got <= 0)
                    break;
            }
        }
        return true;
    }

    /// The survivor of a kill sees the end, after what was sent before, and can close.
    void mourn() {
        where = halt->where();
        halt.reset();
        ends[followed].victim.reset();
        ends[followed].descriptors = 0;
        End& end = ends[1 - followed];
        if (!end.connected) {  // nobody ever came, or came and went
            if (followed == 0 && end.victim->result("pending") == 1)
                step(1, "accept");
        }
        if (end.connected) {
            long result = 1;
            int error = 0;
            while (result > 0) {
                const Answer answer = end.victim->ask("check 1000");
                result = answer.came ? answer.result : -1000;
                error = answer.error;
            }
            EXPECT_TRUE(result == 0 || (result == -1 && error == ECONNRESET))
                << result << " " << strerror(error);
            Answer sent = end.victim->ask("stream 20");
            for (int i = 0; i < 100 && sent.came && sent.result != -1; ++i)
                sent = end.victim->ask("stream 20");
            EXPECT_TRUE(sent.error == EPIPE || sent.error == ECONNRESET) << strerror(sent.error);
        }
        end.victim->result("close");
        if (followed == 1)
            ends[0].connected = false;
        nothing_left();
    }

    void nothing_left() {
        for (End& end : ends)
            if (end.victim) {
                // A thread of the library's closes what strangers had their hands on, when it gets to it.
                long left = end.victim->result("descriptors");
                for (int i = 0; i < 10'000 && left > end.descriptors + kKept; ++i) {
                    usleep(1000);
                    left = end.victim->result("descriptors");
                }
                EXPECT_LE(left, end.descriptors + kKept);
            }
        for (int i = 0; i < 2000 && a_name_is_left(from, service); ++i)
            usleep(1000);
        EXPECT_FALSE(a_name_is_left(from, service));
    }

    void both(const char* command) {
        for (End& end : ends)
            end.victim->result(command);
    }

    End ends[2];
    long service = 0;
    long from = 0;
    int followed = -1;
    bool handled = false;
    Then then = Then::kGoesOn;
    std::unique_ptr<Halt> halt;
    int seen = 0;
    int fused = 0;
    int connections = 0;
    std::string where;
    std::function<void(Meeting&)> stranger;
    std::function<void()> stranger_leaves;
};

class Halted : public testing::TestWithParam<int> {};

TEST_P(Halted, AtEachCall) {
    for (const Then then : {Then::kGoesOn, Then::kKilled}) {
        Meeting meeting;
        meeting.run(GetParam(), kNever, then, false);
        meeting.run(GetParam(), kNever, then, false);
        ASSERT_EQ(meeting.fused, 2) << "what is to be disturbed works";
        const int stops = meeting.seen;
        ASSERT_GT(stops, 50);
        // An odd pace: before a call and after one, in turn. A kill costs a new victim, and who is killed
        // after a call is hardly further than before the next one.
        const int pace = all_places() ? 1 : then == Then::kKilled ? 6 : 3;
        for (int place = 0; place < stops + 2; place += pace) {
            meeting.run(GetParam(), place, then, place % 4 < 2);
            ASSERT_FALSE(HasFailure())
                << (then == Then::kKilled ? "killed " : "halted ") << meeting.where << " of " << stops;
        }
        printf("%s at %d places; fused: %d of %d\n", then == Then::kKilled ? "killed" : "halted", stops,
               meeting.fused, meeting.connections);
    }
}

/// Where the impostor finds what to be at.
struct Scene {
    std::atomic<uint32_t> from;
    std::atomic<uint32_t> to;
    std::atomic<uint32_t> turns;  ///< how often it has tried all that it can
    std::atomic<uint32_t> rests;  ///< how often it had nothing to be at, and held nothing
};

/// One that tries all it can, in turn, while an end stands still: takes the one name and the other, comes to
/// the offer with and without the answer's name, says all that a good peer would, and what a good peer has
/// said on other links; lets go of it again, or keeps it until the next connection.
class Player {
public:
    explicit Player(Scene& scene) : scene_(scene) {}

    void operator()(Loot& loot) {
        const uint32_t from = scene_.from.load();
        if (from == 0 || from != from_) {
            let_go();
            from_ = from;
            ++round_;
        }
        if (from == 0) {
            scene_.rests.fetch_add(1);
            usleep(100);
            return;
        }
        const Tuple tuple{local(from), local(scene_.to.load())};
        if (offer_ < 0)
            offer_ = listen_link(tuple);
        if (offer_ >= 0)
            talk(taken_, taken_ < 0 ? accept4(offer_, nullptr, nullptr, SOCK_NONBLOCK) : -1, tuple, false,
                 loot);
        else
            talk(link_, link_ < 0 ? connect_link(tuple, round_ % 2 == 0) : -1, tuple, true, loot);
        if (round_ % 3 == 0)
            let_go();
        scene_.turns.fetch_add(1);
    }

private:
    void talk(int& link, int fresh, const Tuple& tuple, bool as_acceptor, Loot& loot) {
        if (fresh >= 0) {
            link = fresh;
            ++loot.links;
            if (!heard_.empty() && round_ % 2 == 0)
                send_raw(link, heard_.data(), heard_.size(), {});
        }
        if (link < 0)
            return;
        speak(link, tuple, as_acceptor);
        unsigned char bytes[sizeof(Message)];
        if (recv(link, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT) == sizeof bytes)
            heard_.assign(reinterpret_cast<char*>(bytes), sizeof bytes);
        read_all(link, loot);
    }

    void let_go() {
        for (int* fd : {&offer_, &taken_, &link_}) {
            if (*fd >= 0)
                close(*fd);
            *fd = -1;
        }
    }

    Scene& scene_;
    uint32_t from_ = 0;
    unsigned round_ = 0;
    int offer_ = -1;
    int taken_ = -1;
    int link_ = -1;
    std::string heard_;
};

class HaltedBeforeStrangers : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(HaltedBeforeStrangers, AtEachCall) {
    const auto [who, uid] = GetParam();
    if (uid != 0 && geteuid() != 0)
        GTEST_SKIP() << "needs another user";
    void* const memory =
        mmap(nullptr, sizeof(Scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    Scene& scene = *new (memory) Scene{};
    Player player(scene);
    Impostor impostor([&](Loot& loot) { player(loot); }, static_cast<uid_t>(uid));
    Meeting meeting;
    meeting.run(who, kNever, Then::kGoesOn, false);
    meeting.run(who, kNever, Then::kGoesOn, false);
    meeting.stranger_leaves = [&] {
        scene.from.store(0);
        const uint32_t rests = scene.rests.load();
        for (int i = 0; i < 20'000 && scene.rests.load() < rests + 2; ++i)
            usleep(100);
    };
    meeting.stranger = [&](Meeting& at) {
        const uint32_t turns = scene.turns.load();
        scene.to.store(static_cast<uint32_t>(at.service));
        scene.from.store(static_cast<uint32_t>(at.from));
        for (int i = 0; i < 20'000 && scene.turns.load() < turns + 3; ++i)
            usleep(100);
        ASSERT_GE(scene.turns.load(), turns + 3);
    };
    const int stops = meeting.seen;
    // An odd pace: before a call and after one, in turn.
    for (int place = 0; place < stops; place += all_places() ? 1 : 9) {
        meeting.run(who, place, Then::kGoesOn, false);
        ASSERT_FALSE(HasFailure()) << "halted " << meeting.where << " of " << stops;
    }
    const Loot loot = impostor.end();
    EXPECT_EQ(loot.descriptors, 0);
    EXPECT_LE(loot.bytes, loot.links * 2 * static_cast<int>(sizeof(Message)));
    EXPECT_GE(loot.links, 10) << "it met them";
    printf("met them %d times, was told %d bytes; fused in spite of it: %d of %d\n", loot.links, loot.bytes,
           meeting.fused, meeting.connections);
    munmap(memory, sizeof(Scene));
}

INSTANTIATE_TEST_SUITE_P(TheEndThat, HaltedBeforeStrangers,
                         testing::Combine(testing::Values(0, 1), testing::Values(0, 65534)),
                         [](const auto& one) {
                             return std::string(std::get<0>(one.param) == 0 ? "Connects" : "Accepts") +
                                    (std::get<1>(one.param) == 0 ? "ToOneOfTheSameUser" : "ToAnotherUser");
                         });

INSTANTIATE_TEST_SUITE_P(TheEndThat, Halted, testing::Values(0, 1),
                         [](const auto& one) { return one.param == 0 ? "Connects" : "Accepts"; });

}  // namespace
}  // namespace loopfast::hostile
