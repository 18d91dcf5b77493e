// See own_thread.h.
#include "base/own_thread.h"

#include <signal.h>
#include <sys/prctl.h>

#include "base/copy.h"
#include "base/syscall.h"

namespace loopfast {

namespace {

bool create(void* (*body)(void*), void* argument, size_t stack_size, pthread_t* joinable) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    if (joinable == nullptr)
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack_size != 0)
        pthread_attr_setstacksize(&attributes, stack_size);
    pthread_t thread;
    const bool made =
        pthread_create(joinable != nullptr ? joinable : &thread, &attributes, body, argument) == 0;
    pthread_attr_destroy(&attributes);
    return made;
}

}  // namespace

bool start_thread(void* (*body)(void*), void* argument, size_t stack_size, pthread_t* joinable) {
    // By number: also faults are blocked, of which the program's mask says nothing (posix/masks.h). One that
    // is sent to the process is for the program's threads. 32 and 33 are libc's own.
    constexpr uint64_t kOfLibc = uint64_t{3} << (32 - 1);
    const uint64_t mask = ~kOfLibc;
    uint64_t before = 0;
    sys::call(SYS_rt_sigprocmask, SIG_SETMASK, sys::word(&mask), sys::word(&before), sizeof mask);
    const bool made = create(body, argument, stack_size, joinable) || create(body, argument, 0, joinable);
    sys::call(SYS_rt_sigprocmask, SIG_SETMASK, sys::word(&before), 0, sizeof before);
    return made;
}

void become_own_thread() {
    sys::call(SYS_prctl, PR_SET_NAME, sys::word("loopfast"));
    faults_reach_handler = true;  // they do not, see start_thread; it touches no memory of the program's
}

}  // namespace loopfast
