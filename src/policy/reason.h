// Why a connection is on the kernel lane: the numbers of loopfast.h under names of ours.
#pragma once

#include "loopfast.h"

namespace loopfast {

enum class Reason : unsigned char {
    kNone = LOOPFAST_REASON_NONE,
    kNotTcp = LOOPFAST_REASON_NOT_TCP,
    kNotLocal = LOOPFAST_REASON_NOT_LOCAL,
    kPeerNotOptedIn = LOOPFAST_REASON_PEER_NOT_OPTED_IN,
    kFilter = LOOPFAST_REASON_FILTER,
    kCapture = LOOPFAST_REASON_CAPTURE,
    kPolicy = LOOPFAST_REASON_POLICY,
    kIdentity = LOOPFAST_REASON_IDENTITY,
    kNamespace = LOOPFAST_REASON_NAMESPACE,
    kLimit = LOOPFAST_REASON_LIMIT,
    kCounters = LOOPFAST_REASON_COUNTERS,
    kOption = LOOPFAST_REASON_OPTION,
    kBelowThreshold = LOOPFAST_REASON_BELOW_THRESHOLD,
    kRestricted = LOOPFAST_REASON_RESTRICTED,
    kShared = LOOPFAST_REASON_SHARED,
    kEnding = LOOPFAST_REASON_ENDING,
};

inline const char* reason_name(int reason) {
    static constexpr const char* kNames[] = {
        "none",     "not-tcp",   "not-local", "peer-not-opted-in", "filter", "capture",         "policy",
        "identity", "namespace", "limit",     "counters",          "option", "below-threshold", "restricted",
        "shared",   "ending"};
    return reason >= 0 && reason < static_cast<int>(sizeof kNames / sizeof *kNames) ? kNames[reason]
                                                                                    : "unknown";
}

}  // namespace loopfast
