// See apart.h.
#include "base/apart.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/alive.h"
#include "base/heir.h"
#include "base/hidden.h"
#include "base/lock.h"
#include "base/own_thread.h"
#include "base/syscall.h"

namespace loopfast {

namespace {

/// More than one meets by accident; as many threads as may be stuck at once.
constexpr int kMostThreads = 16;
constexpr int kMostWaiting = 1024;

FamilyLock queue_lock;
int waiting[kMostWaiting];
std::atomic<int> waiting_count{0};
/// Something was, since the process or its fork began.
std::atomic<bool> was_put{false};
/// Taken from there, and not closed yet, or about to be where that may take its time.
std::atomic<int> in_hand{0};
std::atomic<int> threads{0};

void close_it(int fd) {
    if (is_hidden(fd))
        close_hidden(fd);
    else
        sys::close(fd);
}

bool put(int fd) {
    if (!queue_lock.lock())
        return false;
    const int count = waiting_count.load(std::memory_order_relaxed);
    if (count < kMostWaiting) {
        waiting[count] = fd;
        was_put.store(true, std::memory_order_relaxed);
        // seq_cst: Dekker with the end of work().
        waiting_count.store(count + 1, std::memory_order_seq_cst);
    }
    queue_lock.unlock();
    return count < kMostWaiting;
}

/// Takes up to `most`. @return how many
int take(int* fds, int most) {
    if (!queue_lock.lock())
        return 0;
    const int count = waiting_count.load(std::memory_order_relaxed);
    const int taken = std::min(count, most);
    for (int i = 0; i < taken; ++i)
        fds[i] = waiting[count - 1 - i];
    // In hand first. Release pairs with the acquire in something_left(), which must see one or the other.
    in_hand.fetch_add(taken, std::memory_order_relaxed);
    waiting_count.store(count - taken, std::memory_order_release);
    queue_lock.unlock();
    return taken;
}

bool something_left() {
    return waiting_count.load(std::memory_order_acquire) != 0 || in_hand.load(std::memory_order_relaxed) != 0;
}

/// Counts a thread in. @return false when there are enough.
bool enter() {
    if (threads.fetch_add(1, std::memory_order_seq_cst) < kMostThreads)
        return true;
    threads.fetch_sub(1, std::memory_order_seq_cst);
    return false;
}

void close_waiting() {
    int batch[Heir::kMost];
    // Without an heir a close may wait, and others are not to wait behind it.
    const int most = Heir::possible() ? Heir::kMost : 1;
    for (int count = take(batch, most); count > 0; count = take(batch, most)) {
        const Heir heir(batch, count);
        const bool may_wait = !heir.has_all();
        if (may_wait)
            in_hand.fetch_sub(count, std::memory_order_relaxed);
        for (int i = 0; i < count; ++i)
            close_it(batch[i]);
        if (!may_wait)
            in_hand.fetch_sub(count, std::memory_order_relaxed);
    }
}

void* work(void*) {
    become_own_thread();
    // Counted out first, then a look once more: who adds one finds room for a thread, or is found.
    do {
        close_waiting();
        threads.fetch_sub(1, std::memory_order_seq_cst);
    } while (waiting_count.load(std::memory_order_seq_cst) != 0 && enter());
    return nullptr;
}

/// One more thread, unless there are enough.
bool start() {
    if (!enter())
        return true;
    const bool made = start_thread(work, nullptr);
    if (!made)
        threads.fetch_sub(1, std::memory_order_seq_cst);
    return made;
}

}  // namespace

void close_apart(int fd) {
    if (fd < 0)
        return;
    const int owner = owner_process.load(std::memory_order_relaxed);
    if (owner != 0 && owner != sys::getpid()) {
        close_it(fd);  // a child of vfork: its parent has it as well
        return;
    }
    // A number of the program's own it may close meanwhile, and give to something else.
    if (!is_hidden(fd)) {
        const int copy = hide_copy(fd);
        if (copy >= 0) {
            sys::close(fd);  // not the last hold, which alone would wait
            fd = copy;
        }
    }
    if (!put(fd))
        close_it(fd);
    else if (!start() && threads.load(std::memory_order_seq_cst) == 0)
        close_waiting();
}

bool apart_is_full() { return threads.load(std::memory_order_relaxed) >= kMostThreads; }

void finish_apart() {
    const int owner = owner_process.load(std::memory_order_relaxed);
    if (owner != 0 && owner != sys::getpid())
        return;  // a child of vfork: they are its parent's
    if (waiting_count.load(std::memory_order_relaxed) != 0 && Heir::possible())
        close_waiting();
    // Until each one is closed, or its close has begun, which takes it out of the table as well.
    constexpr int kMostRounds = 200;
    for (int round = 0; round < kMostRounds && something_left(); ++round)
        sys::sleep_ns(1'000'000);
}

bool apart_has_been_at_work() { return was_put.load(std::memory_order_relaxed); }

void apart_after_fork_in_child() {
    // The threads are the parent's, and so is what waits for them; the copies here are nobody's last ones.
    queue_lock.reset();
    threads.store(0, std::memory_order_relaxed);
    was_put.store(waiting_count.load(std::memory_order_relaxed) != 0, std::memory_order_relaxed);
    in_hand.store(0, std::memory_order_relaxed);
    if (waiting_count.load(std::memory_order_relaxed) != 0)
        close_waiting();
}

}  // namespace loopfast
