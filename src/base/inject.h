// Faults on demand, in a library of its own: any of our system calls fails with an error that the kernel
// could give it. Programs get them at random (LOOPFAST_INJECT_RATE, see inject.cpp), tests where they ask for
// them.
#pragma once

#ifdef LOOPFAST_INJECT

namespace loopfast {

/// The next `count` calls of this number fail with `error`, after `after` more of them have been made. For
/// epoll_ctl and fcntl only those with this second argument, if one is given; of receives and sendmsg only
/// those on links and netlink sockets. One such order at a time; in all threads.
void inject_fault(long number, int error, int count = 1, int after = 0, long second = -1);
/// Instead of failing, such a call is made after `act` has run in its thread: what another thread or process
/// may do at just this moment.
void inject_action(long number, void (*act)(), int after = 0, long second = -1);
/// How many have failed, or were preceded by their action, so far.
int injected_so_far();
/// No more of them. @return how many have failed.
int injected_faults();

}  // namespace loopfast

#endif
