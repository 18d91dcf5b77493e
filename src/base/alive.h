// Whether a process or thread is gone, said of a number that some other process left behind.
#pragma once

#include <atomic>

namespace loopfast {

/// The process whose memory this is, 0 before the table is opened. Not the one that runs: the child of a
/// vfork runs on its parent's memory, see in_borrowed_memory(). A question to the kernel each time would cost
/// a short connection more than all the rest that closing it takes.
inline std::atomic<int> owner_process{0};

/// True when no thread has the id `id` any more, and when it is that of a process which was killed and that
/// its parent has not waited for yet: such a one still answers to signals. (Its parent may be the very
/// process that asks, and wait for the answer.) A number that went to a stranger meanwhile is taken for the
/// old owner.
bool is_gone(int id);

}  // namespace loopfast
