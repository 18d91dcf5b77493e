// The public functions of threads, routines, clocks and locks.
#include <pthread.h>

#include <cstdlib>

#include "winsock/probe.h"
#include "winsock/thread.h"

namespace loopfast::winsock {

namespace {

struct Start {
    LPTHREAD_START_ROUTINE function;
    void* parameter;
    // Filled in by the new thread, before its creator goes on.
    std::atomic<int> running{0};
    HANDLE handle = nullptr;
    pid_t number = 0;
};

void* run(void* pointer) {
    auto* const start = static_cast<Start*>(pointer);
    const auto function = start->function;
    void* const parameter = start->parameter;
    Thread& thread = this_thread();
    thread.hand_out();
    start->handle = reinterpret_cast<HANDLE>(thread.handle());
    start->number = thread.number;
    start->running.store(1, std::memory_order_release);
    futex_wake(start->running);
    thread.exit_code = function(parameter);
    return nullptr;
}

struct UserRoutine {
    PAPCFUNC function;
    ULONG_PTR data;
};
void CALLBACK run_user_routine(DWORD_PTR context) {
    auto* const user = reinterpret_cast<UserRoutine*>(context);
    const PAPCFUNC function = user->function;
    const ULONG_PTR data = user->data;
    delete user;
    function(data);
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API HANDLE WINAPI CreateThread(LPSECURITY_ATTRIBUTES, SIZE_T stack, LPTHREAD_START_ROUTINE function,
                                        LPVOID parameter, DWORD flags, LPDWORD number) {
    if ((flags & ~DWORD{STACK_SIZE_PARAM_IS_A_RESERVATION}) != 0) {
        last_error = ERROR_NOT_SUPPORTED;
        return nullptr;
    }
    Start start{function, parameter};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack >= 64 * 1024)
        pthread_attr_setstacksize(&attributes, stack);
    pthread_t thread;
    const int error = pthread_create(&thread, &attributes, run, &start);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
        last_error = ERROR_NOT_ENOUGH_MEMORY;
        return nullptr;
    }
    while (start.running.load(std::memory_order_acquire) == 0)
        futex_wait(start.running, 0);
    if (number != nullptr)
        *number = static_cast<DWORD>(start.number);
    return start.handle;
}

LOOPFAST_API BOOL WINAPI GetExitCodeThread(HANDLE handle, LPDWORD code) {
    Ref<Thread> thread = find_thread(handle);
    if (!thread || !writable(code))
        return truth(thread ? ERROR_NOACCESS : ERROR_INVALID_HANDLE);
    *code = __atomic_load_n(&thread->exit_code, __ATOMIC_ACQUIRE);
    return TRUE;
}

LOOPFAST_API void WINAPI ExitThread(DWORD code) {
    this_thread().exit_code = code;
    pthread_exit(nullptr);
}

LOOPFAST_API HANDLE WINAPI GetCurrentThread(void) { return reinterpret_cast<HANDLE>(LONG_PTR{-2}); }
LOOPFAST_API DWORD WINAPI GetCurrentThreadId(void) { return static_cast<DWORD>(syscall(SYS_gettid)); }
LOOPFAST_API DWORD WINAPI GetCurrentProcessId(void) { return static_cast<DWORD>(getpid()); }

LOOPFAST_API DWORD WINAPI QueueUserAPC(PAPCFUNC function, HANDLE handle, ULONG_PTR data) {
    Ref<Thread> thread = find_thread(handle);
    if (!thread) {
        last_error = ERROR_INVALID_HANDLE;
        return 0;
    }
    auto* const user = new UserRoutine{function, data};
    auto* const routine = new Routine{nullptr, run_user_routine, reinterpret_cast<DWORD_PTR>(user), true};
    if (thread->queue(routine))
        return 1;
    delete routine;
    delete user;
    last_error = ERROR_GEN_FAILURE;
    return 0;
}

LOOPFAST_API ULONGLONG WINAPI GetTickCount64(void) { return static_cast<ULONGLONG>(now() / 1'000'000); }
LOOPFAST_API DWORD WINAPI GetTickCount(void) { return static_cast<DWORD>(GetTickCount64()); }
LOOPFAST_API BOOL WINAPI QueryPerformanceCounter(LARGE_INTEGER* count) {
    count->QuadPart = now();
    return TRUE;
}
LOOPFAST_API BOOL WINAPI QueryPerformanceFrequency(LARGE_INTEGER* frequency) {
    frequency->QuadPart = 1'000'000'000;
    return TRUE;
}

LOOPFAST_API void WINAPI InitializeCriticalSection(LPCRITICAL_SECTION section) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(section, &attributes);
    pthread_mutexattr_destroy(&attributes);
}
LOOPFAST_API BOOL WINAPI InitializeCriticalSectionAndSpinCount(LPCRITICAL_SECTION section, DWORD) {
    InitializeCriticalSection(section);
    return TRUE;
}
LOOPFAST_API void WINAPI DeleteCriticalSection(LPCRITICAL_SECTION section) { pthread_mutex_destroy(section); }
LOOPFAST_API void WINAPI EnterCriticalSection(LPCRITICAL_SECTION section) { pthread_mutex_lock(section); }
LOOPFAST_API BOOL WINAPI TryEnterCriticalSection(LPCRITICAL_SECTION section) {
    return pthread_mutex_trylock(section) == 0;
}
LOOPFAST_API void WINAPI LeaveCriticalSection(LPCRITICAL_SECTION section) { pthread_mutex_unlock(section); }
