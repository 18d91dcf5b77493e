// One attempt to receive or send, in Winsock's words; and the backlog: a non-blocking stream send takes all
// of its bytes while the queue was not full before it, however many they are, so those that Linux does not
// take are kept here and sent as room appears.
#include <cerrno>

#include "winsock/errors.h"
#include "winsock/native.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

int Socket::error_of(long result, bool sending) {
    if (result == -EAGAIN)
        return WSAEWOULDBLOCK;
    const int reset = broken.load(std::memory_order_relaxed);
    if (is_stream() && (result == -EPIPE || result == -ENOTCONN)) {
        if ((sending ? shut_send : shut_receive).load(std::memory_order_relaxed))
            return WSAESHUTDOWN;
        if (reset != 0)
            return reset;
        const State now = look();
        if (now != State::kConnected)
            return WSAENOTCONN;
        // The peer is gone and said so before.
        broken.store(WSAECONNRESET, std::memory_order_relaxed);
        return WSAECONNRESET;
    }
    if (result == -EDESTADDRREQ)
        return WSAENOTCONN;
    if (result == -ECONNREFUSED && (!is_stream() || look() == State::kConnected))
        return WSAECONNRESET;
    if (result == -ECONNREFUSED || result == -EHOSTUNREACH || result == -ENETUNREACH)
        if (is_stream() && look() != State::kConnected)
            return WSAENOTCONN;
    const int error = wsa_of_errno(result);
    if (is_stream() && (error == WSAECONNRESET || error == WSAECONNABORTED || error == WSAETIMEDOUT ||
                        error == WSAENETRESET))
        broken.store(error, std::memory_order_relaxed);
    return error;
}

int Socket::try_receive(const iovec* parts, unsigned count, size_t total, int& flags, Address* from,
                        size_t& moved) {
    moved = 0;
    const bool peek = (flags & native::kPeek) != 0;
    if (is_stream() && total == 0) {
        // Nothing to be filled: it is asked whether there is something.
        const short ready = native::ready_now(fd(), native::kIn);
        if (ready == 0) {
            const State now = look();
            return now == State::kConnected || now == State::kConnecting ? WSAEWOULDBLOCK : WSAENOTCONN;
        }
        char byte;
        const long result = native::receive(fd(), &byte, 1, native::kPeek);
        flags = 0;
        return result >= 0 ? broken.load(std::memory_order_relaxed) : error_of(result, false);
    }
    long result;
    do {
        if (count == 1 && from == nullptr && is_stream()) [[likely]] {
            result = native::receive(fd(), parts->iov_base, parts->iov_len, flags);
        } else {
            int out_flags = flags;
            unsigned size = sizeof from->bytes;
            result =
                native::receive_parts(fd(), parts, count, out_flags, from != nullptr ? from->bytes : nullptr,
                                      from != nullptr ? &size : nullptr);
            if (result >= 0 && from != nullptr)
                from->size = size;
            if (result >= 0 && !is_stream() && (out_flags & native::kTruncated) != 0) {
                moved = static_cast<size_t>(result);
                return WSAEMSGSIZE;
            }
        }
    } while (result == -EINTR);
    if (result > 0) [[likely]] {
        moved = static_cast<size_t>(result);
        flags = 0;
        return 0;
    }
    if (result < 0) {
        // An urgent byte that is asked for and not there.
        if (result == -EINVAL && (flags & native::kOutOfBand) != 0)
            return look() == State::kConnected ? WSAEWOULDBLOCK : WSAENOTCONN;
        return error_of(result, false);
    }
    flags = 0;
    if (is_stream() && !peek && state.load(std::memory_order_relaxed) != State::kConnected &&
        look() != State::kConnected)
        return WSAENOTCONN;
    return is_stream() ? broken.load(std::memory_order_relaxed) : 0;
}

int Socket::try_send(const iovec* parts, unsigned count, int flags, const Address* to, size_t& moved) {
    moved = 0;
    if (shut_send.load(std::memory_order_relaxed))
        return WSAESHUTDOWN;
    const bool with_address = to != nullptr && to->size != 0 && !is_stream();
    long result;
    do {
        if (count == 1 && !with_address) [[likely]]
            result = native::send(fd(), parts->iov_base, parts->iov_len, flags);
        else
            result = native::send_parts(fd(), parts, count, flags, with_address ? to->bytes : nullptr,
                                        with_address ? to->size : 0);
    } while (result == -EINTR);
    if (result >= 0) [[likely]] {
        moved = static_cast<size_t>(result);
        return 0;
    }
    return error_of(result, true);
}

void Socket::add_backlog(const iovec* parts, unsigned count) {
    if (!has_backlog()) {
        backlog_.clear();
        backlog_sent_ = 0;
    }
    for (unsigned i = 0; i < count; ++i) {
        const auto* const bytes = static_cast<const char*>(parts[i].iov_base);
        backlog_.insert(backlog_.end(), bytes, bytes + parts[i].iov_len);
    }
    Reactor* const mine = reactor();
    if (!backlog_pending_ && mine != nullptr) {
        backlog_pending_ = true;
        mine->add_pending(1);
    }
    watch(true);
    if (mine != nullptr)
        mine->want_driver();
}

int Socket::drain_backlog() {
    int error = 0;
    while (has_backlog()) {
        const iovec rest{backlog_.data() + backlog_sent_, backlog_.size() - backlog_sent_};
        size_t moved;
        const bool shut = shut_send.load(std::memory_order_relaxed);
        // A shutdown that waits for these bytes does not forbid them.
        long result;
        do
            result = native::send(fd(), rest.iov_base, rest.iov_len, 0);
        while (result == -EINTR);
        moved = result > 0 ? static_cast<size_t>(result) : 0;
        if (result < 0) {
            error = shut ? wsa_of_errno(result) : error_of(result, true);
            if (error == WSAEWOULDBLOCK)
                return 0;
            break;
        }
        backlog_sent_ += moved;
    }
    end_backlog();
    return error;
}

void Socket::end_backlog() {
    std::vector<char>().swap(backlog_);
    backlog_sent_ = 0;
    if (!backlog_pending_)
        return;
    backlog_pending_ = false;
    if (Reactor* const mine = reactor(); mine != nullptr)
        mine->add_pending(-1);
    if (!is_open()) {
        // closesocket left us these bytes to send; the caller is a user as well.
        unwatch();
        let_go();
    }
}

int Socket::shut_send_in_order() {
    if (!out.empty() || has_backlog()) {
        shut_when_sent_ = true;
        return 0;
    }
    shut_when_sent_ = false;
    return wsa_of_errno(native::shutdown(fd(), 1));
}

}  // namespace loopfast::winsock
