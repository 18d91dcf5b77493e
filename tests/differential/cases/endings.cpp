// Endings: shutdown in all directions and orders, close, reset, and death, with and without bytes in flight.
#include <netinet/tcp.h>
#include <unistd.h>

#include "cases.h"

namespace differential {

namespace {

constexpr short kEverything = POLLIN | POLLPRI | POLLOUT | POLLRDHUP;

/// All that an end can still do once the other has ended.
void look_at(const End& end) {
    end.poll(kEverything);
    end.poll(POLLOUT);
    end.fionread();
    end.recv(100, MSG_PEEK | MSG_DONTWAIT);
    end.recv(100, MSG_DONTWAIT);
    end.recv(100, MSG_DONTWAIT);
    end.get(SOL_SOCKET, SO_ERROR);
    end.get(SOL_SOCKET, SO_ERROR);
    end.poll(kEverything);
}

/// Sends until the kernel has told the sender that nobody is there, at most a few times.
void send_until_refused(const End& end) {
    end.send("x");
    end.await_poll(POLLHUP);
    end.poll(kEverything);
    end.send("y");
    end.send("z", MSG_NOSIGNAL);
    end.write("z");
    end.writev({"z", "z"});
    end.get(SOL_SOCKET, SO_ERROR);
    end.recv(10, MSG_DONTWAIT);
    end.send("z", MSG_NOSIGNAL);
}

}  // namespace

CASE(half_close) {
    p.a.send("request");
    p.a.shutdown(SHUT_WR);
    p.a.poll(kEverything);
    p.a.send("too late");
    p.a.send("too late", MSG_NOSIGNAL);
    p.b.await_end();
    p.b.poll(kEverything);
    p.b.recv(100);
    p.b.recv(100);
    p.b.poll(kEverything);
    p.b.send("answer");
    p.a.await_bytes(6);
    p.a.recv(100);
    p.b.shutdown(SHUT_WR);
    p.a.await_end();
    p.b.await_poll(POLLHUP);
    look_at(p.a);
    look_at(p.b);
}

CASE(shut_for_reading) {
    p.a.send("before");
    p.b.await_bytes(6);
    p.b.shutdown(SHUT_RD);
    p.b.poll(kEverything);
    p.b.recv(3);
    p.b.recv(100);
    p.b.recv(100);
    p.a.send("after");
    p.b.poll(kEverything);
    p.b.await_bytes(5);
    p.b.recv(100);
    p.b.recv(100);
    p.b.send("still");
    p.a.await_bytes(5);
    p.a.recv(100);
    p.a.poll(kEverything);
}

CASE(shut_both) {
    p.a.send("unread");
    p.b.await_bytes(6);
    p.a.shutdown(SHUT_RDWR);
    p.a.poll(kEverything);
    p.a.recv(10);
    p.a.send("x", MSG_NOSIGNAL);
    p.b.await_end();
    look_at(p.b);
    p.b.send("x");
    p.b.send("x", MSG_NOSIGNAL);
}

CASE(shut_in_pieces) {
    p.a.shutdown(SHUT_RD);
    p.a.shutdown(SHUT_WR);
    p.a.shutdown(SHUT_WR);
    p.a.shutdown(SHUT_RDWR);
    p.a.shutdown(7);
    p.b.await_end();
    look_at(p.b);
    p.b.shutdown(SHUT_WR);
    p.a.await_poll(POLLHUP);
    look_at(p.a);
    p.a.shutdown(SHUT_WR);
    p.b.shutdown(SHUT_RDWR);
}

CASE(simultaneous_shutdown) {
    p.a.send("from a");
    p.b.send("from b");
    p.a.shutdown(SHUT_WR);
    p.b.shutdown(SHUT_WR);
    p.a.await_poll(POLLHUP);
    p.b.await_poll(POLLHUP);
    look_at(p.a);
    look_at(p.b);
}

CASE(write_then_close) {
    p.a.send(pattern(100'000, 2), MSG_DONTWAIT);
    p.a.close();
    p.b.drain(100'000);
    p.b.recv(10);
    p.b.poll(kEverything);
    p.b.get(SOL_SOCKET, SO_ERROR);
}

CASE(write_then_close_small) {
    p.a.send("bye");
    p.a.close();
    p.b.await_end();
    p.b.poll(kEverything);
    p.b.recv(1);
    p.b.recv(10);
    p.b.recv(10);
    send_until_refused(p.b);
}

CASE(close_then_peer_writes) {
    p.a.close();
    p.b.await_end();
    p.b.poll(kEverything);
    p.b.recv(10);
    send_until_refused(p.b);
}

CASE(close_then_peer_writes_in_turn) {
    // The first write after the close succeeds, the one after the reset does not.
    p.a.close();
    p.b.await_end();
    p.b.write("1");
    p.b.await_poll(POLLHUP);
    p.b.get(SOL_SOCKET, SO_ERROR);
    p.b.write("2");
    p.b.write("3");
    p.b.recv(10);
}

CASE(close_with_unread_bytes) {
    p.b.send("never read");
    p.a.await_bytes(10);
    p.a.close();
    p.b.await_poll(POLLERR);
    p.b.poll(kEverything);
    p.b.recv(10);
    p.b.recv(10);
    p.b.send("x");
    p.b.get(SOL_SOCKET, SO_ERROR);
}

CASE(close_with_unread_bytes_both_ways) {
    p.b.send("never read");
    p.a.send("lost or not");
    p.a.await_bytes(10);
    p.b.await_bytes(11);
    p.a.close();
    p.b.await_poll(POLLERR);
    look_at(p.b);
    p.b.send("x", MSG_NOSIGNAL);
}

CASE(reset_collected_by_option) {
    p.b.send("never read");
    p.a.await_bytes(10);
    p.a.close();
    p.b.await_poll(POLLHUP);
    p.b.get(SOL_SOCKET, SO_ERROR);
    p.b.recv(10);
    p.b.recv(10);
    p.b.send("x");
    p.b.get(SOL_SOCKET, SO_ERROR);
}

CASE(reset_by_linger) {
    p.a.reset();
    p.b.await_poll(POLLERR);
    p.b.poll(kEverything);
    p.b.recv(10);
    p.b.recv(10);
    p.b.send("x");
    p.b.poll(kEverything);
}

CASE(reset_seen_by_sender) {
    p.a.reset();
    p.b.await_poll(POLLERR);
    p.b.send("x");
    p.b.send("x");
    p.b.recv(10);
}

CASE(reset_seen_by_option) {
    p.a.reset();
    p.b.await_poll(POLLERR);
    p.b.get(SOL_SOCKET, SO_ERROR);
    p.b.poll(kEverything);
    p.b.recv(10);
    p.b.send("x", MSG_NOSIGNAL);
}

CASE(reset_by_unread_bytes_seen_by_option) {
    p.b.send("never read");
    p.a.await_bytes(10);
    p.a.close();
    p.b.await_poll(POLLERR);
    p.b.get(SOL_SOCKET, SO_ERROR);
    p.b.recv(10);
    p.b.send("x", MSG_NOSIGNAL);
    p.b.recv(10);
}

CASE(reset_with_bytes_queued) {
    p.a.send("queued");
    p.b.await_bytes(6);
    p.a.reset();
    p.b.await_poll(POLLERR);
    look_at(p.b);
}

CASE(shutdown_then_reset) {
    p.a.send("queued");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.a.reset();
    p.b.await_poll(POLLHUP);
    look_at(p.b);
    p.b.send("x", MSG_NOSIGNAL);
}

CASE(close_after_shut_for_reading) {
    p.a.shutdown(SHUT_RD);
    p.b.send("unread");
    p.a.await_bytes(6);
    p.a.close();
    p.b.await_poll(POLLHUP);
    look_at(p.b);
}

CASE_THAT(waiting_receive_ends_with_peer, kBlocking) {
    Pending receiving = p.b.start_recv(10);
    p.a.close();
    receiving.finish();
    p.b.recv(10);
}

CASE_THAT(waiting_receive_ends_with_reset, kBlocking) {
    Pending receiving = p.b.start_recv(10);
    p.a.reset();
    receiving.finish();
    p.b.recv(10);
}

CASE_THAT(waiting_receive_ends_with_own_shutdown, kBlocking) {
    Pending receiving = p.b.start_recv(10);
    p.b.shutdown(SHUT_RD);
    receiving.finish();
    Pending again = p.b.start_recv(10);
    p.b.shutdown(SHUT_RDWR);
    again.finish();
}

CASE_THAT(waiting_send_ends_with_peer, kBlocking) {
    p.a.fill();
    Pending sending = p.a.start_send("no room");
    sending.still_waiting();
    p.b.close();  // with bytes unread: a reset
    sending.finish();
    p.a.send("x");
}

CASE_THAT(waiting_send_ends_with_own_shutdown, kBlocking) {
    p.a.fill();
    Pending sending = p.a.start_send("no room");
    sending.still_waiting();
    p.a.shutdown(SHUT_WR);
    sending.finish();
    p.a.send("x", MSG_NOSIGNAL);
}

CASE_THAT(waiting_poll_ends_with_peer, kBlocking) {
    Pending waiting = start_wait_for(Selector::kPoll, {{p.b, POLLRDHUP}});
    p.a.shutdown(SHUT_WR);
    waiting.finish();
    Pending hang_up = start_wait_for(Selector::kPoll, {{p.b, 0}});
    p.b.shutdown(SHUT_WR);
    hang_up.finish();
}

CASE(peer_killed) {
    // A relative takes the end over, then is killed: the kernel closes what it had.
    p.a.send("before");
    const Actor heir = p.script.fork(p.a.actor());
    p.a.close();
    const End inherited = p.a.in(heir, "heir");
    inherited.send(" and after");
    p.b.await_bytes(16);
    p.script.kill(heir);
    p.b.await_end();
    look_at(p.b);
    send_until_refused(p.b);
}

CASE(peer_killed_with_unread_bytes) {
    const Actor heir = p.script.fork(p.a.actor());
    p.a.close();
    const End inherited = p.a.in(heir, "heir");
    p.b.send("unread");
    inherited.await_bytes(6);
    p.script.kill(heir);
    p.b.await_poll(POLLRDHUP);
    // The kernel resets; a ring cannot, when its owner was killed. What follows must be the same again.
    p.b.recv(10, MSG_DONTWAIT);
    p.b.send("x", MSG_NOSIGNAL);
    p.b.await_poll(POLLHUP);
    p.b.send("x", MSG_NOSIGNAL);
}

CASE(peer_exits) {
    const Actor heir = p.script.fork(p.a.actor());
    p.a.close();
    const End inherited = p.a.in(heir, "heir");
    inherited.send("last words");
    p.script.exit(heir);
    p.b.await_end();
    look_at(p.b);
}

CASE(peer_exits_with_a_linger_of_zero) {
    // The kernel closes what a process leaves in an order of its own: the link may be gone before the socket.
    const Actor heir = p.script.fork(p.a.actor());
    p.a.close();
    const End inherited = p.a.in(heir, "heir");
    inherited.call("SO_LINGER 0", [&] {
        const linger none{1, 0};
        return ::setsockopt(inherited.fd(), SOL_SOCKET, SO_LINGER, &none, sizeof none);
    });
    inherited.send("last words");
    p.b.await_bytes(10);
    p.script.exit(heir);
    p.b.await_end();
    look_at(p.b);
}

CASE_THAT(waiting_receive_ends_with_killed_peer, kBlocking) {
    const Actor heir = p.script.fork(p.a.actor());
    p.a.close();
    Pending receiving = p.b.start_recv(10);
    p.script.kill(heir);
    receiving.finish();
}

CASE(use_after_close) {
    p.a.close();
    p.a.send("x");
    p.a.recv(1);
    p.a.poll(POLLIN);
    p.a.shutdown(SHUT_WR);
    p.a.close();
    p.a.fionread();
    p.a.get(SOL_SOCKET, SO_ERROR);
}

}  // namespace differential
