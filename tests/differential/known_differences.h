// Where loopfast is known to differ from the kernel, and why it still does. A difference that is listed does
// not fail the test; one that is gone does, until it is taken off the list.
#pragma once

namespace differential {

/// How a known difference shows.
enum class Shows {
    kAlways,     ///< agreeing is a reason to take it off the list
    kSometimes,  ///< it depends on timing
    kAgain,      ///< as kSometimes, but all that may differ is an event of an edge that is told once more
    kHangs       ///< it would only cost time: not run, unless --all asks for it
};

struct KnownDifference {
    const char* name;  ///< the case; a * at its end stands for anything
    const char*
        lanes;  ///< the lanes in which it differs, as parse_lane has them; "*" for all but the kernel's
    Shows shows;
    const char* reason;
};

constexpr KnownDifference kKnownDifferences[] = {
    // Streams that leave the ring at any moment.
    {"bad_second_message", "left", Shows::kSometimes,
     "an error is kept by the kernel's socket, and needs bytes there: those in the ring are nobody's to "
     "send"},
    {"executed_program_reads", "left", Shows::kSometimes,
     "what a peer that has left put into the ring is its relatives' to read, not a stranger's"},
    {"parting_after_a_child_executed", "left", Shows::kSometimes,
     "a fresh socket is another one: the peer that has left does not send again what is unread"},
    {"parting_vforked_stranger_reads", "left", Shows::kSometimes,
     "what a peer that has left put into the ring is its relatives' to read, or a stranger's, not both's"},
    {"epoll_most_one_of_two_that_stay", "left", Shows::kSometimes,
     "an entry that goes back into the kernel's set takes its turn anew"},
    // Waits and sets.
    {"epoll_edge_of_a_peer_in_the_kernel", "early run", Shows::kAgain,
     "an entry that goes back into the kernel's set during the hand-over tells its edge again"},
    {"random@*", "early run", Shows::kAgain,
     "an entry that goes back into the kernel's set during the hand-over tells its edge again"},
    {"epoll_edge_of_a_shutdown", "*", Shows::kAgain,
     "an acknowledgement of the end that comes late is an edge of its own, in the kernel, too"},
    // Death.
    {"peer_killed_with_unread_bytes", "*", Shows::kSometimes,
     "a killed process cannot say that it left bytes unread: the end shows before the reset does"},
    // Not the library's: the kernel's own trace varies, since it finds room again in a full stream.
    {"interrupted_send", "*", Shows::kSometimes,
     "the kernel finds room again after a while, how soon varies"},
    {"send_size_raised_above_all_room", "early run", Shows::kSometimes,
     "the kernel finds room again after a while, how soon varies"},
    {"send_timeout", "*", Shows::kSometimes, "the kernel finds room again after a while, how soon varies"},
    {"waiting_send_ends_with_*", "*", Shows::kSometimes,
     "the kernel finds room again after a while, how soon varies"},
    {"fill_and_drain", "*", Shows::kSometimes, "the kernel finds room again after a while, how soon varies"},
    // The first entry that fits counts.
    {"*", "left", Shows::kAgain, "an entry that goes back into the kernel's set tells its edge again"},
};

}  // namespace differential
