// See protocols.h. And WSAEnumProtocols, which lists the same descriptions.
#include "winsock/protocols.h"

#include <iterator>
#include <type_traits>

#include "winsock/native.h"
#include "winsock/probe.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

namespace {

struct Kind {
    int family, type, protocol;
};

template <typename Info> Info info_of(const Kind& kind) {
    Info info{};
    const bool stream = kind.type == native::kStream;
    const bool six = kind.family == native::kInet6;
    info.dwServiceFlags1 =
        XP1_IFS_HANDLES |
        (stream ? XP1_GUARANTEED_DELIVERY | XP1_GUARANTEED_ORDER | XP1_GRACEFUL_CLOSE | XP1_EXPEDITED_DATA
                : XP1_CONNECTIONLESS | XP1_MESSAGE_ORIENTED | XP1_SUPPORT_BROADCAST | XP1_SUPPORT_MULTIPOINT);
    info.dwProviderFlags = PFL_MATCHES_PROTOCOL_ZERO;
    info.dwCatalogEntryId = (stream ? 1001U : 1002U) + (six ? 2U : 0U);
    info.ProtocolChain.ChainLen = BASE_PROTOCOL;
    info.iVersion = 2;
    info.iAddressFamily = windows_family(kind.family);
    info.iMaxSockAddr = info.iMinSockAddr = six ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    info.iSocketType = kind.type;
    info.iProtocol = kind.protocol;
    info.iNetworkByteOrder = BIGENDIAN;
    info.iSecurityScheme = SECURITY_PROTOCOL_NONE;
    info.dwMessageSize = stream ? 0 : 65507;
    const char* const name = stream ? (six ? "loopfast Tcpip [TCP/IPv6]" : "loopfast Tcpip [TCP/IP]")
                                    : (six ? "loopfast Tcpip [UDP/IPv6]" : "loopfast Tcpip [UDP/IP]");
    using Character = std::remove_reference_t<decltype(info.szProtocol[0])>;
    for (size_t i = 0; name[i] != '\0'; ++i)
        info.szProtocol[i] = static_cast<Character>(name[i]);
    return info;
}

constexpr Kind kKinds[] = {{native::kInet, native::kStream, native::kTcp},
                           {native::kInet, native::kDatagram, native::kUdp},
                           {native::kInet6, native::kStream, native::kTcp},
                           {native::kInet6, native::kDatagram, native::kUdp}};

bool wanted(const INT* protocols, int protocol) {
    for (; protocols != nullptr && *protocols != 0; ++protocols)
        if (*protocols == protocol)
            return true;
    return protocols == nullptr;
}

template <typename Info> int enumerate(const INT* protocols, Info* buffer, DWORD* length) {
    if (const int error = check_call(); error != 0)
        return reported(error);
    if (!writable(length))
        return reported(WSAEFAULT);
    for (const INT* one = protocols; one != nullptr; ++one) {
        if (!readable(one))
            return reported(WSAEFAULT);
        if (*one == 0)
            break;
    }
    Info found[std::size(kKinds)];
    DWORD count = 0;
    for (const Kind& kind : kKinds)
        if (wanted(protocols, kind.protocol))
            found[count++] = info_of<Info>(kind);
    const DWORD needed = count * static_cast<DWORD>(sizeof(Info));
    if (*length < needed) {
        *length = needed;
        return reported(WSAENOBUFS);
    }
    if (needed != 0 && !writable(buffer, needed))
        return reported(WSAEFAULT);
    memcpy(buffer, found, needed);
    return static_cast<int>(count);
}

Kind kind_of(const Socket& socket) { return {socket.family, socket.type, socket.protocol}; }

}  // namespace

WSAPROTOCOL_INFOA protocol_info_a(const Socket& socket) {
    return info_of<WSAPROTOCOL_INFOA>(kind_of(socket));
}
WSAPROTOCOL_INFOW protocol_info_w(const Socket& socket) {
    return info_of<WSAPROTOCOL_INFOW>(kind_of(socket));
}

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API int WSAAPI WSAEnumProtocolsA(LPINT protocols, LPWSAPROTOCOL_INFOA buffer, LPDWORD length) {
    return enumerate(protocols, buffer, length);
}
LOOPFAST_API int WSAAPI WSAEnumProtocolsW(LPINT protocols, LPWSAPROTOCOL_INFOW buffer, LPDWORD length) {
    return enumerate(protocols, buffer, length);
}
