// See verdict.h.
#include "policy/verdict.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/hidden.h"
#include "base/log.h"
#include "base/small_stack.h"
#include "base/syscall.h"
#include "filters/inspect.h"
#include "policy/guard_view.h"
#include "policy/policy.h"
#include "policy/ways.h"

namespace loopfast {

namespace {

using verdict_detail::own_word;
using verdict_detail::word;

constexpr int64_t kMillisecond = 1'000'000;
/// Between two looks at the captures while there is traffic, and before a connection is fused.
constexpr int64_t kBetween = 50 * kMillisecond;
constexpr int64_t kBetweenFusing = kMillisecond;
/// Between two looks at everything, and the part of the time that they may take: the longer they take, the
/// rarer they are.
constexpr int64_t kBetweenFull = 200 * kMillisecond;
constexpr int64_t kBetweenFullFusing = 10 * kMillisecond;
constexpr int64_t kOneIn = 100;
constexpr int64_t kOneInFusing = 20;
constexpr int64_t kMostBetween = 1'000 * kMillisecond;
/// Where memory or descriptors do not suffice to look, the last verdict holds for so long, and a look is
/// tried again after this.
constexpr int64_t kMostUndecided = 2'000 * kMillisecond;
constexpr int64_t kBetweenAttempts = 20 * kMillisecond;
constexpr char kCannotLook[] = "no memory or descriptors to look at the filters";
/// A guard whose page does not move for so long was stopped.
constexpr int64_t kStopped = 3'000 * kMillisecond;

/// One thread looks at a time, and a signal handler on top of it does not.
std::atomic<uint32_t> looking{0};
std::atomic<bool> looked{false};
/// There is more to look at than the last time.
std::atomic<bool> look_at_once{false};

// What belongs to who looks.
std::atomic<uint64_t> the_namespace{0};  ///< cookie of the one that is looked at
void* guard_place = nullptr;
const GuardPage* guard = nullptr;
uint64_t last_beat = 0;
int64_t beat_seen = 0;
bool guard_stopped = false;
int64_t last_search = 0;
bool guard_unknown = false;   ///< whether there is one could not be found out
int64_t undecided_since = 0;  ///< the last complete look, where the ones since were not; else 0
int captures_fd = -1;
int64_t last_quick = 0;
int64_t last_full = 0;
int64_t full_cost = 0;
uint64_t rules_generation = 0;
LoName rules_lo;
Findings rules_found;
Findings full_found;
Findings found_now;  // they are large for a stack

/// The group of this process, where it could be looked at, else 0; and those of sockets that were made in
/// others. Written and read by whoever judges a stream, so they only ever go from 0 to a number.
std::atomic<uint64_t> own_cgroup{0};
constexpr uint32_t kMostOtherCgroups = 8;
std::atomic<uint64_t> other_cgroups[kMostOtherCgroups];

// What it found, for everybody; changed before own_word is.
std::atomic<uint32_t> own_reason{0};
std::atomic<uint32_t> own_text{0};
std::atomic<bool> own_sight{false};  ///< all of it could be seen
/// The last look was not complete: nothing new is fused on what the one before found.
std::atomic<bool> undecided{false};

ObjectionTexts texts;
std::atomic<uint32_t> next_text{0};

Reason reason_of(Kind kind) {
    return kind == Kind::kCapture ? Reason::kCapture : kind == Kind::kNone ? Reason::kLimit : Reason::kFilter;
}

void publish(const Findings& findings, bool sight) {
    const Reason reason = findings.any() ? reason_of(findings.list[0].kind) : Reason::kNone;
    const uint32_t text = findings.any() ? remember_objection(findings.list[0].text) : 0;
    const bool first = !looked.load(std::memory_order_relaxed);
    if (!first && own_reason.load(std::memory_order_relaxed) == static_cast<uint32_t>(reason) &&
        own_text.load(std::memory_order_relaxed) == text &&
        own_sight.load(std::memory_order_relaxed) == sight)
        return;
    own_reason.store(static_cast<uint32_t>(reason), std::memory_order_relaxed);
    own_text.store(text, std::memory_order_relaxed);
    own_sight.store(sight, std::memory_order_relaxed);
    // Release pairs with the acquire in judge(): who sees the new number sees what it stands for. The low
    // half keeps the mark.
    own_word.store(own_word.load(std::memory_order_relaxed) + (uint64_t{1} << 32), std::memory_order_release);
    looked.store(true, std::memory_order_release);
    if (findings.any())
        LOOPFAST_LOG("the fast path is forbidden: %s", findings.list[0].text);
    else
        LOOPFAST_LOG("nothing is seen that forbids the fast path%s", sight ? "" : " (rules cannot be seen)");
}

void see(Sight sight, bool& all) { all = all && sight != Sight::kNotPermitted; }

/// Our own group, and those others in which sockets were made that we have.
Sight look_at_cgroups(Findings& findings) {
    char path[512];
    const int own = open_own_cgroup(path, sizeof path);
    if (own < 0) {
        findings.unanswered(own);
        return Sight::kSeen;
    }
    Sight sight = inspect_cgroup(own, path, findings);
    own_cgroup.store(sight == Sight::kSeen ? number_of_cgroup(own) : 0, std::memory_order_relaxed);
    for (const auto& one : other_cgroups) {
        const uint64_t number = one.load(std::memory_order_relaxed);
        if (number == 0 || sight != Sight::kSeen)
            break;
        const int other = open_cgroup(own, number);
        if (other >= 0) {
            snprintf(path, sizeof path, "group %llu, where the socket was made",
                     static_cast<unsigned long long>(number));
            sight = inspect_cgroup(other, path, findings);
            sys::close(other);
        } else if (other == -EPERM || other == -EACCES) {
            sight = Sight::kNotPermitted;
        } else if (!findings.unanswered(other)) {
            // One that was removed keeps its programs as long as it has sockets.
            findings.add(Kind::kCgroup, "cgroup: group %llu, where the socket was made, cannot be looked at",
                         static_cast<unsigned long long>(number));
        }
    }
    sys::close(own);
    return sight;
}

/// What costs more than one read. @return whether all of it could be seen.
bool look_at_everything(Findings& findings) {
    bool all = true;
    inspect_raw_sockets(findings);
    see(inspect_traffic_control(findings), all);
    // The number of the rules' generation is one question, and also tells whether we may ask.
    uint64_t generation = 0;
    const bool permitted = nftables_generation(findings, generation) != Sight::kNotPermitted;
    see(inspect_lo_programs(findings, permitted), all);
    if (!permitted) {
        rules_found.clear();
        rules_generation = 0;
        return false;
    }
    const LoName lo = name_of_lo(findings);
    if (generation == 0 || generation != rules_generation ||
        memcmp(rules_lo.text, lo.text, sizeof lo.text) != 0) {
        rules_found.clear();
        see(inspect_nftables(rules_found, lo), all);
        rules_generation = all && !rules_found.incomplete ? generation : 0;
        rules_lo = lo;
    }
    findings.append(rules_found);
    see(inspect_iptables(findings, lo), all);
    see(inspect_ipsec(findings), all);
    see(look_at_cgroups(findings), all);
    return all;
}

void look_by_ourselves(bool fusing) {
    const int64_t now = now_ns();
    const int64_t least = fusing ? kBetweenFullFusing : kBetweenFull;
    const int64_t wanted = full_cost * (fusing ? kOneInFusing : kOneIn);
    int64_t between_full = wanted < least ? least : wanted > kMostBetween ? kMostBetween : wanted;
    if (undecided.load(std::memory_order_relaxed) && between_full > kBetweenAttempts)
        between_full = kBetweenAttempts;
    const bool full = last_full == 0 || now - last_full >= between_full ||
                      look_at_once.exchange(false, std::memory_order_relaxed);
    if (!full && now - last_quick < (fusing ? kBetweenFusing : kBetween))
        return;
    Findings& findings = found_now;
    findings.clear();
    Sight captures = captures_fd >= 0 ? inspect_captures(captures_fd, findings) : Sight::kNotPermitted;
    if (captures != Sight::kSeen) {
        // Not opened yet, or its number belongs to another file by now.
        if (captures_fd < 0 || is_hidden(captures_fd)) {
            if (captures_fd >= 0)
                close_hidden(captures_fd);
            const int opened = open_captures();
            captures_fd = opened >= 0 ? hide(opened) : opened;
            findings.clear();
            if (captures_fd < 0)
                findings.unanswered(opened < 0 ? opened : -EMFILE);
        }
        captures = captures_fd >= 0 ? inspect_captures(captures_fd, findings) : Sight::kNotPermitted;
    }
    last_quick = now;
    // Each stream then asks for its own way. Release as in publish().
    if (ways_changed(now))
        own_word.store(own_word.load(std::memory_order_relaxed) + (uint64_t{1} << 32),
                       std::memory_order_release);
    bool sight = own_sight.load(std::memory_order_relaxed);
    if (full) {
        full_found.clear();
        const int64_t begin = thread_time_ns();
        sight = look_at_everything(full_found) && captures == Sight::kSeen;
        last_full = now_ns();
        full_cost = thread_time_ns() - begin;
    }
    findings.append(full_found);
    if (!findings.any() && (findings.incomplete || guard_unknown)) {
        // What was seen the last time holds for a while: a moment without memory must not put all connections
        // back to the kernel. Nothing new is fused meanwhile.
        undecided.store(true, std::memory_order_relaxed);
        if (undecided_since == 0)
            undecided_since = now;
        if (now - undecided_since < kMostUndecided)
            return;
        findings.add(Kind::kNone, "%s", kCannotLook);
    } else {
        undecided.store(false, std::memory_order_relaxed);
        undecided_since = 0;
    }
    publish(findings, sight);
}

void let_go_of_guard() {
    LOOPFAST_LOG("the guard is gone");
    guard = nullptr;
    last_search = last_quick = last_full = 0;
    rules_generation = 0;
}

/// Whether there is a guard that can be believed now.
bool find_guard(bool fusing) {
    if (guard != nullptr) {
        const uint64_t beat = guard->beat.load(std::memory_order_relaxed);
        const int64_t now = now_ns();
        if (beat != last_beat) {
            last_beat = beat;
            beat_seen = now;
            guard_stopped = false;
        } else if (now - beat_seen > kStopped) {
            // Only an objection of one who sees nothing still counts.
            guard_stopped = true;
        }
        if (GuardPage::owner(guard->word.load(std::memory_order_acquire)) != 0)
            return !guard_stopped || read_guard(*guard, 0).objects;
        let_go_of_guard();
    }
    if (guard_place == nullptr) {
        void* const place = sys::mmap(nullptr, guard_mapping_size(), PROT_NONE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (sys::mmap_failed(place)) {
            guard_unknown = true;
            return false;
        }
        guard_place = place;
    }
    const int64_t now = now_ns();
    const int64_t between = fusing ? kBetweenFullFusing : guard_unknown ? kBetweenAttempts : kBetweenFull;
    if (now - last_search < between)
        return false;
    last_search = now;
    int error;
    guard = map_guard(the_namespace.load(std::memory_order_relaxed), guard_place, error);
    guard_unknown = error != 0 && guard == nullptr;
    if (guard == nullptr)
        return false;
    LOOPFAST_LOG("the guard is process %d", guard->pid);
    last_beat = guard->beat.load(std::memory_order_relaxed);
    beat_seen = now;
    guard_stopped = false;
    return true;
}

void look(bool fusing) {
    if (stack_is_small())
        return;  // the next call's
    // Acquire pairs with the release below: one sees what the last one left.
    if (looking.exchange(1, std::memory_order_acquire) != 0)
        return;
    if (find_guard(fusing)) {
        undecided.store(false, std::memory_order_relaxed);
        undecided_since = 0;
        word.store(&guard->word, std::memory_order_release);
    } else {
        look_by_ourselves(fusing);
        // Release: own_word's meaning before the pointer to it.
        word.store(&own_word, std::memory_order_release);
    }
    looking.store(0, std::memory_order_release);
}

/// A socket of another namespace than the last one's: the process moved.
void look_from(uint64_t namespace_cookie) {
    if (looking.exchange(1, std::memory_order_acquire) != 0)
        return;
    if (namespace_cookie != the_namespace.load(std::memory_order_relaxed)) {
        word.store(&own_word, std::memory_order_release);
        guard = nullptr;
        the_namespace.store(namespace_cookie, std::memory_order_relaxed);
        last_search = last_quick = last_full = 0;
        rules_generation = 0;
        if (captures_fd >= 0 && is_hidden(captures_fd))
            close_hidden(captures_fd);
        captures_fd = -1;
        forget_ways();
        looked.store(false, std::memory_order_relaxed);
    }
    looking.store(0, std::memory_order_release);
}

/// Of a stream whose socket was made in this group: it is to be looked at. @return false if there are too
/// many.
bool look_at_cgroup_too(uint64_t number, bool& added) {
    added = false;
    if (number == own_cgroup.load(std::memory_order_relaxed))
        return true;
    for (auto& one : other_cgroups) {
        uint64_t there = 0;
        if (one.compare_exchange_strong(there, number, std::memory_order_relaxed))
            added = true;
        if (added || there == number)
            return true;
    }
    return false;
}

/// The first look of all may be another thread's, and under way.
void wait_for_first_look() {
    for (int round = 0; round < 200 && !looked.load(std::memory_order_acquire) &&
                        looking.load(std::memory_order_relaxed) != 0;
         ++round)
        sys::sleep_ns(50'000);
}

}  // namespace

void verdict_detail::look_again() {
    const bool now = !stack_is_small();
    next_look.store(ticks() + (now ? 20 : 1) * kTicksPerMs, std::memory_order_relaxed);
    if (now && the_namespace.load(std::memory_order_relaxed) != 0)
        look(false);
}

Judgement judge(int fd, uint64_t cgroup, bool fresh) {
    if (fresh) {
        const uint64_t cookie = namespace_of(fd);
        if (cookie == kNamespaceUnknown)
            return {Reason::kLimit, remember_objection(kCannotLook), 0};
        if (cookie != the_namespace.load(std::memory_order_relaxed))
            look_from(cookie);
        look(true);
        wait_for_first_look();
    }
    for (int attempt = 0; attempt < 3; ++attempt) {
        // Acquire pairs with the releases in look() and publish().
        const std::atomic<uint64_t>* const where = word.load(std::memory_order_acquire);
        if (where != &own_word) {
            const auto& page = *reinterpret_cast<const GuardPage*>(where);
            const GuardState state = read_guard(page, cgroup);
            if (!state.alive) {
                look(false);
                continue;
            }
            return {state.objects ? reason_of(state.objection.kind) : Reason::kNone,
                    state.objects ? remember_objection(state.objection.text) : 0, state.word};
        }
        if (cgroup != 0 && own_cgroup.load(std::memory_order_relaxed) != 0) {
            bool added;
            if (!look_at_cgroup_too(cgroup, added))
                return {Reason::kFilter,
                        remember_objection("cgroup: sockets of more groups than are looked at"),
                        own_word.load(std::memory_order_acquire)};
            if (added) {
                look_at_once.store(true, std::memory_order_relaxed);
                look(true);
                continue;
            }
        }
        const uint64_t now = own_word.load(std::memory_order_acquire);
        if (fresh && undecided.load(std::memory_order_relaxed) &&
            own_reason.load(std::memory_order_relaxed) == static_cast<uint32_t>(Reason::kNone))
            return {Reason::kLimit, remember_objection(kCannotLook), now};
        if (!looked.load(std::memory_order_relaxed))
            break;
        const auto reason = static_cast<Reason>(own_reason.load(std::memory_order_relaxed));
        if (reason == Reason::kNone && assume_strict() && !own_sight.load(std::memory_order_relaxed))
            return {Reason::kPolicy,
                    remember_objection(
                        "assume = \"strict\", no guard runs, and this process may not see the rules"),
                    now};
        return {reason, own_text.load(std::memory_order_relaxed), now};
    }
    return {Reason::kNone, 0, 0};  // in the middle of a look: the next call asks again
}

// Relaxed: a hint whether the next look is cheap; the look itself orders what it reads.
bool has_judged() { return looked.load(std::memory_order_relaxed); }

bool guard_page_lost(const void* address) {
    const auto at = reinterpret_cast<uintptr_t>(address);
    const auto place = reinterpret_cast<uintptr_t>(guard_place);
    if (place == 0 || at < place || at - place >= guard_mapping_size())
        return false;
    // All zeros: nobody's.
    return !sys::mmap_failed(sys::mmap(guard_place, guard_mapping_size(), PROT_READ,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

bool cgroups_matter() {
    const std::atomic<uint64_t>* const where = word.load(std::memory_order_acquire);
    if (where == &own_word)
        return own_cgroup.load(std::memory_order_relaxed) != 0;
    return reinterpret_cast<const GuardPage*>(where)->cgroup_count != 0;
}

const ObjectionTexts& objection_texts() { return texts; }

uint32_t remember_objection(const char* text) {
    for (uint32_t i = 0; i < kObjectionTexts; ++i)
        if (strncmp(texts[i], text, kObjectionTextSize - 1) == 0)
            return i + 1;
    const uint32_t place = next_text.fetch_add(1, std::memory_order_relaxed) % kObjectionTexts;
    snprintf(texts[place], kObjectionTextSize, "%s", text);
    return place + 1;
}

void verdict_after_fork_in_child() { looking.store(0, std::memory_order_relaxed); }

}  // namespace loopfast
