// The errors of the control code's page, each provoked: one test for each, named after it. What the system
// must do for it, it does: a filter of system calls (seccomp) in a process of its own has the kernel answer
// as it does where a network is down or forbidden.
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

namespace test {
namespace {

class Errors : public Winsock {
protected:
    void SetUp() override {
        Winsock::SetUp();
        calls().clear();
    }
};

/// From here on the kernel refuses one system call with `error`. @return false where filters are forbidden.
bool refuse(long call, int error) {
    sock_filter code[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, static_cast<__u32>(call)},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | static_cast<__u32>(error)},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    const sock_fprog program = {4, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// Runs `check` in a child; it returns the number of what went wrong, 0 for nothing.
void in_a_child(const std::function<int()>& check) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0)
        _exit(check());
    int status = 0;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(0, WEXITSTATUS(status));
}

constexpr int kNoFilters = 99;

struct Asked {
    DWORD on = 1;
    DWORD returned = 0xdeadbeef;
    OVERLAPPED overlapped{};
    int error = 0;
    int ask(SOCKET s, bool is_overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine = nullptr) {
        const int result = WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, &on, sizeof on, nullptr, 0, &returned,
                                    is_overlapped ? &overlapped : nullptr, routine);
        error = WSAGetLastError();
        return result;
    }
};

/// The system answers what the control code, and a connect, need of it with an error.
int with_a_system_that_says(int errno_value, int expected) {
    const SOCKET asked = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    const SOCKET with_port = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    const SOCKET connecting = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    const SOCKET bound = bound_socket();
    HANDLE port = CreateIoCompletionPort(reinterpret_cast<HANDLE>(with_port), nullptr, 0, 0);
    CreateIoCompletionPort(reinterpret_cast<HANDLE>(bound), port, 0, 0);
    const auto connect_ex = extension<LPFN_CONNECTEX>(bound, WSAID_CONNECTEX);
    const sockaddr_in address = loopback(9);
    if (!refuse(SYS_getsockopt, errno_value) || !refuse(SYS_connect, errno_value) ||
        !refuse(SYS_socket, errno_value))
        return kNoFilters;

    Asked plain;
    if (plain.ask(asked, false) != SOCKET_ERROR || plain.error != expected || plain.returned != 0)
        return 1;
    Asked with_event;
    with_event.overlapped.hEvent = WSACreateEvent();
    if (with_event.ask(asked, true) != SOCKET_ERROR || with_event.error != expected)
        return 2;
    if (WSAWaitForMultipleEvents(1, &with_event.overlapped.hEvent, FALSE, 0, FALSE) != WSA_WAIT_TIMEOUT)
        return 3;
    Asked with_routine;
    if (with_routine.ask(asked, true, note_call) != SOCKET_ERROR || with_routine.error != expected ||
        SleepEx(0, TRUE) != 0 || !calls().empty())
        return 4;
    Asked with_packet;
    if (with_packet.ask(with_port, true) != SOCKET_ERROR || with_packet.error != expected)
        return 5;
    DWORD bytes;
    ULONG_PTR key;
    LPOVERLAPPED got;
    if (GetQueuedCompletionStatus(port, &bytes, &key, &got, 0) || got != nullptr)
        return 6;
    if (connect(connecting, generic(address), sizeof address) != SOCKET_ERROR ||
        WSAGetLastError() != expected)
        return 7;
    OVERLAPPED overlapped{};
    if (connect_ex(bound, generic(address), sizeof address, nullptr, 0, nullptr, &overlapped) ||
        WSAGetLastError() != expected)
        return 8;
    if (socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) != INVALID_SOCKET || WSAGetLastError() != expected)
        return 9;
    return 0;
}

TEST_F(Errors, NetDown) {
    in_a_child([] { return with_a_system_that_says(ENETDOWN, WSAENETDOWN); });
}

TEST_F(Errors, Acces) {
    in_a_child([] { return with_a_system_that_says(EACCES, WSAEACCES); });
    in_a_child([] { return with_a_system_that_says(EPERM, WSAEACCES); });
}

TEST_F(Errors, IoPending) {
    Pair pair = connected_pair();
    char byte;
    WSABUF buffer = {1, &byte};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    EXPECT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
    EXPECT_EQ(WSA_IO_PENDING, WSAGetLastError());
    // The control code is no operation of the connection's: it does not wait for one.
    Asked asked;
    EXPECT_EQ(0, asked.ask(pair.server, true));
    CancelIo(reinterpret_cast<HANDLE>(pair.server));
}

TEST_F(Errors, OperationAborted) {
    Pair pair = connected_pair();
    char byte;
    WSABUF buffer = {1, &byte};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    EXPECT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, note_call));
    EXPECT_EQ(WSA_IO_PENDING, WSAGetLastError());
    pair.close_server();
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(10000, TRUE));
    ASSERT_EQ(1u, calls().size());
    EXPECT_EQ(static_cast<DWORD>(WSA_OPERATION_ABORTED), calls()[0].error);
}

TEST_F(Errors, Fault) {
    const SOCKET s = bound_socket();
    DWORD returned;
    EXPECT_EQ(SOCKET_ERROR,
              WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, no_memory(), 4, nullptr, 0, &returned, nullptr, nullptr));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    closesocket(s);
}

SOCKET asked_in_hook = INVALID_SOCKET;
int error_in_hook = 0;
BOOL CALLBACK hook_that_asks() {
    Asked asked;
    error_in_hook = asked.ask(asked_in_hook, false) == 0 ? 0 : asked.error;
    WSACancelBlockingCall();
    return FALSE;
}

/// Both at once: the control code inside a blocking hook, and the call that the hook cancels.
TEST_F(Errors, InProgressAndIntr) {
    Pair pair = connected_pair();
    asked_in_hook = pair.client;
    WSASetBlockingHook(reinterpret_cast<FARPROC>(reinterpret_cast<void*>(&hook_that_asks)));
    char byte;
    EXPECT_EQ(SOCKET_ERROR, recv(pair.server, &byte, 1, 0));
    EXPECT_EQ(WSAEINTR, WSAGetLastError());
    EXPECT_EQ(WSAEINPROGRESS, error_in_hook);
    WSAUnhookBlockingHook();
}

TEST_F(Errors, Inval) {
    const SOCKET s = bound_socket();
    DWORD on = 1;
    DWORD out = 0;
    DWORD returned;
    EXPECT_EQ(SOCKET_ERROR,
              WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, &on, 4, &out, 4, &returned, nullptr, nullptr));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    closesocket(s);
}

TEST_F(Errors, NotSock) {
    Asked asked;
    EXPECT_EQ(SOCKET_ERROR, asked.ask(INVALID_SOCKET, false));
    EXPECT_EQ(WSAENOTSOCK, asked.error);
}

TEST_F(Errors, OpNotSupp) {
    const SOCKET s = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP);
    Asked asked;
    EXPECT_EQ(SOCKET_ERROR, asked.ask(s, false));
    EXPECT_EQ(WSAEOPNOTSUPP, asked.error);
    closesocket(s);
}

TEST(ErrorsBefore, NotInitialised) {
    Asked asked;
    EXPECT_EQ(SOCKET_ERROR, asked.ask(4, false));
    EXPECT_EQ(WSANOTINITIALISED, asked.error);
}

}  // namespace
}  // namespace test
