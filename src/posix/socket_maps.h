// Sockets that the program puts into a map for BPF programs (sockmap): these then see, drop or lead elsewhere
// what the kernel's socket sends and gets.
#pragma once

#include <cstddef>

namespace loopfast {

/// After a bpf(2) of the program's that has updated a map: a stream that it put there leaves the ring, for
/// good.
void note_map_update(const void* attributes, size_t size);

}  // namespace loopfast
