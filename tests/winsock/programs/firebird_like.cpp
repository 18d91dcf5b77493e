// firebird_like: a database server that sets the code on its listener after listen() and trusts nothing.
//
// Whether the code was taken, it does not ask. It waits for connections in select(), sets its options on what
// it accepts, gives each attachment a thread, and checks every length that comes over the wire. Clients: one
// that works, one that claims too much, one that leaves in the middle of a packet, and one that resets.
#include "transcript.h"

#include <string>
#include <vector>

namespace {

constexpr unsigned kMost = 64 * 1024;
enum Outcome { kDetached = 1, kTooLong, kCutShort, kReset };

const char* name_of(int outcome) {
    static const char* const names[] = {"?", "detached", "claimed too much", "cut short", "reset"};
    return names[outcome];
}

struct Attachment {
    SOCKET socket;
    int packets;
    unsigned sum;
};

void put(char* bytes, unsigned value) {
    value = htonl(value);
    memcpy(bytes, &value, 4);
}
unsigned get(const char* bytes) {
    unsigned value;
    memcpy(&value, bytes, 4);
    return ntohl(value);
}

/// All of `size`, or how it ended.
int take(SOCKET s, char* bytes, unsigned size) {
    unsigned have = 0;
    while (have < size) {
        const int got = recv(s, bytes + have, static_cast<int>(size - have), 0);
        if (got == 0)
            return have == 0 ? kDetached : kCutShort;
        if (got == SOCKET_ERROR)
            return WSAGetLastError() == WSAECONNRESET ? kReset : -WSAGetLastError();
        have += static_cast<unsigned>(got);
    }
    return 0;
}

/// A packet is a length, as many bytes, and their checksum; the answer is the checksum and the bytes
/// backwards.
DWORD WINAPI attend(void* argument) {
    auto& attachment = *static_cast<Attachment*>(argument);
    std::vector<char> bytes(kMost + 4);
    char header[4];
    int end;
    for (;;) {
        end = take(attachment.socket, header, 4);
        if (end != 0)
            break;
        const unsigned size = get(header);
        if (size > kMost) {
            end = kTooLong;
            break;
        }
        end = take(attachment.socket, bytes.data(), size + 4);
        if (end != 0) {
            if (end == kDetached)
                end = kCutShort;
            break;
        }
        const unsigned sum = checksum(CHECKSUM_START, bytes.data(), size);
        if (sum != get(bytes.data() + size)) {
            end = -1;
            break;
        }
        std::string answer(bytes.rend() - size, bytes.rend());
        answer.insert(0, header, 4);
        put(header, sum);
        answer.append(header, 4);
        if (!send_whole(attachment.socket, answer.data(), static_cast<int>(answer.size()))) {
            end = -2;
            break;
        }
        ++attachment.packets;
        attachment.sum = checksum(attachment.sum, header, 4);
    }
    shutdown(attachment.socket, SD_BOTH);
    closesocket(attachment.socket);
    return static_cast<DWORD>(end);
}

SOCKET attach(unsigned short port) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    must(s != INVALID_SOCKET, "socket");
    set_fast_path(s, 1);
    must(connect_loopback(s, port) == 0, "connect");
    return s;
}

/// @return the checksum of what was asked, 0 if an answer was wrong.
unsigned work(SOCKET s) {
    unsigned state = 7;
    unsigned sum = CHECKSUM_START;
    for (int i = 0; i < 300; ++i) {
        const unsigned size = i == 299 ? kMost : next_random(&state) % 3000;
        std::string packet(8 + size, '\0');
        put(packet.data(), size);
        for (unsigned k = 0; k < size; ++k)
            packet[4 + k] = static_cast<char>(next_random(&state));
        const unsigned own = checksum(CHECKSUM_START, packet.data() + 4, size);
        put(packet.data() + 4 + size, own);
        std::string answer(packet.size(), '\0');
        if (!send_whole(s, packet.data(), static_cast<int>(packet.size())) ||
            !receive_whole(s, answer.data(), static_cast<int>(answer.size())))
            return 0;
        const std::string expected(packet.rbegin() + 4, packet.rend() - 4);
        if (answer.compare(4, size, expected) != 0 || get(answer.data() + 4 + size) != own)
            return 0;
        sum = checksum(sum, packet.data() + 4 + size, 4);
    }
    return sum;
}

struct Script {
    unsigned short port;
    int which;
    unsigned sum;
    SOCKET kept;
    HANDLE accepted;  ///< set when the server has the connection: what is reset before that is another story
};

DWORD WINAPI run_client(void* argument) {
    auto& script = *static_cast<Script*>(argument);
    const SOCKET s = attach(script.port);
    WaitForSingleObject(script.accepted, INFINITE);
    char header[8] = {};
    char byte;
    switch (script.which) {
    case 0:
        script.sum = work(s);
        shutdown(s, SD_SEND);
        script.kept = recv(s, &byte, 1, 0) == 0 ? s : INVALID_SOCKET;
        return 0;
    case 1:
        put(header, 0x7fffffff);
        send_whole(s, header, 4);
        script.sum = recv(s, &byte, 1, 0) == 0;  // the server's close
        break;
    case 2:
        put(header, 100);
        send_whole(s, header, 7);
        script.sum = 1;
        break;
    default: {
        put(header, 10);
        send_whole(s, header, 4);
        linger hard = {1, 0};
        script.sum = setsockopt(s, SOL_SOCKET, SO_LINGER, reinterpret_cast<char*>(&hard), sizeof hard) == 0;
        break;
    }
    }
    closesocket(s);
    return 0;
}

}  // namespace

int main() {
    start();
    const SOCKET listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    must(listener != INVALID_SOCKET, "socket");
    BOOL on = TRUE;
    auto* const value = reinterpret_cast<char*>(&on);
    say("SO_EXCLUSIVEADDRUSE", setsockopt(listener, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, value, sizeof on));
    bind_loopback(listener, 0);
    say("listen", listen(listener, SOMAXCONN));
    set_fast_path(listener, 1);  // and does not ask

    for (int which = 0; which < 4; ++which) {
        Script script = {port_of(listener), which, 0, INVALID_SOCKET,
                         CreateEventA(nullptr, TRUE, FALSE, nullptr)};
        HANDLE client = CreateThread(nullptr, 0, run_client, &script, 0, nullptr);
        fd_set set;
        FD_ZERO(&set);
        FD_SET(listener, &set);
        timeval limit = {20, 0};
        say("select", select(static_cast<int>(listener) + 1, &set, nullptr, nullptr, &limit));
        printf("the listener is %s\n", FD_ISSET(listener, &set) ? "readable" : "not readable");
        sockaddr_in peer;
        int size = sizeof peer;
        Attachment attachment = {accept(listener, reinterpret_cast<sockaddr*>(&peer), &size), 0,
                                 CHECKSUM_START};
        must(attachment.socket != INVALID_SOCKET, "accept");
        printf("accepted: address of %d bytes, family %d, %s\n", size, peer.sin_family,
               peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK) ? "loopback" : "another");
        say("SO_KEEPALIVE", setsockopt(attachment.socket, SOL_SOCKET, SO_KEEPALIVE, value, sizeof on));
        say("TCP_NODELAY", setsockopt(attachment.socket, IPPROTO_TCP, TCP_NODELAY, value, sizeof on));
        SetEvent(script.accepted);
        HANDLE thread = CreateThread(nullptr, 0, attend, &attachment, 0, nullptr);
        WaitForSingleObject(thread, INFINITE);
        WaitForSingleObject(client, INFINITE);
        DWORD end = 0;
        GetExitCodeThread(thread, &end);
        CloseHandle(thread);
        CloseHandle(client);
        CloseHandle(script.accepted);
        const int outcome = static_cast<int>(end);
        if (outcome > 0)
            // Wine shows the end of a stream where Windows says that it was reset.
            printf("%sattachment %d: %s after %d packets, %s\n",
                   outcome == kReset || which == 3 ? "[windows] " : "", which, name_of(outcome),
                   attachment.packets,
                   which == 0 ? (script.sum == attachment.sum ? "sums agree" : "sums differ")
                              : (script.sum == 1 ? "as the client wants" : "the client is surprised"));
        else
            printf("attachment %d: error %d\n", which, -outcome);
        fflush(stdout);
        if (script.kept != INVALID_SOCKET) {
            say_lane("the client that worked", script.kept);
            closesocket(script.kept);
        }
    }
    say("close the listener", closesocket(listener));
    say("WSACleanup", WSACleanup());
    return 0;
}
