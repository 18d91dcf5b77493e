// The hand-over: the same exchanges, with the connection moving to the ring at any byte of them. The lanes
// early and run:N put the moment in different places; nothing may show.
#include <netinet/in.h>

#include "cases.h"

namespace differential {

namespace {

void echo(const End& from, const End& to, size_t size) {
    const std::string bytes = pattern(size, static_cast<unsigned>(size));
    from.send(bytes);
    to.await_bytes(size);
    to.recv(size);
}

}  // namespace

CASE(handover_byte_by_byte) {
    for (int i = 0; i < 25; ++i) {
        echo(p.a, p.b, 1);
        echo(p.b, p.a, 1);
    }
}

CASE(handover_one_way_then_the_other) {
    for (int i = 0; i < 20; ++i)
        echo(p.a, p.b, 3);
    for (int i = 0; i < 20; ++i)
        echo(p.b, p.a, 3);
    for (int i = 0; i < 20; ++i)
        echo(p.a, p.b, 3);
}

CASE(handover_growing) {
    for (size_t size = 1; size < 20'000; size = size * 3 + 1) {
        echo(p.a, p.b, size);
        echo(p.b, p.a, size + 1);
    }
}

CASE(handover_both_write_first) {
    for (int i = 1; i < 20; ++i) {
        p.a.send(pattern(7, static_cast<unsigned>(i)));
        p.b.send(pattern(5, static_cast<unsigned>(i)));
        if (i % 3 != 0)
            continue;
        p.a.await_bytes(15);
        p.b.await_bytes(21);
        p.a.recv(100);
        p.b.recv(100);
    }
}

CASE(handover_with_unread_bytes) {
    // What lies unread in the kernel when the ring begins comes first.
    for (int i = 1; i < 15; ++i) {
        p.a.send(pattern(4, static_cast<unsigned>(i)));
        p.b.await_bytes(4 * static_cast<size_t>(i) - 3 * (static_cast<size_t>(i) - 1));
        p.b.recv(3);
        p.b.send("k");
        p.a.await_bytes(1);
        p.a.recv(1);
        p.b.fionread();
    }
    p.b.recv(100);
}

CASE(handover_in_portions) {
    // A read that ends in the middle of what the kernel holds, another that would span both lanes.
    for (int i = 0; i < 12; ++i) {
        p.a.send("0123456789");
        p.b.await_bytes(10);
        p.b.recv(4, MSG_PEEK);
        p.b.recv(4);
        p.a.send("abc");
        p.b.await_bytes(9);
        p.b.recv(9, MSG_WAITALL);
        echo(p.b, p.a, 2);
    }
}

CASE(handover_and_away) {
    // One end leaves as soon as it has come: one call takes what lies before the cut, in the ring and behind
    // it.
    for (int i = 1; i < 12; ++i) {
        p.a.send(pattern(9, static_cast<unsigned>(i)));
        if (i % 3 == 0)
            echo(p.b, p.a, 4);
    }
    p.a.set(IPPROTO_IP, IP_MINTTL, 1);
    p.a.send(pattern(4096, 1));
    p.b.await_bytes(9 * 11 + 4096);
    p.b.recv(2000, MSG_PEEK);
    p.b.recv(100'000, MSG_PEEK);
    p.b.recv(100'000);
    p.b.send("and back");
    p.a.await_bytes(8);
    p.a.recv(100);
}

CASE(handover_under_pressure) {
    Pending up = p.a.start_send(pattern(400'000, 11));
    Pending down = p.b.start_send(pattern(300'000, 12));
    p.b.drain(p.setup.nonblocking ? 0 : 400'000);
    p.a.drain(p.setup.nonblocking ? 0 : 300'000);
    if (!p.setup.nonblocking) {
        up.finish();
        down.finish();
    }
    echo(p.a, p.b, p.setup.nonblocking ? 0 : 10);
}

CASE_THAT(handover_while_reading, kBlocking) {
    for (int i = 0; i < 12; ++i) {
        Pending receiving = p.b.start_recv(100);
        p.a.send(pattern(6, static_cast<unsigned>(i)));
        receiving.finish();
        Pending answer = p.a.start_recv(100);
        p.b.send(pattern(4, static_cast<unsigned>(i)));
        answer.finish();
    }
}

CASE_THAT(handover_while_reading_all, kBlocking) {
    Pending receiving = p.b.start_recv(120, MSG_WAITALL);
    for (int i = 0; i < 20; ++i) {
        p.a.send(pattern(6, static_cast<unsigned>(i)));
        echo(p.b, p.a, 2);
    }
    receiving.finish();
}

CASE(handover_then_end) {
    echo(p.a, p.b, 4);
    echo(p.b, p.a, 4);
    p.a.send("last");
    p.a.close();
    p.b.await_end();
    p.b.recv(100);
    p.b.recv(100);
}

CASE(handover_with_half_close) {
    p.a.send("request");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.recv(100);
    for (int i = 0; i < 20; ++i)
        echo(p.b, p.a, 5);
    p.b.close();
    p.a.await_end();
    p.a.recv(10);
}

CASE(handover_with_duplicates) {
    const End copy = p.b.dup("copy");
    for (int i = 0; i < 10; ++i) {
        echo(p.a, i % 2 == 0 ? copy : p.b, 3);
        echo(i % 2 == 0 ? p.b : copy, p.a, 3);
    }
}

CASE(handover_with_relatives) {
    const Actor child = p.script.fork(p.b.actor());
    const End inherited = p.b.in(child, "child");
    for (int i = 0; i < 8; ++i) {
        echo(p.a, inherited, 3);
        echo(p.b, p.a, 3);
    }
    p.script.exit(child);
    for (int i = 0; i < 8; ++i) {
        echo(p.a, p.b, 3);
        echo(p.b, p.a, 3);
    }
}

CASE(handover_with_polls) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLET);
    for (int i = 0; i < 12; ++i) {
        Pending waiting =
            i % 2 == 0 ? set.start_wait(5000) : start_wait_for(Selector::kPoll, {{p.b, POLLIN}}, 5000);
        p.a.send("12345");
        waiting.finish();
        p.b.await_bytes(5);
        p.b.recv(100);
        echo(p.b, p.a, 4);
        set.wait();
    }
}

}  // namespace differential
