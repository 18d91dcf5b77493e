// Descriptor -> stream: duplicates, closing, numbers that are used again, forks, and slots without end.
#include "table/table.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "stream_pair.h"

namespace loopfast {
namespace {

int tcp_socket() { return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }

uint32_t slots_used() {
    uint32_t count = 0;
    for (auto& word : arena()->used)
        count += static_cast<uint32_t>(__builtin_popcountll(word.load(std::memory_order_relaxed)));
    return count;
}

int dup_through_table(int fd) {
    const int copy = dup(fd);
    appeared(copy);
    duplicated(fd, copy);
    return copy;
}

TEST(Entry, Packs) {
    const TableEntry entry(EntryKind::kSet, 0x3fffffff, 0xfedcba98);
    EXPECT_EQ(entry.kind(), EntryKind::kSet);
    EXPECT_EQ(entry.index(), 0x3fffffffU);
    EXPECT_EQ(entry.generation(), 0xfedcba98U);
    EXPECT_EQ(TableEntry(entry.packed()).packed(), entry.packed());
    EXPECT_EQ(TableEntry().kind(), EntryKind::kNone);
}

TEST(Table, NumbersThatAreNone) {
    for (const int fd : {-1, -1000, INT32_MAX, static_cast<int>(kMostDescriptors), 1'000'000}) {
        EXPECT_EQ(find_stream(fd), nullptr) << fd;
        EXPECT_EQ(find(fd).kind(), EntryKind::kNone) << fd;
    }
    EXPECT_EQ(make_stream(-1), nullptr);
    EXPECT_EQ(make_stream(static_cast<int>(kMostDescriptors)), nullptr);
}

TEST(Table, AStreamLivesAsLongAsADescriptor) {
    const int fd = tcp_socket();
    Stream* const stream = make_stream(fd);
    ASSERT_NE(stream, nullptr);
    EXPECT_EQ(find_stream(fd), stream);
    EXPECT_EQ(stream->state(), State::kIdle);
    EXPECT_EQ(count_holders(*stream->shared), 1);
    const uint32_t before = slots_used();
    const int copy = dup_through_table(fd);
    const int another = dup_through_table(copy);
    EXPECT_EQ(find_stream(copy), stream);
    EXPECT_EQ(find_stream(another), stream);
    EXPECT_EQ(door_close(fd), 0);
    EXPECT_EQ(find_stream(fd), nullptr);
    EXPECT_EQ(find_stream(copy), stream);
    EXPECT_EQ(door_close(another), 0);
    EXPECT_EQ(slots_used(), before);
    EXPECT_EQ(door_close(copy), 0);
    EXPECT_EQ(slots_used(), before - 1);
}

TEST(Table, ANumberThatIsUsedAgainIsNotTheOldConnection) {
    const int fd = tcp_socket();
    const uint32_t generation = make_stream(fd)->generation;
    // Closed behind our back, by a raw system call; the kernel gives the number to somebody else.
    close(fd);
    ASSERT_EQ(tcp_socket(), fd);
    appeared(fd);
    EXPECT_EQ(find_stream(fd), nullptr);
    Stream* const stream = make_stream(fd);
    EXPECT_EQ(find_stream(fd), stream);
    EXPECT_NE(stream->generation, generation);
    door_close(fd);
}

TEST(Table, AnEntryThatOutlivedItsConnectionIsRecognised) {
    const int fd = tcp_socket();
    make_stream(fd);
    const TableEntry stale = find(fd);
    door_close(fd);
    const int other = tcp_socket();
    Stream* const stream = make_stream(other);
    ASSERT_EQ(stream->slot, stale.index()) << "the slot is used again";
    const int number = dup(0);
    set_entry(number, stale);
    EXPECT_EQ(find_stream(number), nullptr);
    set_entry(number, {});
    close(number);
    door_close(other);
}

TEST(Table, DuplicatesOfAFusedStream) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const int copy = dup_through_table(pair.connector_fd());
    pair.close_connector();
    EXPECT_EQ(door_send(copy, "by the copy", 11), 11);
    char text[16];
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 11);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text, MSG_DONTWAIT), -EAGAIN);
    door_close(copy);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 0);
}

TEST(Table, NextEntry) {
    const int fd = tcp_socket();
    make_stream(fd);
    int found = -1;
    bool seen = false;
    while ((found = next_entry(found)) >= 0)
        seen = seen || found == fd;
    EXPECT_TRUE(seen);
    door_close(fd);
    for (found = next_entry(-1); found >= 0; found = next_entry(found))
        EXPECT_NE(found, fd);
}

TEST(Table, EverySlot) {
    const uint32_t before = slots_used();
    std::vector<uint32_t> slots;
    std::set<uint32_t> distinct;
    for (int slot; (slot = take_slot()) >= 0;) {
        slots.push_back(static_cast<uint32_t>(slot));
        distinct.insert(static_cast<uint32_t>(slot));
        if (slots.size() > kSlots)
            break;
    }
    EXPECT_EQ(slots.size() + before, kSlots);
    EXPECT_EQ(distinct.size(), slots.size());
    const int fd = tcp_socket();
    EXPECT_EQ(make_stream(fd), nullptr) << "no slot: it stays an ordinary descriptor";
    EXPECT_EQ(find_stream(fd), nullptr);
    close(fd);
    for (const uint32_t slot : slots)
        free_slot(slot);
    EXPECT_EQ(slots_used(), before);
}

int status_of(pid_t child) {
    for (int i = 0; i < 1000; ++i) {
        int status = 0;
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
        usleep(10'000);
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    return -1;
}

/// As fork(2) through the library.
template <typename Body> pid_t relative(Body body) {
    before_fork();
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        after_fork_in_child();
        body();
        _exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    return child;
}

TEST(Fork, AChildThatOnlyInheritsDisturbsNothing) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const pid_t child = relative([] {});
    EXPECT_EQ(status_of(child), 0);
    EXPECT_EQ(door_send(pair.connector_fd(), "still", 5), 5);
    char text[8];
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 5);
    EXPECT_EQ(count_holders(*pair.connector().shared), 1) << "the dead one is forgotten";
}

TEST(Fork, EitherMayUseTheStreamAndItEndsWithTheLast) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    int go[2];
    ASSERT_EQ(pipe(go), 0);
    const int fd = pair.connector_fd();
    const pid_t child = relative([&] {
        char byte;
        EXPECT_EQ(read(go[0], &byte, 1), 1);
        EXPECT_EQ(door_send(fd, "child", 5), 5);
        EXPECT_EQ(door_receive(fd, &byte, 1), 1);
        door_close(fd);
    });
    EXPECT_EQ(count_holders(*pair.connector().shared), 2);
    EXPECT_EQ(door_send(fd, "parent", 6), 6);
    pair.close_connector();
    char text[16] = {};
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 6);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text, MSG_DONTWAIT), -EAGAIN) << "no end yet";
    ASSERT_EQ(write(go[1], "x", 1), 1);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 5);
    EXPECT_EQ(door_send(pair.acceptor_fd(), "y", 1), 1);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 0);
    EXPECT_EQ(status_of(child), 0);
    close(go[0]);
    close(go[1]);
}

TEST(Fork, BothReadAndEachByteGoesToOne) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    int report[2];
    ASSERT_EQ(pipe(report), 0);
    const int fd = pair.acceptor_fd();
    const int other = pair.connector_fd();
    pair.acceptor().shared->receive_timeout.store(300'000'000);
    const auto count_bytes = [&] {
        long total = 0;
        long size;
        char bytes[700];
        while ((size = door_receive(fd, bytes, sizeof bytes)) > 0)
            total += size;
        return total;
    };
    const pid_t child = relative([&] {
        const long total = count_bytes();
        EXPECT_EQ(write(report[1], &total, sizeof total), static_cast<ssize_t>(sizeof total));
    });
    char bytes[1000] = {};
    long sent = 0;
    for (int i = 0; i < 2000; ++i)
        sent += door_send(other, bytes, sizeof bytes, MSG_DONTWAIT) > 0 ? 1000 : 0;
    const long ours = count_bytes();
    long theirs = 0;
    ASSERT_EQ(read(report[0], &theirs, sizeof theirs), static_cast<ssize_t>(sizeof theirs));
    EXPECT_EQ(ours + theirs, sent);
    EXPECT_EQ(status_of(child), 0);
    close(report[0]);
    close(report[1]);
}

TEST(Fork, AChildOfVforkIsKnownToRunOnOurMemory) {
    EXPECT_FALSE(in_borrowed_memory());
    const pid_t child = fork();  // without the library's preparation: it still is somebody else
    if (child == 0)
        _exit(in_borrowed_memory() ? 0 : 1);
    EXPECT_EQ(status_of(child), 0);
}

}  // namespace
}  // namespace loopfast
