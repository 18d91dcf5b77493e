// See session.h.
#include "peer/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <vector>

namespace peer {

namespace {

uint64_t seed_of(uint64_t id, bool from_acceptor) { return id * 2 + (from_acceptor ? 1 : 0); }

bool is_reset(int error) { return error == ECONNRESET || error == EPIPE; }

/// Pauses at times, so that the other end falls asleep at times.
void rest(Dice& dice) {
    if (dice.below(50) == 0)
        usleep(static_cast<useconds_t>(dice.below(400)));
}

class Session {
public:
    Session(int fd, const Settings& settings)
        : fd_{fd}, settings_{settings}, out_{seed_of(settings.id, settings.acceptor), settings.relative},
          in_{incoming(settings, false)},
          in_relative_{incoming(settings, true)}, dice_{settings.id * 4 + (settings.acceptor ? 2 : 0)} {
        outcome_.received = settings.receive_from;
    }

    Outcome run_blocking() {
        std::thread sender{[this] { send_blocking(); }};
        std::vector<unsigned char> buffer(65536);
        for (;;) {
            if (!take(buffer, 0))
                break;
        }
        stop_ = true;
        sender.join();
        return outcome_;
    }

    Outcome run_epoll() {
        fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
        const int set = epoll_create1(EPOLL_CLOEXEC);
        const bool edge = settings_.id % 2 != 0;
        epoll_event event{};
        event.events = EPOLLIN | EPOLLOUT | (edge ? EPOLLET : 0);
        epoll_ctl(set, EPOLL_CTL_ADD, fd_, &event);
        std::vector<unsigned char> in(65536);
        std::vector<unsigned char> out;
        bool open = true;
        bool sending = true;
        bool readable = true;
        bool writable = true;
        while (open) {
            // Both directions in turns; an edge is used up only by EAGAIN.
            for (int turn = 0; turn < 8 && open && (readable || (writable && sending)); ++turn) {
                if (readable) {
                    open = take(in, MSG_DONTWAIT);
                    readable = open && !again_;
                }
                if (open && writable && sending) {
                    if (wants_to_finish()) {
                        shutdown(fd_, SHUT_WR);
                        sending = false;
                        event.events &= ~static_cast<uint32_t>(EPOLLOUT);
                        epoll_ctl(set, EPOLL_CTL_MOD, fd_, &event);
                    } else {
                        sending = give(out, MSG_DONTWAIT);
                        writable = !again_;
                    }
                }
            }
            if (!open)
                break;
            // Never for ever: `finish` is not an event.
            epoll_event happened{};
            const bool busy = edge && (readable || (writable && sending));
            const int count = epoll_wait(set, &happened, 1, busy ? 0 : 20);
            if (count > 0 && (happened.events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0)
                readable = true;
            if (count > 0 && (happened.events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0)
                writable = true;
        }
        if (sending)
            shutdown(fd_, SHUT_WR);
        close(set);
        return outcome_;
    }

private:
    bool wants_to_finish() const {
        return stop_ || (settings_.finish != nullptr && settings_.finish->load(std::memory_order_relaxed));
    }

    /// One receive, checked. @return false at the end of the connection.
    bool take(std::vector<unsigned char>& buffer, int flags) {
        const size_t asked = receive_dice_.size();
        if (settings_.progress != nullptr)
            settings_.progress->asked = asked;
        const ssize_t got = recv(fd_, buffer.data(), asked, flags);
        again_ = got < 0 && (errno == EAGAIN || errno == EINTR);
        if (again_)
            return true;
        if (got <= 0) {
            outcome_.error = got == 0 ? 0 : errno;
            outcome_.end = got == 0 ? End::kEof : is_reset(errno) ? End::kReset : End::kError;
            return false;
        }
        if (!check(buffer.data(), static_cast<size_t>(got)))
            return false;
        if (settings_.progress != nullptr) {
            settings_.progress->received = outcome_.received;
            settings_.progress->asked = 0;
        }
        rest(receive_dice_);
        return true;
    }

    bool check(const unsigned char* data, size_t size) {
        size_t primary = 0;
        while (primary < size && !Pattern::is_relatives(data[primary]))
            ++primary;
        const bool out_of_order = outcome_.relative > 0 && primary > 0;
        const size_t good = in_.check(data, primary, outcome_.received);
        const size_t good_after = in_relative_.check(data + primary, size - primary, outcome_.relative);
        if (!out_of_order && good == primary && good_after == size - primary) {
            outcome_.received += primary;
            outcome_.relative += size - primary;
            return true;
        }
        fprintf(
            stderr, "connection %llu: wrong byte: offset %llu + %zu of %zu, relative's offset %llu + %zu\n",
            static_cast<unsigned long long>(settings_.id), static_cast<unsigned long long>(outcome_.received),
            good, primary, static_cast<unsigned long long>(outcome_.relative), good_after);
        outcome_.end = End::kWrong;
        return false;
    }

    /// One send. @return false when nothing can be sent any more.
    bool give(std::vector<unsigned char>& buffer, int flags) {
        buffer.resize(dice_.size());
        out_.fill(buffer.data(), buffer.size(), outcome_.sent);
        const ssize_t sent = send(fd_, buffer.data(), buffer.size(), flags | MSG_NOSIGNAL);
        again_ = sent < 0 && (errno == EAGAIN || errno == EINTR);
        if (again_)
            return true;
        if (sent < 0)  // the receiving half says how the connection ended
            return false;
        outcome_.sent += static_cast<uint64_t>(sent);
        rest(dice_);
        return true;
    }

    void send_blocking() {
        std::vector<unsigned char> buffer;
        while (!wants_to_finish())
            if (!give_blocking(buffer))
                return;
        shutdown(fd_, SHUT_WR);
    }

    // `again_` belongs to the receiving thread; a blocking send has no use for it.
    bool give_blocking(std::vector<unsigned char>& buffer) {
        buffer.resize(dice_.size());
        out_.fill(buffer.data(), buffer.size(), outcome_.sent);
        const ssize_t sent = send(fd_, buffer.data(), buffer.size(), MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EINTR;
        outcome_.sent += static_cast<uint64_t>(sent);
        rest(dice_);
        return true;
    }

    int fd_;
    const Settings& settings_;
    Pattern out_;
    Pattern in_;
    Pattern in_relative_;
    Dice dice_;
    Dice receive_dice_{settings_.id * 4 + 1};
    Outcome outcome_;
    bool again_ = false;
    std::atomic<bool> stop_{false};
};

}  // namespace

Pattern incoming(const Settings& settings, bool relative) {
    return {seed_of(settings.id, !settings.acceptor), relative};
}

Outcome run_session(int fd, const Settings& settings) {
    Session session{fd, settings};
    return settings.epoll ? session.run_epoll() : session.run_blocking();
}

}  // namespace peer
