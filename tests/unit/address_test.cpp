// Addresses and the names made from them: both ends of a connection must come to the same name, whatever
// families their sockets have, and no two connections to the same.
#include "link/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace loopfast {
namespace {

Endpoint parse(const char* text, uint16_t port, uint32_t scope = 0) {
    Endpoint endpoint;
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        EXPECT_TRUE(to_endpoint(reinterpret_cast<sockaddr*>(&v4), sizeof v4, endpoint));
        return endpoint;
    }
    EXPECT_EQ(inet_pton(AF_INET6, text, &v6.sin6_addr), 1) << text;
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    v6.sin6_scope_id = scope;
    EXPECT_TRUE(to_endpoint(reinterpret_cast<sockaddr*>(&v6), sizeof v6, endpoint));
    return endpoint;
}

std::string name_of(const Endpoint& connector, const Endpoint& acceptor) {
    sockaddr_un name;
    socklen_t size;
    offer_name({connector, acceptor}, name, size);
    EXPECT_EQ(name.sun_family, AF_UNIX);
    EXPECT_EQ(name.sun_path[0], 0);
    EXPECT_LE(size, sizeof name);
    const size_t path = offsetof(sockaddr_un, sun_path);
    return {name.sun_path + 1, size - path - 1};
}

TEST(Address, FormsAreReadAsTheKernelReadsThem) {
    const Endpoint v4 = parse("127.1.2.3", 80);
    EXPECT_EQ(v4.family, AF_INET);
    EXPECT_EQ(v4.port, htons(80));
    EXPECT_EQ(v4.ip[0], 127);
    EXPECT_EQ(v4.ip[3], 3);
    EXPECT_EQ(v4.ip[4], 0);
    EXPECT_EQ(parse("::ffff:127.1.2.3", 80), v4) << "a dual-stack socket's view of the same address";
    EXPECT_NE(parse("::127.1.2.3", 80), v4);
    const Endpoint v6 = parse("2001:db8::1", 80, 7);
    EXPECT_EQ(v6.family, AF_INET6);
    EXPECT_EQ(v6.scope, 0U) << "a scope means something for link-local addresses only";
    EXPECT_EQ(parse("fe80::1", 80, 7).scope, 7U);
    EXPECT_NE(parse("fe80::1", 80, 7), parse("fe80::1", 80, 8));
}

TEST(Address, ShortAndForeignAddressesAreRefused) {
    Endpoint endpoint;
    sockaddr_storage storage{};
    auto* const address = reinterpret_cast<sockaddr*>(&storage);
    storage.ss_family = AF_INET;
    EXPECT_FALSE(to_endpoint(address, 0, endpoint));
    EXPECT_FALSE(to_endpoint(address, 1, endpoint));
    EXPECT_FALSE(to_endpoint(address, sizeof(sockaddr_in) - 1, endpoint));
    EXPECT_TRUE(to_endpoint(address, sizeof(sockaddr_in), endpoint));
    storage.ss_family = AF_INET6;
    EXPECT_FALSE(to_endpoint(address, 23, endpoint));
    EXPECT_TRUE(to_endpoint(address, 24, endpoint)) << "without the scope, as the kernel takes it";
    for (const int family : {AF_UNSPEC, AF_UNIX, AF_NETLINK, 200}) {
        storage.ss_family = static_cast<sa_family_t>(family);
        EXPECT_FALSE(to_endpoint(address, sizeof storage, endpoint)) << family;
    }
}

TEST(Address, Loopback) {
    EXPECT_TRUE(is_loopback(parse("127.0.0.1", 1)));
    EXPECT_TRUE(is_loopback(parse("127.255.255.254", 1)));
    EXPECT_FALSE(is_loopback(parse("128.0.0.1", 1)));
    EXPECT_FALSE(is_loopback(parse("126.255.255.255", 1)));
    EXPECT_FALSE(is_loopback(parse("0.0.0.0", 1)));
    EXPECT_TRUE(is_loopback(parse("::1", 1)));
    EXPECT_TRUE(is_loopback(parse("::ffff:127.0.0.1", 1)));
    EXPECT_FALSE(is_loopback(parse("::2", 1)));
    EXPECT_FALSE(is_loopback(parse("::", 1)));
}

TEST(Address, Local) {
    const Endpoint here = parse("127.0.0.1", 1);
    EXPECT_TRUE(is_local(here, parse("127.0.0.2", 2)));
    EXPECT_TRUE(is_local(parse("::1", 1), parse("::1", 2)));
    EXPECT_FALSE(is_local(here, parse("::1", 2))) << "families do not mix";
    EXPECT_TRUE(is_local(parse("192.0.2.7", 1), parse("192.0.2.7", 2))) << "the same address at both ends";
    EXPECT_FALSE(is_local(here, parse("192.0.2.7", 2))) << "reserved for documentation: nobody's";
    EXPECT_FALSE(is_local(parse("::1", 1), parse("2001:db8::7", 2)));
}

TEST(Address, OfferNames) {
    EXPECT_EQ(name_of(parse("127.0.0.1", 50000), parse("127.0.0.1", 6379)),
              "loopfast/2/4/7f000001.c350-7f000001.18eb");
    EXPECT_EQ(name_of(parse("::ffff:127.0.0.1", 50000), parse("127.0.0.1", 6379)),
              "loopfast/2/4/7f000001.c350-7f000001.18eb")
        << "both ends of one connection say the same, in whatever family";
    EXPECT_EQ(name_of(parse("::1", 1), parse("::1", 2)),
              "loopfast/2/6/00000000000000000000000000000001.0001-00000000000000000000000000000001.0002");
}

TEST(Address, OfferNamesDiffer) {
    std::set<std::string> names;
    const Endpoint some[] = {parse("127.0.0.1", 1), parse("127.0.0.1", 256), parse("127.0.0.1", 257),
                             parse("127.0.0.2", 1), parse("1.0.0.127", 1),   parse("::1", 1),
                             parse("100::", 1),     parse("::", 1),          parse("0.0.0.0", 1),
                             parse("::7f00:1", 1),  parse("ffff::", 65535),  parse("255.255.255.255", 65535)};
    for (const Endpoint& connector : some)
        for (const Endpoint& acceptor : some)
            EXPECT_TRUE(connector.family != acceptor.family ||
                        names.insert(name_of(connector, acceptor)).second);
}

TEST(Address, EndpointsOfASocket) {
    Endpoint local;
    Endpoint remote;
    EXPECT_EQ(endpoints_of(-1, local, remote), -EBADF);
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    EXPECT_EQ(endpoints_of(ends[0], local, remote), -EAFNOSUPPORT);
    close(ends[0]);
    close(ends[1]);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(endpoints_of(fd, local, remote), -ENOTCONN);
    close(fd);
}

}  // namespace
}  // namespace loopfast
