// Two honest victims talk to each other while an impostor (impostor.h) stands in for the one, for the other,
// or between them. It never gets a descriptor nor a byte of theirs, neither of them is ever fused with it,
// and they talk on as over TCP; at worst the connection stays in the kernel.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <string>

#include <gtest/gtest.h>

#include "attacker.h"
#include "impostor.h"
#include "link/identity.h"
#include "link/possession.h"

namespace loopfast::hostile {
namespace {

constexpr uint16_t kNoPort = 0;

/// One victim listens, the other one connects from a port that is known before.
struct Pair {
    Pair() { service = acceptor.result("listen"); }
    /// The tuple of the next connection: its port is chosen here.
    Tuple choose() {
        uint16_t port = kNoPort;
        close(plain_listen(port));
        from = port;
        return {local(from), local(service)};
    }
    void connect() {
        ASSERT_EQ(connector.result("connect " + std::to_string(service) + " " + std::to_string(from)), 0);
        ASSERT_EQ(acceptor.result("accept"), 0);
        connector.result("timeout 10000");
        acceptor.result("timeout 10000");
    }
    /// Both directions, some rounds; what arrives is what was sent, and soon.
    void converse(int rounds) {
        for (int i = 0; i < rounds; ++i)
            for (Victim* sender : {&connector, &acceptor}) {
                Victim& receiver = sender == &connector ? acceptor : connector;
                ASSERT_EQ(sender->result("send 20"), 20);
                const Answer got = receiver.ask("recv 20");
                ASSERT_EQ(got.bytes, std::string(20, 'v'));
                ASSERT_LT(got.elapsed_us, kAtOnce);
            }
    }
    bool fused() { return connector.result("lane") == 1 && acceptor.result("lane") == 1; }
    void hang_up() {
        connector.result("close");
        acceptor.result("close");
    }
    // Opted in by the process as well, for sockets that are not marked, after so many bytes.
    Victim connector{0, "LOOPFAST=on LOOPFAST_THRESHOLD=100"};
    Victim acceptor;
    long service;
    long from = kNoPort;
};

void expect_nothing(const Loot& loot) {
    EXPECT_EQ(loot.descriptors, 0);
    // A hello and a sign's message name two cookies that all may see. More there is not.
    EXPECT_LE(loot.bytes, loot.links * 2 * static_cast<int>(sizeof(Message)));
    EXPECT_TRUE(loot.contained == 1 || geteuid() != 0);
}

TEST(Impostor, WithoutOneTheyAreFused) {
    Pair pair;
    for (int i = 0; i < 5; ++i) {
        pair.choose();
        pair.connect();
        pair.converse(6);
        EXPECT_TRUE(pair.fused());
        pair.hang_up();
    }
}

TEST(Impostor, StandsInForTheConnector) {
    Pair pair;
    const Tuple tuple = pair.choose();
    int offer = -1;
    int link = -1;
    Stage ready;
    Impostor impostor([&](Loot& loot) {
        if (offer < 0 && (offer = listen_link(tuple)) >= 0)
            ready.reach();
        if (link < 0 && (link = accept4(offer, nullptr, nullptr, SOCK_NONBLOCK)) >= 0)
            ++loot.links;
        if (link >= 0) {
            speak(link, tuple, false);
            read_all(link, loot);
        }
        usleep(200);
    });
    ASSERT_TRUE(ready.awaited());
    pair.connect();
    pair.converse(50);
    EXPECT_FALSE(pair.fused());
    const Loot loot = impostor.end();
    expect_nothing(loot);
    EXPECT_GE(loot.links, 1) << "it did meet the acceptor";
    EXPECT_GE(loot.messages, 1);
}

TEST(Impostor, StandsInForTheAcceptor) {
    Pair pair;
    const Tuple tuple = pair.choose();
    int link = -1;
    Stage met;
    Impostor impostor([&](Loot& loot) {
        if (link < 0 && (link = connect_link(tuple)) >= 0) {
            ++loot.links;
            met.reach();
        }
        if (link >= 0) {
            speak(link, tuple, true);
            read_all(link, loot);
        }
    });
    // The connector's offer stands from its connect on, and the acceptor accepts later.
    ASSERT_EQ(
        pair.connector.result("connect " + std::to_string(pair.service) + " " + std::to_string(pair.from)),
        0);
    ASSERT_TRUE(met.awaited());
    ASSERT_EQ(pair.acceptor.result("accept"), 0);
    pair.acceptor.result("timeout 10000");
    pair.connector.result("timeout 10000");
    pair.converse(50);
    EXPECT_FALSE(pair.fused());
    const Loot loot = impostor.end();
    expect_nothing(loot);
    EXPECT_GE(loot.links, 1);
}

/// Holds the offer's name until the acceptor has come; then lets it go, so that the connector can take it,
/// goes to that one's offer, and passes everything on in both directions.
TEST(Impostor, Relays) {
    for (const bool named : {false, true}) {
        Pair pair;
        const Tuple tuple = pair.choose();
        int offer = -1;
        int to_acceptor = -1;
        int to_connector = -1;
        bool stood = false;
        Stage ready;
        Stage met;
        const auto pass_on = [](int from, int to, Loot& loot) {
            unsigned char bytes[512];
            const ssize_t size = recv(from, bytes, sizeof bytes, MSG_DONTWAIT | MSG_PEEK);
            read_all(from, loot);
            if (size > 0)
                send_raw(to, bytes, static_cast<size_t>(size), {});
        };
        Impostor impostor([&](Loot& loot) {
            if (!stood && offer < 0 && (offer = listen_link(tuple)) >= 0)
                ready.reach();
            if (to_acceptor < 0 && (to_acceptor = accept4(offer, nullptr, nullptr, SOCK_NONBLOCK)) >= 0) {
                ++loot.links;
                close(offer);
                stood = true;
                met.reach();
            }
            if (to_acceptor >= 0 && to_connector < 0 && (to_connector = connect_link(tuple, named)) >= 0)
                ++loot.links;
            if (to_connector >= 0 && to_acceptor >= 0) {
                pass_on(to_acceptor, to_connector, loot);
                pass_on(to_connector, to_acceptor, loot);
            }
        });
        ASSERT_TRUE(ready.awaited());
        // The connector offers late: it opts in by its configuration, after so many bytes.
        ASSERT_EQ(pair.connector.result("unmarked 1"), 0);
        pair.connect();
        pair.converse(3);  // the acceptor looks, and meets the impostor
        ASSERT_TRUE(met.awaited());
        pair.converse(200);  // the connector offers, and the impostor is there
        EXPECT_FALSE(pair.fused());
        const Loot loot = impostor.end();
        expect_nothing(loot);
        EXPECT_GE(loot.links, 1);
    }
}

/// At any moment: the impostor tries for names and offers in a loop, lets go of them again, and says things.
TEST(Impostor, AtAnyMoment) {
    Pair pair;
    int fused = 0;
    Loot all;
    for (int round = 0; round < 60; ++round) {
        const Tuple tuple = pair.choose();
        unsigned pace = static_cast<unsigned>(round) * 7919U;
        Impostor impostor([&](Loot& loot) {
            pace = pace * 1103515245U + 12345U;
            usleep(pace >> 16 & 511);
            const int offer = (pace & 1) != 0 ? listen_link(tuple) : -1;
            // Not both at once: it would meet itself.
            const int link = offer < 0 && (pace & 2) != 0 ? connect_link(tuple, (pace & 4) != 0) : -1;
            if (link >= 0) {
                ++loot.links;
                speak(link, tuple, true);
                read_all(link, loot);
            }
            if (offer >= 0) {
                pollfd one{offer, POLLIN, 0};
                poll(&one, 1, 2);
                const int taken = accept4(offer, nullptr, nullptr, SOCK_NONBLOCK);
                if (taken >= 0) {
                    ++loot.links;
                    speak(taken, tuple, false);
                    read_all(taken, loot);
                    close(taken);
                }
                close(offer);
            }
            close(link);
        });
        usleep(static_cast<unsigned>(round % 6) * 1000);
        pair.connect();
        pair.converse(12);
        fused += pair.fused() ? 1 : 0;
        pair.converse(3);
        const Loot loot = impostor.end();
        expect_nothing(loot);
        all.links += loot.links;
        pair.hang_up();
    }
    EXPECT_GE(all.links, 10) << "it met them";
    RecordProperty("fused", fused);
    printf("met them %d times; fused in spite of it: %d of 60 connections\n", all.links, fused);
    EXPECT_TRUE(pair.connector.exits());
    EXPECT_TRUE(pair.acceptor.exits());
}

}  // namespace
}  // namespace loopfast::hostile
