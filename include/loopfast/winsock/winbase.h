/* winbase.h: what sources that use sockets need of the Windows base functions: last error, handles, events,
 * waits, threads, completion ports, cancellation, clocks, locks.
 *
 * Functions that return BOOL return 0 (FALSE) on failure and leave the reason in GetLastError(). Times are
 * milliseconds; INFINITE is no limit. All functions may be called from any thread.
 */
#ifndef LOOPFAST_WINSOCK_WINBASE_H
#define LOOPFAST_WINSOCK_WINBASE_H

#include "guiddef.h"
#include "ntstatus.h"
#include "winerror.h"

LOOPFAST_WINSOCK_BEGIN

#define INVALID_HANDLE_VALUE ((HANDLE)(LONG_PTR)-1)
#define INFINITE 0xffffffffu
#define WAIT_OBJECT_0 0u
#define WAIT_ABANDONED_0 0x80u
#define WAIT_ABANDONED 0x80u
#define WAIT_IO_COMPLETION 0xc0u
#define WAIT_FAILED 0xffffffffu
#define MAXIMUM_WAIT_OBJECTS 64
#define STILL_ACTIVE 259u

typedef struct _OVERLAPPED {
    ULONG_PTR Internal;     /**< an NTSTATUS: STATUS_PENDING until the operation is over */
    ULONG_PTR InternalHigh; /**< bytes moved; written before Internal */
    __extension__ union {
        __extension__ struct {
            DWORD Offset; /**< unused for sockets, must be kept by the program all the same */
            DWORD OffsetHigh;
        };
        PVOID Pointer;
    };
    HANDLE hEvent; /**< set at completion, or NULL; its lowest bit set: no packet on the port */
} OVERLAPPED, *LPOVERLAPPED;
typedef struct _OVERLAPPED_ENTRY {
    ULONG_PTR lpCompletionKey;
    LPOVERLAPPED lpOverlapped;
    ULONG_PTR Internal; /**< the status, as OVERLAPPED::Internal */
    DWORD dwNumberOfBytesTransferred;
} OVERLAPPED_ENTRY, *LPOVERLAPPED_ENTRY;
typedef struct _SECURITY_ATTRIBUTES {
    DWORD nLength;
    LPVOID lpSecurityDescriptor;
    BOOL bInheritHandle;
} SECURITY_ATTRIBUTES, *PSECURITY_ATTRIBUTES, *LPSECURITY_ATTRIBUTES;

#define HasOverlappedIoCompleted(overlapped) \
    (__atomic_load_n(&(overlapped)->Internal, __ATOMIC_ACQUIRE) != (ULONG_PTR)STATUS_PENDING)

/** @return the calling thread's last error; WSAGetLastError() reads the same slot. */
DWORD WINAPI GetLastError(void);
/** Sets the calling thread's last error. */
void WINAPI SetLastError(DWORD dwErrCode);

/** Closes an event, thread or port handle, or a socket (as closesocket).
 *  A closed port ends its waits with ERROR_ABANDONED_WAIT_0.
 *  Errors: ERROR_INVALID_HANDLE. */
BOOL WINAPI CloseHandle(HANDLE hObject);

/* Events. */

/** Makes an event. @param bManualReset not 0: stays set until reset; 0: one wait resets it.
 *  @param bInitialState not 0: set from the start. @param lpName must be NULL (names are not shared between
 *  processes here). @return the handle, or NULL: ERROR_NOT_SUPPORTED (a name), ERROR_NOT_ENOUGH_MEMORY. */
HANDLE WINAPI CreateEventA(LPSECURITY_ATTRIBUTES lpEventAttributes, BOOL bManualReset, BOOL bInitialState,
                           LPCSTR lpName);
/** CreateEventA with a 16-bit name. */
HANDLE WINAPI CreateEventW(LPSECURITY_ATTRIBUTES lpEventAttributes, BOOL bManualReset, BOOL bInitialState,
                           LPCWSTR lpName);
#define CreateEvent LOOPFAST_WINSOCK_AW(CreateEvent)
/** Sets an event: a manual one releases all its waiters, the other kind one. Errors: ERROR_INVALID_HANDLE. */
BOOL WINAPI SetEvent(HANDLE hEvent);
/** Resets an event. Errors: ERROR_INVALID_HANDLE. */
BOOL WINAPI ResetEvent(HANDLE hEvent);

/** Makes a semaphore: set while its count is not 0, a wait takes one. @param lpName must be NULL.
 *  @return the handle, or NULL: ERROR_INVALID_PARAMETER, ERROR_NOT_SUPPORTED, ERROR_NOT_ENOUGH_MEMORY. */
HANDLE WINAPI CreateSemaphoreA(LPSECURITY_ATTRIBUTES lpSemaphoreAttributes, LONG lInitialCount,
                               LONG lMaximumCount, LPCSTR lpName);
/** CreateSemaphoreA with a 16-bit name. */
HANDLE WINAPI CreateSemaphoreW(LPSECURITY_ATTRIBUTES lpSemaphoreAttributes, LONG lInitialCount,
                               LONG lMaximumCount, LPCWSTR lpName);
#define CreateSemaphore LOOPFAST_WINSOCK_AW(CreateSemaphore)
/** Adds to a semaphore's count. @param lpPreviousCount receives the count before, or NULL.
 *  Errors: ERROR_INVALID_HANDLE, ERROR_TOO_MANY_POSTS. */
BOOL WINAPI ReleaseSemaphore(HANDLE hSemaphore, LONG lReleaseCount, LPLONG lpPreviousCount);

/* Waits, on events, semaphores and threads. An alertable wait runs the completion routines and APCs that are
 * queued to the calling thread, and then returns WAIT_IO_COMPLETION. */

/** Waits for one object. @return WAIT_OBJECT_0, WAIT_TIMEOUT, or WAIT_FAILED: ERROR_INVALID_HANDLE. */
DWORD WINAPI WaitForSingleObject(HANDLE hHandle, DWORD dwMilliseconds);
/** The same, alertable if bAlertable is not 0. @return also WAIT_IO_COMPLETION. */
DWORD WINAPI WaitForSingleObjectEx(HANDLE hHandle, DWORD dwMilliseconds, BOOL bAlertable);
/** Waits for one (bWaitAll 0) or all of nCount objects, 1 to 64. @return WAIT_OBJECT_0 + index of the first
 *  that is set, WAIT_TIMEOUT, or WAIT_FAILED: ERROR_INVALID_HANDLE, ERROR_INVALID_PARAMETER (count). */
DWORD WINAPI WaitForMultipleObjects(DWORD nCount, const HANDLE *lpHandles, BOOL bWaitAll,
                                    DWORD dwMilliseconds);
/** The same, alertable if bAlertable is not 0. */
DWORD WINAPI WaitForMultipleObjectsEx(DWORD nCount, const HANDLE *lpHandles, BOOL bWaitAll,
                                      DWORD dwMilliseconds, BOOL bAlertable);
/** Sleeps. */
void WINAPI Sleep(DWORD dwMilliseconds);
/** Sleeps, alertable if bAlertable is not 0. @return 0 after the time, WAIT_IO_COMPLETION after routines. */
DWORD WINAPI SleepEx(DWORD dwMilliseconds, BOOL bAlertable);

/* Threads. */

typedef DWORD(WINAPI *LPTHREAD_START_ROUTINE)(LPVOID lpThreadParameter);
typedef VOID(CALLBACK *PAPCFUNC)(ULONG_PTR Parameter);
#define STACK_SIZE_PARAM_IS_A_RESERVATION 0x10000u
/** Starts a thread. @param dwStackSize bytes, 0 for the usual. @param dwCreationFlags 0 or the one above.
 *  @return a handle to wait on and to close, or NULL: ERROR_NOT_ENOUGH_MEMORY, ERROR_NOT_SUPPORTED (flags).
 */
HANDLE WINAPI CreateThread(LPSECURITY_ATTRIBUTES lpThreadAttributes, SIZE_T dwStackSize,
                           LPTHREAD_START_ROUTINE lpStartAddress, LPVOID lpParameter, DWORD dwCreationFlags,
                           LPDWORD lpThreadId);
/** Gives the exit code of a thread, STILL_ACTIVE while it runs. Errors: ERROR_INVALID_HANDLE. */
BOOL WINAPI GetExitCodeThread(HANDLE hThread, LPDWORD lpExitCode);
/** Ends the calling thread. Its operations that are pending outside of ports end with
 *  WSA_OPERATION_ABORTED. */
void WINAPI ExitThread(DWORD dwExitCode) __attribute__((noreturn));
/** @return a pseudo handle that means the calling thread wherever it is used. */
HANDLE WINAPI GetCurrentThread(void);
/** @return the system's number of the calling thread. */
DWORD WINAPI GetCurrentThreadId(void);
/** @return the process's number. */
DWORD WINAPI GetCurrentProcessId(void);
/** Queues a function to a thread, to run in its next alertable wait. @return 0 on failure:
 *  ERROR_INVALID_HANDLE, ERROR_GEN_FAILURE (the thread has ended). */
DWORD WINAPI QueueUserAPC(PAPCFUNC pfnAPC, HANDLE hThread, ULONG_PTR dwData);

/* Completion ports. */

/** Makes a port (FileHandle INVALID_HANDLE_VALUE), or associates a socket with one, or both.
 *  @param ExistingCompletionPort the port, or NULL to make one. @param CompletionKey comes with each packet
 * of this socket. @param NumberOfConcurrentThreads how many threads the port lets run at once, 0: as many as
 *  there are processors. @return the port, or NULL: ERROR_INVALID_HANDLE, ERROR_INVALID_PARAMETER (the socket
 *  belongs to a port already, or has no overlapped attribute), ERROR_NOT_ENOUGH_MEMORY. */
HANDLE WINAPI CreateIoCompletionPort(HANDLE FileHandle, HANDLE ExistingCompletionPort,
                                     ULONG_PTR CompletionKey, DWORD NumberOfConcurrentThreads);
/** Takes one packet off a port, waiting for it. @return not 0: a packet of a success. 0 with *lpOverlapped
 * not NULL: a packet of an operation that failed, the reason in GetLastError(). 0 with *lpOverlapped NULL: no
 *  packet: WAIT_TIMEOUT, ERROR_ABANDONED_WAIT_0 (the port was closed), ERROR_INVALID_HANDLE. */
BOOL WINAPI GetQueuedCompletionStatus(HANDLE CompletionPort, LPDWORD lpNumberOfBytesTransferred,
                                      PULONG_PTR lpCompletionKey, LPOVERLAPPED *lpOverlapped,
                                      DWORD dwMilliseconds);
/** Takes up to ulCount packets at once. Errors as above; ERROR_INVALID_PARAMETER for ulCount 0;
 *  WAIT_IO_COMPLETION when fAlertable and routines ran. */
BOOL WINAPI GetQueuedCompletionStatusEx(HANDLE CompletionPort, LPOVERLAPPED_ENTRY lpCompletionPortEntries,
                                        ULONG ulCount, PULONG ulNumEntriesRemoved, DWORD dwMilliseconds,
                                        BOOL fAlertable);
/** Puts a packet on a port; the three values come out as they are. Errors: ERROR_INVALID_HANDLE,
 *  ERROR_NOT_ENOUGH_MEMORY. */
BOOL WINAPI PostQueuedCompletionStatus(HANDLE CompletionPort, DWORD dwNumberOfBytesTransferred,
                                       ULONG_PTR dwCompletionKey, LPOVERLAPPED lpOverlapped);
#define FILE_SKIP_COMPLETION_PORT_ON_SUCCESS 0x1 /**< no packet for what succeeded at once */
#define FILE_SKIP_SET_EVENT_ON_HANDLE 0x2        /**< accepted; sockets have no event of their own here */
/** Sets the flags above for a socket; they cannot be taken back. Errors: ERROR_INVALID_HANDLE,
 *  ERROR_INVALID_PARAMETER (other flags). */
BOOL WINAPI SetFileCompletionNotificationModes(HANDLE FileHandle, UCHAR Flags);

/** The result of an overlapped operation by handle; for sockets as WSAGetOverlappedResult, with ERROR
 * numbers. Errors: ERROR_IO_INCOMPLETE (pending and bWait 0), the operation's. */
BOOL WINAPI GetOverlappedResult(HANDLE hFile, LPOVERLAPPED lpOverlapped, LPDWORD lpNumberOfBytesTransferred,
                                BOOL bWait);
/** Cancels what the calling thread has pending on a socket; each ends with WSA_OPERATION_ABORTED.
 *  Errors: ERROR_INVALID_HANDLE. */
BOOL WINAPI CancelIo(HANDLE hFile);
/** Cancels one operation on a socket, or all (lpOverlapped NULL), whichever thread began them.
 *  Errors: ERROR_NOT_FOUND (nothing to cancel), ERROR_INVALID_HANDLE. */
BOOL WINAPI CancelIoEx(HANDLE hFile, LPOVERLAPPED lpOverlapped);

/* Clocks. */

/** @return milliseconds since the system started, 32 bits of them. */
DWORD WINAPI GetTickCount(void);
/** @return milliseconds since the system started. */
ULONGLONG WINAPI GetTickCount64(void);
/** A monotonic counter; QueryPerformanceFrequency says how often it counts in a second. */
BOOL WINAPI QueryPerformanceCounter(LARGE_INTEGER *lpPerformanceCount);
/** Counts in a second: 1000000000. */
BOOL WINAPI QueryPerformanceFrequency(LARGE_INTEGER *lpFrequency);

/* Locks and counters. */

typedef pthread_mutex_t CRITICAL_SECTION, *PCRITICAL_SECTION, *LPCRITICAL_SECTION;
/** Makes a lock that its owner may take again. */
void WINAPI InitializeCriticalSection(LPCRITICAL_SECTION lpCriticalSection);
/** The same; the spin count is ignored. @return TRUE. */
BOOL WINAPI InitializeCriticalSectionAndSpinCount(LPCRITICAL_SECTION lpCriticalSection, DWORD dwSpinCount);
/** Ends a lock that nobody holds. */
void WINAPI DeleteCriticalSection(LPCRITICAL_SECTION lpCriticalSection);
/** Takes a lock. */
void WINAPI EnterCriticalSection(LPCRITICAL_SECTION lpCriticalSection);
/** Takes a lock if it is free. @return FALSE if another thread holds it. */
BOOL WINAPI TryEnterCriticalSection(LPCRITICAL_SECTION lpCriticalSection);
/** Gives a lock back. */
void WINAPI LeaveCriticalSection(LPCRITICAL_SECTION lpCriticalSection);

typedef struct _RTL_SRWLOCK {
    PVOID Ptr;
} SRWLOCK, *PSRWLOCK;
#define SRWLOCK_INIT \
    { 0 }
/** Locks for one writer or several readers; not to be taken again by who has them. No end is needed. */
void WINAPI InitializeSRWLock(PSRWLOCK SRWLock);
void WINAPI AcquireSRWLockExclusive(PSRWLOCK SRWLock);
void WINAPI AcquireSRWLockShared(PSRWLOCK SRWLock);
/** @return FALSE if it is taken. */
BOOLEAN WINAPI TryAcquireSRWLockExclusive(PSRWLOCK SRWLock);
BOOLEAN WINAPI TryAcquireSRWLockShared(PSRWLOCK SRWLock);
void WINAPI ReleaseSRWLockExclusive(PSRWLOCK SRWLock);
void WINAPI ReleaseSRWLockShared(PSRWLOCK SRWLock);
typedef struct _RTL_CONDITION_VARIABLE {
    PVOID Ptr;
} CONDITION_VARIABLE, *PCONDITION_VARIABLE;
#define CONDITION_VARIABLE_INIT \
    { 0 }
#define CONDITION_VARIABLE_LOCKMODE_SHARED 1u
/** Conditions: a sleep gives the lock back and takes it again. It may end without a wake. @return FALSE with
 *  ERROR_TIMEOUT after the time. */
void WINAPI InitializeConditionVariable(PCONDITION_VARIABLE ConditionVariable);
BOOL WINAPI SleepConditionVariableCS(PCONDITION_VARIABLE ConditionVariable,
                                     LPCRITICAL_SECTION CriticalSection, DWORD dwMilliseconds);
/** The same with a lock of the kind above, held as Flags say. */
BOOL WINAPI SleepConditionVariableSRW(PCONDITION_VARIABLE ConditionVariable, PSRWLOCK SRWLock,
                                      DWORD dwMilliseconds, ULONG Flags);
void WINAPI WakeConditionVariable(PCONDITION_VARIABLE ConditionVariable);
void WINAPI WakeAllConditionVariable(PCONDITION_VARIABLE ConditionVariable);

#define TLS_OUT_OF_INDEXES 0xffffffffu
/** A slot with a value for each thread, NULL at first. @return its number or TLS_OUT_OF_INDEXES. */
DWORD WINAPI TlsAlloc(void);
LPVOID WINAPI TlsGetValue(DWORD dwTlsIndex);
BOOL WINAPI TlsSetValue(DWORD dwTlsIndex, LPVOID lpTlsValue);
BOOL WINAPI TlsFree(DWORD dwTlsIndex);

/* Each is one atomic operation and a full fence; the first two return the new value, the others the old. */
#define InterlockedIncrement(target) __atomic_add_fetch((target), 1, __ATOMIC_SEQ_CST)
#define InterlockedDecrement(target) __atomic_sub_fetch((target), 1, __ATOMIC_SEQ_CST)
#define InterlockedIncrement64(target) __atomic_add_fetch((target), 1, __ATOMIC_SEQ_CST)
#define InterlockedDecrement64(target) __atomic_sub_fetch((target), 1, __ATOMIC_SEQ_CST)
#define InterlockedExchange(target, value) __atomic_exchange_n((target), (value), __ATOMIC_SEQ_CST)
#define InterlockedExchangeAdd(target, value) __atomic_fetch_add((target), (value), __ATOMIC_SEQ_CST)
#define InterlockedExchangeAdd64(target, value) __atomic_fetch_add((target), (value), __ATOMIC_SEQ_CST)
#define InterlockedExchange64(target, value) __atomic_exchange_n((target), (value), __ATOMIC_SEQ_CST)
#define InterlockedExchangePointer(target, value) __atomic_exchange_n((target), (value), __ATOMIC_SEQ_CST)
#define InterlockedAnd(target, value) __atomic_fetch_and((target), (value), __ATOMIC_SEQ_CST)
#define InterlockedOr(target, value) __atomic_fetch_or((target), (value), __ATOMIC_SEQ_CST)
#define InterlockedXor(target, value) __atomic_fetch_xor((target), (value), __ATOMIC_SEQ_CST)
#define InterlockedCompareExchange64(target, value, comparand) \
    __sync_val_compare_and_swap((target), (comparand), (value))
#define InterlockedCompareExchangePointer(target, value, comparand) \
    __sync_val_compare_and_swap((target), (comparand), (value))
#define MemoryBarrier() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define YieldProcessor() __builtin_ia32_pause()
#define InterlockedCompareExchange(target, value, comparand) \
    __sync_val_compare_and_swap((target), (comparand), (value))

#define ZeroMemory(memory, size) memset((memory), 0, (size))
#define FillMemory(memory, size, byte) memset((memory), (byte), (size))
#define CopyMemory(to, from, size) memcpy((to), (from), (size))
#define MoveMemory(to, from, size) memmove((to), (from), (size))
#define RtlZeroMemory ZeroMemory
#define RtlCopyMemory CopyMemory

LOOPFAST_WINSOCK_END

#endif
