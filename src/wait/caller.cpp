// See caller.h.
#include "wait/caller.h"

#include <signal.h>

#include "table/table.h"

namespace loopfast {

namespace {

/// One call under way. Its frame's address tells whether it still is: the stack grows downwards, so a frame
/// that lies below the one that asks has been left.
struct Call {
    Stream* stream;
    const void* frame;
    bool reaching;  ///< see Reach
};
/// Calls on top of each other come from handlers: few; and a poll has one for each stream.
constexpr int kMostCalls = 32;
thread_local Call calls[kMostCalls];
thread_local int call_count = 0;

Call* find_call(const Stream& stream, const void* frame) {
    for (int i = call_count; i-- > 0;)
        if (calls[i].frame == frame && calls[i].stream == &stream)
            return &calls[i];
    return nullptr;
}

void count_out(const Call& call) {
    Stream& stream = *call.stream;
    if (call.reaching)
        stream.reaching.fetch_sub(1, std::memory_order_release);
    // seq_cst: Dekker with keep() in table.cpp, which stores the duplicate and then looks for callers.
    if (stream.callers.fetch_sub(1, std::memory_order_seq_cst) == 1)
        let_go_of_kept(stream);
    stop_watching(stream);
}

/// The handlers' stack, while the thread is on it; else empty.
struct HandlerStack {
    uintptr_t base = 0;
    size_t size = 0;
    bool has(uintptr_t place) const { return place - base < size; }
};
HandlerStack handler_stack() {
    stack_t now{};
    if (sys::call(SYS_sigaltstack, 0, sys::word(&now)) != 0 || (now.ss_flags & SS_ONSTACK) == 0)
        return {};
    return {reinterpret_cast<uintptr_t>(now.ss_sp), now.ss_size};
}

}  // namespace

void end_jumped_calls(const void* here) {
    if (call_count == 0 || calls[call_count - 1].frame > here || handler_stack().size != 0)
        return;
    while (call_count > 0 && calls[call_count - 1].frame <= here)
        count_out(calls[--call_count]);
}

void end_calls_below(uintptr_t target) {
    if (call_count == 0 || target == 0) [[likely]]
        return;
    const HandlerStack handlers = handler_stack();
    for (int i = call_count; i-- > 0;) {
        const auto frame = reinterpret_cast<uintptr_t>(calls[i].frame);
        // A jump from the handlers' stack to the thread's own leaves all that is on the first.
        const bool left = handlers.has(frame) == handlers.has(target) ? frame < target : handlers.has(frame);
        if (!left)
            continue;
        const Call ended = calls[i];
        calls[i] = calls[--call_count];  // looked at already
        count_out(ended);
    }
}

void end_calls_of_thread() {
    while (call_count > 0)
        count_out(calls[--call_count]);
}

void count_calls_again() {
    for (int i = 0; i < call_count; ++i) {
        calls[i].stream->callers.fetch_add(1, std::memory_order_relaxed);
        calls[i].stream->waiters.fetch_add(1, std::memory_order_relaxed);
        if (calls[i].reaching)
            calls[i].stream->reaching.fetch_add(1, std::memory_order_relaxed);
    }
}

bool begin_call(Stream& stream, const void* frame) {
    if (call_count == kMostCalls)
        return false;
    // seq_cst, both: Dekker with before_close(), which takes the descriptor's entry away and then looks for
    // callers; and with release_mapping().
    stream.callers.fetch_add(1, std::memory_order_seq_cst);
    stream.waiters.fetch_add(1, std::memory_order_seq_cst);
    calls[call_count++] = {&stream, frame, false};
    return true;
}

void end_call(Stream& stream, const void* frame) {
    Call* const call = find_call(stream, frame);
    if (call == nullptr)
        return;
    const Call ended = *call;
    *call = calls[--call_count];  // the last is of this frame, too: those above it have ended
    count_out(ended);
}

Caller::Caller(Stream& stream, int fd) : stream_(stream), fd_(fd) {
    end_jumped_calls(this);
    listed_ = begin_call(stream, this);
    if (!listed_)
        stream.waiters.fetch_add(1, std::memory_order_seq_cst);  // Dekker with release_mapping
    alive_ = find_stream(fd) == &stream && !stream.dying.load(std::memory_order_seq_cst) && stream.segment;
}

Reach::Reach(const Caller& call) : call_(call) {
    if (Call* const listed = find_call(call.stream_, &call)) {
        listed->reaching = true;
        // seq_cst, both: Dekker with keep() in table.cpp, which stores the duplicate and then looks for
        // these.
        call.stream_.reaching.fetch_add(1, std::memory_order_seq_cst);
    }
    const int kept = call.stream_.kept.load(std::memory_order_seq_cst);
    fd_ = kept >= 0 ? kept : call.fd_;
}

Reach::~Reach() {
    Call* const listed = find_call(call_.stream_, &call_);
    if (listed == nullptr || !listed->reaching)
        return;
    listed->reaching = false;
    // Release pairs with the look in keep(): the number was used before.
    call_.stream_.reaching.fetch_sub(1, std::memory_order_release);
}

bool reaches(const Stream& stream) {
    for (int i = 0; i < call_count; ++i)
        if (calls[i].reaching && calls[i].stream == &stream)
            return true;
    return false;
}

Caller::~Caller() {
    if (listed_)
        end_call(stream_, this);
    else
        stop_watching(stream_);
}

}  // namespace loopfast
