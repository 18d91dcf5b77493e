// The table of conformance in the README, made from the registry of cases and the list of known differences,
// so that neither can say what the tests do not. tests/differential/table_test compares it with what stands
// there.
#include <stdio.h>

#include <map>

#include "cases.h"
#include "known_differences.h"

namespace differential {

namespace {

struct Subject {
    const char* file;
    const char* text;
};
constexpr Subject kSubjects[] = {
    {"receive", "`read`, `recv`, `recvmsg`, `recvmmsg`, … with all flags"},
    {"send", "`write`, `send`, `sendmsg`, `sendmmsg`, … with all flags"},
    {"held", "`MSG_MORE`, `TCP_CORK`, `SPLICE_F_MORE`: bytes that wait for more"},
    {"fortified", "the names of `_FORTIFY_SOURCE`"},
    {"faults", "bad pointers, lengths and vectors"},
    {"timeouts", "`SO_RCVTIMEO`, `SO_SNDTIMEO`, signals, `SA_RESTART`"},
    {"handlers", "what a program sees of its signal handlers"},
    {"waiting", "`poll`, `ppoll`, `select`, `pselect`"},
    {"epoll", "`epoll`: level, one-shot, exclusive, ends"},
    {"epoll_edges", "`epoll`: edges"},
    {"epoll_beside", "`epoll`: turns and order beside ordinary descriptors"},
    {"epoll_sets", "`epoll`: sets in sets, shared, passed on, inherited"},
    {"endings", "`shutdown`, `close`, resets, `SO_LINGER`, killed peers"},
    {"reports", "`FIONREAD`, `SIOCOUTQ`, `TCP_INFO`, `SO_ERROR`, buffer sizes"},
    {"descriptors", "`dup`, `fcntl`, `fork`, `exec`, close-on-exec"},
    {"children", "children and threads made by `clone`, `_Fork`, `unshare`"},
    {"connecting", "`connect`, `accept`, options before and after"},
    {"files", "`sendfile`, `splice`, stdio"},
    {"parting", "descriptors that go to executed programs, other processes and stdio"},
    {"urgent", "urgent data, `SIGIO`, time stamps, `MSG_ZEROCOPY`, `TCP_ULP`"},
    {"calls", "odd arguments, disconnects, POSIX AIO, calls for files made on a socket"},
    {"raw", "system calls by number, through `syscall()`"},
    {"threads", "close, cancellation, jumps and handlers under a call that waits"},
    {"handover", "the change of lanes at any byte"},
    {"random", "random sequences of all of these, by seed"},
};

const KnownDifference* known(const std::string& name) {
    for (const KnownDifference& entry : kKnownDifferences)
        if (name == entry.name && std::string(entry.lanes) != "left")  // a lane that only tests have
            return &entry;
    return nullptr;
}

}  // namespace

void print_table() {
    std::map<std::string, std::string> differing;  // reason -> cases
    puts("| subject | cases | agree with the kernel |\n|---|---:|---:|");
    size_t all = 0;
    size_t agreeing = 0;
    for (const Subject& subject : kSubjects) {
        size_t cases = 0;
        size_t good = 0;
        for (const Case& entry : all_cases()) {
            if (entry.subject != subject.file)
                continue;
            ++cases;
            const KnownDifference* const difference = known(entry.name);
            good += difference == nullptr;
            if (difference != nullptr)
                differing[difference->reason] += " `" + entry.name + "`";
        }
        printf("| %s | %zu | %zu |\n", subject.text, cases, good);
        all += cases;
        agreeing += good;
    }
    printf("| together | %zu | %zu |\n\nWhat differs, and may differ only so:\n\n", all, agreeing);
    for (const auto& [reason, cases] : differing)
        printf("- %s:%s\n", reason.c_str(), cases.c_str());
}

}  // namespace differential
