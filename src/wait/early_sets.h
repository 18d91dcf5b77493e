// Epoll sets of a process that has not opted in. Nobody keeps account of them, so that they cost nothing; if
// the process opts in after all, what it has made so far is learned from the kernel.
#pragma once

namespace loopfast {

/// The process opts in as a whole: account is kept from the start.
void track_sets();
/// A set without account is one that memory did not suffice for.
bool sets_are_tracked();

/// A set that the kernel just made.
void set_appeared(int fd);

/// Before the first stream is made: from here on account is kept, of what is there as well. @return false
/// when that cannot be: the process must not opt in then.
bool take_in_early_sets();

/// In the child of a fork.
void early_sets_forked();

}  // namespace loopfast
