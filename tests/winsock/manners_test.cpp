// Winsock's manners and the errors of calls that block.
#include "common.h"

#include <atomic>

namespace test {
namespace {

class Manners : public Winsock {};

TEST_F(Manners, NonBlockingSendTakesAllOfALargeBuffer) {
    Pair pair = connected_pair();
    set_nonblocking(pair.client);
    std::string text(48 << 20, '\0');
    for (size_t i = 0; i < text.size(); ++i)
        text[i] = static_cast<char>(i * 7 + i / 4096);
    EXPECT_EQ(static_cast<int>(text.size()), send(pair.client, text.data(), static_cast<int>(text.size()), 0))
        << "the queue was not full before";
    EXPECT_EQ(SOCKET_ERROR, send(pair.client, "x", 1, 0));
    EXPECT_EQ(WSAEWOULDBLOCK, WSAGetLastError());
    fd_set writing;
    FD_ZERO(&writing);
    FD_SET(pair.client, &writing);
    timeval none{0, 0};
    EXPECT_EQ(0, select(0, nullptr, &writing, nullptr, &none));
    EXPECT_EQ(text, receive_all(pair.server, text.size()));
    ASSERT_TRUE(eventually([&] { return send(pair.client, "tail", 4, 0) == 4; }));
    EXPECT_EQ("tail", receive_all(pair.server, 4));
}

TEST_F(Manners, AMebibyteBeforeAnybodyReads) {
    Pair pair = connected_pair();
    set_nonblocking(pair.client);
    const std::string text(1 << 20, 'm');
    EXPECT_EQ(1 << 20, send(pair.client, text.data(), 1 << 20, 0));
    EXPECT_EQ(text, receive_all(pair.server, text.size()));
}

TEST_F(Manners, DataSurvivesClosesocket) {
    for (const size_t size : {size_t{10}, size_t{3} << 20, size_t{40} << 20}) {
        Pair pair = connected_pair();
        set_nonblocking(pair.client);
        const std::string text(size, 'd');
        ASSERT_EQ(static_cast<int>(size), send(pair.client, text.data(), static_cast<int>(size), 0));
        pair.close_client();
        EXPECT_EQ(size, receive_all(pair.server, size).size());
        char byte;
        EXPECT_EQ(0, recv(pair.server, &byte, 1, 0)) << "and then the end";
    }
}

TEST_F(Manners, ShutdownComesBehindWhatWasSent) {
    Pair pair = connected_pair();
    set_nonblocking(pair.client);
    const std::string text(30 << 20, 'e');
    ASSERT_EQ(static_cast<int>(text.size()),
              send(pair.client, text.data(), static_cast<int>(text.size()), 0));
    EXPECT_EQ(0, shutdown(pair.client, SD_SEND));
    EXPECT_EQ(SOCKET_ERROR, send(pair.client, "x", 1, 0));
    EXPECT_EQ(WSAESHUTDOWN, WSAGetLastError());
    EXPECT_EQ(text.size(), receive_all(pair.server, text.size()).size());
    char byte;
    EXPECT_EQ(0, recv(pair.server, &byte, 1, 0));
    send_all(pair.server, "other way");
    EXPECT_EQ(0, shutdown(pair.server, SD_BOTH));
    u_long off = 0;
    ioctlsocket(pair.client, FIONBIO, &off);
    EXPECT_EQ("other way", receive_all(pair.client, 9));
    EXPECT_EQ(0, shutdown(pair.client, SD_RECEIVE));
    EXPECT_EQ(SOCKET_ERROR, recv(pair.client, &byte, 1, 0));
    EXPECT_EQ(WSAESHUTDOWN, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, shutdown(pair.client, 7));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
}

TEST_F(Manners, LastErrorPerThread) {
    WSASetLastError(4711);
    EXPECT_EQ(4711u, GetLastError()) << "the same slot";
    SetLastError(42);
    EXPECT_EQ(42, WSAGetLastError());
    std::thread([] {
        EXPECT_EQ(0, WSAGetLastError());
        WSASetLastError(1);
    }).join();
    EXPECT_EQ(42, WSAGetLastError());
}

TEST_F(Manners, NeverAnErrno) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    const SOCKET udp = socket(AF_INET, SOCK_DGRAM, 0);
    char byte = 0;
    sockaddr_in name = loopback();
    int size = sizeof name;
    const auto check = [](long long result) {
        if (result == SOCKET_ERROR || static_cast<SOCKET>(result) == INVALID_SOCKET) {
            EXPECT_GE(WSAGetLastError(), WSABASEERR);
        }
    };
    for (const SOCKET one : {s, udp, INVALID_SOCKET}) {
        check(recv(one, &byte, 1, MSG_OOB));
        check(send(one, &byte, 1, 0));
        check(listen(one, 1));
        check(shutdown(one, SD_BOTH));
        check(getpeername(one, reinterpret_cast<sockaddr*>(&name), &size));
        check(static_cast<long long>(accept(one, nullptr, nullptr)));
        check(setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &byte, 1));
        u_long value;
        check(ioctlsocket(one, FIONREAD, &value));
        check(ioctlsocket(one, 12345, &value));
    }
    check(static_cast<long long>(socket(12345, SOCK_STREAM, 0)));
    EXPECT_EQ(WSAEAFNOSUPPORT, WSAGetLastError());
    check(static_cast<long long>(socket(AF_INET, 77, 0)));
    EXPECT_EQ(WSAESOCKTNOSUPPORT, WSAGetLastError());
    check(static_cast<long long>(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP)));
    EXPECT_EQ(WSAEPROTONOSUPPORT, WSAGetLastError());
    check(static_cast<long long>(socket(AF_UNSPEC, SOCK_STREAM, 0)));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    check(static_cast<long long>(socket(AF_INET, SOCK_STREAM, 200)));
    EXPECT_EQ(WSAEPROTONOSUPPORT, WSAGetLastError());
    closesocket(s);
    closesocket(udp);
}

TEST_F(Manners, Startup) {
    WSADATA data;
    EXPECT_EQ(WSAVERNOTSUPPORTED, WSAStartup(MAKEWORD(0, 5), &data));
    EXPECT_EQ(WSAEFAULT, WSAStartup(MAKEWORD(2, 2), nullptr));
    EXPECT_EQ(WSAEFAULT, WSAStartup(MAKEWORD(2, 2), reinterpret_cast<WSADATA*>(no_memory())));
    EXPECT_EQ(0, WSAStartup(MAKEWORD(1, 1), &data));
    EXPECT_EQ(MAKEWORD(1, 1), data.wVersion);
    EXPECT_EQ(MAKEWORD(2, 2), data.wHighVersion);
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(0, WSACleanup());
    EXPECT_EQ(0, opt_in(s)) << "one use is left";
    EXPECT_EQ(0, WSACleanup());
    EXPECT_EQ(SOCKET_ERROR, WSACleanup());
    EXPECT_EQ(WSANOTINITIALISED, WSAGetLastError());
    EXPECT_EQ(INVALID_SOCKET, socket(AF_INET, SOCK_STREAM, 0));
    EXPECT_EQ(WSANOTINITIALISED, WSAGetLastError());
    EXPECT_EQ(0, WSAStartup(MAKEWORD(2, 2), &data));
    EXPECT_EQ(SOCKET_ERROR, opt_in(s)) << "the last cleanup closed it";
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
}

TEST_F(Manners, ConnectAndItsErrors) {
    const SOCKET listener = listening_socket();
    const sockaddr_in address = name_of(listener);
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(SOCKET_ERROR, connect(s, generic(address), 8));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, connect(s, reinterpret_cast<sockaddr*>(no_memory()), 16));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    sockaddr_in any{AF_INET, address.sin_port, {}, {}};
    EXPECT_EQ(SOCKET_ERROR, connect(s, generic(any), sizeof any));
    EXPECT_EQ(WSAEADDRNOTAVAIL, WSAGetLastError());
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    EXPECT_EQ(SOCKET_ERROR, connect(s, reinterpret_cast<sockaddr*>(&six), sizeof six));
    EXPECT_EQ(WSAEAFNOSUPPORT, WSAGetLastError());
    const SOCKET nobody = bound_socket();
    const sockaddr_in refused = name_of(nobody);
    EXPECT_EQ(SOCKET_ERROR, connect(s, generic(refused), sizeof refused));
    EXPECT_EQ(WSAECONNREFUSED, WSAGetLastError());
    EXPECT_EQ(0, connect(s, generic(address), sizeof address)) << "again, " << WSAGetLastError();
    EXPECT_EQ(SOCKET_ERROR, connect(s, generic(address), sizeof address));
    EXPECT_EQ(WSAEISCONN, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, connect(listener, generic(address), sizeof address));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, bind(s, generic(any), sizeof any));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, listen(s, 1));
    EXPECT_EQ(WSAEISCONN, WSAGetLastError());
    for (const SOCKET one : {s, nobody, listener})
        closesocket(one);
}

TEST_F(Manners, NonBlockingConnect) {
    const SOCKET nobody = bound_socket();
    const sockaddr_in address = name_of(nobody);
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    set_nonblocking(s);
    EXPECT_EQ(SOCKET_ERROR, connect(s, generic(address), sizeof address));
    EXPECT_EQ(WSAEWOULDBLOCK, WSAGetLastError());
    fd_set writing;
    fd_set except;
    FD_ZERO(&writing);
    FD_ZERO(&except);
    FD_SET(s, &writing);
    FD_SET(s, &except);
    timeval limit{10, 0};
    EXPECT_EQ(1, select(0, nullptr, &writing, &except, &limit));
    EXPECT_FALSE(FD_ISSET(s, &writing));
    EXPECT_TRUE(FD_ISSET(s, &except)) << "a failed connect shows there";
    int error = 0;
    int size = sizeof error;
    EXPECT_EQ(0, getsockopt(s, SOL_SOCKET, SO_ERROR, reinterpret_cast<char*>(&error), &size));
    EXPECT_EQ(WSAECONNREFUSED, error);
    closesocket(s);
    closesocket(nobody);
}

TEST_F(Manners, SelectAndPoll) {
    Pair pair = connected_pair();
    fd_set reading;
    FD_ZERO(&reading);
    timeval none{0, 0};
    EXPECT_EQ(SOCKET_ERROR, select(0, &reading, nullptr, nullptr, &none));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError()) << "no sockets";
    EXPECT_EQ(SOCKET_ERROR, select(0, nullptr, nullptr, nullptr, &none));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    FD_SET(pair.server, &reading);
    EXPECT_EQ(0, select(0, &reading, nullptr, nullptr, &none));
    EXPECT_EQ(0u, reading.fd_count);
    FD_SET(pair.server, &reading);
    std::thread sender([&] {
        Sleep(10);
        send_all(pair.client, "wake");
    });
    EXPECT_EQ(1, select(0, &reading, nullptr, nullptr, nullptr));
    EXPECT_TRUE(FD_ISSET(pair.server, &reading));
    sender.join();
    FD_SET(INVALID_SOCKET, &reading);
    EXPECT_EQ(SOCKET_ERROR, select(0, &reading, nullptr, nullptr, &none));
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());

    WSAPOLLFD polls[3] = {{pair.server, POLLIN, 0}, {pair.client, POLLOUT, 0}, {INVALID_SOCKET, POLLIN, 0}};
    EXPECT_EQ(2, WSAPoll(polls, 3, 0));
    EXPECT_EQ(POLLRDNORM, polls[0].revents);
    EXPECT_EQ(POLLWRNORM, polls[1].revents);
    EXPECT_EQ("wake", receive_all(pair.server, 4));
    polls[1].events = POLLIN;
    EXPECT_EQ(0, WSAPoll(polls, 3, 20));
    pair.close_client();
    polls[1].fd = 0x7ff0;
    EXPECT_EQ(1, WSAPoll(polls, 3, 10000));
    EXPECT_EQ(POLLHUP, polls[0].revents);
    EXPECT_EQ(POLLNVAL, polls[1].revents);
    EXPECT_EQ(SOCKET_ERROR, WSAPoll(polls, 0, 0));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
}

TEST_F(Manners, ClosesocketEndsABlockingCallOfAnotherThread) {
    Pair pair = connected_pair();
    std::thread blocked([s = pair.server] {
        char byte;
        EXPECT_EQ(SOCKET_ERROR, recv(s, &byte, 1, 0));
        EXPECT_EQ(WSAEINTR, WSAGetLastError());
    });
    Sleep(30);
    pair.close_server();
    blocked.join();
    char byte;
    EXPECT_EQ(0, recv(pair.client, &byte, 1, 0)) << "the peer sees the end";

    const SOCKET listener = listening_socket();
    std::thread accepting([&] {
        EXPECT_EQ(INVALID_SOCKET, accept(listener, nullptr, nullptr));
        EXPECT_EQ(WSAEINTR, WSAGetLastError());
    });
    Sleep(30);
    closesocket(listener);
    accepting.join();
}

int hook_calls = 0;
int inside_hook = 0;
BOOL WINAPI cancelling_hook() {
    EXPECT_TRUE(WSAIsBlocking());
    EXPECT_EQ(SOCKET_ERROR, send(4, "x", 1, 0));
    inside_hook = WSAGetLastError();
    if (++hook_calls == 3) {
        EXPECT_EQ(0, WSACancelBlockingCall());
    }
    return FALSE;
}

TEST_F(Manners, CancelBlockingCall) {
    Pair pair = connected_pair();
    EXPECT_EQ(SOCKET_ERROR, WSACancelBlockingCall());
    EXPECT_EQ(WSAEINVAL, WSAGetLastError()) << "there is none";
    EXPECT_FALSE(WSAIsBlocking());
    hook_calls = 0;
    WSASetBlockingHook(reinterpret_cast<FARPROC>(reinterpret_cast<void*>(cancelling_hook)));
    char byte;
    EXPECT_EQ(SOCKET_ERROR, recv(pair.server, &byte, 1, 0));
    EXPECT_EQ(WSAEINTR, WSAGetLastError());
    EXPECT_EQ(3, hook_calls);
    EXPECT_EQ(WSAEINPROGRESS, inside_hook);
    EXPECT_EQ(0, WSAUnhookBlockingHook());
    // Bytes that were there are still there.
    send_all(pair.client, "k");
    EXPECT_EQ("k", receive_all(pair.server, 1));
    fd_set reading;
    FD_ZERO(&reading);
    FD_SET(pair.server, &reading);
    hook_calls = 0;
    WSASetBlockingHook(reinterpret_cast<FARPROC>(reinterpret_cast<void*>(cancelling_hook)));
    EXPECT_EQ(SOCKET_ERROR, select(0, &reading, nullptr, nullptr, nullptr));
    EXPECT_EQ(WSAEINTR, WSAGetLastError());
    WSAUnhookBlockingHook();
}

TEST_F(Manners, HandlesAreNotMistaken) {
    std::vector<SOCKET> old;
    for (int i = 0; i < 3000; ++i) {
        const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
        ASSERT_NE(INVALID_SOCKET, s);
        ASSERT_LT(s, SOCKET{1} << 31) << "fits an int";
        closesocket(s);
        old.push_back(s);
    }
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    for (const SOCKET closed : old) {
        EXPECT_EQ(SOCKET_ERROR, opt_in(closed));
        EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
    }
    WSAEVENT event = WSACreateEvent();
    EXPECT_FALSE(WSACloseEvent(reinterpret_cast<WSAEVENT>(s)));
    EXPECT_EQ(static_cast<DWORD>(WSA_INVALID_HANDLE), GetLastError());
    EXPECT_EQ(SOCKET_ERROR, closesocket(reinterpret_cast<SOCKET>(event)));
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
    EXPECT_TRUE(CloseHandle(event));
    EXPECT_TRUE(CloseHandle(reinterpret_cast<HANDLE>(s))) << "a socket is a handle";
    EXPECT_EQ(SOCKET_ERROR, closesocket(s));
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
}

TEST_F(Manners, UrgentData) {
    Pair pair = connected_pair();
    u_long mark = 0;
    EXPECT_EQ(0, ioctlsocket(pair.server, SIOCATMARK, &mark));
    EXPECT_EQ(1u, mark) << "no urgent byte is waiting";
    EXPECT_EQ(1, send(pair.client, "!", 1, MSG_OOB));
    fd_set except;
    FD_ZERO(&except);
    FD_SET(pair.server, &except);
    timeval limit{10, 0};
    EXPECT_EQ(1, select(0, nullptr, nullptr, &except, &limit));
    EXPECT_EQ(0, ioctlsocket(pair.server, SIOCATMARK, &mark));
    char byte = 0;
    EXPECT_EQ(1, recv(pair.server, &byte, 1, MSG_OOB));
    EXPECT_EQ('!', byte);
    settle(pair.client, pair.server);
}

TEST_F(Manners, Datagrams) {
    const SOCKET one = socket(AF_INET, SOCK_DGRAM, 0);
    const SOCKET other = socket(AF_INET, SOCK_DGRAM, 0);
    char bytes[16];
    EXPECT_EQ(SOCKET_ERROR, recvfrom(one, bytes, 16, 0, nullptr, nullptr));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError()) << "not bound";
    const sockaddr_in any = loopback();
    ASSERT_EQ(0, bind(one, generic(any), sizeof any));
    const sockaddr_in to = name_of(one);
    EXPECT_EQ(20, sendto(other, "twenty bytes of text", 20, 0, generic(to), sizeof to));
    sockaddr_in from{};
    int size = sizeof from;
    EXPECT_EQ(SOCKET_ERROR, recvfrom(one, bytes, 16, 0, reinterpret_cast<sockaddr*>(&from), &size));
    EXPECT_EQ(WSAEMSGSIZE, WSAGetLastError());
    EXPECT_EQ(name_of(other).sin_port, from.sin_port);
    OVERLAPPED overlapped{};
    WSABUF buffer{16, bytes};
    DWORD flags = 0;
    ASSERT_EQ(SOCKET_ERROR, WSARecvFrom(one, &buffer, 1, nullptr, &flags, reinterpret_cast<sockaddr*>(&from),
                                        &size, &overlapped, nullptr));
    ASSERT_EQ(WSA_IO_PENDING, WSAGetLastError());
    EXPECT_EQ(4, sendto(other, "four", 4, 0, generic(to), sizeof to));
    DWORD count = 0;
    EXPECT_TRUE(WSAGetOverlappedResult(one, &overlapped, &count, TRUE, &flags));
    EXPECT_EQ(4u, count);
    closesocket(one);
    closesocket(other);
}

}  // namespace
}  // namespace test
