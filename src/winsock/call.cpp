// See call.h.
#include "winsock/call.h"

#include "winsock/errors.h"

namespace loopfast::winsock {

void enqueue_call(Socket& socket, Call& call, Target& target, size_t total, size_t done) {
    Direction& direction = call.direction(socket);
    Operation* const operation = socket.new_operation(direction, target, call.work);
    operation->set_parts(call.buffers.rest(), call.buffers.rest_count());
    operation->total = total;
    operation->done = done;
    operation->flags = call.flags;
    operation->wait_all = call.wait_all;
    operation->from = call.from;
    operation->from_size = call.from_size;
    if (!call.receives())
        operation->to = call.address;
    socket.enqueue(direction, operation);
}

int go_behind(Socket& socket, Call& call) {
    OVERLAPPED overlapped{};
    overlapped.hEvent = reinterpret_cast<HANDLE>(UINT_PTR{1});  // no packet
    Target target;
    const int error = make_target(socket, &overlapped, nullptr, target);
    if (error != 0)
        return error;
    {
        Hold hold(call.direction(socket).lock);
        enqueue_call(socket, call, target, call.buffers.rest_size(), 0);
        if (call.receives())
            socket.run_in();
        else
            socket.run_out();
    }
    wait_for_overlapped(&overlapped, *socket.reactor());
    call.buffers.advance(overlapped.InternalHigh);
    return wsa_of_overlapped(overlapped);
}

}  // namespace loopfast::winsock
