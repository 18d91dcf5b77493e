// zeromq_like: the pair of connected sockets by which libzmq wakes a thread on Windows.
//
// A listener on the loopback address and a writer, both with the control code where the headers know it;
// connect, then accept in the same thread, so that nobody reads while the writer writes a mebibyte (libzmq
// does this to get past TCP's slow start). Then both ends are non-blocking, and one byte at a time wakes the
// reader, who waits in select().
#include "transcript.h"

#include <vector>

namespace {

constexpr int kMebibyte = 1024 * 1024;

void tune(SOCKET s, const char* which) {
#ifdef SIO_LOOPBACK_FAST_PATH
    int on = 1;
    DWORD returned = 0;
    const int result =
        WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, &on, sizeof on, nullptr, 0, &returned, nullptr, nullptr);
    printf("[fast] control code on the %s: %d, error %d, returned %u\n", which, result,
           result == 0 ? 0 : WSAGetLastError(), static_cast<unsigned>(returned));
#else
    printf("[fast] the headers do not know the control code\n");
#endif
}

void unblock(SOCKET s) {
    u_long on = 1;
    say("FIONBIO", ioctlsocket(s, FIONBIO, &on));
}

/// One select() for reading. @return what it returned.
int readable(SOCKET s, int milliseconds) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(s, &set);
    timeval limit = {milliseconds / 1000, milliseconds % 1000 * 1000};
    return select(0, &set, nullptr, nullptr, &limit);
}

bool make_pair(SOCKET& reader, SOCKET& writer) {
    const SOCKET listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    must(listener != INVALID_SOCKET, "socket");
    BOOL on = TRUE;
    say("SO_REUSEADDR",
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, reinterpret_cast<char*>(&on), sizeof on));
    tune(listener, "listener");
    bind_loopback(listener, 0);
    writer = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    must(writer != INVALID_SOCKET, "socket");
    tune(writer, "writer");
    say("TCP_NODELAY", setsockopt(writer, IPPROTO_TCP, TCP_NODELAY, reinterpret_cast<char*>(&on), sizeof on));
    say("listen", listen(listener, SOMAXCONN));
    say("connect", connect_loopback(writer, port_of(listener)));
    reader = accept(listener, nullptr, nullptr);
    must(reader != INVALID_SOCKET, "accept");
    say("close the listener", closesocket(listener));
    return true;
}

/// A mebibyte before anyone reads, then all of it.
void exchange_mebibyte(SOCKET reader, SOCKET writer) {
    std::vector<char> sent(kMebibyte);
    std::vector<char> got(kMebibyte);
    unsigned state = 1;
    for (char& byte : sent)
        byte = static_cast<char>(next_random(&state));
    printf("written before anyone reads: %d\n", send(writer, sent.data(), kMebibyte, 0));
    int total = 0;
    while (total < kMebibyte) {
        const int size = recv(reader, got.data() + total, kMebibyte - total, 0);
        if (size == SOCKET_ERROR && WSAGetLastError() == WSAEWOULDBLOCK) {
            must(readable(reader, 10000) == 1, "the rest of the mebibyte");
            continue;
        }
        must(size > 0, "recv");
        total += size;
    }
    printf("read: %d, %s\n", total, sent == got ? "the same" : "different");
}

void signal_and_wait(SOCKET reader, SOCKET writer) {
    char byte = 0;
    say("recv of nothing", recv(reader, &byte, 1, 0));
    say("select, nothing there", readable(reader, 20));
    int good = 0;
    for (int i = 0; i < 1000; ++i) {
        byte = static_cast<char>(i);
        if (send(writer, &byte, 1, 0) != 1 || readable(reader, 10000) != 1)
            break;
        byte = 0;
        if (recv(reader, &byte, 1, 0) != 1 || byte != static_cast<char>(i))
            break;
        ++good;
    }
    printf("signals that arrived: %d\n", good);
    // Another thread waits; the byte must wake it.
    SOCKET pair[2] = {reader, writer};
    HANDLE thread = CreateThread(
        nullptr, 0,
        [](void* sockets) -> DWORD {
            Sleep(50);
            return send(static_cast<SOCKET*>(sockets)[1], "x", 1, 0) == 1 ? 0 : 1;
        },
        pair, 0, nullptr);
    say("select, woken by another thread", readable(reader, 10000));
    say("recv", recv(reader, &byte, 1, 0));
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

}  // namespace

int main() {
    start();
    SOCKET reader;
    SOCKET writer;
    make_pair(reader, writer);
    exchange_mebibyte(reader, writer);
    unblock(writer);
    unblock(reader);
    exchange_mebibyte(reader, writer);
    signal_and_wait(reader, writer);
    say_lane("the reader", reader);
    say_lane("the writer", writer);
    // Winsock takes all of a large non-blocking send while its queue is not full; Wine takes what fits.
    {
        std::vector<char> large(32 * kMebibyte, 'l');
        printf("[windows] a send of 32 MiB: %d\n",
               send(writer, large.data(), static_cast<int>(large.size()), 0));
    }
    linger hard = {1, 0};
    say("SO_LINGER", setsockopt(writer, SOL_SOCKET, SO_LINGER, reinterpret_cast<char*>(&hard), sizeof hard));
    say("close the writer", closesocket(writer));
    say("close the reader", closesocket(reader));
    SOCKET again_reader;
    SOCKET again_writer;
    make_pair(again_reader, again_writer);
    say("send", send(again_writer, "last", 4, 0));
    say("close the writer", closesocket(again_writer));
    char bytes[8];
    say("recv", recv(again_reader, bytes, sizeof bytes, 0));
    say("recv at the end", recv(again_reader, bytes, sizeof bytes, 0));
    say("close the reader", closesocket(again_reader));
    say("WSACleanup", WSACleanup());
    say("WSACleanup once more", WSACleanup());
    return 0;
}
