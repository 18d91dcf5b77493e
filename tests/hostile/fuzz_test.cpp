// A scribbler: for some seconds it writes random values on random words of the mapping that it shares with
// the victim, rings, talks TCP and now and then hangs up, while the victim does random operations. The victim
// neither crashes nor hangs nor waits longer than it was told to, its own other connection is not touched,
// and at the end it exits at once. LOOPFAST_FUZZ_SEED and LOOPFAST_FUZZ_SECONDS choose a run.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "attacker.h"
#include "base/clock.h"

namespace loopfast::hostile {
namespace {

uint64_t number_from(const char* name, uint64_t otherwise) {
    const char* const text = getenv(name);
    return text != nullptr ? strtoull(text, nullptr, 10) : otherwise;
}

class Scribbler {
public:
    Scribbler(Attack& attack, uint64_t seed) : attack_(attack), random_(seed), thread_([this] { run(); }) {}
    ~Scribbler() {
        done_ = true;
        thread_.join();
    }
    Scribbler(const Scribbler&) = delete;
    Scribbler& operator=(const Scribbler&) = delete;

private:
    uint64_t word(size_t offset) const {
        uint64_t value;
        memcpy(&value, memory() + offset, sizeof value);
        return value;
    }
    char* memory() const { return reinterpret_cast<char*>(attack_.segment.segment); }

    uint64_t draw() {
        const size_t somewhere = random_() % (sizeof(Segment) / 8) * 8;
        const uint64_t near = word(somewhere);
        switch (random_() % 10) {
        case 0:
            return 0;
        case 1:
            return ~uint64_t{0};
        case 2:
            return near + random_() % 5 - 2;
        case 3:
            return near + kDefaultCapacity;
        case 4:
            return near - random_() % kDefaultCapacity;
        case 5:
            return near << 3 | (random_() & 7);
        case 6:
            return near + random_() % 300'000;
        case 7:
            return random_() % (2 * kDefaultCapacity);
        case 8:
            return uint64_t{1} << random_() % 64;
        default:
            return random_();
        }
    }

    void run() {
        // At different paces, from a word now and then, which leaves the victim time to go on with it, to all
        // the time.
        const uint64_t pace = random_() % 4;
        std::vector<char> bytes(65536);
        while (!done_.load(std::memory_order_relaxed)) {
            switch (random_() % 64) {
            case 0:
                attack_.bell();
                break;
            case 1:
                ::send(attack_.tcp, bytes.data(), random_() % 100, MSG_DONTWAIT | MSG_NOSIGNAL);
                break;
            case 2:
                ::recv(attack_.tcp, bytes.data(), bytes.size(), MSG_DONTWAIT);
                break;
            case 3:
                // Zero the whole, as a punched hole does; rarely.
                if (random_() % 1000 == 0)
                    fallocate(attack_.memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                              static_cast<off_t>(segment_size(kDefaultCapacity)));
                break;
            case 4:
                memset(memory() + kControlSize + random_() % (2 * kDefaultCapacity - 1024),
                       static_cast<int>(random_()), 1024);
                break;
            default: {
                const size_t size = random_() % 2 == 0 ? 8 : 4;
                const uint64_t value = draw();
                memcpy(memory() + random_() % (sizeof(Segment) / size) * size, &value, size);
            }
            }
            if (pace == 1)
                for (uint64_t i = random_() % 2000; i > 0; --i)
                    pause_cpu();
            else if (pace >= 2)
                usleep(static_cast<useconds_t>(random_() % (pace == 2 ? 200 : 5000)));
        }
    }

    Attack& attack_;
    std::mt19937_64 random_;
    std::atomic<bool> done_{false};
    std::thread thread_;
};

class Fuzz : public ::testing::TestWithParam<Attack::Side> {};

TEST_P(Fuzz, VictimSurvives) {
    const uint64_t first = number_from("LOOPFAST_FUZZ_SEED", 1);
    const uint64_t seconds = number_from("LOOPFAST_FUZZ_SECONDS", 10);
    Victim victim;
    NothingLeaks leaks(victim);
    const int64_t end = now_ns() + static_cast<int64_t>(seconds) * 1'000'000'000;
    uint64_t seed = first;
    for (; now_ns() < end; ++seed) {
        SCOPED_TRACE(testing::Message() << "seed " << seed);
        {
            Attack attack(victim, GetParam(), [](Attack& a) { a.offer = listen_link(a.tuple); });
            ASSERT_TRUE(attack.fuse());
            std::mt19937_64 random(seed);
            const Scribbler scribbler(attack, seed);
            const Answer answer =
                victim.ask("random " + std::to_string(50 + random() % 200) + " " + std::to_string(seed));
            ASSERT_TRUE(answer.came) << (victim.alive() ? "the victim hangs" : "the victim died");
            EXPECT_LT(answer.result, kInTime) << "one operation took that many microseconds";
            if (seed % 3 == 0) {
                // The link goes while the scribbling goes on.
                const int link = attack.link;
                attack.link = -1;
                close(link);
                const Answer later = victim.ask("random 60 " + std::to_string(seed));
                ASSERT_TRUE(later.came) << (victim.alive() ? "the victim hangs" : "the victim died");
                EXPECT_LT(later.result, kInTime);
            }
        }
        ASSERT_TRUE(victim.ask("close").came);
        ASSERT_EQ(victim.result("own"), 0) << "its own connection";
    }
    std::printf("seeds %llu to %llu\n", static_cast<unsigned long long>(first),
                static_cast<unsigned long long>(seed));
    leaks.check(8);  // the connection to itself with its links, and the thread's set
    EXPECT_TRUE(victim.exits());
}

INSTANTIATE_TEST_SUITE_P(Hostile, Fuzz, ::testing::Values(Attack::kVictimConnects, Attack::kVictimAccepts),
                         [](const auto& test) {
                             return test.param == Attack::kVictimConnects ? "victim_connects"
                                                                          : "victim_accepts";
                         });

}  // namespace
}  // namespace loopfast::hostile
