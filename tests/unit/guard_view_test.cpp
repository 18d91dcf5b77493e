// The guard's page as others read it, written by nobody or by a guard that stands still.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "base/clock.h"
#include "policy/guard_view.h"

namespace loopfast {
namespace {

constexpr uint64_t kSomebody = 4711;

TEST(GuardView, WaitsOnceForAGuardThatStandsStillInAChange) {
    const auto page = std::make_unique<GuardPage>();
    page->word = uint64_t{3} << 32 | kSomebody;
    const int64_t begin = now_ns();
    EXPECT_TRUE(read_guard(*page, 0).objects) << "in doubt";
    const int64_t once = now_ns() - begin;
    for (int i = 0; i < 500; ++i) {
        const GuardState state = read_guard(*page, 0);
        ASSERT_TRUE(state.objects && state.alive);
    }
    EXPECT_LT(now_ns() - begin - once, 20 * once) << "waited again and again";
    // It goes on, and stands still again.
    page->word = uint64_t{4} << 32 | kSomebody;
    EXPECT_FALSE(read_guard(*page, 0).objects);
    page->word = uint64_t{5} << 32 | kSomebody;
    EXPECT_TRUE(read_guard(*page, 0).objects);
    page->word = uint64_t{5} << 32 | FUTEX_OWNER_DIED;
    EXPECT_FALSE(read_guard(*page, 0).alive);
    page->word = 0;
    EXPECT_FALSE(read_guard(*page, 0).alive);
    EXPECT_FALSE(read_guard(*page, 0).objects);
}

TEST(GuardView, BelievesNoNumberBeyondItsBounds) {
    const auto page = std::make_unique<GuardPage>();
    page->word = uint64_t{2} << 32 | kSomebody;
    page->count = page->more = ~0U;
    memset(page->objections, 'x', sizeof page->objections);
    Findings findings;
    EXPECT_TRUE(read_guard(*page, findings));
    EXPECT_EQ(findings.count, Findings::kMost);
    page->count = 0;
    page->cgroup_count = ~0U;
    memset(&page->cgroup_objection, 'x', sizeof page->cgroup_objection);
    const GuardState state = read_guard(*page, 7);
    EXPECT_TRUE(state.objects) << "more than there is room for: all";
    EXPECT_LT(strlen(state.objection.text), sizeof state.objection.text);
}

}  // namespace
}  // namespace loopfast
