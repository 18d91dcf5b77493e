// The copy that survives bad pointers: every size and alignment against memcpy, faults at every place, and
// what a ring makes of them. The handler is a small one of this test's own; the real one is in posix/.
#include "base/copy.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "ring_memory.h"

namespace loopfast {
namespace {

constexpr size_t kPage = 4096;

void on_fault(int, siginfo_t*, void* context) {
    auto* const machine = static_cast<ucontext_t*>(context);
#if defined(__x86_64__)
    auto& counter = machine->uc_mcontext.gregs[REG_RIP];
#else
    auto& counter = machine->uc_mcontext.pc;
#endif
    if (!in_copy(static_cast<uintptr_t>(counter)))
        _exit(66);
    counter = static_cast<std::remove_reference_t<decltype(counter)>>(
        reinterpret_cast<uintptr_t>(loopfast_copy_fault));
}

class Copy : public ::testing::Test {
protected:
    static void SetUpTestSuite() {
        struct sigaction action {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &action, nullptr);
        sigaction(SIGBUS, &action, nullptr);
    }
    void SetUp() override {
        // good | forbidden | good
        base_ = static_cast<unsigned char*>(
            mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        ASSERT_NE(base_, MAP_FAILED);
        ASSERT_EQ(mprotect(base_ + kPage, kPage, PROT_NONE), 0);
    }
    void TearDown() override { munmap(base_, 3 * kPage); }
    unsigned char* end_of_good() const { return base_ + kPage; }
    unsigned char* base_ = nullptr;
};

TEST_F(Copy, EverySizeAndAlignment) {
    std::vector<unsigned char> from(3000);
    std::mt19937 random(1);
    for (auto& byte : from)
        byte = static_cast<unsigned char>(random());
    std::vector<unsigned char> to(3200);
    for (size_t size = 0; size <= 2100; ++size) {
        for (const size_t a : {0, 1, 7}) {
            const size_t b = (a * 5 + size) % 64;
            std::fill(to.begin(), to.end(), 0xee);
            ASSERT_EQ(loopfast_copy(to.data() + 32 + a, from.data() + b, size), 0);
            ASSERT_EQ(memcmp(to.data() + 32 + a, from.data() + b, size), 0) << size;
            for (size_t i = 0; i < 32; ++i) {
                ASSERT_EQ(to[i], 0xee) << size;
                ASSERT_EQ(to[32 + a + size + i], 0xee) << size;
            }
        }
    }
}

TEST_F(Copy, NothingIsNothingEvenAtBadPointers) {
    EXPECT_EQ(loopfast_copy(nullptr, nullptr, 0), 0);
    EXPECT_EQ(loopfast_copy(end_of_good(), end_of_good(), 0), 0);
}

TEST_F(Copy, FaultsWhereverTheyAre) {
    std::vector<unsigned char> other(3 * kPage);
    for (const size_t size :
         {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 1023, 1024, 1025, 4000}) {
        // Ends exactly before the bad page: good. One byte further, or all of it: bad.
        EXPECT_EQ(loopfast_copy(other.data(), end_of_good() - size, size), 0) << size;
        EXPECT_EQ(loopfast_copy(end_of_good() - size, other.data(), size), 0) << size;
        for (const size_t over : {size_t{1}, size / 2 + 1, size}) {
            EXPECT_EQ(loopfast_copy(other.data(), end_of_good() - size + over, size), 1)
                << size << ' ' << over;
            EXPECT_EQ(loopfast_copy(end_of_good() - size + over, other.data(), size), 1)
                << size << ' ' << over;
        }
        // Begins in the bad page.
        EXPECT_EQ(loopfast_copy(other.data(), base_ + 2 * kPage - 1, size), 1) << size;
        EXPECT_EQ(loopfast_copy(base_ + 2 * kPage - 1, other.data(), size), 1) << size;
        EXPECT_EQ(loopfast_copy(nullptr, other.data(), size), 1);
        EXPECT_EQ(loopfast_copy(other.data(), nullptr, size), 1);
        EXPECT_EQ(loopfast_copy(reinterpret_cast<void*>(-kPage), other.data(), size), 1);
    }
}

TEST_F(Copy, AddressesThatAreNoneAtAll) {
    unsigned char byte = 0;
    // Not canonical on x86-64: the processor says general protection rather than page fault.
    EXPECT_EQ(loopfast_copy(&byte, reinterpret_cast<void*>(uintptr_t{0x5a5a5a5a5a5a5a5a}), 1), 1);
    EXPECT_EQ(loopfast_copy(reinterpret_cast<void*>(uintptr_t{0x5a5a5a5a5a5a5a5a}), &byte, 1), 1);
}

TEST_F(Copy, WriteFromABadBufferLeavesTheRingAsItWas) {
    RingMemory ring(kDefaultCapacity);
    ASSERT_EQ(ring.fill(10, kDefaultCapacity), 10U);
    for (const size_t size : {100, 2000}) {
        const RingResult result = ring.write(end_of_good() - 50, size, kDefaultCapacity);
        EXPECT_EQ(result.status, RingResult::kFault);
        EXPECT_EQ(result.size, 0U);
    }
    ASSERT_EQ(ring.fill(300'000, kDefaultCapacity), 300'000U);
    EXPECT_TRUE(ring.drain());
}

TEST_F(Copy, ReadIntoABadBufferLosesNothing) {
    RingMemory ring(kDefaultCapacity);
    ASSERT_EQ(ring.fill(5000, kDefaultCapacity), 5000U);
    for (const auto mode : {RingReader::kPeek, RingReader::kConsume}) {
        EXPECT_EQ(ring.read(nullptr, 100, mode).status, RingResult::kFault);
        const RingResult result = ring.read(end_of_good() - 50, 100, mode);
        EXPECT_EQ(result.status, RingResult::kFault);
        EXPECT_EQ(result.size, 0U);
        EXPECT_EQ(ring.tail(), 0U);
    }
    EXPECT_TRUE(ring.drain());
}

TEST_F(Copy, ReadAcrossAWindowCountsWhatCameBeforeTheBadPart) {
    // Two contiguous pieces: the first one is delivered, the bad one stays for the next call.
    RingMemory ring(kDefaultCapacity);
    ASSERT_EQ(ring.fill(kSmallWindow + 1000, kDefaultCapacity), kSmallWindow + 1000);
    std::vector<unsigned char> good(kSmallWindow);
    const iovec parts[] = {{good.data(), good.size()}, {nullptr, 1000}};
    Buffers to(parts, 2);
    const RingResult result = ring.reader().read(&to, kSmallWindow + 1000, RingReader::kConsume);
    EXPECT_EQ(result.status, RingResult::kDone);
    EXPECT_EQ(result.size, kSmallWindow);
    EXPECT_EQ(first_wrong(good.data(), 0, good.size()), good.size());
    EXPECT_TRUE(ring.drain());
}

}  // namespace
}  // namespace loopfast
