// The table of results of WSAIoctl with SIO_LOOPBACK_FAST_PATH: each row, with each kind of completion, on
// each kind of socket, before and after bind, listen, connect and accept.
#include "common.h"

namespace test {
namespace {

class Ioctl : public Winsock {
protected:
    void SetUp() override {
        Winsock::SetUp();
        calls().clear();
    }
};

constexpr DWORD kUntouched = 0xdeadbeef;
constexpr DWORD kUnknownCode = _WSAIOW(IOC_VENDOR, 9999);

/// One call and what came of it.
struct Asked {
    DWORD on = 1;
    DWORD returned = kUntouched;
    OVERLAPPED overlapped{};
    int result = 99;
    int error = 99;

    void ask(SOCKET s, void* in, DWORD in_size, void* out, DWORD out_size, DWORD* bytes, OVERLAPPED* used,
             LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, DWORD code = SIO_LOOPBACK_FAST_PATH) {
        WSASetLastError(12345);
        result = WSAIoctl(s, code, in, in_size, out, out_size, bytes, used, routine);
        error = WSAGetLastError();
    }
    void good(SOCKET s, OVERLAPPED* used = nullptr, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine = nullptr) {
        ask(s, &on, sizeof on, nullptr, 0, &returned, used, routine);
    }
};

/// The kinds of TCP socket and the states it can be in.
struct State {
    const char* name;
    std::function<SOCKET(std::vector<SOCKET>& others)> make;
};
std::vector<State> tcp_states() {
    return {
        {"fresh, IPv4", [](auto&) { return socket(AF_INET, SOCK_STREAM, IPPROTO_TCP); }},
        {"fresh, IPv6", [](auto&) { return socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP); }},
        {"fresh, both families",
         [](auto&) {
             const SOCKET s = socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP);
             const DWORD off = 0;
             setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, reinterpret_cast<const char*>(&off), sizeof off);
             return s;
         }},
        {"bound", [](auto&) { return bound_socket(); }},
        {"listening", [](auto&) { return listening_socket(false); }},
        {"connecting",
         [](auto& others) {
             const SOCKET listener = listening_socket(false);
             others.push_back(listener);
             const SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
             set_nonblocking(s);
             const sockaddr_in address = name_of(listener);
             EXPECT_EQ(SOCKET_ERROR, connect(s, generic(address), sizeof address));
             EXPECT_EQ(WSAEWOULDBLOCK, WSAGetLastError());
             return s;
         }},
        {"connected",
         [](auto& others) {
             Pair pair = connected_pair(Path::kKernel);
             others.push_back(std::exchange(pair.server, INVALID_SOCKET));
             return std::exchange(pair.client, INVALID_SOCKET);
         }},
        {"accepted",
         [](auto& others) {
             Pair pair = connected_pair(Path::kKernel);
             others.push_back(std::exchange(pair.client, INVALID_SOCKET));
             return std::exchange(pair.server, INVALID_SOCKET);
         }},
        {"fused",
         [](auto& others) {
             Pair pair = connected_pair(Path::kRing);
             others.push_back(std::exchange(pair.client, INVALID_SOCKET));
             return std::exchange(pair.server, INVALID_SOCKET);
         }},
    };
}

void on_each_state(const std::function<void(SOCKET)>& check) {
    for (const State& state : tcp_states()) {
        SCOPED_TRACE(state.name);
        std::vector<SOCKET> others;
        const SOCKET s = state.make(others);
        ASSERT_NE(INVALID_SOCKET, s);
        calls().clear();
        check(s);
        closesocket(s);
        for (const SOCKET other : others)
            closesocket(other);
    }
}

TEST(IoctlBefore, NotInitialised) {
    Asked asked;
    asked.good(4);
    EXPECT_EQ(SOCKET_ERROR, asked.result);
    EXPECT_EQ(WSANOTINITIALISED, asked.error);
}

TEST_F(Ioctl, NotASocket) {
    WSAEVENT event = WSACreateEvent();
    const SOCKET closed = socket(AF_INET, SOCK_STREAM, 0);
    closesocket(closed);
    for (const SOCKET s : {INVALID_SOCKET, SOCKET{0}, SOCKET{3}, SOCKET{0x7ffffff0}, closed,
                           reinterpret_cast<SOCKET>(event)}) {
        Asked asked;
        asked.good(s);
        EXPECT_EQ(SOCKET_ERROR, asked.result);
        EXPECT_EQ(WSAENOTSOCK, asked.error);
        // Before anything else is looked at.
        asked.ask(s, nullptr, 0, nullptr, 0, nullptr, nullptr, nullptr);
        EXPECT_EQ(WSAENOTSOCK, asked.error);
    }
    WSACloseEvent(event);
}

TEST_F(Ioctl, ReturnedBytesNull) {
    on_each_state([](SOCKET s) {
        for (const DWORD code : {DWORD{SIO_LOOPBACK_FAST_PATH}, kUnknownCode})
            for (int kind = 0; kind < 3; ++kind) {
                Asked asked;
                asked.ask(s, &asked.on, sizeof asked.on, nullptr, 0, nullptr,
                          kind > 0 ? &asked.overlapped : nullptr, kind > 1 ? note_call : nullptr, code);
                EXPECT_EQ(SOCKET_ERROR, asked.result);
                EXPECT_EQ(WSAEFAULT, asked.error);
            }
        EXPECT_EQ(0u, SleepEx(0, TRUE));
        EXPECT_TRUE(calls().empty());
    });
}

TEST_F(Ioctl, InputMissingOrShortSynchronous) {
    on_each_state([](SOCKET s) {
        for (const DWORD size : {0u, 1u, 3u}) {
            Asked asked;
            asked.ask(s, &asked.on, size, nullptr, 0, &asked.returned, nullptr, nullptr);
            EXPECT_EQ(SOCKET_ERROR, asked.result);
            EXPECT_EQ(WSAEFAULT, asked.error);
            EXPECT_EQ(0u, asked.returned);
        }
        Asked asked;
        asked.ask(s, nullptr, 4, nullptr, 0, &asked.returned, nullptr, nullptr);
        EXPECT_EQ(WSAEFAULT, asked.error);
        EXPECT_EQ(0u, asked.returned);
    });
}

TEST_F(Ioctl, InputMissingOrShortOverlapped) {
    on_each_state([](SOCKET s) {
        HANDLE port = CreateIoCompletionPort(reinterpret_cast<HANDLE>(s), nullptr, 7, 0);
        ASSERT_NE(nullptr, port);
        WSAEVENT event = WSACreateEvent();
        for (const bool missing : {false, true}) {
            Asked asked;
            asked.overlapped.hEvent = event;
            asked.overlapped.Internal = 77;
            asked.ask(s, missing ? nullptr : &asked.on, missing ? 4 : 3, nullptr, 0, &asked.returned,
                      &asked.overlapped, nullptr);
            EXPECT_EQ(SOCKET_ERROR, asked.result);
            EXPECT_EQ(WSAEFAULT, asked.error);
            EXPECT_EQ(kUntouched, asked.returned);
            EXPECT_EQ(77u, asked.overlapped.Internal);
        }
        DWORD bytes;
        ULONG_PTR key;
        LPOVERLAPPED got;
        EXPECT_FALSE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 0));
        EXPECT_EQ(nullptr, got);
        EXPECT_EQ(static_cast<DWORD>(WAIT_TIMEOUT), GetLastError());
        EXPECT_EQ(WSA_WAIT_TIMEOUT, WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE));
        WSACloseEvent(event);
        CloseHandle(port);
    });
}

TEST_F(Ioctl, InputMissingOrShortWithRoutine) {
    on_each_state([](SOCKET s) {
        Asked asked;
        asked.ask(s, &asked.on, 3, nullptr, 0, &asked.returned, &asked.overlapped, note_call);
        EXPECT_EQ(SOCKET_ERROR, asked.result);
        EXPECT_EQ(WSAEFAULT, asked.error);
        EXPECT_EQ(kUntouched, asked.returned);
        EXPECT_EQ(0u, SleepEx(1, TRUE));
        EXPECT_TRUE(calls().empty());
    });
}

TEST_F(Ioctl, InputLonger) {
    on_each_state([](SOCKET s) {
        DWORD long_input[4] = {1, 2, 3, 4};
        Asked asked;
        asked.ask(s, long_input, sizeof long_input, nullptr, 0, &asked.returned, nullptr, nullptr);
        EXPECT_EQ(0, asked.result);
        EXPECT_EQ(0u, asked.returned);
    });
}

TEST_F(Ioctl, MemoryThatCannotBeUsed) {
    on_each_state([](SOCKET s) {
        auto* const bad = reinterpret_cast<DWORD*>(no_memory());
        auto* const constant = reinterpret_cast<DWORD*>(read_only_memory());
        Asked asked;
        asked.ask(s, bad, 4, nullptr, 0, &asked.returned, nullptr, nullptr);
        EXPECT_EQ(WSAEFAULT, asked.error);
        asked.ask(s, &asked.on, 4, nullptr, 0, bad, nullptr, nullptr);
        EXPECT_EQ(WSAEFAULT, asked.error);
        asked.ask(s, &asked.on, 4, nullptr, 0, constant, nullptr, nullptr);
        EXPECT_EQ(WSAEFAULT, asked.error);
        for (char* const memory : {no_memory(), read_only_memory()}) {
            asked.ask(s, &asked.on, 4, nullptr, 0, &asked.returned, reinterpret_cast<OVERLAPPED*>(memory),
                      nullptr);
            EXPECT_EQ(SOCKET_ERROR, asked.result);
            EXPECT_EQ(WSAEFAULT, asked.error);
        }
        asked.ask(s, constant, 4, nullptr, 0, &asked.returned, nullptr, nullptr);
        EXPECT_EQ(0, asked.result);  // it need only be read
    });
}

TEST_F(Ioctl, OutputNotEmpty) {
    on_each_state([](SOCKET s) {
        DWORD out = 5;
        for (int kind = 0; kind < 3; ++kind) {
            Asked asked;
            asked.ask(s, &asked.on, 4, &out, sizeof out, &asked.returned,
                      kind > 0 ? &asked.overlapped : nullptr, kind > 1 ? note_call : nullptr);
            EXPECT_EQ(SOCKET_ERROR, asked.result);
            EXPECT_EQ(WSAEINVAL, asked.error);
            EXPECT_EQ(0u, asked.returned);
            EXPECT_EQ(5u, out);
        }
        EXPECT_EQ(0u, SleepEx(0, TRUE));
    });
}

TEST_F(Ioctl, GoodSynchronous) {
    on_each_state([](SOCKET s) {
        for (const DWORD on : {1u, 0u, 1u, 0xffffffffu}) {
            Asked asked;
            asked.on = on;
            asked.good(s);
            EXPECT_EQ(0, asked.result);
            EXPECT_EQ(0, asked.error);
            EXPECT_EQ(0u, asked.returned);
        }
    });
}

TEST_F(Ioctl, GoodSynchronousWithoutOverlappedAttribute) {
    const SOCKET s = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, nullptr, 0, 0);
    ASSERT_NE(INVALID_SOCKET, s);
    Asked asked;
    asked.overlapped.Internal = 77;
    asked.good(s, &asked.overlapped, note_call);
    EXPECT_EQ(0, asked.result);
    EXPECT_EQ(0, asked.error);
    EXPECT_EQ(0u, asked.returned);
    EXPECT_EQ(77u, asked.overlapped.Internal);
    EXPECT_EQ(0u, SleepEx(0, TRUE));
    EXPECT_TRUE(calls().empty());
    closesocket(s);
}

TEST_F(Ioctl, GoodOverlappedPort) {
    on_each_state([](SOCKET s) {
        HANDLE port = CreateIoCompletionPort(reinterpret_cast<HANDLE>(s), nullptr, 42, 0);
        ASSERT_NE(nullptr, port);
        Asked asked;
        asked.overlapped.Internal = asked.overlapped.InternalHigh = 9;
        asked.good(s, &asked.overlapped);
        EXPECT_EQ(0, asked.result);
        EXPECT_TRUE(asked.returned == 0 || asked.returned == kUntouched);
        DWORD bytes = 9;
        ULONG_PTR key = 0;
        LPOVERLAPPED got = nullptr;
        EXPECT_TRUE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 0));
        EXPECT_EQ(0u, bytes);
        EXPECT_EQ(42u, key);
        EXPECT_EQ(&asked.overlapped, got);
        EXPECT_EQ(0u, asked.overlapped.Internal);
        EXPECT_EQ(0u, asked.overlapped.InternalHigh);
        EXPECT_FALSE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 0)) << "one packet";
        // A routine on a socket that belongs to a port cannot be.
        asked.good(s, &asked.overlapped, note_call);
        EXPECT_EQ(SOCKET_ERROR, asked.result);
        EXPECT_EQ(WSAEINVAL, asked.error);
        CloseHandle(port);
    });
}

TEST_F(Ioctl, GoodOverlappedEvent) {
    on_each_state([](SOCKET s) {
        WSAEVENT event = WSACreateEvent();
        Asked asked;
        asked.overlapped.hEvent = event;
        asked.good(s, &asked.overlapped);
        EXPECT_EQ(0, asked.result);
        EXPECT_TRUE(asked.returned == 0 || asked.returned == kUntouched);
        EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE))
            << "set before the return";
        EXPECT_EQ(0u, asked.overlapped.Internal);
        EXPECT_EQ(0u, asked.overlapped.InternalHigh);
        DWORD bytes = 9;
        DWORD flags = 9;
        EXPECT_TRUE(WSAGetOverlappedResult(s, &asked.overlapped, &bytes, FALSE, &flags));
        EXPECT_EQ(0u, bytes);
        WSACloseEvent(event);
    });
}

TEST_F(Ioctl, GoodOverlappedRoutine) {
    on_each_state([](SOCKET s) {
        Asked asked;
        asked.good(s, &asked.overlapped, note_call);
        EXPECT_EQ(0, asked.result);
        EXPECT_TRUE(calls().empty()) << "not before an alertable wait";
        EXPECT_EQ(0u, SleepEx(0, FALSE));
        EXPECT_TRUE(calls().empty());
        EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(10000, TRUE));
        ASSERT_EQ(1u, calls().size());
        EXPECT_EQ(0u, calls()[0].error);
        EXPECT_EQ(0u, calls()[0].bytes);
        EXPECT_EQ(&asked.overlapped, calls()[0].overlapped);
        EXPECT_EQ(0u, calls()[0].flags);
        EXPECT_EQ(std::this_thread::get_id(), calls()[0].thread);
        EXPECT_EQ(0u, SleepEx(0, TRUE)) << "once";
        EXPECT_EQ(1u, calls().size());
    });
}

TEST_F(Ioctl, GoodOverlappedPolling) {
    on_each_state([](SOCKET s) {
        Asked asked;
        asked.good(s, &asked.overlapped);
        EXPECT_EQ(0, asked.result);
        EXPECT_TRUE(HasOverlappedIoCompleted(&asked.overlapped));
    });
}

TEST_F(Ioctl, RoutineWithoutOverlapped) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    Asked asked;
    asked.good(s, nullptr, note_call);
    EXPECT_EQ(SOCKET_ERROR, asked.result);
    EXPECT_EQ(WSAEINVAL, asked.error);
    closesocket(s);
}

TEST_F(Ioctl, NotTcp) {
    for (const int family : {AF_INET, AF_INET6}) {
        const SOCKET s = socket(family, SOCK_DGRAM, IPPROTO_UDP);
        for (int kind = 0; kind < 3; ++kind) {
            Asked asked;
            asked.good(s, kind > 0 ? &asked.overlapped : nullptr, kind > 1 ? note_call : nullptr);
            EXPECT_EQ(SOCKET_ERROR, asked.result);
            EXPECT_EQ(WSAEOPNOTSUPP, asked.error);
            EXPECT_EQ(0u, asked.returned);
        }
        EXPECT_EQ(0u, SleepEx(0, TRUE));
        closesocket(s);
    }
}

TEST_F(Ioctl, UnknownCodeSynchronous) {
    on_each_state([](SOCKET s) {
        Asked asked;
        asked.ask(s, &asked.on, 4, nullptr, 0, &asked.returned, nullptr, nullptr, kUnknownCode);
        EXPECT_EQ(SOCKET_ERROR, asked.result);
        EXPECT_EQ(WSAEOPNOTSUPP, asked.error);
        EXPECT_EQ(0u, asked.returned);
    });
}

TEST_F(Ioctl, UnknownCodePort) {
    on_each_state([](SOCKET s) {
        HANDLE port = CreateIoCompletionPort(reinterpret_cast<HANDLE>(s), nullptr, 42, 0);
        Asked asked;
        asked.ask(s, &asked.on, 4, nullptr, 0, &asked.returned, &asked.overlapped, nullptr, kUnknownCode);
        EXPECT_EQ(SOCKET_ERROR, asked.result);
        EXPECT_EQ(WSA_IO_PENDING, asked.error);
        EXPECT_EQ(kUntouched, asked.returned);
        DWORD bytes = 9;
        ULONG_PTR key = 0;
        LPOVERLAPPED got = nullptr;
        EXPECT_FALSE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 0));
        EXPECT_EQ(static_cast<DWORD>(ERROR_NOT_SUPPORTED), GetLastError());
        EXPECT_EQ(&asked.overlapped, got);
        EXPECT_EQ(static_cast<ULONG_PTR>(static_cast<ULONG>(STATUS_NOT_SUPPORTED)),
                  asked.overlapped.Internal);
        CloseHandle(port);
    });
}

TEST_F(Ioctl, UnknownCodeEventAndRoutine) {
    on_each_state([](SOCKET s) {
        WSAEVENT event = WSACreateEvent();
        Asked asked;
        asked.overlapped.hEvent = event;
        asked.ask(s, &asked.on, 4, nullptr, 0, &asked.returned, &asked.overlapped, nullptr, kUnknownCode);
        EXPECT_EQ(WSA_IO_PENDING, asked.error);
        EXPECT_EQ(kUntouched, asked.returned);
        EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 10000, FALSE));
        DWORD bytes;
        DWORD flags;
        EXPECT_FALSE(WSAGetOverlappedResult(s, &asked.overlapped, &bytes, TRUE, &flags));
        EXPECT_EQ(WSAEOPNOTSUPP, WSAGetLastError());
        WSACloseEvent(event);

        Asked other;
        other.ask(s, &other.on, 4, nullptr, 0, &other.returned, &other.overlapped, note_call, kUnknownCode);
        EXPECT_EQ(WSA_IO_PENDING, other.error);
        EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(10000, TRUE));
        ASSERT_EQ(1u, calls().size());
        EXPECT_EQ(static_cast<DWORD>(WSAEOPNOTSUPP), calls()[0].error);
        EXPECT_EQ(static_cast<ULONG_PTR>(static_cast<ULONG>(STATUS_NOT_SUPPORTED)),
                  other.overlapped.Internal);
    });
}

TEST_F(Ioctl, TheConstant) {
    EXPECT_EQ(0x98000010u, SIO_LOOPBACK_FAST_PATH);
    const int as_others_spell_it = -1744830448;
    EXPECT_EQ(static_cast<DWORD>(as_others_spell_it), SIO_LOOPBACK_FAST_PATH);
    const SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    Asked asked;
    asked.ask(s, &asked.on, 4, nullptr, 0, &asked.returned, nullptr, nullptr,
              static_cast<DWORD>(as_others_spell_it));
    EXPECT_EQ(0, asked.result);
    closesocket(s);
}

}  // namespace
}  // namespace test
