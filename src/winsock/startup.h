// Whether the interface is in use: between the first WSAStartup or WSPStartup and the last cleanup.
#pragma once

#include "winsock/thread.h"

namespace loopfast::winsock {

extern std::atomic<int> uses;

inline bool started() { return uses.load(std::memory_order_relaxed) > 0; }
/// Inside a blocking hook or a condition function of this thread.
inline bool in_callback() { return current_thread != nullptr && current_thread->callback != 0; }
/// One use ends; the last closes every socket. @return 0 or WSANOTINITIALISED.
int end_use();

}  // namespace loopfast::winsock
