// A process that gives up nearly all system calls while it has a connection on the ring: it goes on with it,
// closes it and ends, and the library makes none of the calls that would kill it.
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "connection.h"

namespace {

/// What a program behind such a filter needs, and it would not expect more of close().
void allow_little() {
    std::vector<sock_filter> filter{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
    for (const int call : {SYS_read, SYS_write, SYS_recvfrom, SYS_sendto, SYS_recvmsg, SYS_sendmsg, SYS_close,
                           SYS_exit_group, SYS_rt_sigreturn}) {
        filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1));
        filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    }
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        fail("no filter");
}

}  // namespace

int main() {
    const pid_t child = fork();
    if (child == 0) {
        const Connection connection = connect_to_itself();
        char bytes[10] = "unread";
        if (send(connection.peer, bytes, sizeof bytes, 0) != sizeof bytes)
            fail("send");
        allow_little();
        if (recv(connection.ours, bytes, sizeof bytes, MSG_WAITALL) != sizeof bytes ||
            send(connection.ours, bytes, sizeof bytes, 0) != sizeof bytes || close(connection.ours) != 0 ||
            recv(connection.peer, bytes, sizeof bytes, MSG_WAITALL) != sizeof bytes ||
            close(connection.peer) != 0)
            _exit(1);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        std::fprintf(stderr, "sandbox_test: killed by signal %d\n", WTERMSIG(status));
    return status == 0 ? 0 : 1;
}
