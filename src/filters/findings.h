// What was found that looks at loopback packets: a short list of objections to the fast path, each with a
// line of text that names the rule, the program or the capture. Filled by the functions of inspect.h.
#pragma once

#include <cstdint>

namespace loopfast {

/// Whose packets an objection is about, and by which of the kernel's facilities.
enum class Kind : uint32_t {
    kNone = 0,
    kNftables,        ///< also what iptables-nft writes
    kIptables,        ///< the legacy tables
    kTrafficControl,  ///< queueing disciplines and classifiers on lo
    kXdp,
    kCgroup,  ///< socket-buffer programs of a control group
    kIpsec,
    kCapture,
    kSocketFilter,
};

const char* kind_name(Kind kind);

constexpr uint32_t kObjectionText = 184;

struct Objection {
    Kind kind;
    uint32_t unused;
    char text[kObjectionText];  ///< printable ASCII, ends with a zero
};

/// The first objections; of more only the number.
struct Findings {
    static constexpr uint32_t kMost = 16;

    Objection list[kMost];
    uint32_t count = 0;  ///< of those in `list`
    uint32_t more = 0;   ///< that did not fit
    /// Something could not be asked now, for want of memory or descriptors: what is not in the list may be
    /// there all the same.
    bool incomplete = false;

    bool any() const { return count != 0; }
    [[gnu::format(printf, 3, 4)]] void add(Kind kind, const char* format, ...);
    void append(const Findings& other);
    /// What a question failed with: if it is nothing but want of memory or descriptors, notes so.
    bool unanswered(long error);
    void clear() {
        count = more = 0;
        incomplete = false;
    }
    bool same_as(const Findings& other) const;
};

/// Whether a question could be asked at all.
enum class Sight : uint32_t {
    kSeen,          ///< the kernel answered; what it has is in the findings
    kNotPermitted,  ///< it would not tell this process
    kNotThere,      ///< it does not have the facility, so nothing can be there
};

}  // namespace loopfast
