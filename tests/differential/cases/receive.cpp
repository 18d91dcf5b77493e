// Receiving: every call and flag, on bytes that are there, on an empty stream, and at its end.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "cases.h"

namespace differential {

namespace {

/// Every call that receives, each for a few bytes.
void receive_in_every_way(const End& end) {
    end.read(10);
    end.recv(10);
    end.recvfrom(10);
    end.readv({3, 0, 4, 3});
    end.recvmsg({3, 0, 4, 3});
    end.recvmmsg({5, 5});
    end.preadv2({5, 5}, -1, 0);
}

}  // namespace

CASE(receive_calls) {
    p.a.send(pattern(100));
    p.b.await_bytes(100);
    receive_in_every_way(p.b);
    p.b.fionread();
    p.b.recv(100);
}

CASE(receive_at_end) {
    p.a.send("last");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.recv(100);
    receive_in_every_way(p.b);
    p.b.recv(0);
    p.b.recv(10, MSG_PEEK);
    p.b.recv(10, MSG_WAITALL);
    p.b.recv(10, MSG_DONTWAIT);
}

CASE(receive_from_empty_stream) {
    p.b.nonblocking(true);
    receive_in_every_way(p.b);
    p.b.recv(10, MSG_PEEK);
    p.b.recv(10, MSG_WAITALL);
    p.b.recv(10, MSG_TRUNC);
    p.b.nonblocking(false);
    p.b.recv(10, MSG_DONTWAIT);
    p.b.recv(10, MSG_DONTWAIT | MSG_WAITALL);
    p.b.recvmsg({4, 4}, MSG_DONTWAIT);
    p.b.recvmmsg({4, 4}, MSG_DONTWAIT);
    p.b.preadv2({4, 4}, -1, RWF_NOWAIT);
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.recv(10, MSG_DONTWAIT);
}

CASE(receive_nothing_wanted) {
    // A size of 0: on an empty stream it is not the end, and it must not wait.
    p.b.recv(0, MSG_DONTWAIT);
    p.b.read(0);
    p.b.readv({});
    p.b.readv({0, 0});
    p.a.send("abc");
    p.b.await_bytes(3);
    p.b.read(0);
    p.b.recv(0);
    p.b.recv(0, MSG_PEEK);
    p.b.readv({});
    p.b.recvmsg({});
    p.b.recv(10);
}

CASE_THAT(receive_of_zero_waits, kBlocking) {
    // recv, unlike read, waits for a byte even if none is wanted.
    Pending receiving = p.b.start_recv(0);
    receiving.still_waiting();
    p.a.send("x");
    receiving.finish();
    p.b.recv(0);
    p.b.recvmsg({});
    p.b.recv(1);
    p.b.recvmsg({}, MSG_DONTWAIT);
    p.b.recvmsg({0}, MSG_DONTWAIT);
    p.b.recv(0, MSG_DONTWAIT | MSG_PEEK);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.recv(0);
}

CASE(peek) {
    p.a.send("hello world");
    p.b.await_bytes(11);
    p.b.recv(5, MSG_PEEK);
    p.b.recv(100, MSG_PEEK);
    p.b.recvmsg({2, 4, 100}, MSG_PEEK);
    p.b.recvmmsg({4, 4}, MSG_PEEK);
    p.b.recvfrom(3, MSG_PEEK | MSG_DONTWAIT);
    p.b.recv(6);
    p.b.recv(100, MSG_PEEK);
    p.a.send("!");
    p.b.await_bytes(6);
    p.b.recv(100, MSG_PEEK);
    p.b.recv(100);
    p.b.recv(100, MSG_PEEK | MSG_DONTWAIT);
}

CASE(peek_all) {
    p.a.send("hello");
    p.b.await_bytes(5);
    p.b.recv(5, MSG_PEEK | MSG_WAITALL);
    p.b.recv(10, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT);
    p.b.recv(5);
}

CASE(peek_large) {
    const std::string bytes = pattern(200'000);
    Pending sending = p.a.start_send(bytes);
    p.b.await_bytes(60'000);
    p.b.recv(60'000, MSG_PEEK);
    p.b.drain(200'000);
    sending.finish();
}

CASE(truncate) {
    // On TCP the flag drops the bytes instead of copying them.
    p.a.send("0123456789");
    p.b.await_bytes(10);
    p.b.recv(4, MSG_TRUNC);
    p.b.recv(2);
    p.b.recvmsg({2}, MSG_TRUNC);
    p.b.recv(2, MSG_TRUNC | MSG_PEEK);
    p.b.recv(100, MSG_TRUNC);
    p.b.recv(100, MSG_TRUNC | MSG_DONTWAIT);
}

CASE(truncate_into_nothing) {
    p.a.send("0123456789");
    p.b.await_bytes(10);
    p.b.call("recv into null", [&] { return ::recv(p.b.fd(), nullptr, 4, MSG_TRUNC); });
    p.b.recv(10);
}

CASE_THAT(wait_for_all, kBlocking) {
    Pending receiving = p.b.start_recv(10, MSG_WAITALL);
    p.a.send("01234");
    receiving.still_waiting();
    p.a.send("5678");
    receiving.still_waiting();
    p.a.send("9abc");
    receiving.finish();
    p.b.recv(10);
}

CASE_THAT(wait_for_all_until_end, kBlocking) {
    Pending receiving = p.b.start_recv(10, MSG_WAITALL);
    p.a.send("01234");
    receiving.still_waiting();
    p.a.shutdown(SHUT_WR);
    receiving.finish();
    p.b.recv(10, MSG_WAITALL);
}

CASE_THAT(wait_for_all_peeking, kBlocking) {
    p.a.send("01234");
    p.b.await_bytes(5);
    Pending receiving = p.b.start_recv(8, MSG_WAITALL | MSG_PEEK);
    receiving.still_waiting();
    p.a.send("56789");
    receiving.finish();
    p.b.recv(100);
}

CASE_THAT(wait_for_all_peeking_times_out, kBlocking) {
    // What is looked at lies on the kernel lane, in the ring, or on both.
    for (const size_t before : {3, 0}) {
        p.b.set_time(SO_RCVTIMEO, 0);
        p.a.send(pattern(before));
        p.b.drain(before);
        p.b.set_time(SO_RCVTIMEO, 60);
        p.a.send("01234");
        p.b.await_bytes(5);
        p.b.recv(8, MSG_WAITALL | MSG_PEEK);
        p.b.recv(8, MSG_WAITALL);
        p.b.recv(8, MSG_WAITALL | MSG_PEEK);
    }
}

CASE_THAT(wait_for_first_byte, kBlocking) {
    for (const int flags : std::vector<int>{0, MSG_PEEK, MSG_TRUNC}) {
        Pending receiving = p.b.start_recv(10, flags);
        p.a.send("x");
        receiving.finish();
        p.b.recv(10, MSG_DONTWAIT);
    }
    Pending reading = p.b.start("readv", [fd = p.b.fd()](Outcome& outcome) {
        char bytes[4];
        const iovec parts[2] = {{bytes, 2}, {bytes + 2, 2}};
        outcome.value = ::readv(fd, parts, 2);
    });
    p.a.send("yz");
    reading.finish();
}

CASE_THAT(many_small_from_waiting_reader, kBlocking) {
    // Each byte wakes a reader that sleeps: a lost wake-up would hang.
    for (int i = 0; i < 20; ++i) {
        Pending receiving = p.b.start_recv(1);
        p.a.send(std::string(1, static_cast<char>('a' + i)));
        receiving.finish();
    }
}

CASE_THAT(wait_for_one_of_messages, kBlocking) {
    Pending receiving = p.b.start("recvmmsg WAITFORONE", [end = p.b](Outcome& outcome) {
        char bytes[3][4];
        iovec parts[3];
        mmsghdr messages[3] = {};
        for (int i = 0; i < 3; ++i) {
            parts[i] = {bytes[i], 4};
            messages[i].msg_hdr.msg_iov = &parts[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        outcome.value = ::recvmmsg(end.fd(), messages, 3, MSG_WAITFORONE, nullptr);
        outcome.text = format("%u", messages[0].msg_len);
    });
    p.a.send("abc");
    receiving.finish();
}

CASE(messages_at_end) {
    p.a.send("abcd");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.recvmmsg({2, 4, 4});
    p.b.recvmmsg({2, 4, 4});
}

CASE(messages_with_timeout) {
    p.a.send("abcd");
    p.b.await_bytes(4);
    p.b.call_with_text("recvmmsg with a timeout of 0", [&](Outcome& outcome) {
        char bytes[8];
        iovec parts[2] = {{bytes, 2}, {bytes + 2, 2}};
        mmsghdr messages[2] = {};
        for (int i = 0; i < 2; ++i) {
            messages[i].msg_hdr.msg_iov = &parts[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        timespec time{0, 0};
        outcome.value = ::recvmmsg(p.b.fd(), messages, 2, MSG_DONTWAIT, &time);
        outcome.error = errno;
    });
    p.b.call("recvmmsg with a bad timeout", [&] {
        mmsghdr message{};
        timespec time{-1, 0};
        return ::recvmmsg(p.b.fd(), &message, 1, MSG_DONTWAIT, &time);
    });
    p.b.recv(10, MSG_DONTWAIT);
}

CASE(receive_odd_flags) {
    p.a.send("0123456789");
    p.b.await_bytes(10);
    for (const int flags : std::vector<int>{MSG_NOSIGNAL, MSG_DONTROUTE, MSG_EOR, MSG_CMSG_CLOEXEC,
                                            0x10000000, MSG_CONFIRM, MSG_OOB, MSG_FASTOPEN})
        p.b.recv(1, flags | MSG_DONTWAIT);
    p.b.recv(1, MSG_ERRQUEUE);
    p.b.recvmsg({1}, MSG_CMSG_CLOEXEC);
    p.b.recv(10, MSG_DONTWAIT);
}

CASE_THAT(wait_for_all_before_a_reset, kBlocking) {
    p.a.send("half");
    p.b.await_bytes(4);
    p.a.reset();
    p.b.await_poll(POLLERR);
    p.b.recv(10, MSG_WAITALL);
    p.b.recv(10);
    p.b.recv(10);
}

CASE(messages_behind_an_error) {
    p.a.send("bytes");
    p.b.await_bytes(5);
    p.a.reset();
    p.b.await_poll(POLLERR);
    p.b.recvmmsg({3, 3}, MSG_DONTWAIT);
    p.b.recvmmsg({3, 3}, MSG_DONTWAIT);
    p.b.recv(10);
}

CASE(drop_nothing) {
    p.a.send("bytes");
    p.b.await_bytes(5);
    p.b.recv(0, MSG_PEEK | MSG_TRUNC);
    p.b.recv(0, MSG_TRUNC);
    p.b.recv(10);
    p.b.recv(0, MSG_TRUNC | MSG_DONTWAIT);
}

CASE(read_at_an_offset) {
    p.b.nonblocking(true);
    p.a.send("0123456789");
    p.b.await_bytes(10);
    p.b.preadv2({4}, 0, 0);
    p.b.preadv2({4}, -1, 0);
    p.b.preadv2({4}, -1, RWF_NOWAIT);
    p.b.preadv2({4}, -1, RWF_HIPRI);
    p.b.preadv2({4}, -1, RWF_APPEND);
    p.b.preadv2({4}, -1, 0x40000000);
    p.b.call("pread", [&] {
        char bytes[4];
        return ::pread(p.b.fd(), bytes, 4, 0);
    });
    p.b.call("preadv", [&] {
        char bytes[4];
        const iovec part{bytes, 4};
        return ::preadv(p.b.fd(), &part, 1, 0);
    });
    p.b.call("lseek", [&] { return ::lseek(p.b.fd(), 0, SEEK_CUR); });
    p.b.recv(10, MSG_DONTWAIT);
}

CASE(large_transfers) {
    for (const size_t size : {4095U, 4096U, 4097U, 65536U, 300'000U, 3'000'000U}) {
        Pending sending = p.a.start("send all", [end = p.a, size](Outcome& outcome) {
            const std::string bytes = pattern(size, 7);
            size_t sent = 0;
            while (sent < size) {
                pollfd entry{end.fd(), POLLOUT, 0};
                ::poll(&entry, 1, 5000);
                const long result = ::send(end.fd(), bytes.data() + sent, size - sent, 0);
                if (result <= 0)
                    break;
                sent += static_cast<size_t>(result);
            }
            outcome.value = static_cast<long>(sent);
        });
        p.b.drain(size);
        sending.finish();
    }
}

namespace {

/// The kernel's option, by its number: libc's header of it is older.
constexpr int kZerocopyReceive = 35;
struct ZerocopyReceive {
    uint64_t address;
    uint32_t length;
    uint32_t recv_skip_hint;
    uint32_t inq;
    int32_t err;
};

/// Receives by mapping, and by reading what cannot be mapped, until nothing is there. What was mapped and
/// what was read is the kernel's matter.
void receive_by_mapping(const End& end, const std::string& expected) {
    end.call_with_text("TCP_ZEROCOPY_RECEIVE and read", [&](Outcome& outcome) {
        constexpr size_t kSize = 65536;
        void* const memory = ::mmap(nullptr, kSize, PROT_READ, MAP_SHARED, end.fd(), 0);
        if (memory == MAP_FAILED) {
            outcome.text = "no mapping";
            return;
        }
        std::string all;
        for (;;) {
            ZerocopyReceive request{reinterpret_cast<uintptr_t>(memory), kSize, 0, 0, 0};
            socklen_t size = sizeof request;
            if (::getsockopt(end.fd(), IPPROTO_TCP, kZerocopyReceive, &request, &size) < 0) {
                outcome.error = errno;
                outcome.value = -1;
                break;
            }
            all.append(static_cast<const char*>(memory), request.length);
            char bytes[kSize];
            const size_t wanted = request.recv_skip_hint < kSize ? request.recv_skip_hint : kSize;
            const ssize_t got = wanted == 0 ? 0 : ::read(end.fd(), bytes, wanted);
            if (got > 0)
                all.append(bytes, static_cast<size_t>(got));
            else if (request.length == 0)
                break;
        }
        outcome.text = all == expected ? "as sent" : format("other bytes, %zu", all.size());
        ::munmap(memory, kSize);
    });
}

}  // namespace

CASE(zerocopy_receive) {
    for (unsigned round = 1; round <= 3; ++round) {
        p.a.send(pattern(20'000, round));
        p.b.await_bytes(20'000);
        receive_by_mapping(p.b, pattern(20'000, round));
    }
    p.b.send("back");
    p.a.await_bytes(4);
    p.a.recv(10);
    p.a.close();
    p.b.await_end();
    receive_by_mapping(p.b, "");
}

CASE(zerocopy_receive_of_what_is_left) {
    p.a.send(pattern(30'000, 5));
    p.a.close();
    p.b.await_bytes(30'000);
    p.b.await_end();
    receive_by_mapping(p.b, pattern(30'000, 5));
}

namespace {

void be_refused(Pair& p) {
    p.b.call("of another address", [&] {
        ZerocopyReceive request{1234, 4096, 0, 0, 0};
        socklen_t size = sizeof request;
        return ::getsockopt(p.b.fd(), IPPROTO_TCP, kZerocopyReceive, &request, &size);
    });
    p.b.call("of too little", [&] {
        ZerocopyReceive request{};
        socklen_t size = 4;
        return ::getsockopt(p.b.fd(), IPPROTO_TCP, kZerocopyReceive, &request, &size);
    });
    p.b.recv(10);
}

}  // namespace

CASE(zerocopy_receive_refused) {
    p.a.send("bytes");
    p.b.await_bytes(5);
    be_refused(p);
}

CASE(zerocopy_receive_of_what_is_left_refused) {
    p.a.send("bytes");
    p.a.close();
    p.b.await_bytes(5);
    p.b.await_end();
    be_refused(p);
}

}  // namespace differential
