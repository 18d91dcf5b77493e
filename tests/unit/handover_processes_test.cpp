// The same hand-over between two processes, and one of them killed at some moment of it.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "exchange.h"

namespace loopfast {
namespace {

/// Runs `body` on the accepting end in another process, which has made nothing of the library's before.
template <typename Body> pid_t in_other_process(TcpPair& sockets, Body body) {
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        cached_tid = 0;
        close(sockets.connector);
        body(sockets.acceptor);
        _exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    close(sockets.acceptor);
    sockets.acceptor = -1;
    return child;
}

int status_of(pid_t child) {
    for (int i = 0; i < 3000; ++i) {
        int status = 0;
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
        usleep(10'000);
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    return -1;
}

/// The two ends must not be relatives in the library's eyes: a child of a process that has an arena shares
/// it. So each case forks both, and this process never has one.
void apart(void (*body)()) {
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        cached_tid = 0;
        body();
        _exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    EXPECT_EQ(status_of(child), 0);
}

uint64_t chosen_threshold = 0;

TEST(HandoverOfProcesses, ExchangeOverTheHandover) {
    for (const uint64_t each : {0, 1, 3111, 20'000}) {
        chosen_threshold = each;
        apart([] {
            const uint64_t threshold = chosen_threshold;
            TcpPair sockets;
            const pid_t child = in_other_process(sockets, [&](int fd) {
                opt_in(fd, Role::kAcceptor, threshold);
                exchange(fd, kOtherWay, 0, kMuch, 3, 30'000);
                door_close(fd);
            });
            opt_in(sockets.connector, Role::kConnector, threshold);
            exchange(sockets.connector, 0, kOtherWay, kMuch, 4, 30'000);
            char byte;
            EXPECT_EQ(door_receive(sockets.connector, &byte, 1), 0) << "the end comes after the last byte";
            EXPECT_EQ(status_of(child), 0);
            door_close(sockets.connector);
            sockets.connector = -1;
        });
    }
}

TEST(HandoverOfProcesses, OneIsKilled) {
    for (int round = 0; round < 10; ++round) {
        apart([] {
            TcpPair sockets;
            const pid_t child = in_other_process(sockets, [&](int fd) {
                opt_in(fd, Role::kAcceptor, 100);
                std::thread([=] { send_all(fd, kOtherWay, kMuch * 1000, 3, 50'000); }).detach();
                receive_all(fd, 0, kMuch * 1000, 4, 50'000);
            });
            opt_in(sockets.connector, Role::kConnector, 100);
            const int fd = sockets.connector;
            std::thread sender([=] {
                const std::vector<unsigned char> bytes = bytes_at(0, 4096);
                std::vector<unsigned char> next;
                for (uint64_t sent = 0;; sent += 4096) {
                    next = bytes_at(sent, 4096);
                    const long result = door_send(fd, next.data(), next.size());
                    if (result != 4096) {
                        EXPECT_TRUE(result == -EPIPE || result == -ECONNRESET || result >= 0) << result;
                        if (result < 0)
                            return;
                    }
                }
            });
            std::vector<unsigned char> bytes(30'000);
            uint64_t got = 0;
            const uint64_t until = static_cast<uint64_t>(getpid()) % 7 * 300'000;
            bool killed = false;
            for (;;) {
                if (!killed && got >= until) {
                    kill(child, SIGKILL);
                    killed = true;
                }
                const long result = door_receive(fd, bytes.data(), bytes.size());
                if (result <= 0) {
                    EXPECT_TRUE(result == 0 || result == -ECONNRESET) << result;
                    break;
                }
                const auto count = static_cast<size_t>(result);
                ASSERT_EQ(first_wrong(bytes.data(), kOtherWay + got, count), count);
                got += count;
            }
            EXPECT_TRUE(killed);
            waitpid(child, nullptr, 0);
            sender.join();
            door_close(fd);
            sockets.connector = -1;
        });
    }
}

}  // namespace
}  // namespace loopfast
