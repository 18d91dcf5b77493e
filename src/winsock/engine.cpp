// See engine.h.
#include "winsock/engine.h"

#include <pthread.h>
#include <signal.h>

#include <vector>

#include "winsock/native.h"
#include "winsock/port.h"
#include "winsock/reactor.h"

namespace loopfast::winsock {

namespace {

constexpr int64_t kTick = 10'000'000;

Lock registry;
std::vector<Reactor*>& reactors() {
    static auto* const list = new std::vector<Reactor*>;  // outlives every destructor
    return *list;
}

enum State { kNone, kAwake, kAsleep, kPolling };
std::atomic<int> state{kNone};
Lock starting;
int kick_fd = -1;

/// Whom the engine must serve now.
struct Round {
    std::vector<Reactor*> adopted;
    std::vector<Port*> kept;  ///< their ports, counted while we look
    bool tick = false;

    void look();
    void serve();
    void end();
};

void Round::look() {
    end();
    Hold hold(registry);
    for (Reactor* const reactor : reactors()) {
        Port* const port = reactor->port();
        if (port != nullptr && !port->try_keep())
            continue;
        if (port != nullptr)
            kept.push_back(port);
        if (port != nullptr && port->let_more_run())
            tick = true;
        if (!reactor->has_pending())
            continue;
        const uint64_t epoch = reactor->epoch();
        const bool moved = epoch != reactor->seen_epoch;
        reactor->seen_epoch = epoch;
        if (reactor->driven() || moved) {
            tick = tick || moved;
            continue;
        }
        reactor->adopted.store(true, std::memory_order_seq_cst);
        adopted.push_back(reactor);
    }
}

void Round::serve() {
    std::vector<native::Poll> polls;
    polls.push_back({kick_fd, native::kIn, 0});
    for (Reactor* const reactor : adopted) {
        int descriptor = reactor->descriptor();
        // Taken before it could be seen that it is adopted: its driver would not get us out of its set.
        if (reactor->driven()) {
            reactor->adopted.store(false, std::memory_order_seq_cst);
            descriptor = -1;
            tick = true;
        }
        polls.push_back({descriptor, native::kIn, 0});
    }
    native::poll(polls.data(), static_cast<unsigned>(polls.size()), tick ? kTick : kNever);
    state.store(kAwake, std::memory_order_seq_cst);
    if (polls[0].revents != 0)
        native::event_drain(kick_fd);
    for (size_t i = 0; i < adopted.size(); ++i) {
        Reactor& reactor = *adopted[i];
        reactor.adopted.store(false, std::memory_order_seq_cst);
        if (polls[i + 1].revents == 0 || !reactor.try_take())
            continue;
        reactor.drive(nullptr, 0);
        reactor.seen_epoch = reactor.epoch();
        reactor.drop_role();
        if (!reactor.call_follower() && reactor.port() != nullptr)
            reactor.port()->call_driver();
    }
    adopted.clear();
}

/// Lets go of what is neither served nor to be.
void Round::end() {
    for (Reactor* const reactor : adopted)
        reactor->adopted.store(false, std::memory_order_seq_cst);
    adopted.clear();
    for (Port* const port : kept)
        port->let_go();
    kept.clear();
    tick = false;
}

void* run(void*) {
    pthread_setname_np(pthread_self(), "winsock-engine");
    Round round;
    for (;;) {
        state.store(kAwake, std::memory_order_seq_cst);
        round.look();
        if (!round.tick) {
            // Announce the sleep, then look again: who wants us afterwards sees that we must be woken.
            const State announced = round.adopted.empty() ? kAsleep : kPolling;
            state.store(announced, std::memory_order_seq_cst);
            round.look();
            int expected = announced;
            if (!round.tick && round.adopted.empty()) {
                round.end();
                if (state.compare_exchange_strong(expected, kAsleep, std::memory_order_seq_cst))
                    while (state.load(std::memory_order_seq_cst) == kAsleep)
                        futex_wait(state, kAsleep);
                continue;
            }
            if (!state.compare_exchange_strong(expected, round.tick ? kAwake : kPolling,
                                               std::memory_order_seq_cst))
                continue;
        }
        round.serve();
    }
    return nullptr;
}

void start() {
    Hold hold(starting);
    if (state.load(std::memory_order_relaxed) != kNone)
        return;
    kick_fd = native::event_create();
    if (kick_fd < 0)
        return;
    // The program's signals are for its own threads.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_t thread;
    state.store(kAwake, std::memory_order_seq_cst);
    if (pthread_create(&thread, &attributes, run, nullptr) != 0) {
        state.store(kNone, std::memory_order_seq_cst);
        native::close(kick_fd);
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

void engine_knows(Reactor* reactor) {
    Hold hold(registry);
    reactors().push_back(reactor);
}

void engine_forgets(Reactor* reactor) {
    Hold hold(registry);
    auto& list = reactors();
    for (size_t i = 0; i < list.size(); ++i) {
        if (list[i] == reactor) {
            list[i] = list.back();
            list.pop_back();
            return;
        }
    }
}

void engine_wanted() {
    int now = state.load(std::memory_order_seq_cst);
    while (now != kAwake) {
        if (now == kNone) {
            start();
            return;
        }
        const int before = now;
        if (!state.compare_exchange_weak(now, kAwake, std::memory_order_seq_cst))
            continue;
        if (before == kAsleep)
            futex_wake(state);
        else
            native::event_signal(kick_fd);
        return;
    }
}

void engine_lets_go(Reactor& reactor) {
    if (reactor.adopted.exchange(false, std::memory_order_seq_cst))
        native::event_signal(kick_fd);
}

}  // namespace loopfast::winsock
