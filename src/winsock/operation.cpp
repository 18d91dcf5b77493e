// See operation.h.
#include "winsock/operation.h"

#include <cstring>

#include "winsock/errors.h"
#include "winsock/probe.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

constinit thread_local ProviderCall provider_call = {};

void Operation::set_parts(const iovec* given, unsigned number) {
    parts = small;
    if (number > kSmall) {
        if (number > large_room_) {
            delete[] large_;
            large_ = new iovec[number];
            large_room_ = number;
        }
        parts = large_;
    }
    if (number == 1) [[likely]]
        *parts = *given;
    else if (number != 0)
        memcpy(parts, given, number * sizeof *given);
    count = number;
}

void Operation::advance(size_t size) {
    done += size;
    while (count > 0 && size >= parts->iov_len) {
        size -= parts->iov_len;
        ++parts;
        --count;
    }
    if (count > 0) {
        parts->iov_base = static_cast<char*>(parts->iov_base) + size;
        parts->iov_len -= size;
    }
}

int make_target(Socket& socket, OVERLAPPED* overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
                Target& target) {
    if (overlapped == nullptr)
        return WSAEINVAL;  // a routine without an OVERLAPPED
    if (!writable_quickly(overlapped))
        return WSAEFAULT;
    target.overlapped = overlapped;
    target.event = nullptr;
    target.port = nullptr;
    target.port_counted = false;
    target.routine = routine;
    target.thread = nullptr;
    Port* const port = socket.port();
    if (routine != nullptr) {
        if (port != nullptr)
            return WSAEINVAL;
        target.call = provider_call;
        if (!target.call.has_thread) {
            target.thread = &this_thread();
            target.thread->keep();
        }
    } else {
        const auto event = reinterpret_cast<UINT_PTR>(overlapped->hEvent);
        if ((event & ~UINT_PTR{3}) != 0) {
            target.event = find<Event>(event & ~UINT_PTR{3}).release();
            if (target.event == nullptr)
                return WSA_INVALID_HANDLE;
            target.event->reset();
        }
        if (port != nullptr && (event & 1) == 0) {
            target.port = port;
            target.key = socket.key();
            target.skip_success = socket.skips_success();
        }
    }
    overlapped->InternalHigh = 0;
    __atomic_store_n(&overlapped->Internal, static_cast<ULONG_PTR>(STATUS_PENDING), __ATOMIC_RELEASE);
    return 0;
}

namespace {

void let_go_of(Target& target) {
    if (target.event != nullptr)
        std::exchange(target.event, nullptr)->let_go();
    if (Port* const port = std::exchange(target.port, nullptr); port != nullptr && target.port_counted)
        port->let_go();
    if (target.thread != nullptr)
        std::exchange(target.thread, nullptr)->let_go();
}

void write_result(OVERLAPPED* overlapped, NTSTATUS status, size_t bytes, DWORD flags) {
    overlapped->Offset = flags;
    __atomic_store_n(&overlapped->InternalHigh, bytes, __ATOMIC_RELAXED);
    // After this the program may use the OVERLAPPED again: nothing of it is looked at any more. Release pairs
    // with who reads it; whoever calls us has a full fence before overlapped_done().
    __atomic_store_n(&overlapped->Internal, static_cast<ULONG_PTR>(static_cast<ULONG>(status)),
                     __ATOMIC_RELEASE);
}

void CALLBACK run_routine(DWORD_PTR context) {
    auto* const operation = reinterpret_cast<Operation*>(context);
    const auto routine = operation->target.routine;
    const DWORD error = operation->error;
    const DWORD bytes = operation->bytes;
    const DWORD flags = operation->result_flags;
    OVERLAPPED* const overlapped = operation->target.overlapped;
    give_back(operation);  // before: the routine may begin the next one
    routine(error, bytes, overlapped, flags);
}

constexpr unsigned kMostSpare = 16;
thread_local unsigned spare_count = 0;

}  // namespace

void forget(Target& target, int error) {
    if (target.overlapped != nullptr)
        __atomic_store_n(&target.overlapped->Internal,
                         static_cast<ULONG_PTR>(static_cast<ULONG>(status_of_wsa(error))), __ATOMIC_RELEASE);
    let_go_of(target);
}

Operation* spare_operation() {
    Thread& thread = this_thread();
    if (thread.spare == nullptr)
        return new Operation;
    Operation* const operation = thread.spare;
    thread.spare = operation->next;
    --spare_count;
    return operation;
}

void give_back(Operation* operation) {
    let_go_of(operation->target);
    Thread& thread = this_thread();
    if (spare_count >= kMostSpare) {
        delete operation;
        return;
    }
    operation->next = thread.spare;
    thread.spare = operation;
    ++spare_count;
}

void complete(Target& target, Operation* operation, int error, size_t bytes, DWORD flags, bool immediate) {
    const NTSTATUS status = error == 0 ? STATUS_SUCCESS : status_of_wsa(error);
    OVERLAPPED* const overlapped = target.overlapped;
    if (target.routine != nullptr) {
        operation->error = static_cast<DWORD>(error);
        operation->bytes = static_cast<DWORD>(bytes);
        operation->result_flags = flags;
        Routine& routine = operation->routine;
        routine.function = run_routine;
        routine.context = reinterpret_cast<DWORD_PTR>(operation);
        if (&target != &operation->target) {
            operation->target = target;
            target.thread = nullptr;
        }
        write_result(overlapped, status, bytes, flags);
        if (!immediate)
            overlapped_done(overlapped);
        if (operation->target.call.has_thread) {
            int ignored = 0;
            WSATHREADID thread = operation->target.call.thread;
            if (operation->target.call.provider->upcalls.lpWPUQueueApc(&thread, run_routine, routine.context,
                                                                       &ignored) != 0)
                give_back(operation);
        } else {
            // Kept over the call: once queued, the operation is the thread's.
            Ref<Thread> thread = Ref<Thread>::to(operation->target.thread);
            if (!thread->queue(&routine))
                give_back(operation);
        }
        return;
    }
    Event* const event = std::exchange(target.event, nullptr);
    Port* const port = std::exchange(target.port, nullptr);
    const bool counted = target.port_counted;
    const bool packet = port != nullptr && !(immediate && error == 0 && target.skip_success);
    const ULONG_PTR key = target.key;
    write_result(overlapped, status, bytes, flags);
    if (event != nullptr) {
        event->set();
        event->let_go();
    }
    if (packet)
        port->push({key, overlapped, static_cast<DWORD>(bytes), status});
    if (!immediate)
        overlapped_done(overlapped);  // of what is over at once nobody can have heard yet
    if (counted)
        port->let_go();
}

}  // namespace loopfast::winsock
