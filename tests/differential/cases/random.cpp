// Random sequences: operations on both ends, their duplicates, epoll sets and polls, drawn from a seed.
//
// After each operation the script waits until its effect has arrived, so that the trace follows from the seed
// alone. Each step has random numbers of its own: leaving a step out does not change what the others are,
// which is what --shrink needs. Little is outstanding at any time, so that no buffer's size shows.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "cases.h"

namespace differential {

namespace {

class Numbers {
public:
    Numbers(uint64_t seed, uint64_t step)
        : state_(seed * 0x9e3779b97f4a7c15U + step * 0xbf58476d1ce4e5b9U + 1) {}
    uint64_t below(uint64_t limit) {
        state_ += 0x9e3779b97f4a7c15U;  // splitmix64
        uint64_t mixed = state_;
        mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9U;
        mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebU;
        return (mixed ^ mixed >> 31) % limit;
    }

private:
    uint64_t state_;
};

constexpr size_t kMostOutstanding = 40'000;

/// One end and what the walk knows of it.
struct Side {
    std::vector<End> descriptors;  ///< the end and its duplicates; empty when all are closed
    std::vector<EpollSet> sets;
    size_t waiting = 0;    ///< bytes it can read
    bool sends = true;     ///< it has not shut down
    bool receives = true;  ///< it has not shut down for reading
    bool ended = false;    ///< the walk waits for nothing more here
    bool edges = false;    ///< it has asked a set for edges
    int made = 0;
};

class Walk {
public:
    explicit Walk(Pair& p) : p_(p) {
        sides_[0].descriptors = {p.a};
        sides_[1].descriptors = {p.b};
    }

    void step(uint64_t number) {
        Numbers numbers(p_.parameter, number);
        const size_t which = numbers.below(2);
        Side& side = sides_[which];
        Side& other = sides_[1 - which];
        if (side.descriptors.empty())
            return;
        const End end = side.descriptors[numbers.below(side.descriptors.size())];
        switch (numbers.below(36)) {
        case 24:
        case 25:
            receive_in_thread(side, other, end, numbers);
            break;
        case 26:
            wait_a_while(side, numbers);
            break;
        case 27:
        case 28:
            by_number(side, end, numbers);
            break;
        case 29:
            duplicate_over(side, end, numbers);
            break;
        case 30:
            move_file(side, other, end, numbers);
            break;
        case 31:
            wait_for(Selector::kSelect, {{end, static_cast<short>(POLLIN | POLLOUT)}});
            break;
        case 32:
            end.set(SOL_SOCKET, SO_RCVLOWAT, static_cast<int>(1 + numbers.below(3) * 50));
            end.poll(POLLIN);
            receive(side, end, numbers, true);
            end.set(SOL_SOCKET, SO_RCVLOWAT, 1);
            break;
        case 33:
            use_in_child(side, end, numbers);
            break;
        case 34:
            // Nothing to the kernel; to the library a reason to leave the ring.
            // (Its edges the kernel's set tells again.)
            if (numbers.below(6) == 0 && !side.edges)
                end.set(IPPROTO_IP, IP_MINTTL, 1);
            break;
        case 35:
            end.get(SOL_SOCKET, SO_ERROR);
            break;
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
            send(side, other, end, numbers);
            break;
        case 6:
        case 7:
        case 8:
        case 9:
        case 10:
        case 11:
        case 12:
            receive(side, end, numbers);
            break;
        case 13:
            end.poll(static_cast<short>(numbers.below(2) != 0 ? POLLIN | POLLOUT | POLLRDHUP : POLLIN));
            break;
        case 14:
            end.fionread();
            break;
        case 15:
            duplicate(side, end);
            break;
        case 16:
            close_one(side, other, numbers);
            break;
        case 17:
            end.nonblocking(numbers.below(2) != 0, numbers.below(2) != 0);
            break;
        case 18:
        case 19:
        case 20:
            interest(side, end, numbers);
            break;
        case 21:
        case 22:
            if (!side.sets.empty())
                side.sets[numbers.below(side.sets.size())].wait();
            break;
        default:
            shut(side, other, end, numbers);
            break;
        }
    }

    void finish() {
        for (Side& side : sides_)
            if (!side.descriptors.empty()) {
                side.descriptors[0].poll(POLLIN | POLLOUT | POLLRDHUP);
                side.descriptors[0].recv(100'000, MSG_DONTWAIT);
                side.descriptors[0].recv(100, MSG_DONTWAIT);
            }
    }

private:
    void send(Side& side, Side& other, const End& end, Numbers& numbers) {
        static constexpr size_t kSizes[] = {0, 1, 2, 7, 100, 1000, 4096, 5000, 9000};
        const size_t size = kSizes[numbers.below(std::size(kSizes))];
        if (other.waiting + size > kMostOutstanding)
            return;
        const std::string bytes = pattern(size, static_cast<unsigned>(numbers.below(1000)));
        Outcome outcome;
        switch (numbers.below(4)) {
        case 0:
            outcome = end.write(bytes);
            break;
        case 1:
            outcome = end.writev({bytes.substr(0, size / 3), bytes.substr(size / 3)});
            break;
        case 2:
            outcome = end.sendmsg({bytes}, MSG_NOSIGNAL);
            break;
        default:
            outcome = end.send(bytes, MSG_DONTWAIT);
            break;
        }
        const bool refused = other.descriptors.empty() || (!other.sends && !other.receives);
        if (outcome.ok() && !refused) {
            other.waiting += static_cast<size_t>(outcome.value);
            other.descriptors[0].await_bytes(other.waiting);
        } else if (outcome.ok() && outcome.value > 0 && !side.ended) {
            // Nobody takes it: the kernel says so with a reset, which also drops what waits there.
            side.ended = other.ended = true;
            other.waiting = 0;
            end.await_poll(POLLHUP);
            if (!other.descriptors.empty())
                other.descriptors[0].await_poll(POLLHUP);
        }
    }

    void receive(Side& side, const End& end, Numbers& numbers, bool never_waits = false) {
        static constexpr size_t kSizes[] = {1, 2, 5, 64, 3000, 4096, 50'000};
        const size_t size = kSizes[numbers.below(std::size(kSizes))];
        Outcome outcome;
        switch (numbers.below(5)) {
        case 0:
            end.recv(size, MSG_PEEK | MSG_DONTWAIT);
            return;
        case 1:
            outcome = end.recvmsg({size / 2, size}, MSG_DONTWAIT);
            break;
        case 2:
            outcome = end.recv(size, MSG_DONTWAIT | MSG_WAITALL);
            break;
        case 3:
            if (side.waiting != 0 && !never_waits) {
                outcome = end.readv({size, size});
                break;
            }
            [[fallthrough]];
        default:
            outcome = end.recv(size, MSG_DONTWAIT);
            break;
        }
        if (outcome.ok())
            side.waiting -= std::min(side.waiting, static_cast<size_t>(outcome.value));
    }

    /// The receive begins before there is anything, where it may wait at all.
    void receive_in_thread(Side& side, Side& other, const End& end, Numbers& numbers) {
        if (other.descriptors.empty() || side.waiting != 0 || !other.sends || !side.receives || side.ended)
            return;
        const size_t size = 1 + numbers.below(2000);
        const End& sender = other.descriptors[0];
        end.nonblocking(false);
        end.set(SOL_SOCKET, SO_RCVLOWAT, 1);
        Pending receiving = end.start_recv(5000, numbers.below(4) == 0 ? MSG_PEEK : 0);
        send_all(side, sender, pattern(size, static_cast<unsigned>(numbers.below(1000))));
        receiving.finish();
        end.recv(5000, MSG_DONTWAIT);
        side.waiting = 0;
    }

    /// (No bytes meanwhile: how soon they come the kernel does not promise.)
    static void wait_a_while(Side& side, Numbers& numbers) {
        if (!side.sets.empty())
            side.sets[numbers.below(side.sets.size())].wait(10);
    }

    void by_number(Side& side, const End& end, Numbers& numbers) {
        const size_t size = 1 + numbers.below(300);
        std::string bytes(size, 0);
        const Outcome outcome = end.call("SYS_recvfrom", [&] {
            return ::syscall(SYS_recvfrom, end.fd(), bytes.data(), size, MSG_DONTWAIT, nullptr, nullptr);
        });
        if (outcome.ok())
            side.waiting -= std::min(side.waiting, static_cast<size_t>(outcome.value));
    }

    void duplicate_over(Side& side, const End& end, Numbers& numbers) {
        if (side.descriptors.size() < 2)
            return;
        const End& victim = side.descriptors[numbers.below(side.descriptors.size())];
        end.call("dup2 over " + victim.name(),
                 [&] { return ::dup2(end.fd(), victim.fd()) == victim.fd() ? 0 : -1; });
    }

    void move_file(Side& side, Side& other, const End& end, Numbers& numbers) {
        const size_t size = 1 + numbers.below(3000);
        if (other.descriptors.empty() || !side.sends || !other.receives || side.ended ||
            other.waiting + size > kMostOutstanding)
            return;
        const Outcome outcome = end.call("sendfile", [&] {
            const std::string bytes = pattern(size, 3);
            const int file = ::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
            off_t offset = 0;
            const bool written = ::write(file, bytes.data(), size) == static_cast<ssize_t>(size);
            const ssize_t sent = written ? ::sendfile(end.fd(), file, &offset, size) : -1;
            const int error = errno;
            ::close(file);
            errno = error;
            return sent;
        });
        if (outcome.ok()) {
            other.waiting += static_cast<size_t>(outcome.value);
            other.descriptors[0].await_bytes(other.waiting);
        }
    }

    void use_in_child(Side& side, const End& end, Numbers& numbers) {
        if (numbers.below(3) != 0 || children_ == 3)
            return;
        ++children_;
        const Actor child = p_.script.fork(end.actor());
        const End theirs = end.in(child, "child");
        const Outcome outcome = theirs.recv(1 + numbers.below(500), MSG_DONTWAIT);
        if (outcome.ok())
            side.waiting -= std::min(side.waiting, static_cast<size_t>(outcome.value));
        theirs.poll(POLLIN | POLLOUT);
        p_.script.exit(child);
    }

    /// Bytes for `side`, all of which the kernel takes at once.
    static void send_all(Side& side, const End& sender, const std::string& bytes) {
        (void)side;
        sender.send(bytes, MSG_NOSIGNAL);
    }

    void duplicate(Side& side, const End& end) {
        if (side.descriptors.size() < 4)
            side.descriptors.push_back(end.dup(p_name(side) + std::to_string(++side.made)));
    }

    void close_one(Side& side, Side& other, Numbers& numbers) {
        const size_t which = numbers.below(side.descriptors.size());
        // The last one seldom: it ends most of what could still happen.
        if (side.descriptors.size() == 1 && numbers.below(8) != 0)
            return;
        side.descriptors[which].close();
        side.descriptors.erase(side.descriptors.begin() + static_cast<long>(which));
        if (!side.descriptors.empty() || other.descriptors.empty())
            return;
        const bool reset = side.waiting != 0;
        side.waiting = 0;
        other.descriptors[0].await_poll(reset ? POLLHUP : POLLRDHUP);
        if (reset)
            other.ended = true;
    }

    void interest(Side& side, const End& end, Numbers& numbers) {
        if (side.sets.empty() || (side.sets.size() < 3 && numbers.below(4) == 0))
            side.sets.emplace_back(p_.script, end.actor(),
                                   p_name(side) + "set" + std::to_string(++side.made));
        EpollSet& set = side.sets[numbers.below(side.sets.size())];
        static constexpr unsigned kEvents[] = {EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT, EPOLLIN | EPOLLRDHUP,
                                               0};
        static constexpr unsigned kKinds[] = {0, 0, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT};
        const unsigned events =
            kEvents[numbers.below(std::size(kEvents))] | kKinds[numbers.below(std::size(kKinds))];
        side.edges = side.edges || (events & EPOLLET) != 0;
        switch (numbers.below(5)) {
        case 0:
            set.remove(end);
            break;
        case 1:
        case 2:
            set.modify(end, events);
            break;
        default:
            set.add(end, events);
            break;
        }
    }

    void shut(Side& side, Side& other, const End& end, Numbers& numbers) {
        if (numbers.below(6) != 0)
            return;
        const bool writing = numbers.below(3) != 0;
        end.shutdown(writing ? SHUT_WR : SHUT_RD);
        side.receives = side.receives && writing;
        if (!writing || !side.sends)
            return;
        side.sends = false;
        if (!other.descriptors.empty())
            other.descriptors[0].await_end();
        end.await_acknowledged_end();
        if (!other.sends)
            for (Side* each : {&side, &other})
                if (!each->descriptors.empty())
                    each->descriptors[0].await_poll(POLLHUP);
    }

    std::string p_name(const Side& side) const { return &side == &sides_[0] ? "a" : "b"; }

    Pair& p_;
    Side sides_[2];
    int children_ = 0;
};

}  // namespace

CASE_THAT(random, kParameter) {
    Walk walk(p);
    if (p.setup.only.empty()) {
        for (uint64_t i = 0; i < p.setup.steps; ++i)
            walk.step(i);
    } else {
        std::istringstream steps(p.setup.only);
        std::string number;
        while (std::getline(steps, number, ','))
            walk.step(std::stoull(number));
    }
    walk.finish();
}

}  // namespace differential
