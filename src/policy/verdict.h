// May bytes leave the kernel's sight? Rules, captures and programs that would look at them forbid the fast
// path. A verdict comes from the first of these that is to be had:
//
//   1. the page of `loopfast guard` (guard_page.h): the whole truth, without a system call;
//   2. a look of our own: captures, and what is attached to lo, are anybody's to see; with CAP_NET_ADMIN the
//      rest as well;
//   3. for what cannot be seen, LOOPFAST_ASSUME: "fuse" (nothing is there) or "strict" (something is).
//
// A look of our own is made before a connection is fused, and while there is traffic not more often than
// every 50 ms; what costs more than reading one file, less often. An idle process looks at nothing.
//
// On the data path all this is one word that is compared with the one that the stream was judged under.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/ticks.h"
#include "policy/reason.h"

namespace loopfast {

struct Judgement {
    Reason reason;  ///< kNone: nothing forbids the fast path
    uint32_t text;  ///< what exactly does: a number for objection_text(), or 0
    uint64_t word;  ///< it holds while verdict_word() is this
};

namespace verdict_detail {
/// The word of our own looks; the guard's are never even in the top bit, for its thread ids are below it.
constexpr uint64_t kOwnMark = uint64_t{1} << 31;
inline std::atomic<uint64_t> own_word{kOwnMark};
inline std::atomic<const std::atomic<uint64_t>*> word{&own_word};
inline std::atomic<uint64_t> next_look{0};  // in ticks
void look_again();
}  // namespace verdict_detail

/// Changes when there may be a new verdict. A hint: relaxed, who sees a change asks judge().
inline uint64_t verdict_word() {
    return verdict_detail::word.load(std::memory_order_relaxed)->load(std::memory_order_relaxed);
}

/// Where a stream asks the kernel something anyway: a look, if the last one is old.
inline void look_if_due() {
    if (ticks() > verdict_detail::next_look.load(std::memory_order_relaxed)) [[unlikely]]
        verdict_detail::look_again();
}

/// The verdict about sockets of one control group (its id, 0 if not known) in the namespace of `fd`. `fresh`:
/// a connection is about to be fused.
Judgement judge(int fd, uint64_t cgroup, bool fresh);

/// Whether this process has looked before, and the next look is likely to be cheap.
bool has_judged();

/// In the handler of a fault at `address`: if the guard's page was there, one without a guard is there now.
bool guard_page_lost(const void* address);

/// True when it depends on the socket's control group, which is a question to the kernel to find out. Known
/// after a judgement.
bool cgroups_matter();

/// What objections were met lately, for `loopfast status`: it reads these texts out of the process.
constexpr uint32_t kObjectionTexts = 16;
constexpr uint32_t kObjectionTextSize = 192;
using ObjectionTexts = char[kObjectionTexts][kObjectionTextSize];
const ObjectionTexts& objection_texts();
/// @return its number, from 1.
uint32_t remember_objection(const char* text);

/// In the child of a fork: who was looking is a thread of the parent.
void verdict_after_fork_in_child();

}  // namespace loopfast
