// The rules of the control code that say where a connection's bytes go: rules 1, 9, 11 and 13 of the
// contract. The others are in rules_test.cpp. What needs a network of its own gets one in a child (root
// only).
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "common.h"

namespace test {
namespace {

class Where : public Winsock {};

/// Listens, connects and accepts with `name`, whose port is filled in; both ends set the code.
Pair pair_at(sockaddr* name, int size, SOCKET client) {
    const SOCKET listener = socket(name->sa_family, SOCK_STREAM, IPPROTO_TCP);
    EXPECT_EQ(0, opt_in(listener));
    EXPECT_EQ(0, bind(listener, name, size)) << WSAGetLastError();
    EXPECT_EQ(0, listen(listener, 5));
    EXPECT_EQ(0, getsockname(listener, name, &size));
    if (client == INVALID_SOCKET)
        client = socket(name->sa_family, SOCK_STREAM, IPPROTO_TCP);
    EXPECT_EQ(0, opt_in(client));
    EXPECT_EQ(0, connect(client, name, size)) << WSAGetLastError();
    Pair pair(client, accept(listener, nullptr, nullptr));
    closesocket(listener);
    settle(pair.client, pair.server);
    return pair;
}

TEST_F(Where, Rule1LoopbackOfBothFamilies) {
    for (const ULONG address : {INADDR_LOOPBACK, INADDR_LOOPBACK + 1}) {
        sockaddr_in name = loopback();
        name.sin_addr.s_addr = htonl(address);
        const Pair pair = pair_at(reinterpret_cast<sockaddr*>(&name), sizeof name, INVALID_SOCKET);
        EXPECT_TRUE(on_ring(pair.client));
        EXPECT_TRUE(on_ring(pair.server));
    }
    sockaddr_in6 name{};
    name.sin6_family = AF_INET6;
    name.sin6_addr.s6_addr[15] = 1;
    const Pair pair = pair_at(reinterpret_cast<sockaddr*>(&name), sizeof name, INVALID_SOCKET);
    EXPECT_TRUE(on_ring(pair.client));
    EXPECT_TRUE(on_ring(pair.server));
}

/// Bytes that the kernel's connection behind a socket has received: tcpi_bytes_received of TCP_INFO, asked by
/// the instruction, since libloopfast's getsockopt, and its syscall, count the ring's bytes in.
uint64_t received_by_kernel(SOCKET s) {
    constexpr int kTcp = 6;
    constexpr int kInfo = 11;
    constexpr size_t kOffset = 128;
    char info[256] = {};
    unsigned size = sizeof info;
    const int fd = loopfast_descriptor(s);
    long result = SYS_getsockopt;
    register unsigned* r8 asm("r8") = &size;
    register char* r10 asm("r10") = info;
    asm volatile("syscall"
                 : "+a"(result)
                 : "D"(static_cast<long>(fd)), "S"(long{kTcp}), "d"(long{kInfo}), "r"(r10), "r"(r8)
                 : "rcx", "r11", "memory");
    EXPECT_EQ(0, result);
    uint64_t bytes;
    memcpy(&bytes, info + kOffset, sizeof bytes);
    return bytes;
}

TEST_F(Where, Rule13DataDoesNotPassTheNetworkLayer) {
    for (const Path path : {Path::kRing, Path::kKernel}) {
        const Pair pair = connected_pair(path);
        const uint64_t before = received_by_kernel(pair.server);
        const std::string text(100000, 'd');
        std::thread sender([&] { send_all(pair.client, text); });
        EXPECT_EQ(text, receive_all(pair.server, text.size()));
        sender.join();
        EXPECT_EQ(path == Path::kRing ? 0 : text.size(), received_by_kernel(pair.server) - before);
    }
}

constexpr int kNoNamespaces = 99;

int run(const char* command) {
    const int status = std::system(command);  // NOLINT(cert-env33-c): commands of our own
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// Runs `check` in a child with a network of its own.
void in_a_network(const std::function<int()>& check) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0)
        _exit(unshare(CLONE_NEWNET) == 0 && run("ip link set lo up 2>/dev/null") == 0 ? check()
                                                                                      : kNoNamespaces);
    int status = 0;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == kNoNamespaces)
        GTEST_SKIP() << "network namespaces are for root, and need ip and nft";
    EXPECT_EQ(0, WEXITSTATUS(status));
}

/// Exchanges a few bytes as one end. @return 0, or what went wrong.
int exchange(SOCKET s, bool first) {
    char byte = 'x';
    for (int i = 0; i < 20; ++i) {
        if (first && send(s, &byte, 1, 0) != 1)
            return 1;
        if (recv(s, &byte, 1, 0) != 1)
            return 2;
        if (!first && send(s, &byte, 1, 0) != 1)
            return 3;
    }
    return on_ring(s) ? 4 : 0;
}

/// Two networks with a cable between them; the code is set on both ends.
TEST_F(Where, Rule9NotLocalWithoutEffectAndWithoutError) {
    in_a_network([] {
        int ready[2];
        int listening[2];
        if (pipe(ready) != 0 || pipe(listening) != 0)
            return kNoNamespaces;
        const auto address = [](int last) {
            sockaddr_in name = loopback();
            name.sin_addr.s_addr = htonl(0x0a094d00U + static_cast<unsigned>(last));
            return name;
        };
        const pid_t far = fork();
        if (far == 0) {
            char byte = unshare(CLONE_NEWNET) == 0 ? 1 : 0;
            (void)!write(ready[1], &byte, 1);
            // The cable comes from the other side.
            for (int i = 0; i < 500 && run("ip addr add 10.9.77.2/24 dev far 2>/dev/null") != 0; ++i)
                Sleep(10);
            run("ip link set far up");
            (void)!read(listening[0], &byte, 1);
            const SOCKET client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
            sockaddr_in name = address(1);
            name.sin_port = htons(4711);
            if (opt_in(client) != 0)
                _exit(10);
            for (int i = 0; connect(client, generic(name), sizeof name) != 0; ++i) {
                if (i == 500)
                    _exit(11);
                Sleep(10);
            }
            _exit(exchange(client, true));
        }
        char byte = 0;
        char command[128];
        snprintf(command, sizeof command, "ip link add near type veth peer name far netns %d 2>/dev/null",
                 far);
        if (read(ready[0], &byte, 1) != 1 || byte != 1 || run(command) != 0 ||
            run("ip addr add 10.9.77.1/24 dev near && ip link set near up") != 0) {
            kill(far, SIGKILL);
            return kNoNamespaces;
        }
        const SOCKET listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
        sockaddr_in name = address(1);
        name.sin_port = htons(4711);
        if (opt_in(listener) != 0 || bind(listener, generic(name), sizeof name) != 0 ||
            listen(listener, 5) != 0)
            return 20;
        (void)!write(listening[1], &byte, 1);
        const int result = exchange(accept(listener, nullptr, nullptr), false);
        int status = 0;
        waitpid(far, &status, 0);
        return result != 0 ? 30 + result : WIFEXITED(status) ? WEXITSTATUS(status) : 40;
    });
}

/// As a callout on Windows does, a rule that looks at packets forbids the fast path; the calls all succeed,
/// and the reason can be asked for.
TEST_F(Where, Rule11AFilterForcesTheSlowPathSilently) {
    in_a_network([] {
        if (run("nft -f - 2>/dev/null <<END\n"
                "add table inet watch\n"
                "add chain inet watch in { type filter hook input priority 0; }\n"
                "add rule inet watch in meta l4proto tcp counter\n"
                "END") != 0)
            return kNoNamespaces;
        const SOCKET listener = listening_socket();
        const SOCKET client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
        const sockaddr_in name = name_of(listener);
        if (opt_in(client) != 0 || connect(client, generic(name), sizeof name) != 0)
            return 1;
        const SOCKET server = accept(listener, nullptr, nullptr);
        if (server == INVALID_SOCKET)
            return 2;
        settle(client, server);
        if (on_ring(client) || on_ring(server))
            return 3;
        // The end that looked for filters knows why.
        for (const SOCKET s : {client, server})
            if (strcmp(loopfast_reason_name(loopfast_reason(loopfast_descriptor(s))), "filter") == 0)
                return 0;
        return 4;
    });
}

}  // namespace
}  // namespace test
