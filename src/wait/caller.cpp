// See caller.h.
#include "wait/caller.h"

#include <signal.h>

#include "table/table.h"

namespace loopfast {

namespace {

/// One call under way. Its frame's address tells whether it still is: the stack grows downwards, so a frame
/// that lies below the one that asks has been left. A handler may begin calls and end them in the middle of
/// anything here; and one that switches to another stack (swapcontext) lets that do so before it comes back.
/// So a place is taken, and given free, in one step, which is relaxed: it is the same thread that sees it.
struct Call {
    std::atomic<const void*> frame;  ///< nullptr: a free place
    Stream* stream;
    bool reaching;   ///< see Reach
    bool of_steps;   ///< see Caller::Of
    bool overtaken;  ///< a handler on top of it has closed a descriptor of the stream
};
/// In a place that is being filled in.
const void* const kTaken = reinterpret_cast<const void*>(~uintptr_t{0});
/// Calls on top of each other come from handlers: few; and a poll has one for each stream.
constexpr int kMostCalls = 32;
thread_local Call calls[kMostCalls];
/// Behind the last place that was ever taken: most threads have one call at a time.
thread_local std::atomic<int> calls_end{0};

Call* take_place() {
    for (int i = 0; i < kMostCalls; ++i) {
        const void* nothing = nullptr;
        if (calls[i].frame.load(std::memory_order_relaxed) != nullptr ||
            !calls[i].frame.compare_exchange_strong(nothing, kTaken, std::memory_order_relaxed))
            continue;
        for (int end = calls_end.load(std::memory_order_relaxed);
             end <= i && !calls_end.compare_exchange_weak(end, i + 1, std::memory_order_relaxed);) {
        }
        return &calls[i];
    }
    return nullptr;
}

Call* find_call(const Stream& stream, const void* frame) {
    for (int i = 0; i < calls_end.load(std::memory_order_relaxed); ++i)
        if (calls[i].frame.load(std::memory_order_relaxed) == frame && calls[i].stream == &stream)
            return &calls[i];
    return nullptr;
}

void count_out(Stream& stream, bool reaching) {
    if (reaching)
        stream.reaching.fetch_sub(1, std::memory_order_release);
    // seq_cst: Dekker with keep() in table.cpp, which stores the duplicate and then looks for callers.
    if (stream.callers.fetch_sub(1, std::memory_order_seq_cst) == 1)
        let_go_of_kept(stream);
    stop_watching(stream);
}

/// The call is over, unless that has been seen to.
void end(Call& call, const void* frame) {
    Stream& stream = *call.stream;
    const bool reaching = call.reaching;
    if (call.frame.compare_exchange_strong(frame, nullptr, std::memory_order_relaxed))
        count_out(stream, reaching);
}

template <typename Visit> void each_call(Visit visit) {
    for (int i = 0; i < calls_end.load(std::memory_order_relaxed); ++i) {
        const void* const frame = calls[i].frame.load(std::memory_order_relaxed);
        if (frame != nullptr && frame != kTaken)
            visit(calls[i], frame);
    }
}

/// `left` says of a frame whether it was left.
template <typename Left> void end_those_left(Left left) {
    each_call([&](Call& call, const void* frame) {
        if (left(frame))
            end(call, frame);
    });
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
    bool any = false;
    each_call([&](const Call&, const void* frame) { any = any || frame <= here; });
    if (any && handler_stack().size == 0)
        end_those_left([here](const void* frame) { return frame <= here; });
}

void end_calls_below(uintptr_t target) {
    bool any = false;
    each_call([&](const Call&, const void*) { any = true; });
    if (target == 0 || !any) [[likely]]
        return;
    const HandlerStack handlers = handler_stack();
    end_those_left([&](const void* place) {
        const auto frame = reinterpret_cast<uintptr_t>(place);
        // A jump from the handlers' stack to the thread's own leaves all that is on the first.
        return handlers.has(frame) == handlers.has(target) ? frame < target : handlers.has(frame);
    });
}

void end_calls_of_thread() {
    end_those_left([](const void*) { return true; });
}

void count_calls_again() {
    each_call([](const Call& call, const void*) {
        call.stream->callers.fetch_add(1, std::memory_order_relaxed);
        call.stream->waiters.fetch_add(1, std::memory_order_relaxed);
        if (call.reaching)
            call.stream->reaching.fetch_add(1, std::memory_order_relaxed);
    });
}

bool begin_call(Stream& stream, const void* frame) {
    Call* const call = take_place();
    if (call == nullptr)
        return false;
    // seq_cst, both: Dekker with before_close(), which takes the descriptor's entry away and then looks for
    // callers; and with release_mapping().
    stream.callers.fetch_add(1, std::memory_order_seq_cst);
    stream.waiters.fetch_add(1, std::memory_order_seq_cst);
    call->stream = &stream;
    call->reaching = call->of_steps = call->overtaken = false;
    call->frame.store(frame, std::memory_order_release);  // for handlers: behind the rest
    return true;
}

void end_call(Stream& stream, const void* frame) {
    if (Call* const call = find_call(stream, frame))
        end(*call, frame);
}

Caller::Caller(Stream& stream, int fd, Of steps) : stream_(stream), fd_(fd) {
    end_jumped_calls(this);
    listed_ = begin_call(stream, this);
    if (steps == kSeveralSteps)
        if (Call* const listed = find_call(stream, this))
            listed->of_steps = true;
    if (!listed_)
        stream.waiters.fetch_add(1, std::memory_order_seq_cst);  // Dekker with release_mapping
    alive_ = find_stream(fd) == &stream && !stream.dying.load(std::memory_order_seq_cst) && stream.segment;
}

bool Caller::gone() const {
    if (find_stream(fd_) == &stream_) [[likely]]
        return false;
    // Another thread that closes it takes the number's meaning away first, and keeps it then.
    const Call* const listed = find_call(stream_, this);
    return listed != nullptr && listed->overtaken && stream_.kept.load(std::memory_order_acquire) < 0;
}

int overtake_calls(const Stream& stream) {
    int count = 0;
    each_call([&](Call& call, const void*) {
        if (call.of_steps || call.stream != &stream)
            return;
        call.overtaken = true;
        ++count;
    });
    return count;
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
    bool any = false;
    each_call([&](const Call& call, const void*) { any = any || (call.reaching && call.stream == &stream); });
    return any;
}

Caller::~Caller() {
    if (listed_)
        end_call(stream_, this);
    else
        stop_watching(stream_);
}

}  // namespace loopfast
