// One end under test, in this process: what a program does with its connection, each call checked for what
// holds whatever the peer does. Nothing here waits.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "fuzz/input.h"
#include "stream_pair.h"

namespace loopfast::fuzz {

inline void check(bool good, const char* what) {
    if (good)
        return;
    fprintf(stderr, "not so: %s\n", what);
    abort();
}

/// As TCP: bytes, nothing yet, the end, or an end with an error.
inline void check_result(long result, size_t size, const char* call) {
    check(result <= static_cast<long>(size), call);
    check(result >= 0 || result == -EAGAIN || result == -ECONNRESET || result == -EPIPE ||
              result == -ENOTCONN || result == -EINTR,
          call);
}

/// Room for the largest receive, and some bytes behind it that must stay as they are.
inline std::vector<unsigned char>& buffer() {
    static std::vector<unsigned char> bytes(64 * 65536 + 64);
    return bytes;
}

/// One call of the program's on its end, as the input says.
inline void step(int fd, Input& input) {
    Stream* const stream = find_stream(fd);
    const size_t size = input.size();
    unsigned char* const bytes = buffer().data();
    switch (input.byte() % 8) {
    case 0:
    case 1:
        check_result(door_send(fd, bytes, size, MSG_DONTWAIT), size, "send");
        break;
    case 2:
    case 3: {
        memset(bytes + size, 0x5e, 64);
        check_result(door_receive(fd, bytes, size, MSG_DONTWAIT), size, "receive");
        for (size_t i = 0; i < 64; ++i)
            check(bytes[size + i] == 0x5e, "a receive stays within its buffer");
        break;
    }
    case 4:
        check_result(door_receive(fd, bytes, size, MSG_DONTWAIT | MSG_PEEK), size, "peek");
        break;
    case 5:
        if (stream->fused()) {
            readiness(*stream, fd, Freshness::kRecent);
            check(bytes_waiting(*stream, fd) < uint64_t{1} << 40, "a count of waiting bytes");
        }
        break;
    case 6:
        if (stream->fused())
            advance(*stream, fd);
        break;
    default:
        if (input.byte() % 16 == 0)
            door_shutdown(fd, input.byte() % 3);
        break;
    }
}

/// A connection that has nothing to do with the one under attack, on the ring.
inline void check_the_other_connection() {
    static StreamPair* pair = nullptr;
    if (pair == nullptr) {
        pair = new StreamPair;
        check(pair->settle(), "the other connection is fused");
    }
    static unsigned char next = 0;
    unsigned char out[100];
    unsigned char in[100];
    for (auto& byte : out)
        byte = next++;
    check(door_send(pair->connector_fd(), out, sizeof out) == sizeof out &&
              door_receive(pair->acceptor_fd(), in, sizeof in) == sizeof in &&
              memcmp(in, out, sizeof in) == 0,
          "the other connection is as it was");
}

/// No descriptor is left behind while one of these lives, but for what is made once in a process.
class NoneIsLeft {
public:
    NoneIsLeft() : lowest_(lowest()), hidden_(hidden()) {}
    ~NoneIsLeft() {
        constexpr int kFirstRounds = 4;
        static int rounds = 0;
        if (++rounds <= kFirstRounds)
            return;
        // What a stranger sent is closed in a thread of its own (base/apart.h).
        constexpr int kPatience = 100'000;
        for (int i = 0; i < kPatience && !as_before(); ++i)
            usleep(100);
        check(as_before(), "no descriptor is left behind");
    }
    NoneIsLeft(const NoneIsLeft&) = delete;
    NoneIsLeft& operator=(const NoneIsLeft&) = delete;

private:
    bool as_before() const { return lowest() == lowest_ && hidden() == hidden_; }
    static int lowest() {
        const int free = dup(0);
        close(free);
        return free;
    }
    static int hidden() {
        int count = 0;
        for (int fd = next_hidden(0); fd >= 0; fd = next_hidden(fd + 1))
            ++count;
        return count;
    }
    int lowest_;
    int hidden_;
};

}  // namespace loopfast::fuzz
