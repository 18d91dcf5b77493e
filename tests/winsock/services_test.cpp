// What the host knows of services, protocols and addresses, and what providers there are.
#include "common.h"

#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace test {
namespace {

class Services : public Winsock {};

TEST_F(Services, ByNameAndPort) {
    const servent* entry = getservbyname("http", "tcp");
    ASSERT_NE(nullptr, entry) << "/etc/services (netbase) is not there";
    EXPECT_STREQ("http", entry->s_name);
    EXPECT_STREQ("tcp", entry->s_proto);
    EXPECT_EQ(80, ntohs(static_cast<u_short>(entry->s_port)));
    ASSERT_NE(nullptr, getservbyname("www", nullptr)) << "an alias";
    EXPECT_STREQ("http", getservbyname("www", nullptr)->s_name);
    bool alias = false;
    for (char** one = entry->s_aliases; *one != nullptr; ++one)
        alias = alias || strcmp(*one, "www") == 0;
    EXPECT_TRUE(alias);
    entry = getservbyport(htons(53), "udp");
    ASSERT_NE(nullptr, entry);
    EXPECT_STREQ("domain", entry->s_name);
    EXPECT_STREQ("udp", entry->s_proto);
    // A port with its high bit set comes back out of the structure as a negative number.
    const servent* const high = getservbyname("saned", "tcp");
    ASSERT_NE(nullptr, high);
    EXPECT_NE(nullptr, getservbyport(high->s_port, "tcp"));
}

TEST_F(Services, WhatIsNotThere) {
    EXPECT_EQ(nullptr, getservbyname("no-such-service", "tcp"));
    EXPECT_EQ(WSANO_DATA, WSAGetLastError());
    EXPECT_EQ(nullptr, getservbyname("http", "no-such-protocol"));
    EXPECT_EQ(WSANO_DATA, WSAGetLastError());
    EXPECT_EQ(nullptr, getservbyname(nullptr, "tcp"));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(nullptr, getservbyport(htons(1), "no-such-protocol"));
    EXPECT_EQ(WSANO_DATA, WSAGetLastError());
    EXPECT_EQ(nullptr, getprotobyname("no-such-protocol"));
    EXPECT_EQ(WSANO_DATA, WSAGetLastError());
    EXPECT_EQ(nullptr, getprotobynumber(250));
    EXPECT_EQ(WSANO_DATA, WSAGetLastError());
}

TEST_F(Services, Protocols) {
    const protoent* entry = getprotobyname("tcp");
    ASSERT_NE(nullptr, entry) << "/etc/protocols (netbase) is not there";
    EXPECT_EQ(IPPROTO_TCP, entry->p_proto);
    entry = getprotobynumber(IPPROTO_UDP);
    ASSERT_NE(nullptr, entry);
    EXPECT_STREQ("udp", entry->p_name);
    ASSERT_NE(nullptr, entry->p_aliases[0]);
    EXPECT_STREQ("UDP", entry->p_aliases[0]);
}

TEST_F(Services, EachThreadHasItsOwnMemory) {
    const protoent* const mine = getprotobyname("tcp");
    ASSERT_NE(nullptr, mine);
    std::thread([] { EXPECT_EQ(IPPROTO_UDP, getprotobyname("udp")->p_proto); }).join();
    EXPECT_EQ(IPPROTO_TCP, mine->p_proto);
    EXPECT_STREQ("tcp", mine->p_name);
}

TEST_F(Services, HostByAddress) {
    in_addr address{};
    address.s_addr = htonl(INADDR_LOOPBACK);
    const hostent* const host = gethostbyaddr(reinterpret_cast<const char*>(&address), 4, AF_INET);
    ASSERT_NE(nullptr, host) << WSAGetLastError();
    EXPECT_NE('\0', host->h_name[0]);
    EXPECT_EQ(AF_INET, host->h_addrtype);
    EXPECT_EQ(4, host->h_length);
    EXPECT_EQ(0, memcmp(host->h_addr_list[0], &address, 4));
    EXPECT_EQ(nullptr, host->h_addr_list[1]);
    EXPECT_EQ(nullptr, gethostbyaddr(reinterpret_cast<const char*>(&address), 3, AF_INET));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(nullptr, gethostbyaddr(nullptr, 4, AF_INET));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(nullptr, gethostbyaddr(reinterpret_cast<const char*>(&address), 4, 77));
    EXPECT_EQ(WSAEAFNOSUPPORT, WSAGetLastError());
}

TEST_F(Services, ProvidersMakeTheSocketsThatTheyDescribe) {
    DWORD needed = 0;
    EXPECT_EQ(SOCKET_ERROR, WSAEnumProtocolsA(nullptr, nullptr, &needed));
    EXPECT_EQ(WSAENOBUFS, WSAGetLastError());
    ASSERT_EQ(4 * sizeof(WSAPROTOCOL_INFOA), needed);
    std::vector<WSAPROTOCOL_INFOA> infos(4);
    ASSERT_EQ(4, WSAEnumProtocolsA(nullptr, infos.data(), &needed));
    for (WSAPROTOCOL_INFOA& info : infos) {
        const SOCKET s = WSASocketA(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info, 0,
                                    WSA_FLAG_OVERLAPPED);
        ASSERT_NE(INVALID_SOCKET, s) << info.szProtocol;
        WSAPROTOCOL_INFOA own{};
        int size = sizeof own;
        EXPECT_EQ(0, getsockopt(s, SOL_SOCKET, SO_PROTOCOL_INFOA, reinterpret_cast<char*>(&own), &size));
        EXPECT_EQ(0, memcmp(&info, &own, sizeof own)) << info.szProtocol;
        closesocket(s);
    }
}

TEST_F(Services, ProvidersOfOneProtocol) {
    INT tcp[] = {IPPROTO_TCP, 0};
    WSAPROTOCOL_INFOW infos[4];
    DWORD length = sizeof infos;
    EXPECT_EQ(2, WSAEnumProtocolsW(tcp, infos, &length));
    EXPECT_EQ(SOCK_STREAM, infos[0].iSocketType);
    EXPECT_EQ(AF_INET6, infos[1].iAddressFamily);
    length = sizeof infos[0];
    EXPECT_EQ(SOCKET_ERROR, WSAEnumProtocolsW(tcp, infos, &length));
    EXPECT_EQ(WSAENOBUFS, WSAGetLastError());
    EXPECT_EQ(2 * sizeof infos[0], length);
    INT none[] = {0};
    EXPECT_EQ(0, WSAEnumProtocolsW(none, nullptr, &length));
    EXPECT_EQ(SOCKET_ERROR, WSAEnumProtocolsW(tcp, nullptr, &length));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, WSAEnumProtocolsW(tcp, infos, nullptr));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
}

TEST(ServicesBefore, Startup) {
    EXPECT_EQ(nullptr, getprotobyname("tcp"));
    EXPECT_EQ(WSANOTINITIALISED, WSAGetLastError());
    EXPECT_EQ(nullptr, getservbyname(nullptr, nullptr));
    EXPECT_EQ(WSANOTINITIALISED, WSAGetLastError());
    DWORD length = 0;
    EXPECT_EQ(SOCKET_ERROR, WSAEnumProtocolsA(nullptr, nullptr, &length));
    EXPECT_EQ(WSANOTINITIALISED, WSAGetLastError());
}

}  // namespace
}  // namespace test
