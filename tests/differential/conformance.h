// The page of conformance, made by trying each call. See conformance.cpp.
#pragma once

#include <string>

namespace differential {

/// Prints the table. @return 0, or 1 when a row could not be tried or names no case.
int print_conformance(const std::string& program, const std::string& library);

/// In a process with the library: tries each row, writes one line for each.
int probe_rows(int out);

}  // namespace differential
