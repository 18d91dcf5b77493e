// More connections than there are hidden descriptors for, all at once: as many as the descriptors suffice for
// come to the ring, and the others stay on the kernel lane.
#include <sys/resource.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "base/hidden.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

constexpr rlim_t kOfTheProgram = 400;
constexpr rlim_t kRoomForOurs = 60;
/// The process's own: the steward's, the looks' and one to wait by.
constexpr size_t kOnce = 8;

TEST(Share, ManyAtOnceAreFusedAsFarAsTheDescriptorsGo) {
    const rlimit limit{kOfTheProgram, kOfTheProgram + kRoomForOurs};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        GTEST_SKIP() << "the limit cannot be set";
    // Root could have the hard limit raised. A leak sanitizer looks at this process at its end, as who it
    // was.
    const uid_t before = geteuid();
    ASSERT_TRUE(before != 0 || seteuid(65534) == 0);
    std::vector<std::unique_ptr<StreamPair>> pairs;
    for (int i = 0; i < 100; ++i)
        pairs.push_back(std::make_unique<StreamPair>());
    const auto exchange = [&](int sender) {
        char byte = 'x';
        for (const auto& pair : pairs)
            ASSERT_EQ(door_send(pair->fd(sender), &byte, 1), 1);
        for (const auto& pair : pairs)
            ASSERT_EQ(door_receive(pair->fd(1 - sender), &byte, 1), 1);
    };
    for (int round = 0; round < 400; ++round) {
        exchange(0);
        exchange(1);
    }
    size_t fused = 0;
    for (const auto& pair : pairs)
        fused += both_in_ring(pair->connector()) && both_in_ring(pair->acceptor()) ? 1 : 0;
    // A link for each end.
    EXPECT_GE(fused, (kRoomForOurs - kOnce) / 2);
    EXPECT_LE(fused, kRoomForOurs / 2);
    pairs.clear();
    EXPECT_EQ(seteuid(before), 0);
}

}  // namespace
}  // namespace loopfast
