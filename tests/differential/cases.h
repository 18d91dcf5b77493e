// The cases: functions of a connected pair, registered by name. To add one, write
//
//     CASE(recv_peek) {
//         p.a.send("hello");
//         p.b.await_bytes(5);
//         p.b.recv(3, MSG_PEEK);
//         p.b.recv(10);
//     }
//
// in any file of cases/. It needs no expectations: the kernel has them.
#pragma once

#include <string>
#include <vector>

#include "epoll.h"
#include "pair.h"

namespace differential {

/// What a case needs.
enum Needs : unsigned {
    kPair = 0,        ///< connected ends
    kBare = 1,        ///< connects by itself, with establish() or its parts
    kOneProcess = 2,  ///< cannot be run with ends in two processes
    kParameter = 4,   ///< is run with a number, such as a seed: NAME@NUMBER
    kBlocking = 8,    ///< makes no sense with non-blocking ends
};

using Function = void (*)(Pair& p);

struct Case {
    std::string name;
    Function function;
    unsigned needs;
    std::string subject;  ///< the file it stands in
};

/// In the order of their names.
const std::vector<Case>& all_cases();
const Case* find_case(const std::string& name);

/// The table of the README: cases by subject, and what is known to differ. See table.cpp.
void print_table();

struct Registration {
    Registration(const char* name, Function function, unsigned needs, const char* file);
};

#define CASE_THAT(name, needs)                                                               \
    static void case_##name(Pair& p);                                                        \
    static const Registration registration_##name{#name, case_##name, needs, __FILE_NAME__}; \
    static void case_##name(Pair& p)
#define CASE(name) CASE_THAT(name, kPair)

}  // namespace differential
