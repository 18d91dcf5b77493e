// See protocols.h.
#include "winsock/protocols.h"

#include <type_traits>

#include "winsock/native.h"

namespace loopfast::winsock {

namespace {

template <typename Info> Info info_of(const Socket& socket) {
    Info info{};
    const bool stream = socket.is_stream();
    const bool six = socket.family == native::kInet6;
    info.dwServiceFlags1 =
        XP1_IFS_HANDLES |
        (stream ? XP1_GUARANTEED_DELIVERY | XP1_GUARANTEED_ORDER | XP1_GRACEFUL_CLOSE | XP1_EXPEDITED_DATA
                : XP1_CONNECTIONLESS | XP1_MESSAGE_ORIENTED | XP1_SUPPORT_BROADCAST | XP1_SUPPORT_MULTIPOINT);
    info.dwProviderFlags = PFL_MATCHES_PROTOCOL_ZERO;
    info.dwCatalogEntryId = (stream ? 1001U : 1002U) + (six ? 2U : 0U);
    info.ProtocolChain.ChainLen = BASE_PROTOCOL;
    info.iVersion = 2;
    info.iAddressFamily = windows_family(socket.family);
    info.iMaxSockAddr = info.iMinSockAddr = six ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    info.iSocketType = socket.type;
    info.iProtocol = socket.protocol;
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

}  // namespace

WSAPROTOCOL_INFOA protocol_info_a(const Socket& socket) { return info_of<WSAPROTOCOL_INFOA>(socket); }
WSAPROTOCOL_INFOW protocol_info_w(const Socket& socket) { return info_of<WSAPROTOCOL_INFOW>(socket); }

}  // namespace loopfast::winsock
