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
    const bool manual_;
    bool set_;  ///< this and the list: under the dispatcher's lock
    WaitPlace* places_ = nullptr;
};

class Event : public Waitable {
public:
    static constexpr Kind kKind = Kind::kEvent;
    Event(bool manual, bool set) : Waitable(kKind, manual, set) {}
};

/// The wait itself. @return WAIT_OBJECT_0 + index, WAIT_TIMEOUT or WAIT_IO_COMPLETION. With no objects a
/// sleep.
DWORD wait_for_objects(Waitable* const* objects, DWORD count, bool all, int64_t deadline, bool alertable);

/// Waits until an overlapped operation of a socket of this reactor is over.
void wait_for_overlapped(const OVERLAPPED* overlapped, Reactor& reactor);
/// OVERLAPPED::Internal was just written.
void overlapped_done(const OVERLAPPED* overlapped);

}  // namespace loopfast::winsock
