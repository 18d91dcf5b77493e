// See waitable.h.
#include "winsock/waitable.h"

#include "winsock/port.h"
#include "winsock/reactor.h"
#include "winsock/thread.h"

namespace loopfast::winsock {

namespace {

Lock dispatcher;

/// Threads that wait for an OVERLAPPED's end, under the dispatcher's lock.
struct OverlappedWait {
    const OVERLAPPED* overlapped;
    Waiter* waiter;
    OverlappedWait* next;
};
OverlappedWait* overlapped_waits = nullptr;
std::atomic<int> overlapped_wait_count{0};

/// Drives the common reactor, or sleeps where there is none or another thread drives it.
void wait_once(Waiter& waiter, int64_t deadline) {
    Reactor* const reactor = common_reactor();
    if (reactor != nullptr && reactor->has_pending())
        reactor->wait(waiter, deadline);
    else
        waiter.sleep(deadline);
}

}  // namespace

void Waitable::set() {
    Hold hold(dispatcher);
    set_ = true;
    for (WaitPlace* place = places_; place != nullptr; place = place->next)
        place->waiter->call();
}

bool Semaphore::release(LONG count, LONG& previous) {
    Hold hold(dispatcher);
    previous = set_ ? count_ : 0;
    if (count <= 0 || count > most_ - previous)
        return false;
    count_ = previous + count;
    set_ = true;
    for (WaitPlace* place = places_; place != nullptr; place = place->next)
        place->waiter->call();
    return true;
}

void Waitable::reset() {
    Hold hold(dispatcher);
    set_ = false;
}

DWORD wait_for_objects(Waitable* const* objects, DWORD count, bool all, int64_t deadline, bool alertable) {
    Thread& thread = this_thread();
    NotRunning pause(thread);
    WaitPlace places[MAXIMUM_WAIT_OBJECTS];
    for (bool first = true;; first = false) {
        thread.waiter.prepare();
        // What is set already ends the wait before any routine is looked at: as on NT, they stay queued.
        bool routines = false;
        {
            Hold hold(dispatcher);
            DWORD set = 0;
            DWORD found = MAXIMUM_WAIT_OBJECTS;
            for (DWORD i = 0; i < count; ++i) {
                if (!objects[i]->set_)
                    continue;
                ++set;
                if (found == MAXIMUM_WAIT_OBJECTS)
                    found = i;
            }
            if (count != 0 && (all ? set == count : set != 0)) {
                for (DWORD i = 0; i < count; ++i)
                    if ((all || i == found) && !objects[i]->manual_ && --objects[i]->count_ <= 0) {
                        objects[i]->set_ = false;
                        objects[i]->count_ = 1;
                    }
                return WAIT_OBJECT_0 + (all ? 0 : found);
            }
            // Only the thread itself takes routines away, so they are there when it comes to run them.
            routines = alertable && thread.has_routines();
            if (!routines && !first && left_until(deadline) == 0)
                return WAIT_TIMEOUT;
            for (DWORD i = 0; !routines && i < count; ++i) {
                places[i] = {&thread.waiter, objects[i]->places_};
                objects[i]->places_ = &places[i];
            }
        }
        if (routines) {
            thread.run_routines();
            return WAIT_IO_COMPLETION;
        }
        wait_once(thread.waiter, deadline);
        Hold hold(dispatcher);
        for (DWORD i = 0; i < count; ++i) {
            WaitPlace** place = &objects[i]->places_;
            while (*place != &places[i])
                place = &(*place)->next;
            *place = places[i].next;
        }
    }
}

void wait_for_overlapped(const OVERLAPPED* overlapped, Reactor& reactor) {
    Thread& thread = this_thread();
    NotRunning pause(thread);
    OverlappedWait wait{overlapped, &thread.waiter, nullptr};
    {
        Hold hold(dispatcher);
        wait.next = overlapped_waits;
        overlapped_waits = &wait;
        overlapped_wait_count.fetch_add(1, std::memory_order_seq_cst);
    }
    heavy_fence();  // pairs with the light one in overlapped_done()
    for (;;) {
        thread.waiter.prepare();
        if (__atomic_load_n(&overlapped->Internal, __ATOMIC_SEQ_CST) !=
            static_cast<ULONG_PTR>(STATUS_PENDING))
            break;
        reactor.wait(thread.waiter, kNever);
    }
    Hold hold(dispatcher);
    for (OverlappedWait** place = &overlapped_waits; *place != nullptr; place = &(*place)->next) {
        if (*place == &wait) {
            *place = wait.next;
            break;
        }
    }
    overlapped_wait_count.fetch_sub(1, std::memory_order_seq_cst);
}

void overlapped_done(const OVERLAPPED* overlapped) {
    // The store to Internal, then the look at who waits; a waiter counts itself, then looks at Internal.
    light_fence();
    if (overlapped_wait_count.load(std::memory_order_relaxed) == 0) [[likely]]
        return;
    Hold hold(dispatcher);
    for (OverlappedWait* wait = overlapped_waits; wait != nullptr; wait = wait->next)
        if (wait->overlapped == overlapped)
            wait->waiter->call();
}

}  // namespace loopfast::winsock
