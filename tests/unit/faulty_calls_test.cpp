// Each system call that the library makes in the life of a connection fails once, at each place where it
// makes it, and then three and fifty times in a row: the bytes arrive all the same, in order, and nobody
// waits for ever. What is lost is the ring at most.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <algorithm>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "base/inject.h"
#include "stream_pair.h"
#include "wait/poll_set.h"
#include "wait/steward.h"

namespace loopfast {
namespace {

constexpr int64_t kPatience = 5'000'000'000;  // as long as it takes to call it a hang

struct Fault {
    const char* name;
    long number;
    int error;
    long second;
};
constexpr Fault kFaults[] = {
    {"socket", SYS_socket, EMFILE, -1},
    {"bind", SYS_bind, ENOMEM, -1},
    {"listen", SYS_listen, ENOBUFS, -1},
    {"connect", SYS_connect, ENOMEM, -1},
    {"accept4", SYS_accept4, EMFILE, -1},
    {"getsockopt", SYS_getsockopt, ENOMEM, -1},
    {"setsockopt", SYS_setsockopt, ENOMEM, -1},
    {"mmap", SYS_mmap, ENOMEM, -1},
    {"mremap", SYS_mremap, ENOMEM, -1},
    {"madvise", SYS_madvise, ENOMEM, -1},
    {"memfd_create", SYS_memfd_create, ENFILE, -1},
    {"ftruncate", SYS_ftruncate, ENOSPC, -1},
    {"dup", SYS_fcntl, EMFILE, F_DUPFD_CLOEXEC},
    {"epoll_create1", SYS_epoll_create1, EMFILE, -1},
    {"epoll_ctl", SYS_epoll_ctl, ENOMEM, EPOLL_CTL_ADD},
    {"epoll_ctl", SYS_epoll_ctl, ENOSPC, EPOLL_CTL_ADD},
    {"eventfd2", SYS_eventfd2, ENFILE, -1},
    {"openat", SYS_openat, ENOMEM, -1},
    {"pread64", SYS_pread64, EINTR, -1},
    {"read", SYS_read, EINTR, -1},
    {"nanosleep", SYS_nanosleep, EINTR, -1},
    {"ppoll", SYS_ppoll, EINTR, -1},
    {"sendto", SYS_sendto, ENOMEM, -1},
    {"sendto", SYS_sendto, ENOBUFS, -1},
    {"sendmsg", SYS_sendmsg, ENOBUFS, -1},
    {"sendmsg", SYS_sendmsg, ETOOMANYREFS, -1},
    {"recvmsg", SYS_recvmsg, ENOMEM, -1},
    {"recvfrom", SYS_recvfrom, ENOBUFS, -1},
};

char byte_at(size_t position) { return static_cast<char>(position * 2654435761U >> 13); }

enum class Wait { kEpoll, kPoll, kCall };

/// Echoes what comes.
class Echo {
public:
    Echo(int fd, Wait wait) : fd_(fd), wait_(wait) {
        if (wait != Wait::kEpoll)
            return;
        set_fd_ = epoll_create1(EPOLL_CLOEXEC);
        make_set(set_fd_);
        epoll_event event{EPOLLIN, {}};
        event.data.fd = fd;
        EXPECT_EQ(control(EPOLL_CTL_ADD, event), 0);
    }
    ~Echo() {
        if (set_fd_ >= 0)
            door_close(set_fd_);
    }
    Echo(const Echo&) = delete;
    Echo& operator=(const Echo&) = delete;

    /// @return how many bytes came until the end.
    size_t serve() {
        std::string bytes(1 << 16, '\0');
        size_t done = 0;
        for (;;) {
            if (!wait()) {
                ADD_FAILURE() << "the server waits for ever, after " << done;
                return done;
            }
            const long got =
                door_receive(fd_, bytes.data(), bytes.size(), wait_ == Wait::kCall ? 0 : MSG_DONTWAIT);
            if (got == -EAGAIN && wait_ != Wait::kCall)
                continue;
            if (got <= 0)
                return done;
            for (long sent = 0; sent < got;) {
                const long part = door_send(fd_, bytes.data() + sent, static_cast<size_t>(got - sent));
                if (part <= 0)
                    return done;
                sent += part;
            }
            done += static_cast<size_t>(got);
        }
    }

private:
    int control(int operation, epoll_event& event) {
        EpollSet* const set = find_set(set_fd_);
        return set != nullptr ? set->control(set_fd_, operation, fd_, &event)
                              : control_unknown_set(set_fd_, operation, fd_, &event);
    }
    /// As the front door does it.
    bool wait() {
        if (wait_ == Wait::kCall)
            return true;
        if (wait_ == Wait::kEpoll) {
            epoll_event event;
            EpollSet* const set = find_set(set_fd_);
            return set != nullptr ? set->wait(set_fd_, &event, 1, kPatience, nullptr) == 1
                                  : ::epoll_wait(set_fd_, &event, 1, kPatience / 1'000'000) == 1;
        }
        pollfd one{fd_, POLLIN, 0};
        for (;;) {
            if (poll_needs_us(&one, 1)) {
                const int found = poll_streams(&one, 1, kPatience, nullptr);
                if (found == -EINTR)
                    continue;  // as any program does
                return found == 1;
            }
            bool moved;
            const auto plain = [](void* what) {
                return ::poll(static_cast<pollfd*>(what), 1, kPatience / 1'000'000);
            };
            const int found = poll_kernel(&one, 1, moved, plain, &one);
            if (!moved)
                return found == 1;
        }
    }

    int fd_;
    Wait wait_;
    int set_fd_ = -1;
};

/// In how many lives the connection was on the ring.
int fused_lives = 0;

struct Life {
    Wait server;
    bool server_leaves;
};

/// One connection from its beginning to its end, with exchanges that must come back right.
::testing::AssertionResult live(const Life& life) {
    TcpPair sockets;
    const timeval patience{kPatience / 1'000'000'000, 0};
    for (const int fd : {sockets.connector, sockets.acceptor}) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    const auto make = [](int fd, Role role) {
        if (make_stream(fd) == nullptr)
            return false;
        begin_connection(*find_stream(fd), fd, role, 0);
        return true;
    };
    // Without memory for a stream it is none, and this is a test of the kernel's.
    if (!make(sockets.connector, Role::kConnector) || !make(sockets.acceptor, Role::kAcceptor))
        return ::testing::AssertionSuccess();
    Echo echo(sockets.acceptor, life.server);
    size_t echoed = 0;
    std::thread server([&] { echoed = echo.serve(); });
    size_t position = 0;
    std::string problem;
    const auto exchange = [&](size_t size, int leaver = -1) {
        std::string out(size, '\0');
        for (size_t i = 0; i < size; ++i)
            out[i] = byte_at(position + i);
        if (problem.empty() && door_send(sockets.connector, out.data(), size) != static_cast<long>(size))
            problem = "a send, after " + std::to_string(position);
        if (leaver >= 0 && find_stream(leaver)->fused())
            leave(*find_stream(leaver), leaver, Reason::kOption);
        std::string in(size, '\0');
        const long got = problem.empty() ? door_receive(sockets.connector, in.data(), size, MSG_WAITALL) : 0;
        if (problem.empty() && got != static_cast<long>(size))
            problem = "a receive gave " + std::to_string(got) + ", after " + std::to_string(position);
        if (problem.empty() && in != out)
            problem = "other bytes, after " + std::to_string(position);
        position += size;
    };
    for (int i = 0; i < 24; ++i)
        exchange(1);
    exchange(30'000);
    fused_lives += both_in_ring(*find_stream(sockets.connector)) ? 1 : 0;
    exchange(5000, life.server_leaves ? sockets.acceptor : sockets.connector);
    exchange(1);
    exchange(3000);
    door_shutdown(sockets.connector, SHUT_WR);
    server.join();
    for (int* const fd : {&sockets.connector, &sockets.acceptor}) {
        door_close(*fd);
        *fd = -1;
    }
    if (problem.empty() && echoed != position)
        problem = "the server has seen " + std::to_string(echoed) + " of " + std::to_string(position);
    return problem.empty() ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << problem;
}

class EachCallFails : public ::testing::TestWithParam<Life> {};

TEST_P(EachCallFails, AtEachPlace) {
    start_library();
    connect_steward();
    fused_lives = 0;
    // A look at the filters for which the case before left no memory holds for a moment.
    for (int i = 0; i < 50 && fused_lives == 0; ++i) {
        ASSERT_TRUE(live(GetParam()));
        usleep(10'000);
    }
    ASSERT_EQ(fused_lives, 1);
    int failed = 0;
    for (const Fault& fault : kFaults) {
        for (const int count : {1, 3, 50}) {
            constexpr int kMostPlaces = 400;
            constexpr int kMostWithout = 3;
            constexpr int kEach = 48;
            int without = 0;
            for (int after = 0; after < kMostPlaces; ++after) {
                inject_fault(fault.number, fault.error, count, after, fault.second);
                const auto result = live(GetParam());
                const int faults = injected_faults();
                ASSERT_TRUE(result) << fault.name << " failing " << count << " times after " << after << ": "
                                    << result.message();
                ASSERT_FALSE(HasFailure()) << fault.name << " failing " << count << " times after " << after;
                failed += faults;
                // Not every life takes the same course: several without a fault show that this was the last.
                if (faults == 0 && ++without == kMostWithout)
                    break;
                // Calls that are made by the hundred are many times the same.
                if (after > kEach)
                    after += after / 8;
            }
        }
    }
    RecordProperty("faults", failed);
    EXPECT_GT(failed, 100);
}

INSTANTIATE_TEST_SUITE_P(
    Lives, EachCallFails,
    ::testing::Values(Life{Wait::kEpoll, true}, Life{Wait::kEpoll, false}, Life{Wait::kPoll, true},
                      Life{Wait::kCall, true}, Life{Wait::kCall, false}),
    [](const auto& life) {
        const Wait wait = life.param.server;
        const char* const name = wait == Wait::kEpoll ? "Epoll" : wait == Wait::kPoll ? "Poll" : "Call";
        return std::string(name) + (life.param.server_leaves ? "ServerLeaves" : "ClientLeaves");
    });

}  // namespace
}  // namespace loopfast
