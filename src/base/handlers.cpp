// See handlers.h.
#include "base/handlers.h"

namespace loopfast {

extern "C" {
constinit thread_local uint64_t loopfast_handlers_run = 0;
}

}  // namespace loopfast
