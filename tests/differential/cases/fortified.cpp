// The names that programs built with _FORTIFY_SOURCE call: __read_chk, __recv_chk, __recvfrom_chk,
// __poll_chk, __ppoll_chk, __dprintf_chk. This file is built with it; sizes that the compiler cannot know
// make it use them.
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cases.h"

namespace differential {

namespace {

/// A number that the compiler cannot see through.
[[gnu::noinline]] size_t unknown(size_t number) {
    asm volatile("" : "+r"(number));
    return number;
}

}  // namespace

CASE(fortified_calls) {
    p.a.send("0123456789abcdefghij");
    p.b.await_bytes(20);
    p.b.call_with_text("read", [&](Outcome& outcome) {
        char bytes[16];
        outcome.value = ::read(p.b.fd(), bytes, unknown(5));
        outcome.text = shown({bytes, 5});
    });
    p.b.call_with_text("recv", [&](Outcome& outcome) {
        char bytes[16];
        outcome.value = ::recv(p.b.fd(), bytes, unknown(5), 0);
        outcome.text = shown({bytes, 5});
    });
    p.b.call_with_text("recvfrom", [&](Outcome& outcome) {
        char bytes[16];
        outcome.value = ::recvfrom(p.b.fd(), bytes, unknown(5), 0, nullptr, nullptr);
        outcome.text = shown({bytes, 5});
    });
    p.b.call_with_text("poll", [&](Outcome& outcome) {
        pollfd entries[2] = {{p.b.fd(), POLLIN | POLLOUT, 0}, {-1, 0, 0}};
        outcome.value = ::poll(entries, unknown(2), 0);
        outcome.text = event_names(static_cast<unsigned short>(entries[0].revents));
    });
    p.b.call_with_text("ppoll", [&](Outcome& outcome) {
        pollfd entries[2] = {{p.b.fd(), POLLIN | POLLOUT, 0}, {-1, 0, 0}};
        const timespec none{};
        outcome.value = ::ppoll(entries, unknown(2), &none, nullptr);
        outcome.text = event_names(static_cast<unsigned short>(entries[0].revents));
    });
    p.b.recv(100);
}

CASE(fortified_printing) {
    p.a.send("one ");
    p.a.call("dprintf", [&] { return ::dprintf(p.a.fd(), "%s %d ", "two", 3); });
    p.a.send("four");
    p.b.await_bytes(14);
    p.b.recv(100);
}

}  // namespace differential
