// Bad arguments: memory that cannot be touched, in every position, and counts and flags that no call takes.
// The process must survive, and what is good must still work afterwards.
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cases.h"

namespace differential {

namespace {

char* const kNowhere = reinterpret_cast<char*>(16);

void still_works(const Pair& p) {
    p.a.send("still works");
    p.b.await_bytes(11);
    p.b.recv(100);
}

long receive_message(int fd, msghdr message, int flags = MSG_DONTWAIT) {
    return ::recvmsg(fd, &message, flags);
}
long send_message(int fd, msghdr message) { return ::sendmsg(fd, &message, MSG_DONTWAIT); }

}  // namespace

CASE(bad_buffer_send) {
    p.a.call("send", [&] { return ::send(p.a.fd(), kNowhere, 10, 0); });
    p.a.call("write", [&] { return ::write(p.a.fd(), kNowhere, 10); });
    p.a.call("sendto", [&] { return ::sendto(p.a.fd(), kNowhere, 10, 0, nullptr, 0); });
    p.a.call("writev", [&] {
        const iovec part{kNowhere, 10};
        return ::writev(p.a.fd(), &part, 1);
    });
    p.a.call("sendmsg", [&] {
        iovec part{kNowhere, 10};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        return send_message(p.a.fd(), message);
    });
    p.a.call("null", [&] { return ::send(p.a.fd(), nullptr, 10, 0); });
    p.a.call("null, nothing", [&] { return ::send(p.a.fd(), nullptr, 0, 0); });
    still_works(p);
}

CASE(bad_buffer_receive) {
    p.a.send(pattern(64));
    p.b.await_bytes(64);
    p.b.call("recv", [&] { return ::recv(p.b.fd(), kNowhere, 10, 0); });
    p.b.call("read", [&] { return ::read(p.b.fd(), kNowhere, 10); });
    p.b.call("recvfrom", [&] { return ::recvfrom(p.b.fd(), kNowhere, 10, 0, nullptr, nullptr); });
    p.b.call("peek", [&] { return ::recv(p.b.fd(), kNowhere, 10, MSG_PEEK); });
    p.b.call("readv", [&] {
        const iovec part{kNowhere, 10};
        return ::readv(p.b.fd(), &part, 1);
    });
    p.b.call("recvmsg", [&] {
        iovec part{kNowhere, 10};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        return receive_message(p.b.fd(), message);
    });
    p.b.call("null, nothing", [&] { return ::recv(p.b.fd(), nullptr, 0, 0); });
    p.b.recv(100);
    still_works(p);
}

CASE(bad_buffer_on_empty_stream) {
    // Without bytes nothing is copied, so nothing is found out.
    p.b.call("recv", [&] { return ::recv(p.b.fd(), kNowhere, 10, MSG_DONTWAIT); });
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.call("recv at the end", [&] { return ::recv(p.b.fd(), kNowhere, 10, 0); });
}

CASE(bad_vector) {
    const auto bad = reinterpret_cast<iovec*>(kNowhere);
    p.a.call("writev", [&] { return ::writev(p.a.fd(), bad, 2); });
    p.a.call("writev null", [&] { return ::writev(p.a.fd(), nullptr, 1); });
    p.a.call("writev null, none", [&] { return ::writev(p.a.fd(), nullptr, 0); });
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.call("readv", [&] { return ::readv(p.b.fd(), bad, 2); });
    p.b.call("readv null", [&] { return ::readv(p.b.fd(), nullptr, 1); });
    p.b.recv(10);
    still_works(p);
}

CASE(bad_message) {
    const auto bad = reinterpret_cast<msghdr*>(kNowhere);
    p.a.call("sendmsg", [&] { return ::sendmsg(p.a.fd(), bad, 0); });
    p.a.call("sendmsg null", [&] { return ::sendmsg(p.a.fd(), nullptr, 0); });
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.call("recvmsg", [&] { return ::recvmsg(p.b.fd(), bad, 0); });
    p.b.call("recvmsg null", [&] { return ::recvmsg(p.b.fd(), nullptr, 0); });
    p.b.call("recvmsg, bad vector", [&] {
        msghdr message{};
        message.msg_iov = reinterpret_cast<iovec*>(kNowhere);
        message.msg_iovlen = 1;
        return receive_message(p.b.fd(), message);
    });
    p.a.call("sendmsg, bad vector", [&] {
        msghdr message{};
        message.msg_iov = reinterpret_cast<iovec*>(kNowhere);
        message.msg_iovlen = 1;
        return send_message(p.a.fd(), message);
    });
    p.b.recv(10);
    still_works(p);
}

CASE(bad_messages) {
    const auto bad = reinterpret_cast<mmsghdr*>(kNowhere);
    p.a.call("sendmmsg", [&] { return ::sendmmsg(p.a.fd(), bad, 2, 0); });
    p.a.send("xy");
    p.b.await_bytes(2);
    p.b.call("recvmmsg", [&] { return ::recvmmsg(p.b.fd(), bad, 2, MSG_DONTWAIT, nullptr); });
    p.b.recv(10);
    still_works(p);
}

/// Arguments that a call reads and then writes, in memory that can only be read, as constants of a program
/// are.
CASE(read_only_results) {
    void* const page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    auto* const message = static_cast<mmsghdr*>(page);
    auto* const entry = reinterpret_cast<pollfd*>(message + 1);
    auto* const event = reinterpret_cast<epoll_event*>(entry + 1);
    char bytes[4] = {'b', 'y', 't', 'e'};
    iovec part{bytes, sizeof bytes};
    message->msg_hdr.msg_iov = &part;
    message->msg_hdr.msg_iovlen = 1;
    *entry = {p.b.fd(), POLLIN, 0};
    p.a.send(pattern(20));
    p.b.await_bytes(20);
    ::mprotect(page, 4096, PROT_READ);
    p.b.call("recvmsg", [&] { return ::recvmsg(p.b.fd(), &message->msg_hdr, MSG_DONTWAIT); });
    p.b.call("recvmmsg", [&] { return ::recvmmsg(p.b.fd(), message, 1, MSG_DONTWAIT, nullptr); });
    p.b.call("poll", [&] { return ::poll(entry, 1, 0); });
    p.b.call("epoll_wait", [&] {
        const int set = ::epoll_create1(0);
        epoll_event wanted{};
        wanted.events = EPOLLIN;
        ::epoll_ctl(set, EPOLL_CTL_ADD, p.b.fd(), &wanted);
        const int result = ::epoll_wait(set, event, 1, 0);
        const int error = errno;
        ::close(set);
        errno = error;
        return result;
    });
    p.a.call("sendmmsg", [&] { return ::sendmmsg(p.a.fd(), message, 1, 0); });
    p.b.await_bytes(16);
    p.b.recv(100);
    ::munmap(page, 4096);
    still_works(p);
}

CASE(bad_control) {
    p.a.call("sendmsg, bad control", [&] {
        iovec part{const_cast<char*>("x"), 1};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = kNowhere;
        message.msg_controllen = 64;
        return send_message(p.a.fd(), message);
    });
    p.a.call("sendmsg, odd control", [&] {
        iovec part{const_cast<char*>("x"), 1};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        auto* const header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = 12345;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        return send_message(p.a.fd(), message);
    });
    p.a.send("y");
    p.b.await_bytes(1);
    p.b.recv(10);
}

/// As in the workers of a program that has a thread for its signals.
CASE(bad_buffers_with_signals_blocked) {
    p.a.send("12345");
    p.b.await_bytes(5);
    const auto blocked = [](auto call) {
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        const long result = call();
        const int error = errno;
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        errno = error;
        return result;
    };
    p.a.call("send", [&] { return blocked([&] { return ::send(p.a.fd(), kNowhere, 10, 0); }); });
    p.b.call("recv", [&] { return blocked([&] { return ::recv(p.b.fd(), kNowhere, 10, MSG_DONTWAIT); }); });
    p.b.call("readv", [&] {
        return blocked([&] { return ::readv(p.b.fd(), reinterpret_cast<iovec*>(kNowhere), 2); });
    });
    p.b.call("poll", [&] {
        return blocked([&] { return long{::poll(reinterpret_cast<pollfd*>(kNowhere), 1, 0)}; });
    });
    p.b.recv(100);
    still_works(p);
}

CASE(bad_second_part) {
    // What could be copied before the bad part counts, or nothing does: as the kernel has it.
    p.a.call("writev good, bad", [&] {
        const iovec parts[2] = {{const_cast<char*>("good"), 4}, {kNowhere, 10}};
        return ::writev(p.a.fd(), parts, 2);
    });
    p.a.send("|");
    p.b.await_bytes(1);
    p.b.fionread();
    p.b.recv(100);
    p.a.send("0123456789");
    p.b.await_bytes(10);
    p.b.call_with_text("readv good, bad", [&](Outcome& outcome) {
        char bytes[4] = {};
        const iovec parts[2] = {{bytes, 4}, {kNowhere, 10}};
        outcome.value = ::readv(p.b.fd(), parts, 2);
        outcome.error = errno;
        outcome.text = shown({bytes, 4});
    });
    p.b.recv(100, MSG_DONTWAIT);
    still_works(p);
}

CASE(half_a_buffer) {
    // The buffer's second half cannot be touched.
    p.a.call("send", [&] { return ::send(p.a.fd(), before_bad_page(6), 12, 0); });
    p.a.call("send all good", [&] { return ::send(p.a.fd(), before_bad_page(6), 6, 0); });
    p.b.await_bytes(6);
    p.b.fionread();
    p.b.recv(100);
    p.a.send("0123456789");
    p.b.await_bytes(10);
    p.b.call("recv", [&] { return ::recv(p.b.fd(), before_bad_page(6), 12, 0); });
    p.b.recv(100, MSG_DONTWAIT);
    p.a.send("0123456789");
    p.b.await_bytes(1);
    p.b.call("recv all good", [&] { return ::recv(p.b.fd(), before_bad_page(6), 6, 0); });
    p.b.recv(100, MSG_DONTWAIT);
}

CASE(bad_counts) {
    p.a.call("writev -1", [&] {
        const iovec part{const_cast<char*>("x"), 1};
        return ::writev(p.a.fd(), &part, -1);
    });
    std::vector<iovec> many(IOV_MAX + 1, iovec{const_cast<char*>("y"), 1});
    p.a.call("writev IOV_MAX + 1", [&] { return ::writev(p.a.fd(), many.data(), IOV_MAX + 1); });
    p.a.call("writev IOV_MAX", [&] { return ::writev(p.a.fd(), many.data(), IOV_MAX); });
    p.a.call("sendmsg IOV_MAX + 1", [&] {
        msghdr message{};
        message.msg_iov = many.data();
        message.msg_iovlen = many.size();
        return send_message(p.a.fd(), message);
    });
    p.b.await_bytes(IOV_MAX);
    p.b.call("readv -1", [&] {
        char byte;
        const iovec part{&byte, 1};
        return ::readv(p.b.fd(), &part, -1);
    });
    std::string room(IOV_MAX + 1, 0);
    for (size_t i = 0; i < many.size(); ++i)
        many[i] = {&room[i], 1};
    p.b.call("readv IOV_MAX + 1", [&] { return ::readv(p.b.fd(), many.data(), IOV_MAX + 1); });
    p.b.call("recvmsg IOV_MAX + 1", [&] {
        msghdr message{};
        message.msg_iov = many.data();
        message.msg_iovlen = many.size();
        return receive_message(p.b.fd(), message);
    });
    p.b.call("readv IOV_MAX", [&] { return ::readv(p.b.fd(), many.data(), IOV_MAX); });
    p.b.recv(100, MSG_DONTWAIT);
}

CASE(bad_lengths) {
    char bytes[8] = {};
    p.a.call("writev, one length negative", [&] {
        const iovec parts[2] = {{bytes, 4}, {bytes, static_cast<size_t>(-1)}};
        return ::writev(p.a.fd(), parts, 2);
    });
    p.a.call("writev, lengths overflow", [&] {
        const iovec parts[2] = {{bytes, SSIZE_MAX}, {bytes, SSIZE_MAX}};
        return ::writev(p.a.fd(), parts, 2);
    });
    p.a.send("0123456789");
    p.b.await_bytes(10);
    p.b.call("readv, one length negative", [&] {
        const iovec parts[2] = {{bytes, 4}, {bytes, static_cast<size_t>(-1)}};
        return ::readv(p.b.fd(), parts, 2);
    });
    p.b.call("recv of all memory",
             [&] { return ::recv(p.b.fd(), before_bad_page(20), SSIZE_MAX, MSG_DONTWAIT); });
    p.b.call("recv of -1",
             [&] { return ::recv(p.b.fd(), before_bad_page(20), static_cast<size_t>(-1), MSG_DONTWAIT); });
    p.b.recv(100, MSG_DONTWAIT);
    p.a.send("more");
    p.b.await_bytes(4);
    p.b.call("read of all memory", [&] { return ::read(p.b.fd(), before_bad_page(20), SSIZE_MAX); });
    p.b.call("read of -1", [&] { return ::read(p.b.fd(), before_bad_page(20), static_cast<size_t>(-1)); });
    p.a.call("write of -1", [&] { return ::write(p.a.fd(), bytes, static_cast<size_t>(-1)); });
    p.b.recv(100, MSG_DONTWAIT);
    still_works(p);
}

CASE(bad_descriptor) {
    End none(p.script, p.a.actor(), 999, "none");
    none.send("x");
    none.recv(1);
    none.readv({1});
    none.poll(POLLIN);
    none.shutdown(SHUT_WR);
    none.close();
    none.fionread();
    none.dup("copy");
    End negative(p.script, p.a.actor(), -1, "negative");
    negative.send("x");
    negative.recv(1);
    negative.poll(POLLIN);
    negative.close();
}

CASE_THAT(bad_pointers_before_a_connection, kBare) {
    // Nothing of the library may have been needed yet.
    EpollSet set(p.script, kClient, "set");
    set.end().call("epoll_pwait2", [&] {
        epoll_event event{};
        return ::epoll_pwait2(set.end().fd(), &event, 1, reinterpret_cast<timespec*>(kNowhere), nullptr);
    });
    set.end().call("clone3", [] { return ::syscall(SYS_clone3, kNowhere, 88); });
    if (p.setup.processes == Processes::kForkBefore || p.setup.processes == Processes::kUsers)
        p.script.fork(kClient, kServer);
    p.listen();
    p.make_client();
    p.client.call("connect",
                  [&] { return ::connect(p.client.fd(), reinterpret_cast<sockaddr*>(kNowhere), 16); });
    p.client.call("pselect6", [&] {
        timespec none{};
        return ::syscall(SYS_pselect6, 0, nullptr, nullptr, nullptr, &none, kNowhere);
    });
    p.connect();
    p.accept();
    p.take_sides();
    still_works(p);
}

CASE(bad_times_and_masks) {
    EpollSet set(p.script, p.a.actor(), "set");
    set.add(p.a, EPOLLIN);
    p.b.send("ready");
    p.a.await_bytes(5);
    auto* const nowhere = reinterpret_cast<sigset_t*>(kNowhere);
    const auto with_entry = [&](auto wait) {
        return [&p, wait] {
            pollfd entry{p.a.fd(), POLLIN, 0};
            return static_cast<long>(wait(&entry));
        };
    };
    p.a.call("SYS_ppoll, its time",
             with_entry([](pollfd* one) { return ::syscall(SYS_ppoll, one, 1, kNowhere, nullptr, 8L); }));
    p.a.call("SYS_ppoll, its mask",
             with_entry([](pollfd* one) { return ::syscall(SYS_ppoll, one, 1, nullptr, kNowhere, 8L); }));
    p.a.call("ppoll, its mask", with_entry([=](pollfd* one) { return ::ppoll(one, 1, nullptr, nowhere); }));
    const auto with_fds = [&](auto wait) {
        return [&p, wait] {
            fd_set fds;
            FD_ZERO(&fds);
            FD_SET(p.a.fd(), &fds);
            return static_cast<long>(wait(p.a.fd() + 1, &fds));
        };
    };
#ifdef SYS_select
    p.a.call("SYS_select, its time", with_fds([](int count, fd_set* fds) {
                 return ::syscall(SYS_select, count, fds, nullptr, nullptr, kNowhere);
             }));
#endif
    p.a.call("SYS_pselect6, its time", with_fds([](int count, fd_set* fds) {
                 return ::syscall(SYS_pselect6, count, fds, nullptr, nullptr, kNowhere, nullptr);
             }));
    p.a.call("SYS_pselect6, its mask and size", with_fds([](int count, fd_set* fds) {
                 return ::syscall(SYS_pselect6, count, fds, nullptr, nullptr, nullptr, kNowhere);
             }));
    p.a.call("SYS_pselect6, its mask", with_fds([](int count, fd_set* fds) {
                 const struct {
                     char* mask;
                     size_t size;
                 } given{kNowhere, 8};
                 return ::syscall(SYS_pselect6, count, fds, nullptr, nullptr, nullptr, &given);
             }));
    p.a.call("pselect, its mask", with_fds([=](int count, fd_set* fds) {
                 return ::pselect(count, fds, nullptr, nullptr, nullptr, nowhere);
             }));
    epoll_event events[2];
    const auto in_set = [&](const char* name, auto wait) {
        set.end().call(name, [&] { return static_cast<long>(wait(set.end().fd())); });
    };
    in_set("SYS_epoll_pwait, its mask",
           [&](int fd) { return ::syscall(SYS_epoll_pwait, fd, events, 2, 0, kNowhere, 8L); });
    in_set("epoll_pwait, its mask", [&](int fd) { return ::epoll_pwait(fd, events, 2, 0, nowhere); });
    in_set("SYS_epoll_pwait2, its time",
           [&](int fd) { return ::syscall(SYS_epoll_pwait2, fd, events, 2, kNowhere, nullptr, 8L); });
    in_set("SYS_epoll_pwait2, its mask",
           [&](int fd) { return ::syscall(SYS_epoll_pwait2, fd, events, 2, nullptr, kNowhere, 8L); });
    in_set("epoll_pwait2, its time", [&](int fd) {
        return ::epoll_pwait2(fd, events, 2, reinterpret_cast<timespec*>(kNowhere), nullptr);
    });
    in_set("epoll_pwait2, its mask", [&](int fd) { return ::epoll_pwait2(fd, events, 2, nullptr, nowhere); });
    p.a.recv(100);
    still_works(p);
}

CASE(bad_pointers_in_options) {
    p.a.call("getsockopt", [&] {
        socklen_t size = 4;
        return ::getsockopt(p.a.fd(), SOL_SOCKET, SO_RCVBUF, kNowhere, &size);
    });
    p.a.call("getsockopt, bad size", [&] {
        int value;
        return ::getsockopt(p.a.fd(), SOL_SOCKET, SO_RCVBUF, &value, reinterpret_cast<socklen_t*>(kNowhere));
    });
    p.a.call("setsockopt", [&] { return ::setsockopt(p.a.fd(), SOL_SOCKET, SO_RCVTIMEO, kNowhere, 16); });
    p.a.call("setsockopt short", [&] { return ::setsockopt(p.a.fd(), SOL_SOCKET, SO_RCVTIMEO, "", 1); });
    p.a.call("FIONREAD", [&] { return ::ioctl(p.a.fd(), FIONREAD, kNowhere); });
    p.a.call("FIONBIO", [&] { return ::ioctl(p.a.fd(), FIONBIO, kNowhere); });
    p.a.call("recvfrom, bad address", [&] {
        char byte;
        socklen_t size = 16;
        return ::recvfrom(p.a.fd(), &byte, 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(kNowhere), &size);
    });
    p.a.call("poll, bad entries", [&] { return ::poll(reinterpret_cast<pollfd*>(kNowhere), 1, 0); });
    still_works(p);
}

namespace {

/// Three bytes and then a message that cannot be received.
void one_and_a_bad_one(const End& end, void* bad) {
    end.call("recvmmsg of a good one and a bad one", [=, &end] {
        char bytes[3];
        iovec parts[2] = {{bytes, sizeof bytes}, {bad, 3}};
        mmsghdr messages[2]{};
        for (int i = 0; i < 2; ++i) {
            messages[i].msg_hdr.msg_iov = &parts[i];
            messages[i].msg_hdr.msg_iovlen = bad == nullptr && i == 1 ? 100'000 : 1;
        }
        return ::recvmmsg(end.fd(), messages, 2, MSG_DONTWAIT, nullptr);
    });
}

}  // namespace

// What goes wrong after the first message is told later, whoever asks.
CASE(bad_second_message) {
    void* const bad = before_bad_page(0);
    p.a.send("abcdefghijkl");
    p.b.await_bytes(12);
    one_and_a_bad_one(p.b, bad);
    p.b.poll(POLLIN | POLLOUT);
    p.b.get(SOL_SOCKET, SO_ERROR);
    p.b.poll(POLLIN | POLLOUT);
    one_and_a_bad_one(p.b, nullptr);
    one_and_a_bad_one(p.b, bad);
    p.b.recv(100);
    p.b.recv(1, MSG_DONTWAIT);
    p.a.send("more");
    p.b.await_bytes(4);
    p.b.recv(100);
}

// A flag between the kernel and itself.
CASE(foreign_flag) {
    constexpr int kForeign = static_cast<int>(0x80000000U);
    p.a.send("abc");
    p.b.await_bytes(3);
    const auto with_message = [](const std::function<long(mmsghdr&)>& act) {
        char bytes[3] = {'x', 'y', 'z'};
        iovec part{bytes, sizeof bytes};
        mmsghdr message{};
        message.msg_hdr.msg_iov = &part;
        message.msg_hdr.msg_iovlen = 1;
        return act(message);
    };
    const int fd = p.b.fd();
    p.b.call("recvmsg", [&] {
        return with_message([&](mmsghdr& one) { return ::recvmsg(fd, &one.msg_hdr, kForeign); });
    });
    p.b.call("sendmsg", [&] {
        return with_message([&](mmsghdr& one) { return ::sendmsg(fd, &one.msg_hdr, kForeign); });
    });
    p.b.call("recvmmsg", [&] {
        return with_message([&](mmsghdr& one) { return ::recvmmsg(fd, &one, 1, kForeign, nullptr); });
    });
    p.b.call("sendmmsg",
             [&] { return with_message([&](mmsghdr& one) { return ::sendmmsg(fd, &one, 1, kForeign); }); });
    p.b.send("it means nothing here", kForeign);
    p.a.await_bytes(21);
    p.a.recv(100);
    p.b.recv(100, kForeign);
}

}  // namespace differential
