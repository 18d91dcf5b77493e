// The service provider interface's inner side.
#pragma once

#include "winsock/thread.h"

namespace loopfast::winsock {

/// In a blocking call through a provider's table: its program's blocking callback. @return false: there is
/// none.
bool call_blocking_callback(Thread& thread);

}  // namespace loopfast::winsock
