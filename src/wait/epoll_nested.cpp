// A set in another set: who sleeps in the outer one sleeps in the kernel, which looks at nothing but the
// inner set E itself. So no stream in it stays on the ring, but for those that cannot leave: unread bytes
// whose sender ended, left or stands still can be read only here. Those that have ended the kernel shows as
// readable for good, and rightly so. The others stay in our hands until that is read, and as long as one of
// them has something to tell, an eventfd in E does, level-triggered, with data that no program sees. See
// epoll_set.h.
#include <poll.h>

#include "base/ready.h"
#include "base/real.h"
#include "table/table.h"
#include "wait/epoll_events.h"
#include "wait/epoll_set.h"

namespace loopfast {

void EpollSet::nest() {
    constexpr int kAtOnce = 64;
    int last = -1;
    for (int count = kAtOnce; count == kAtOnce;) {
        int fds[kAtOnce];
        count = 0;
        {
            Hold hold(lock);
            nested_ = true;
            interests_.each([&](int number, Interest& interest) {
                if (interest.managed && !interest.dormant && number > last && count < kAtOnce) {
                    last = number;
                    fds[count++] = interest.open(number);
                }
            });
        }
        for (int i = 0; i < count; ++i)
            if (Stream* const stream = find_stream(fds[i]))
                leave(*stream, fds[i], Reason::kOption, Unread::kWaitedFor);
    }
    Hold hold(lock);
    settle_nested();
}

bool EpollSet::belongs_to_kernel(int fd, const Interest& interest, const Stream& stream) {
    return stream.segment && (stream.reader().available() == 0 || (ready_now(interest.open(fd), POLLRDHUP) &
                                                                   (POLLRDHUP | POLLHUP | POLLERR)) != 0);
}

void EpollSet::settle_if_told() {
    const HoldIfFree hold(lock);
    if (hold.held() && tells_nested_)
        settle_nested();
}

void EpollSet::settle_nested() {
    if (!nested_)
        return;
    bool ready = false;
    interests_.each([&](int number, Interest& interest) {
        Stream& stream = stream_at(interest.slot);
        if (!interest.managed || interest.dormant || stream.generation != interest.generation)
            return;
        if (belongs_to_kernel(number, interest, stream)) {
            if (give_to_kernel(number, interest))
                unregister(number, interest, stream);
            else
                owe(number, interest);
            return;
        }
        const uint32_t bits = stream.segment && !interest.disabled ? ready_bits(number, interest, stream) : 0;
        ready =
            ready || (bits != 0 && ((interest.events & EPOLLET) == 0 || has_edge(interest, stream, bits)));
    });
    if (ready == tells_nested_ || kick_ < 0)
        return;
    tells_nested_ = ready;
    telling_sets.fetch_add(ready ? 1U : ~0U, std::memory_order_relaxed);
    const uint64_t one = 1;
    sys::write(kick_, &one, sizeof one);  // nobody reads it: what is loud there is ready
    if (!calling_out_)
        show_kick();
}

void EpollSet::show_kick() {
    epoll_event event{calling_out_ || tells_nested_ ? EPOLLIN : EPOLLET, {}};
    event.data.u64 = kernel_kick_data();
    sys::epoll_ctl(descriptor, EPOLL_CTL_MOD, kick_, &event);
}

}  // namespace loopfast
