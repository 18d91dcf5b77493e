// What the tests of the Winsock door share: sockets, connected pairs, memory that cannot be used.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "loopfast.h"
#include "loopfast_winsock.h"
#include "mstcpip.h"
#include "mswsock.h"
#include "ws2spi.h"
#include "ws2tcpip.h"

namespace test {

/// Winsock in use while a test runs.
class Winsock : public ::testing::Test {
protected:
    void SetUp() override {
        WSADATA data;
        ASSERT_EQ(0, WSAStartup(MAKEWORD(2, 2), &data));
    }
    void TearDown() override { WSACleanup(); }
};

/// A page that can neither be read nor written, and one that can only be read.
inline char* no_memory() {
    static char* const page =
        static_cast<char*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    return page;
}
inline char* read_only_memory() {
    static char* const page =
        static_cast<char*>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    return page;
}

inline int opt_in(SOCKET s, DWORD on = 1) {
    DWORD returned = 0;
    return WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, &on, sizeof on, nullptr, 0, &returned, nullptr, nullptr);
}

inline sockaddr_in loopback(int port = 0) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<USHORT>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}
inline const sockaddr* generic(const sockaddr_in& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

inline sockaddr_in name_of(SOCKET s) {
    sockaddr_in address{};
    int size = sizeof address;
    EXPECT_EQ(0, getsockname(s, reinterpret_cast<sockaddr*>(&address), &size)) << WSAGetLastError();
    return address;
}

inline SOCKET bound_socket() {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    const sockaddr_in address = loopback();
    EXPECT_EQ(0, bind(s, generic(address), sizeof address)) << WSAGetLastError();
    return s;
}
inline SOCKET listening_socket(bool fast = true) {
    const SOCKET s = bound_socket();
    if (fast) {
        EXPECT_EQ(0, opt_in(s));
    }
    EXPECT_EQ(0, listen(s, 64)) << WSAGetLastError();
    return s;
}

struct Pair {
    SOCKET client = INVALID_SOCKET;
    SOCKET server = INVALID_SOCKET;

    Pair() = default;
    Pair(SOCKET one, SOCKET other) : client(one), server(other) {}
    Pair(Pair&& other) noexcept
        : client(std::exchange(other.client, INVALID_SOCKET)),
          server(std::exchange(other.server, INVALID_SOCKET)) {}
    ~Pair() {
        close_client();
        close_server();
    }
    void close_client() {
        if (client != INVALID_SOCKET)
            closesocket(std::exchange(client, INVALID_SOCKET));
    }
    void close_server() {
        if (server != INVALID_SOCKET)
            closesocket(std::exchange(server, INVALID_SOCKET));
    }
};

inline void send_all(SOCKET s, const std::string& text) {
    ASSERT_EQ(static_cast<int>(text.size()), send(s, text.data(), static_cast<int>(text.size()), 0))
        << WSAGetLastError();
}
inline std::string receive_all(SOCKET s, size_t size) {
    std::string text(size, '\0');
    size_t done = 0;
    while (done < size) {
        const int got = recv(s, text.data() + done, static_cast<int>(size - done), 0);
        if (got <= 0)
            break;
        done += static_cast<size_t>(got);
    }
    text.resize(done);
    return text;
}

inline bool on_ring(SOCKET s) { return loopfast_lane(loopfast_descriptor(s)) == LOOPFAST_LANE_RING; }

/// It is certain already that this end will not be on the ring.
inline bool stays_in_kernel(SOCKET s) {
    const int reason = loopfast_reason(loopfast_descriptor(s));
    return reason == LOOPFAST_REASON_POLICY || reason == LOOPFAST_REASON_FILTER ||
           reason == LOOPFAST_REASON_NOT_LOCAL;
}

/// A few bytes each way, and more of them until a connection that may be fused is: libloopfast takes the
/// steps of that beside the program.
inline void settle(SOCKET one, SOCKET other) {
    const auto exchange = [&] {
        send_all(one, "there");
        ASSERT_EQ("there", receive_all(other, 5));
        send_all(other, "back");
        ASSERT_EQ("back", receive_all(one, 4));
    };
    for (int i = 0; i < 4; ++i)
        exchange();
    for (int i = 0;
         i < 300 && !(on_ring(one) && on_ring(other)) && !stays_in_kernel(one) && !stays_in_kernel(other);
         ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        exchange();
    }
}

enum class Path { kRing, kKernel };

inline Pair connected_pair(Path path = Path::kRing) {
    const bool fast = path == Path::kRing;
    const SOCKET listener = listening_socket(fast);
    const SOCKET client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    if (fast) {
        EXPECT_EQ(0, opt_in(client));
    }
    const sockaddr_in address = name_of(listener);
    EXPECT_EQ(0, connect(client, generic(address), sizeof address)) << WSAGetLastError();
    const SOCKET server = accept(listener, nullptr, nullptr);
    EXPECT_NE(INVALID_SOCKET, server) << WSAGetLastError();
    closesocket(listener);
    Pair pair(client, server);
    settle(pair.client, pair.server);
    EXPECT_EQ(fast, on_ring(pair.client)) << loopfast_reason(loopfast_descriptor(pair.client));
    EXPECT_EQ(fast, on_ring(pair.server)) << loopfast_reason(loopfast_descriptor(pair.server));
    return pair;
}

template <typename Function> Function extension(SOCKET s, GUID name) {
    Function function = nullptr;
    DWORD returned = 0;
    EXPECT_EQ(0, WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &name, sizeof name, &function,
                          sizeof function, &returned, nullptr, nullptr))
        << WSAGetLastError();
    EXPECT_EQ(sizeof function, returned);
    return function;
}

inline void set_nonblocking(SOCKET s) {
    u_long on = 1;
    ASSERT_EQ(0, ioctlsocket(s, FIONBIO, &on));
}

/// Until `done`, at most ten seconds. @return whether it was.
inline bool eventually(const std::function<bool()>& done) {
    for (int i = 0; i < 10000; ++i) {
        if (done())
            return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
}

/// What a completion routine was called with, for the test that is running.
struct Call {
    DWORD error;
    DWORD bytes;
    OVERLAPPED* overlapped;
    DWORD flags;
    std::thread::id thread;
};
inline std::vector<Call>& calls() {
    static std::vector<Call> list;
    return list;
}
inline void CALLBACK note_call(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags) {
    calls().push_back({error, bytes, overlapped, flags, std::this_thread::get_id()});
}

}  // namespace test
