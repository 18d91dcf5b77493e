// What belongs to one thread of the program: its waiter, the routines queued to it, the blocking call it is
// in. Made when the thread first needs one of these; ended by the thread's end.
#pragma once

#include "winsock/handles.h"
#include "winsock/waitable.h"
#include "winsock/waiter.h"

namespace loopfast::winsock {

class Port;
struct Operation;

/// A function to run in an alertable wait of a thread.
struct Routine {
    Routine* next = nullptr;
    LPWSAUSERAPC function = nullptr;
    DWORD_PTR context = 0;
    bool allocated = false;  ///< with new; given back after it ran
};

class Thread : public Waitable {
public:
    static constexpr Kind kKind = Kind::kThread;
    Thread();
    ~Thread() override;

    /// Queues a routine, to run in the order of the calls. @return false: the thread has ended.
    bool queue(Routine* routine);
    bool has_routines() const { return has_routines_.load(std::memory_order_seq_cst); }
    /// Runs what is queued, by the thread itself. @return whether there was anything.
    bool run_routines();
    /// At the thread's end: nothing can be queued any more; what is queued is dropped.
    /// @return whether its handle is the program's, to be closed by that.
    bool end();

    Waiter waiter;
    const uint64_t id;  ///< of no other thread ever
    const pid_t number = static_cast<pid_t>(syscall(SYS_gettid));

    // A blocking call, see blocking.cpp.
    int wake_fd = -1;  ///< an eventfd that ends its poll
    std::atomic<int> cancelled{0};
    int blocking = 0;   ///< inside a blocking call
    int open_type = 0;  ///< SO_OPENTYPE: not 0, and socket() makes sockets without the overlapped attribute
    int callback = 0;   ///< inside a blocking hook or a condition function
    FARPROC hook = nullptr;
    /// Polls, and wants to hear of routines: its blocking calls are alertable, as Windows' are.
    std::atomic<int> polling{0};
    /// wake_fd is there from now on. @return false: it could not be made.
    bool can_be_woken();

    // Completion ports.
    Port* port = nullptr;  ///< where it took its latest packet; counted. Only the thread itself changes it
    /// Among the port's running threads. This and the next are changed under the port's lock; the thread
    /// itself looks without it.
    std::atomic<bool> counted{false};
    Thread* next_at_port = nullptr;

    Operation* spare = nullptr;  ///< operations with routines, to be used again
    DWORD exit_code = STILL_ACTIVE;
    /// CreateThread gave its handle away, so it outlasts the thread.
    void hand_out() { handed_out_ = true; }
    /// CloseHandle. @return true: the thread has ended, the handle can go at once.
    bool give_up_handle();

private:
    Lock routines_lock_;
    Routine* first_ = nullptr;
    Routine* last_ = nullptr;
    std::atomic<bool> has_routines_{false};
    bool ended_ = false;
    bool handed_out_ = false;  ///< under routines_lock_, like ended_
};

extern constinit thread_local Thread* current_thread;
Thread& make_thread();
/// The calling thread. Never fails: without memory the program ends.
inline Thread& this_thread() { return current_thread != nullptr ? *current_thread : make_thread(); }
/// What a thread handle means, the pseudo handle of GetCurrentThread() too.
Ref<Thread> find_thread(HANDLE handle);

}  // namespace loopfast::winsock
