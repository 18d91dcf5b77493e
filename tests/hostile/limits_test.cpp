// What a peer can make the victim hold, measured: a test for each row of the table of limits in
// docs/security.md, with the factor that stands there. Where TCP has the same resource it is measured beside
// it, on a victim that did not opt in.
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "attacker.h"
#include "base/clock.h"

namespace loopfast::hostile {
namespace {

constexpr long kMebibyte = 1 << 20;
constexpr uint64_t kLargeRing = 16 * kMebibyte;
/// Of the process, whatever the number of connections: the steward's two, the file that tells of captures,
/// and the socket that tells of changed addresses and routes.
constexpr long kOnce = 4;

/// Fuses a victim that connects, by a segment larger than any that the library makes by itself.
std::unique_ptr<Attack> fuse_with_large_segment(Victim& victim, uint64_t capacity = kLargeRing) {
    auto attack = std::make_unique<Attack>(victim, Attack::kVictimConnects);
    Forged large;
    large.size = segment_size(capacity);
    large.header.capacity = capacity;
    attack->memory = large.make();
    void* const at =
        mmap(nullptr, segment_size(capacity), PROT_READ | PROT_WRITE, MAP_SHARED, attack->memory, 0);
    if (at == MAP_FAILED || !attack->shake_hands() ||
        !send_message(attack->link, attack->good_message(kProposal), attack->memory))
        return nullptr;
    attack->segment = {static_cast<Segment*>(at), capacity};
    attack->publish_cut();
    attack->bell();
    for (int i = 0; i < 64; ++i) {
        victim.ask("recv 1 64");
        usleep(1000);
        if (!attack->theirs().producer.cut.load(std::memory_order_acquire).equals(kNoCut))
            return attack;
    }
    return nullptr;
}

/// Bytes that the victim can send before it is told to wait.
long fill(Victim& victim) {
    long sum = 0;
    for (int i = 0; i < 1000; ++i) {
        const long sent = victim.result("send 1000000 64");
        if (sent <= 0)
            break;
        sum += sent;
    }
    return sum;
}

TEST(Limits, MemoryInFlightToThePeer) {
    Victim victim;
    const auto attack = fuse_with_large_segment(victim);
    ASSERT_NE(attack, nullptr);
    attack->our_side().receive_size.store(uint64_t{1} << 40, std::memory_order_seq_cst);
    const long held = fill(victim);
    Victim plain;
    plain.result("unmarked 1");
    const Attack tcp(plain, Attack::kVictimConnects);
    const long by_tcp = fill(plain);
    RecordProperty("ring_bytes", std::to_string(held));
    RecordProperty("tcp_bytes", std::to_string(by_tcp));
    EXPECT_GT(held, kMebibyte);
    constexpr double kFactor = 2.5;
    EXPECT_LE(held, kFactor * std::max(by_tcp, 4 * kMebibyte));
}

TEST(Limits, MemoryFromThePeer) {
    Victim victim;
    const auto attack = fuse_with_large_segment(victim);
    ASSERT_NE(attack, nullptr);
    ASSERT_EQ(victim.ask("recv 1 64").error, EAGAIN);
    const long own = victim.result("private");
    const long all = victim.result("resident");
    // All of it is touched by the maker, who is charged.
    memset(attack->our_data(), 'x', kLargeRing);
    attack->write_ring("hello");
    EXPECT_EQ(victim.ask("recv 100").bytes, "hello");
    victim.result("poll 5 0");
    EXPECT_LE(victim.result("private") - own, 256) << "KiB";
    EXPECT_LE(victim.result("resident") - all, 1024) << "KiB, also of what is shared";
}

/// Pages that the maker left alone are the reader's. So there may be three times what tcp_rmem allows, not
/// more.
TEST(Limits, MemoryThatThePeerDidNotTouch) {
    Victim victim;
    EXPECT_EQ(fuse_with_large_segment(victim, 2 * kLargeRing), nullptr);
    EXPECT_EQ(victim.result("lane"), 0) << "one that is larger is refused";
    const auto attack = fuse_with_large_segment(victim);
    ASSERT_NE(attack, nullptr);
}

TEST(Limits, TheQueueOfTheLink) {
    Victim victim;
    const auto attack = fuse_with_large_segment(victim);
    ASSERT_NE(attack, nullptr);
    // A victim that makes no call reads none; so many are taken until the sender's own buffer is full.
    const std::string rubbish(4000, 'f');
    while (::send(attack->link, rubbish.data(), rubbish.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
    }
    EXPECT_EQ(errno, EAGAIN);
    int queued = 0;
    int size = 0;
    socklen_t length = sizeof size;
    ASSERT_EQ(ioctl(attack->link, SIOCOUTQ, &queued), 0);
    ASSERT_EQ(getsockopt(attack->link, SOL_SOCKET, SO_SNDBUF, &size, &length), 0);
    // The kernel charges the sender for it, with what the last part took beyond the limit.
    EXPECT_GT(queued, size / 2);
    EXPECT_LE(queued, size + 16 * 1024);
}

TEST(Limits, DescriptorsForAConnection) {
    Victim victim;
    std::vector<std::unique_ptr<Attack>> attacks;
    const long before = victim.result("descriptors");
    constexpr long kConnections = 10;
    for (long i = 0; i < kConnections; ++i) {
        attacks.push_back(std::make_unique<Attack>(victim, Attack::kVictimAccepts,
                                                   [](Attack& a) { a.offer = listen_link(a.tuple); }));
        ASSERT_TRUE(attacks.back()->fuse());
    }
    constexpr long kFactor = 2;
    const long held = victim.result("descriptors") - before;
    EXPECT_LE(held, kFactor * kConnections + kOnce);
    EXPECT_GE(held, kFactor * kConnections) << "or this measures nothing";
}

TEST(Limits, DescriptorsDuringAMeeting) {
    Victim victim;
    const long before = victim.result("descriptors");
    Attack attack(victim, Attack::kVictimConnects);
    EXPECT_LE(victim.result("descriptors") - before, 2 + kOnce) << "the socket and the offer";
    attack.link = connect_link(attack.tuple);
    ASSERT_GE(attack.link, 0);
    victim.result("calls 10");
    EXPECT_LE(victim.result("descriptors") - before, 3 + kOnce) << "and the link";
    // Any number of strangers adds nothing.
    std::vector<int> links;
    for (int i = 0; i < 200; ++i) {
        const int link = connect_link(attack.tuple, false);
        if (link >= 0)
            links.push_back(link);
        victim.result("calls 3");
        EXPECT_LE(victim.result("descriptors") - before, 3 + kOnce);
    }
    for (const int link : links)
        close(link);
}

/// Whether it comes true while the victim's own thread goes on.
bool in_time(const std::function<bool()>& condition) {
    for (const int64_t end = now_ns() + 20'000'000'000; now_ns() < end; usleep(5000))
        if (condition())
            return true;
    return condition();
}

TEST(Limits, LinksOfStrangers) {
    Victim victim;
    const long before = victim.result("descriptors");
    Attack attack(victim, Attack::kVictimConnects);
    // The backlog, of which the kernel takes one more, and the one that is looked at. Others are refused, or
    // turned away by a call of the victim's or by its steward.
    constexpr int kMostHeld = 8 + 1 + 1;
    std::vector<int> links;
    const auto held = [&] {
        return std::count_if(links.begin(), links.end(), [](int link) {
            pollfd one{link, 0, 0};
            return poll(&one, 1, 0) == 0;
        });
    };
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 100; ++i)
            if (const int link = connect_link(attack.tuple, false); link >= 0)
                links.push_back(link);
        EXPECT_TRUE(in_time([&] { return held() <= kMostHeld; })) << held() << " are held";
        EXPECT_LE(victim.result("descriptors") - before, 3 + kOnce);
        victim.result("calls 1");
    }
    EXPECT_GE(links.size(), 8U);
    victim.result("calls 100");
    EXPECT_TRUE(in_time([&] { return held() == 0; })) << "all are turned away";
    for (const int link : links)
        close(link);
}

/// Processor time of the victim for so many calls that find nothing.
int64_t time_of_calls(Victim& victim) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < 5; ++i)
        best = std::min(best, victim.ask("calls 40000", 20'000).cpu_us);
    return best;
}

TEST(Limits, ASilentPeer) {
    Victim victim;
    Attack attack(victim, Attack::kVictimConnects);
    attack.link = connect_link(attack.tuple);
    ASSERT_GE(attack.link, 0);
    victim.result("calls 200");
    Victim plain;
    plain.result("unmarked 1");
    const Attack tcp(plain, Attack::kVictimConnects);
    int64_t silent = 0;
    int64_t by_tcp = 1;
    // Side by side, as in Bells below.
    for (int round = 0; round < 4; ++round) {
        silent = time_of_calls(victim);
        by_tcp = time_of_calls(plain);
        if (silent <= 2 * by_tcp)
            break;
    }
    RecordProperty("per_mille", std::to_string(silent * 1000 / by_tcp));
    EXPECT_LE(silent, 2 * by_tcp);
}

TEST(Limits, APeerThatBeginsAgain) {
    Victim victim;
    Attack attack(victim, Attack::kVictimAccepts, [](Attack& a) { a.offer = listen_link(a.tuple); });
    int meetings = 0;
    for (int i = 0; i < 300; ++i) {
        const std::string text(200, 't');
        ASSERT_EQ(::send(attack.tcp, text.data(), text.size(), MSG_NOSIGNAL), 200);
        victim.ask("recv 200");
        victim.ask("recv 1 64");
        // It has come, and is sent away.
        for (int link; (link = accept4(attack.offer, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;
             ++meetings)
            close(link);
    }
    RecordProperty("meetings", meetings);
    EXPECT_GE(meetings, 1) << "or this measures nothing";
    EXPECT_LE(meetings, 13);
    EXPECT_EQ(victim.result("lane"), 0);
}

/// Processor time of the victim for each time that `wake` wakes it out of one receive.
double time_of_wakes(Victim& victim, const std::string& receive, const std::function<void()>& wake) {
    double best = 1e9;
    victim.result("timeout 250");
    for (int i = 0; i < 3; ++i) {
        std::atomic<bool> done{false};
        long count = 0;
        std::thread waker([&] {
            while (!done.load()) {
                wake();
                ++count;
                usleep(100);
            }
        });
        const Answer answer = victim.ask(receive);
        done = true;
        waker.join();
        best = std::min(best, static_cast<double>(answer.cpu_us) / static_cast<double>(count));
    }
    return best;
}

/// The same for a bell, of a victim with this setting.
double time_of_bells(const char* setting) {
    Victim victim(0, setting);
    const auto attack = fuse_with_large_segment(victim);
    EXPECT_NE(attack, nullptr);
    return attack == nullptr ? 1e9 : time_of_wakes(victim, "recv 10", [&] { attack->bell(); });
}

/// A bell and the wake-up, without the spin that may follow: that is no matter of how many there are.
TEST(Limits, Bells) {
    Victim plain;
    plain.result("unmarked 1");
    Attack tcp(plain, Attack::kVictimConnects);
    constexpr double kFactor = 2;
    double bell = 0;
    double packet = 0;
    // What else runs on the machine changes how many of them wake anybody: the two are taken side by side,
    // and a limit that holds shows once.
    for (int round = 0; round < 4; ++round) {
        bell = time_of_bells("LOOPFAST_SPIN=off");
        packet = time_of_wakes(plain, "recv 1000000 256",  // MSG_WAITALL
                               [&] { ::send(tcp.tcp, "b", 1, MSG_DONTWAIT | MSG_NOSIGNAL); });
        if (bell <= kFactor * packet)
            break;
    }
    RecordProperty("bell_ns", static_cast<int>(bell * 1000));
    RecordProperty("packet_ns", static_cast<int>(packet * 1000));
    EXPECT_LE(bell, kFactor * packet);
}

/// A spin belongs to a sleep, and is no longer than its setting says.
TEST(Limits, SpinsForBells) {
    constexpr double kMicroseconds = 50;
    double with = 0;
    double without = 0;
    for (int round = 0; round < 4; ++round) {
        with = time_of_bells("LOOPFAST_SPIN=auto");
        without = time_of_bells("LOOPFAST_SPIN=off");
        if (with <= without + kMicroseconds)
            break;
    }
    RecordProperty("with_ns", static_cast<int>(with * 1000));
    RecordProperty("without_ns", static_cast<int>(without * 1000));
    EXPECT_LE(with, without + kMicroseconds);
}

}  // namespace
}  // namespace loopfast::hostile
