// See chance.h.
//
//     LOOPFAST_LEAVE_AT=N      at the stream's N-th occasion after its program asked for its lane
//     LOOPFAST_LEAVE_SEED=N    instead: at about each 8th, by chance
//     LOOPFAST_LEAVE_HOW=HOW   peer, waited or kept (enum Unread)
//     LOOPFAST_LEAVE_END=END   connector, acceptor or both
//     LOOPFAST_LEAVE_ONCE=1    not tried again where unread bytes keep it there
//     LOOPFAST_LEAVE_THREAD=1  by another thread
#ifdef LOOPFAST_LEAVE

#include "wait/chance.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/syscall.h"
#include "link/identity.h"
#include "stream/stream.h"
#include "table/table.h"

namespace loopfast {

namespace {

struct Plan {
    uint64_t at = 0;
    uint64_t seed = 0;
    Unread how = Unread::kKept;
    bool connector = true;
    bool acceptor = true;
    bool once = false;
    bool elsewhere = false;
};
Plan plan;

uint64_t number_from(const char* name) {
    const char* const text = getenv(name);
    return text != nullptr ? strtoull(text, nullptr, 10) : 0;
}

bool says(const char* name, const char* what) {
    const char* const text = getenv(name);
    return text != nullptr && strcmp(text, what) == 0;
}

[[gnu::constructor(102)]] void read_plan() {
    plan.at = number_from("LOOPFAST_LEAVE_AT");
    plan.seed = number_from("LOOPFAST_LEAVE_SEED");
    plan.how = says("LOOPFAST_LEAVE_HOW", "peer")     ? Unread::kToThePeer
               : says("LOOPFAST_LEAVE_HOW", "waited") ? Unread::kWaitedFor
                                                      : Unread::kKept;
    plan.connector = !says("LOOPFAST_LEAVE_END", "acceptor");
    plan.acceptor = !says("LOOPFAST_LEAVE_END", "connector");
    plan.elsewhere = says("LOOPFAST_LEAVE_THREAD", "1");
    plan.once = says("LOOPFAST_LEAVE_ONCE", "1");
}

/// Of each slot's stream: its generation, and its occasions so far.
struct Count {
    std::atomic<uint32_t> generation;
    std::atomic<uint64_t> occasions;
};
Count counts[kSlots];

/// Whether the occasion of this number is one to leave at.
bool is_due(const Stream& stream, uint64_t number) {
    if (plan.seed == 0)
        return number == plan.at || (number > plan.at && !plan.once);
    uint64_t word = (plan.seed * 2 + (stream.role == Role::kConnector)) * 0x9e3779b97f4a7c15 + number;
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 27) * 0x94d049bb133111eb;
    return (word ^ word >> 31) % 8 == 0;
}

/// What another thread is to leave.
struct Errand {
    Stream* stream;
    uint32_t generation;
    int fd;
};

void* do_errand(void* argument) {
    const Errand errand = *static_cast<Errand*>(argument);
    free(argument);
    {
        const Watching watching(*errand.stream);
        if (watching.alive() && errand.stream->generation == errand.generation &&
            cookie_of(errand.fd) == errand.stream->cookie)
            leave(*errand.stream, errand.fd, Reason::kOption, plan.how);
    }
    return nullptr;
}

/// While this thread goes on. @return false when there is no thread to be had.
bool leave_elsewhere(Stream& stream, int fd) {
    auto* const errand = static_cast<Errand*>(malloc(sizeof(Errand)));
    if (errand != nullptr) {
        *errand = {&stream, stream.generation.load(std::memory_order_relaxed), fd};
        pthread_t thread;
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, &before);
        const bool made = pthread_create(&thread, nullptr, do_errand, errand) == 0;
        sigprocmask(SIG_SETMASK, &before, nullptr);
        if (made) {
            pthread_detach(thread);
            return true;
        }
    }
    free(errand);
    return false;
}

}  // namespace

void occasions_begin(Stream& stream) {
    Count& count = counts[stream.slot];
    if (count.generation.exchange(stream.generation, std::memory_order_relaxed) != stream.generation)
        count.occasions.store(0, std::memory_order_relaxed);
}

void occasion(Stream& stream, int fd) {
    Count& count = counts[stream.slot];
    if ((plan.at == 0 && plan.seed == 0) || held_locks != 0 || stream.state() != State::kFused ||
        count.generation.load(std::memory_order_relaxed) != stream.generation ||
        !(stream.role == Role::kConnector ? plan.connector : plan.acceptor))
        return;
    const uint64_t number = count.occasions.fetch_add(1, std::memory_order_relaxed) + 1;
    if (!is_due(stream, number))
        return;
    const int error = errno;
    // The number may be another connection's by now.
    if (cookie_of(fd) == stream.cookie &&
        !(plan.elsewhere && !in_borrowed_memory() && leave_elsewhere(stream, fd)))
        leave(stream, fd, Reason::kOption, plan.how);
    errno = error;
}

void occasion_for_all() {
    if ((plan.at == 0 && plan.seed == 0) || held_locks != 0)
        return;
    for (int fd = next_entry(-1); fd >= 0; fd = next_entry(fd))
        if (Stream* const stream = find_stream(fd))
            occasion(*stream, fd);
}

}  // namespace loopfast

#endif
