// Looks at filters and captures for which memory or descriptors do not suffice: what was seen before holds
// for a while, so that no connection leaves the ring for it; nothing new is fused meanwhile; and it does not
// hold for ever.
#include <sys/mman.h>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/inject.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

constexpr int kMany = 1'000'000;

/// Bytes that pass, one by one, for so long: each exchange is an occasion to look. @return true if all
/// arrived.
bool exchange_for(StreamPair& pair, int milliseconds) {
    const int64_t end = now_ns() + milliseconds * int64_t{1'000'000};
    while (now_ns() < end) {
        char byte = 'x';
        if (door_send(pair.connector_fd(), &byte, 1) != 1 || door_receive(pair.acceptor_fd(), &byte, 1) != 1)
            return false;
        usleep(1000);
    }
    return true;
}

struct Fault {
    const char* name;
    long number;
    int error;
};

class IncompleteLook : public ::testing::TestWithParam<Fault> {
protected:
    void SetUp() override { start_library(); }
    void TearDown() override { injected_faults(); }
};

TEST_P(IncompleteLook, LeavesWhatIsFusedWhereItIs) {
    StreamPair fused;
    for (int i = 0; i < 50 && !both_in_ring(fused.connector()); ++i) {
        fused.settle();
        usleep(20'000);
    }
    ASSERT_TRUE(both_in_ring(fused.connector()));
    // Long enough for several looks at everything.
    inject_fault(GetParam().number, GetParam().error, kMany);
    ASSERT_TRUE(exchange_for(fused, 450));
    EXPECT_TRUE(both_in_ring(fused.connector()) && both_in_ring(fused.acceptor()));
    {
        StreamPair fresh;
        EXPECT_FALSE(fresh.settle()) << "a new one must not be fused on what was seen before";
        EXPECT_EQ(fresh.connector().shared->reason.load(), static_cast<uint32_t>(Reason::kLimit));
    }
    EXPECT_GT(injected_faults(), 0);
    ASSERT_TRUE(exchange_for(fused, 200));
    EXPECT_TRUE(both_in_ring(fused.connector()) && both_in_ring(fused.acceptor()));
    StreamPair again;
    EXPECT_TRUE(again.settle()) << "and when it can be seen again, new ones are";
}

TEST(IncompleteLooks, HoldForALimitedTime) {
    start_library();
    StreamPair fused;
    for (int i = 0; i < 50 && !both_in_ring(fused.connector()); ++i) {
        fused.settle();
        usleep(20'000);
    }
    ASSERT_TRUE(both_in_ring(fused.connector()));
    inject_fault(SYS_socket, EMFILE, kMany);
    ASSERT_TRUE(exchange_for(fused, 2600));
    // Later on a machine that lets nobody look for a while.
    for (int i = 0; i < 50 && (fused.connector().state() != State::kKernel ||
                               fused.acceptor().state() != State::kKernel);
         ++i)
        ASSERT_TRUE(exchange_for(fused, 100));
    EXPECT_EQ(fused.connector().state(), State::kKernel);
    EXPECT_EQ(fused.acceptor().state(), State::kKernel);
    EXPECT_GT(injected_faults(), 0);
    // What was in doubt is found to be nothing.
    exchange_for(fused, 50);
    for (int i = 0; i < 50; ++i) {
        StreamPair other;
        if (other.settle())
            return;
        usleep(20'000);
    }
    FAIL() << "nothing is fused any more";
}

INSTANTIATE_TEST_SUITE_P(
    ForWantOf, IncompleteLook,
    ::testing::Values(Fault{"Memory", SYS_sendto, ENOBUFS}, Fault{"Descriptors", SYS_socket, EMFILE},
                      Fault{"Interruptions", SYS_pread64, EINTR},
                      // The namespace, and the legacy tables.
                      Fault{"Options", SYS_getsockopt, ENOMEM},
                      // What netlink answers: rules, devices, whose group a socket is of.
                      Fault{"Answers", SYS_recvfrom, ENOBUFS},
                      // The process's control group.
                      Fault{"Files", SYS_openat, ENFILE}),
    [](const auto& fault) { return std::string(fault.param.name); });

}  // namespace
}  // namespace loopfast
