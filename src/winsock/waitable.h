// What WaitForMultipleObjects waits for: events and threads. One lock for all of them, the dispatcher's, so
// that a wait for several looks at all in one moment and takes all or none.
#pragma once

#include "winsock/handles.h"
#include "winsock/waiter.h"

namespace loopfast::winsock {

class Waitable;

/// A waiter in an object's list.
struct WaitPlace {
    Waiter* waiter = nullptr;
    WaitPlace* next = nullptr;
};

class Waitable : public Object {
public:
    Waitable(Kind kind, bool manual, bool set) : Object(kind), manual_(manual), set_(set) {}
    void set();
    void reset();
    bool is_set() const { return set_; }

private:
    friend DWORD wait_for_objects(Waitable* const* objects, DWORD count, bool all, int64_t deadline,
                                  bool alertable);
    friend class Semaphore;
    const bool manual_;
    bool set_;        ///< this and the rest: under the dispatcher's lock
    LONG count_ = 1;  ///< how many waits it satisfies while it is set; more than one for a semaphore only
    WaitPlace* places_ = nullptr;
};

class Event : public Waitable {
public:
    static constexpr Kind kKind = Kind::kEvent;
    Event(bool manual, bool set) : Waitable(kKind, manual, set) {}
    virtual bool is_semaphore() const { return false; }
};

/// Set while its count is not 0; a wait takes one. To the other functions it is an event.
class Semaphore : public Event {
public:
    Semaphore(LONG count, LONG most) : Event(false, count > 0), most_(most) { count_ = count; }
    /// @return false: that would be more than it may have. @param previous receives the count before.
    bool release(LONG count, LONG& previous);
    bool is_semaphore() const override { return true; }

private:
    const LONG most_;
};

/// The wait itself. @return WAIT_OBJECT_0 + index, WAIT_TIMEOUT or WAIT_IO_COMPLETION. With no objects a
/// sleep.
DWORD wait_for_objects(Waitable* const* objects, DWORD count, bool all, int64_t deadline, bool alertable);

/// Waits until an overlapped operation of a socket of this reactor is over.
void wait_for_overlapped(const OVERLAPPED* overlapped, Reactor& reactor);
/// OVERLAPPED::Internal was just written.
void overlapped_done(const OVERLAPPED* overlapped);

}  // namespace loopfast::winsock
