// Urgent data, the mark, and what a socket can be asked for that no ring has: all of it is the kernel's, and
// whatever was in the ring comes before it.
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/net_tstamp.h>
#include <linux/tcp.h>

#include <cstring>
#include <vector>

#include "cases.h"

namespace differential {

namespace {

void at_mark(const End& end) {
    end.call_with_text("SIOCATMARK", [&](Outcome& outcome) {
        int mark = -1;
        outcome.value = ::ioctl(end.fd(), SIOCATMARK, &mark);
        outcome.error = errno;
        outcome.text = std::to_string(mark);
    });
    end.call("sockatmark", [&] { return ::sockatmark(end.fd()); });
}

/// (Behind a mark FIONREAD says nothing.)
void talk(const Pair& p) {
    for (int i = 0; i < 3; ++i) {
        p.a.send("to b");
        p.b.await_poll(POLLIN);
        p.b.recv(100);
        p.b.send("to a, more");
        p.a.await_poll(POLLIN);
        p.a.recv(100);
    }
}

}  // namespace

CASE(urgent_after_unread_bytes) {
    p.a.send("unread");
    p.b.await_bytes(6);
    p.a.send("!", MSG_OOB);
    p.b.await_poll(POLLPRI);
    p.b.poll(POLLIN | POLLPRI | POLLRDBAND);
    at_mark(p.b);
    p.b.recv(3);
    at_mark(p.b);
    p.b.recv(100);
    at_mark(p.b);
    p.b.recv(1, MSG_OOB | MSG_PEEK);
    p.b.recv(1, MSG_OOB);
    p.b.recv(1, MSG_OOB);
    p.a.send("after");
    p.b.await_poll(POLLIN);
    p.b.recv(100);
    at_mark(p.b);
    talk(p);
}

namespace {

/// Behind the mark lie more bytes than FIONREAD says, and one receive takes them all.
void urgent_amid_the_hand_over(Pair& p, int exchanges) {
    p.establish();
    for (int round = 0; round < exchanges; ++round) {
        p.a.send("there");
        p.b.await_bytes(5);
        p.b.recv(10);
        p.b.send("back");
        p.a.await_bytes(4);
        p.a.recv(10);
    }
    p.b.send("abc", MSG_OOB);
    p.a.await_poll(POLLPRI);
    p.a.recv(10);
    p.b.send("more");
    p.a.await_poll(POLLIN);
    p.a.recv(10);
}

}  // namespace

CASE_THAT(urgent_after_an_exchange, kBare) { urgent_amid_the_hand_over(p, 1); }
CASE_THAT(urgent_after_some_exchanges, kBare) { urgent_amid_the_hand_over(p, 3); }

CASE(urgent_is_not_there) {
    p.b.recv(1, MSG_OOB);
    p.a.send("plain");
    p.b.await_bytes(5);
    p.b.recv(1, MSG_OOB);
    at_mark(p.b);
    p.b.recv(100);
    talk(p);
}

CASE(urgent_inline) {
    p.b.set(SOL_SOCKET, SO_OOBINLINE, 1);
    p.a.send("ab");
    p.a.send("c!", MSG_OOB);
    p.a.send("d");
    p.b.await_poll(POLLPRI);
    p.b.await_bytes(4);
    at_mark(p.b);
    p.b.recv(2);
    p.b.recv(100);
    at_mark(p.b);
    p.b.recv(1, MSG_OOB);
    p.b.recv(1);
    at_mark(p.b);
    p.b.recv(100);
    talk(p);
}

CASE(urgent_inline_set_late) {
    p.a.send("first");
    p.b.await_bytes(5);
    p.b.set(SOL_SOCKET, SO_OOBINLINE, 1);
    p.b.get(SOL_SOCKET, SO_OOBINLINE);
    p.b.recv(100);
    p.a.send("x", MSG_OOB);
    p.b.await_poll(POLLPRI);
    p.b.recv(100);
    talk(p);
}

CASE(urgent_both_ways) {
    p.a.send("a", MSG_OOB);
    p.b.send("b", MSG_OOB);
    p.b.await_poll(POLLPRI);
    p.a.await_poll(POLLPRI);
    p.b.recv(1, MSG_OOB);
    p.a.recv(1, MSG_OOB);
    talk(p);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.recv(10);
}

CASE(urgent_signals) {
    static std::atomic<int> signals{0};
    p.b.quietly("handler", [](Outcome&) {
        signals.store(0);
        struct sigaction action {};
        action.sa_handler = [](int) { signals.fetch_add(1); };
        action.sa_flags = SA_RESTART;
        sigaction(SIGURG, &action, nullptr);
    });
    p.b.call("F_SETOWN", [&] { return ::fcntl(p.b.fd(), F_SETOWN, getpid()); });
    p.b.call("F_GETOWN", [&] { return ::fcntl(p.b.fd(), F_GETOWN) == getpid(); });
    p.a.send("!", MSG_OOB);
    p.b.await_poll(POLLPRI);
    p.b.call("SIGURG came", [] { return await([] { return signals.load() != 0; }); });
    p.b.recv(1, MSG_OOB);
}

CASE(urgent_with_epoll) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLPRI);
    set.wait();
    p.a.send("!", MSG_OOB);
    p.b.await_poll(POLLPRI);
    set.wait();
    p.b.recv(1, MSG_OOB);
    set.wait();
    p.a.send("after");
    set.await_ready(p.b);
    p.b.recv(100);
    set.wait();
}

CASE(urgent_with_select) {
    wait_for(Selector::kSelect, {{p.b, POLLIN | POLLPRI}});
    p.a.send("!", MSG_OOB);
    p.b.await_poll(POLLPRI);
    wait_for(Selector::kSelect, {{p.b, POLLIN | POLLPRI}});
    p.b.recv(1, MSG_OOB);
    wait_for(Selector::kSelect, {{p.b, POLLIN | POLLPRI}});
}

CASE(signal_driven) {
    static std::atomic<int> signals{0};
    p.b.quietly("handler", [](Outcome&) {
        signals.store(0);
        struct sigaction action {};
        action.sa_handler = [](int) { signals.fetch_add(1); };
        action.sa_flags = SA_RESTART;
        sigaction(SIGIO, &action, nullptr);
    });
    p.b.call("F_SETOWN", [&] { return ::fcntl(p.b.fd(), F_SETOWN, getpid()); });
    p.b.call("O_ASYNC", [&] { return ::fcntl(p.b.fd(), F_SETFL, O_RDWR | O_ASYNC | O_NONBLOCK); });
    p.a.send("bytes");
    p.b.call("SIGIO came", [] { return await([] { return signals.load() != 0; }); });
    p.b.await_bytes(5);
    p.b.recv(100);
    p.b.quietly("reset", [](Outcome&) { signals.store(0); });
    p.a.send("more");
    p.b.call("SIGIO came", [] { return await([] { return signals.load() != 0; }); });
    p.b.await_bytes(4);
    p.b.recv(100);
    p.b.call("FIOASYNC off", [&] {
        int off = 0;
        return ::ioctl(p.b.fd(), FIOASYNC, &off);
    });
    p.b.getfl();
    p.b.call("FIOASYNC on", [&] {
        int on = 1;
        return ::ioctl(p.b.fd(), FIOASYNC, &on);
    });
    p.b.getfl();
}

CASE(signal_driven_by_ioctl) {
    static std::atomic<int> signals{0};
    p.b.quietly("handler", [](Outcome&) {
        signals.store(0);
        struct sigaction action {};
        action.sa_handler = [](int) { signals.fetch_add(1); };
        action.sa_flags = SA_RESTART;
        sigaction(SIGIO, &action, nullptr);
    });
    p.b.call("FIOSETOWN", [&] {
        int pid = getpid();
        return ::ioctl(p.b.fd(), FIOSETOWN, &pid);
    });
    p.b.call("FIOASYNC", [&] {
        int on = 1;
        return ::ioctl(p.b.fd(), FIOASYNC, &on);
    });
    p.a.send("bytes");
    p.b.call("SIGIO came", [] { return await([] { return signals.load() != 0; }); });
    p.b.await_bytes(5);
    p.b.recv(100);
}

CASE(zero_copy) {
    p.a.send("without the option", MSG_ZEROCOPY);
    p.b.await_bytes(18);
    p.b.recv(100);
    p.a.set(SOL_SOCKET, SO_ZEROCOPY, 1);
    p.a.send("with it", MSG_ZEROCOPY);
    p.b.await_bytes(7);
    p.b.recv(100);
    p.a.await_poll(POLLERR);
    p.a.call_with_text("error queue", [&](Outcome& outcome) {
        char control[256];
        msghdr message{};
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        outcome.value = ::recvmsg(p.a.fd(), &message, MSG_ERRQUEUE);
        outcome.error = errno;
        outcome.text =
            format("flags %x control %zu", static_cast<unsigned>(message.msg_flags), message.msg_controllen);
    });
    p.a.recv(1, MSG_ERRQUEUE | MSG_DONTWAIT);
    talk(p);
}

CASE(zero_copy_not_asked_for) {
    for (const End* end : {&p.a, &p.b}) {
        end->set(SOL_SOCKET, SO_ZEROCOPY, 1);
        end->get(SOL_SOCKET, SO_ZEROCOPY);
    }
    talk(p);
    p.a.send("with a copy");
    p.a.send("without", MSG_ZEROCOPY);
    p.b.await_bytes(18);
    p.b.recv(100);  // before its memory is used again
    p.a.await_poll(POLLERR);
    p.a.send("and with one");
    p.b.await_bytes(12);
    p.b.recv(100);
    p.b.send("answer");
    p.a.await_bytes(6);
    p.a.recv(100);
    talk(p);
}

CASE(time_stamps) {
    p.b.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    p.b.get(SOL_SOCKET, SO_TIMESTAMP);
    p.a.send("stamped");
    p.b.await_bytes(7);
    p.b.recv(100);  // whether it was stamped already the kernel does not promise
    p.b.set(SOL_SOCKET, SO_TIMESTAMP, 0);
    p.b.set(SOL_SOCKET, SO_TIMESTAMPNS, 1);
    p.a.send("stamped");
    p.b.await_bytes(7);
    p.b.recv(100);
    p.b.set(SOL_SOCKET, SO_TIMESTAMPNS, 0);
    talk(p);
}

namespace {

/// A receive into so much room, and what TCP_INQ says of the rest into so much.
void take_and_ask(const End& end, size_t size, size_t room, int flags = 0) {
    end.call_with_text(
        format("recvmsg of %zu with %zu bytes for control data", size, room), [&](Outcome& outcome) {
            std::vector<char> bytes(size + 1);
            alignas(cmsghdr) char control[64] = {};
            iovec part{bytes.data(), size};
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            message.msg_control = room > 0 ? control : nullptr;
            message.msg_controllen = room;
            outcome.value = ::recvmsg(end.fd(), &message, flags | MSG_DONTWAIT);
            outcome.error = outcome.value < 0 ? errno : 0;
            if (outcome.value < 0)
                return;
            const cmsghdr* const header = CMSG_FIRSTHDR(&message);
            outcome.text = format("flags %x, control %zu: ", static_cast<unsigned>(message.msg_flags),
                                  message.msg_controllen) +
                           (header == nullptr ? "nothing"
                                              : format("%zu, %d/%d: %d", header->cmsg_len, header->cmsg_level,
                                                       header->cmsg_type,
                                                       *reinterpret_cast<const int*>(CMSG_DATA(header))));
        });
}

}  // namespace

CASE(bytes_in_queue) {
    p.b.set(IPPROTO_TCP, TCP_INQ, 1);
    p.b.get(IPPROTO_TCP, TCP_INQ);
    for (int round = 0; round < 3; ++round) {
        p.a.send("some bytes");
        p.b.await_bytes(10);
        take_and_ask(p.b, 4, 64, MSG_PEEK);
        take_and_ask(p.b, 4, 64);
        // Little room for it, and none.
        for (const size_t room : {18, 16, 8, 0})
            take_and_ask(p.b, 1, room);
        take_and_ask(p.b, 1, 20);
        take_and_ask(p.b, 100, 24);
        take_and_ask(p.b, 100, 64);  // EAGAIN
        p.b.send("answer");
        p.a.await_bytes(6);
        p.a.recv(100);
    }
    p.b.set(IPPROTO_TCP, TCP_INQ, 0);
    p.a.send("some bytes");
    p.b.await_bytes(10);
    take_and_ask(p.b, 4, 64);
    p.b.recv(100);
    talk(p);
}

CASE(bytes_in_queue_and_the_end) {
    p.b.set(IPPROTO_TCP, TCP_INQ, 1);
    p.a.send("the last bytes");
    p.b.await_bytes(14);
    take_and_ask(p.b, 4, 64);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    take_and_ask(p.b, 4, 64);    // one more than there is: the end is to be read as well
    take_and_ask(p.b, 100, 64);  // and here it is all that there is
    take_and_ask(p.b, 100, 64);
    take_and_ask(p.b, 100, 64);
    p.b.send("an answer");
    p.a.await_bytes(9);
    p.a.recv(100);
}

/// A reader that trusts it: where nothing is left it does not read again, and waits for the next edge.
CASE(bytes_in_queue_instead_of_eagain) {
    p.b.set(IPPROTO_TCP, TCP_INQ, 1);
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLRDHUP | EPOLLET);
    for (int round = 0; round < 5; ++round) {
        p.a.send("a request");
        p.b.await_bytes(9);
        set.wait(1000);
        take_and_ask(p.b, 100, 64);
        set.wait();
        p.b.send("an answer");
        p.a.await_bytes(9);
        p.a.recv(100);
    }
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    set.wait(1000);
    take_and_ask(p.b, 100, 64);
}

CASE(upper_protocol) {
    p.a.call("TCP_ULP, unknown", [&] { return ::setsockopt(p.a.fd(), IPPROTO_TCP, TCP_ULP, "nosuch", 6); });
    talk(p);
    p.a.call("TCP_REPAIR", [&] {
        // Ask what the kernel says to a repair of this socket, and leave it as it was.
        int on = 1;
        const int result = ::setsockopt(p.a.fd(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof on);
        int off = -1;  // without a window probe
        if (result == 0)
            ::setsockopt(p.a.fd(), IPPROTO_TCP, TCP_REPAIR, &off, sizeof off);
        return result;
    });
    talk(p);
}

CASE(time_stamp_by_message) {
    p.a.call("sendmsg with SO_TIMESTAMPING", [&]() -> long {
        char byte = 's';
        iovec part{&byte, 1};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(uint32_t))] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* const header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SO_TIMESTAMPING;
        header->cmsg_len = CMSG_LEN(sizeof(uint32_t));
        const uint32_t when_sent = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK;
        memcpy(CMSG_DATA(header), &when_sent, sizeof when_sent);
        return ::sendmsg(p.a.fd(), &message, 0);
    });
    p.a.await_poll(POLLERR);
    p.b.await_bytes(1);
    p.b.recv(10);
    talk(p);
}

CASE(least_time_to_live) {
    // Segments that come with less are dropped by the kernel: from then on nothing may come another way.
    p.b.set(IPPROTO_IP, IP_MINTTL, 1);
    p.a.send("hello");
    p.b.await_bytes(5);
    p.b.recv(10);
    p.b.get(IPPROTO_IP, IP_MINTTL);
    talk(p);
}

namespace {

void attach(const End& end, const char* what, const sock_fprog* program) {
    end.call(what, [=, &end] {
        return ::setsockopt(end.fd(), SOL_SOCKET, SO_ATTACH_FILTER, program, sizeof *program);
    });
}

}  // namespace

// Nothing changes, so there is nothing for which the ring would have to be left.
CASE(options_as_they_are) {
    p.a.set(SOL_SOCKET, SO_PEEK_OFF, -1);
    p.a.set(SOL_SOCKET, SO_TIMESTAMP, 0);
    p.a.set(SOL_SOCKET, SO_TIMESTAMPNS, 0);
    p.a.set(SOL_SOCKET, SO_TIMESTAMPING, 0);
    p.a.set(IPPROTO_IP, IP_MINTTL, 0);
    talk(p);
    p.a.set(SOL_SOCKET, SO_TIMESTAMPING, -1);  // EINVAL
    p.a.set(IPPROTO_IP, IP_MINTTL, 256);       // EINVAL
    const sock_fprog none{};
    attach(p.a, "a filter of nothing", &none);
    attach(p.a, "a filter that cannot be read", reinterpret_cast<const sock_fprog*>(8));
    talk(p);
}

CASE(socket_filter) {
    p.b.send("unread");
    p.a.await_bytes(6);
    sock_filter all{BPF_RET | BPF_K, 0, 0, 0xffffffff};
    const sock_fprog program{1, &all};
    attach(p.a, "a filter that lets all pass", &program);
    p.a.recv(100);
    talk(p);
}

CASE(peek_offset) {
    p.b.set(SOL_SOCKET, SO_PEEK_OFF, 2);
    p.b.get(SOL_SOCKET, SO_PEEK_OFF);
    p.a.send("0123456789");
    p.b.await_bytes(10);
    p.b.recv(3, MSG_PEEK);
    p.b.recv(3, MSG_PEEK);
    p.b.recv(4);
    p.b.recv(3, MSG_PEEK);
    p.b.set(SOL_SOCKET, SO_PEEK_OFF, -1);
    p.b.recv(3, MSG_PEEK);
    p.b.recv(100);
}

CASE(back_to_the_kernel_with_unread_bytes) {
    // What lies unread goes to the kernel lane before anything newer, whoever sends it.
    p.b.send(pattern(18'000, 1));
    p.a.await_bytes(18'000);
    p.a.recv(64);
    p.a.set(IPPROTO_IP, IP_MINTTL, 1);
    p.b.write("ab");
    p.b.send(pattern(100, 2), MSG_DONTWAIT);
    p.b.send(pattern(5000, 3), MSG_DONTWAIT);
    p.b.write("0123456");
    p.a.recv(64, MSG_PEEK | MSG_DONTWAIT);
    p.a.drain(18'000 - 64 + 2 + 100 + 5000 + 7);
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.recv(10);
}

}  // namespace differential
