// The guard's own looks, for which memory or descriptors do not suffice: what it saw the last time holds for
// a while, then it is in doubt, and that passes.
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/inject.h"
#include "guard/watcher.h"

namespace loopfast::guard {
namespace {

constexpr int kMany = 1'000'000;
constexpr int64_t kMillisecond = 1'000'000;

struct Fault {
    const char* name;
    long number;
    int error;
};

/// Looks as the guard does, for so long or until `enough` says so.
template <typename Enough> State looks(Watcher& watcher, int milliseconds, Enough enough) {
    const int64_t end = now_ns() + milliseconds * kMillisecond;
    State state = watcher.state();
    while (now_ns() < end && !enough(state)) {
        usleep(static_cast<useconds_t>(std::min(watcher.until_due() / 1000, int64_t{5000})));
        watcher.look({});
        state = watcher.state();
    }
    return state;
}

bool says(const State& state, const char* text) {
    for (uint32_t i = 0; i < state.everywhere.count; ++i)
        if (std::string(state.everywhere.list[i].text).find(text) != std::string::npos)
            return true;
    return false;
}

class GuardsLook : public ::testing::TestWithParam<Fault> {
protected:
    void SetUp() override {
        if (geteuid() != 0 || unshare(CLONE_NEWNET) != 0)
            GTEST_SKIP() << "only root may look, and in a network namespace of its own";
    }
    void TearDown() override { injected_faults(); }
};

TEST_P(GuardsLook, GoesByTheLastOneForAWhile) {
    Watcher watcher;
    const auto never = [](const State&) { return false; };
    watcher.look({});
    // In a new namespace lo is down: something that is there all the time.
    const State before = looks(watcher, 100, never);
    ASSERT_TRUE(says(before, "device: lo is down"));
    ASSERT_EQ(before.everywhere.count, 1U);
    const int64_t begin = now_ns();
    inject_fault(GetParam().number, GetParam().error, kMany);
    const auto doubts = [](const State& state) {
        return says(state, "has no memory or descriptors to look");
    };
    const State meanwhile = looks(watcher, 1500, doubts);
    EXPECT_TRUE(says(meanwhile, "device: lo is down"));
    EXPECT_FALSE(doubts(meanwhile));
    EXPECT_GT(injected_so_far(), 0);
    EXPECT_TRUE(doubts(looks(watcher, 6000, doubts)));
    EXPECT_GT(now_ns() - begin, 1900 * kMillisecond);
    injected_faults();
    const auto certain = [&](const State& state) { return state.everywhere.same_as(before.everywhere); };
    EXPECT_TRUE(certain(looks(watcher, 3000, certain)));
}

INSTANTIATE_TEST_SUITE_P(ForWantOf, GuardsLook,
                         ::testing::Values(Fault{"Descriptors", SYS_socket, EMFILE},
                                           Fault{"Interruptions", SYS_pread64, EINTR}),
                         [](const auto& fault) { return std::string(fault.param.name); });

}  // namespace
}  // namespace loopfast::guard
