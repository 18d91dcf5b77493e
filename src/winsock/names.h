// Looking up names, for the functions that also connect.
#pragma once

#include <string>
#include <vector>

#include "winsock/address.h"
#include "winsock/native.h"

namespace loopfast::winsock {

/// 16-bit characters as UTF-8.
std::string narrow(const WCHAR* text);
int wsa_of_lookup(native::Lookup result);
/// @param family Linux's, 0 for both. @return 0 or an error.
int look_up(const char* node, const char* service, int flags, int family, int type, int protocol,
            std::vector<native::Resolved>& found);

}  // namespace loopfast::winsock
