// Slim reader-writer locks, condition variables, and thread-local slots. The first two are eight bytes of the
// program's, all 0 at the start and never given back, as on Windows: a futex word and how many sleep on it.
#include <pthread.h>

#include <climits>

#include "winsock/port.h"
#include "winsock/thread.h"

namespace loopfast::winsock {

namespace {

struct Words {
    std::atomic<int> word;
    std::atomic<int> sleepers;
};
Words& words_of(void* pointer) { return *static_cast<Words*>(pointer); }

// A reader-writer lock's word: how many read, or this.
constexpr int kWriting = -1;

/// @return whether it is ours now; else `seen` is what was in the way.
bool try_take(Words& lock, bool shared, int& seen) {
    seen = lock.word.load(std::memory_order_relaxed);
    while (seen == 0 || (shared && seen > 0))
        if (lock.word.compare_exchange_weak(seen, shared ? seen + 1 : kWriting, std::memory_order_acquire,
                                            std::memory_order_relaxed))
            return true;
    return false;
}

void take(Words& lock, bool shared) {
    int seen;
    while (!try_take(lock, shared, seen)) {
        lock.sleepers.fetch_add(1, std::memory_order_seq_cst);
        futex_wait(lock.word, seen);
        lock.sleepers.fetch_sub(1, std::memory_order_relaxed);
    }
}

void give_back(Words& lock, bool shared) {
    // Sequentially consistent, as is a sleeper's count: it is seen, or it finds the word changed.
    const int left = shared ? lock.word.fetch_sub(1, std::memory_order_seq_cst) - 1
                            : (lock.word.store(0, std::memory_order_seq_cst), 0);
    if (left == 0 && lock.sleepers.load(std::memory_order_seq_cst) != 0)
        futex_wake(lock.word, INT_MAX);
}

template <typename Release, typename Acquire>
BOOL sleep_on(void* condition, DWORD milliseconds, Release release, Acquire acquire) {
    Words& words = words_of(condition);
    const int seen = words.word.load(std::memory_order_seq_cst);
    const int64_t deadline = deadline_of(milliseconds);
    words.sleepers.fetch_add(1, std::memory_order_seq_cst);
    release();
    {
        NotRunning pause(this_thread());
        futex_wait(words.word, seen, deadline);
    }
    words.sleepers.fetch_sub(1, std::memory_order_relaxed);
    acquire();
    if (words.word.load(std::memory_order_relaxed) != seen || left_until(deadline) != 0)
        return TRUE;  // woken, perhaps for nothing: programs look
    last_error = ERROR_TIMEOUT;
    return FALSE;
}

void wake(void* condition, int count) {
    Words& words = words_of(condition);
    words.word.fetch_add(1, std::memory_order_seq_cst);
    if (words.sleepers.load(std::memory_order_seq_cst) != 0)
        futex_wake(words.word, count);
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API void WINAPI InitializeSRWLock(PSRWLOCK lock) { lock->Ptr = nullptr; }
LOOPFAST_API void WINAPI AcquireSRWLockExclusive(PSRWLOCK lock) { take(words_of(lock), false); }
LOOPFAST_API void WINAPI AcquireSRWLockShared(PSRWLOCK lock) { take(words_of(lock), true); }
LOOPFAST_API BOOLEAN WINAPI TryAcquireSRWLockExclusive(PSRWLOCK lock) {
    int seen;
    return try_take(words_of(lock), false, seen);
}
LOOPFAST_API BOOLEAN WINAPI TryAcquireSRWLockShared(PSRWLOCK lock) {
    int seen;
    return try_take(words_of(lock), true, seen);
}
LOOPFAST_API void WINAPI ReleaseSRWLockExclusive(PSRWLOCK lock) { give_back(words_of(lock), false); }
LOOPFAST_API void WINAPI ReleaseSRWLockShared(PSRWLOCK lock) { give_back(words_of(lock), true); }

LOOPFAST_API void WINAPI InitializeConditionVariable(PCONDITION_VARIABLE condition) {
    condition->Ptr = nullptr;
}
LOOPFAST_API BOOL WINAPI SleepConditionVariableCS(PCONDITION_VARIABLE condition, LPCRITICAL_SECTION section,
                                                  DWORD milliseconds) {
    return sleep_on(
        condition, milliseconds, [&] { LeaveCriticalSection(section); },
        [&] { EnterCriticalSection(section); });
}
LOOPFAST_API BOOL WINAPI SleepConditionVariableSRW(PCONDITION_VARIABLE condition, PSRWLOCK lock,
                                                   DWORD milliseconds, ULONG flags) {
    const bool shared = (flags & CONDITION_VARIABLE_LOCKMODE_SHARED) != 0;
    return sleep_on(
        condition, milliseconds, [&] { give_back(words_of(lock), shared); },
        [&] { take(words_of(lock), shared); });
}
LOOPFAST_API void WINAPI WakeConditionVariable(PCONDITION_VARIABLE condition) { wake(condition, 1); }
LOOPFAST_API void WINAPI WakeAllConditionVariable(PCONDITION_VARIABLE condition) { wake(condition, INT_MAX); }

LOOPFAST_API DWORD WINAPI TlsAlloc(void) {
    pthread_key_t key;
    if (pthread_key_create(&key, nullptr) == 0)
        return key;
    last_error = ERROR_NO_SYSTEM_RESOURCES;
    return TLS_OUT_OF_INDEXES;
}
LOOPFAST_API LPVOID WINAPI TlsGetValue(DWORD index) {
    last_error = 0;  // a value may be NULL
    return pthread_getspecific(index);
}
LOOPFAST_API BOOL WINAPI TlsSetValue(DWORD index, LPVOID value) {
    return truth(pthread_setspecific(index, value) == 0 ? 0 : ERROR_INVALID_PARAMETER);
}
LOOPFAST_API BOOL WINAPI TlsFree(DWORD index) {
    return truth(pthread_key_delete(index) == 0 ? 0 : ERROR_INVALID_PARAMETER);
}
