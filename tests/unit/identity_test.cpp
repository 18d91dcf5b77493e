// What the kernel says of the other end of a connection, against what it says of the socket itself.
#include "link/identity.h"

#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include <gtest/gtest.h>

#include "tcp_pair.h"

namespace loopfast {
namespace {

class Identity : public ::testing::TestWithParam<int> {};

TEST_P(Identity, TheOtherEndIsFound) {
    const TcpPair pair(GetParam());
    for (const auto& [mine, theirs] :
         {std::pair{pair.connector, pair.acceptor}, {pair.acceptor, pair.connector}}) {
        Endpoint local;
        Endpoint remote;
        ASSERT_EQ(endpoints_of(mine, local, remote), 0);
        SocketFacts facts{};
        ASSERT_TRUE(look_up_socket(remote, local, facts));
        EXPECT_EQ(facts.uid, getuid());
        EXPECT_NE(facts.cookie, 0U);
        EXPECT_EQ(facts.cookie, cookie_of(theirs));
        EXPECT_NE(facts.cookie, cookie_of(mine));
        EXPECT_TRUE(facts.established);
    }
}

TEST_P(Identity, AConnectionThatIsNotThereIsNotFound) {
    const TcpPair pair(GetParam());
    Endpoint local;
    Endpoint remote;
    ASSERT_EQ(endpoints_of(pair.connector, local, remote), 0);
    SocketFacts facts{};
    Endpoint other = remote;
    other.port = 0;
    EXPECT_FALSE(look_up_socket(other, local, facts));
    // The listener has the same address and port: it must not pass for the connection.
    other = local;
    other.port = static_cast<uint16_t>(local.port ^ htons(1));
    EXPECT_FALSE(look_up_socket(remote, other, facts));
}

TEST_P(Identity, AnEndThatIsClosingIsNotEstablished) {
    const TcpPair pair(GetParam());
    Endpoint local;
    Endpoint remote;
    ASSERT_EQ(endpoints_of(pair.connector, local, remote), 0);
    ASSERT_EQ(shutdown(pair.acceptor, SHUT_WR), 0);
    SocketFacts facts{};
    EXPECT_TRUE(!look_up_socket(remote, local, facts) || !facts.established);
}

INSTANTIATE_TEST_SUITE_P(Families, Identity, ::testing::Values(AF_INET, AF_INET6));

TEST(Identity, AMappedPeerIsFoundFromEitherSide) {
    // A dual-stack listener, an IPv4 client: the sockets have different families, the connection one.
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    socklen_t size = sizeof address;
    const int listener = socket(AF_INET6, SOCK_STREAM, 0);
    const int off = 0;
    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
    ASSERT_EQ(listen(listener, 1), 0);
    ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = address.sin6_port;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int client = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&v4), sizeof v4), 0);
    const int server = accept(listener, nullptr, nullptr);
    ASSERT_GE(server, 0);
    Endpoint client_local;
    Endpoint client_remote;
    Endpoint server_local;
    Endpoint server_remote;
    ASSERT_EQ(endpoints_of(client, client_local, client_remote), 0);
    ASSERT_EQ(endpoints_of(server, server_local, server_remote), 0);
    EXPECT_EQ(client_local, server_remote);
    EXPECT_EQ(client_remote, server_local);
    SocketFacts facts{};
    ASSERT_TRUE(look_up_socket(server_local, server_remote, facts)) << "the IPv6 socket, from the client";
    EXPECT_EQ(facts.cookie, cookie_of(server));
    ASSERT_TRUE(look_up_socket(client_local, client_remote, facts)) << "the IPv4 socket, from the server";
    EXPECT_EQ(facts.cookie, cookie_of(client));
    for (const int fd : {client, server, listener})
        close(fd);
}

TEST(Identity, TheUidIsThatOfTheSocketsOwner) {
    if (getuid() != 0)
        GTEST_SKIP() << "needs root to become somebody else";
    // A socket belongs to who made it: a child that gave up its rights first.
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
    ASSERT_EQ(listen(listener, 1), 0);
    ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
    const pid_t child = fork();
    if (child == 0) {
        char byte;
        const int fd = setuid(54321) == 0 ? socket(AF_INET, SOCK_STREAM, 0) : -1;
        if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
            _exit(1);
        _exit(read(fd, &byte, 1) == 0 ? 0 : 1);
    }
    const int server = accept(listener, nullptr, nullptr);
    ASSERT_GE(server, 0);
    Endpoint local;
    Endpoint remote;
    ASSERT_EQ(endpoints_of(server, local, remote), 0);
    SocketFacts facts{};
    ASSERT_TRUE(look_up_socket(remote, local, facts));
    EXPECT_EQ(facts.uid, 54321U);
    close(server);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    close(listener);
}

TEST(Identity, CredentialsOfALink) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    Credentials credentials{};
    ASSERT_TRUE(credentials_of(ends[0], credentials));
    EXPECT_EQ(credentials.pid, getpid());
    EXPECT_EQ(credentials.uid, getuid());
    close(ends[0]);
    close(ends[1]);
    EXPECT_FALSE(credentials_of(-1, credentials));
}

TEST(Identity, Namespaces) {
    const int tcp = socket(AF_INET, SOCK_STREAM, 0);
    const int link = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT_TRUE(same_namespace(tcp, link));
    EXPECT_FALSE(same_namespace(tcp, -1));
    EXPECT_FALSE(same_namespace(-1, link));
    int foreign = -1;
    std::thread([&] {
        if (unshare(CLONE_NEWNET) == 0)
            foreign = socket(AF_UNIX, SOCK_STREAM, 0);
    }).join();
    if (foreign >= 0) {
        EXPECT_FALSE(same_namespace(tcp, foreign));
        close(foreign);
    }
    close(tcp);
    close(link);
}

TEST(Identity, NobodyIsExactOnlyWhereEverybodyIsKnown) {
    EXPECT_TRUE(uid_is_exact(0));
    EXPECT_TRUE(uid_is_exact(1000));
    const pid_t child = fork();
    if (child == 0)  // no map is written: in here every uid looks like nobody
        _exit(unshare(CLONE_NEWUSER) != 0 ? 77 : uid_is_exact(65534) ? 1 : 0);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
}

}  // namespace
}  // namespace loopfast
