// `loopfast status` reads another process's table from outside: here a child of our own, whose streams are
// made with the library's functions and filled in by hand.
#include "cli/connections.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include <gtest/gtest.h>

#include "cli/status.h"
#include "table/table.h"

namespace loopfast::cli {
namespace {

Endpoint endpoint(int family, const char* text, uint16_t port) {
    Endpoint result;
    result.family = static_cast<uint16_t>(family);
    result.port = htons(port);
    inet_pton(family, text, result.ip);
    return result;
}

/// A child that prepares something, says so, and waits to be killed.
class Prepared {
public:
    explicit Prepared(const std::function<void()>& prepare) {
        int ready[2];
        EXPECT_EQ(pipe(ready), 0);
        pid_ = fork();
        if (pid_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            prepare();
            EXPECT_EQ(write(ready[1], "", 1), 1);
            for (;;)
                pause();
        }
        char byte;
        EXPECT_EQ(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        close(ready[1]);
    }
    ~Prepared() {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    Scan scan() const { return scan_processes(pid_); }

private:
    pid_t pid_;
};

void make_fused_stream() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    Stream* stream = make_stream(fd);
    if (stream == nullptr)
        _exit(1);
    stream->role = Role::kAcceptor;
    int segment = -1;
    stream->segment = create_segment(kDefaultCapacity, segment);
    stream->out().producer.head.store(1000, std::memory_order_relaxed);
    stream->in().consumer.tail.store(2000, std::memory_order_relaxed);
    SharedHalf& shared = *stream->shared;
    shared.local = endpoint(AF_INET, "127.0.0.1", 6379);
    shared.remote = endpoint(AF_INET, "127.0.0.2", 4000);
    shared.role = static_cast<uint32_t>(Role::kAcceptor);
    shared.out_lane = Lane::kRing;
    shared.in_lane = Lane::kRing;
    shared.kernel_out = 1;
    shared.kernel_in = 2;
    shared.counters.messages_out = 3;
    shared.counters.messages_in = 4;
    shared.counters.bells = 5;
    shared.counters.sleeps = 6;
    shared.state = State::kFused;
    duplicated(fd, dup(fd));  // one connection still
}

void make_kernel_stream() {
    Stream* stream = make_stream(socket(AF_INET6, SOCK_STREAM, 0));
    if (stream == nullptr)
        _exit(1);
    SharedHalf& shared = *stream->shared;
    shared.local = endpoint(AF_INET6, "::1", 80);
    shared.remote = endpoint(AF_INET6, "::1", 4001);
    shared.role = static_cast<uint32_t>(Role::kConnector);
    shared.reason = LOOPFAST_REASON_PEER_NOT_OPTED_IN;
    shared.state = State::kKernel;
}

TEST(Connections, AreReadFromOutside) {
    const Prepared child([] {
        make_stream(socket(AF_INET, SOCK_STREAM, 0));  // not connected: nothing to show
        make_fused_stream();
        make_kernel_stream();
    });
    const Scan scan = child.scan();
    ASSERT_EQ(scan.processes.size(), 1u);
    const ProcessStatus status = read_connections(scan.processes[0]);
    if (status.note.find("not permitted") != std::string::npos)
        GTEST_SKIP() << "this host does not let a process read another one's memory";
    EXPECT_EQ(status.note, "");
    ASSERT_EQ(status.connections.size(), 2u);
    const ConnectionStatus& ring = status.connections[0];
    EXPECT_EQ(ring.local, "127.0.0.1:6379");
    EXPECT_EQ(ring.peer, "127.0.0.2:4000");
    EXPECT_EQ(ring.role, "acceptor");
    EXPECT_EQ(ring.lane, "ring");
    EXPECT_EQ(ring.reason, "");
    EXPECT_EQ(ring.bytes_sent, 1001u);
    EXPECT_EQ(ring.bytes_received, 2002u);
    EXPECT_EQ(ring.messages_sent, 3u);
    EXPECT_EQ(ring.messages_received, 4u);
    EXPECT_EQ(ring.bells, 5u);
    EXPECT_EQ(ring.sleeps, 6u);
    const ConnectionStatus& kernel = status.connections[1];
    EXPECT_EQ(kernel.local, "[::1]:80");
    EXPECT_EQ(kernel.role, "connector");
    EXPECT_EQ(kernel.lane, "kernel");
    EXPECT_EQ(kernel.reason, "peer-not-opted-in");
}

TEST(Connections, ATableOfAnotherVersionIsNotInterpreted) {
    const Prepared child([] {
        open_arena();
        arena()->version = 99;
    });
    const Scan scan = child.scan();
    ASSERT_EQ(scan.processes.size(), 1u);
    const ProcessStatus status = read_connections(scan.processes[0]);
    EXPECT_NE(status.note, "");
    EXPECT_TRUE(status.connections.empty());
}

TEST(Connections, AHostileTableDoesNoHarm) {
    const Prepared child([] {
        make_kernel_stream();
        const uint64_t streams = arena()->streams_address;
        auto* table = reinterpret_cast<std::atomic<uint64_t>*>(arena()->table_address);
        for (int fd = 0; fd < 64; ++fd)  // indices beyond every bound
            table[fd] = ~uint64_t{0} << 2 | static_cast<uint64_t>(EntryKind::kStream);
        arena()->streams_address = streams + 1;
        arena()->descriptors = ~uint32_t{0};
    });
    const Scan scan = child.scan();
    ASSERT_EQ(scan.processes.size(), 1u);
    EXPECT_TRUE(read_connections(scan.processes[0]).connections.empty());
}

TEST(Connections, AProcessWithoutLoopfastIsNotListed) {
    const Prepared child([] {});
    EXPECT_TRUE(child.scan().processes.empty());
}

}  // namespace
}  // namespace loopfast::cli
