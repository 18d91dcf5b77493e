// See impostor.h.
#include "impostor.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <string>

#include <gtest/gtest.h>

#include "attacker.h"
#include "base/clock.h"
#include "link/identity.h"

namespace loopfast::hostile {

namespace {

void write_file(const char* path, const std::string& text) {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text.data(), text.size()) < 0)
        perror(path);
    close(fd);
}

/// @return whether this process, or rather its next child, is in a container.
bool contain() {
    const uid_t uid = geteuid();
    const gid_t gid = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID) != 0)
        return false;
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", std::to_string(uid) + " " + std::to_string(uid) + " 1");
    write_file("/proc/self/gid_map", std::to_string(gid) + " " + std::to_string(gid) + " 1");
    return true;
}

}  // namespace

Impostor::Impostor(const std::function<void(Loot&)>& play, uid_t uid) {
    int hold[2];
    int report[2];
    if (pipe2(hold, O_CLOEXEC) != 0 || pipe2(report, O_CLOEXEC) != 0)
        abort();
    pid_ = fork();
    if (pid_ == 0) {
        // Its own files in /proc become its own again by the second call.
        if (uid != 0 && (setgid(uid) != 0 || setuid(uid) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0))
            _exit(77);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(hold[1]);
        close(report[0]);
        Loot loot;
        loot.contained = contain() ? 1 : 0;
        const pid_t inner = fork();
        if (inner != 0) {
            close(report[1]);
            waitpid(inner, nullptr, 0);
            _exit(0);
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fcntl(hold[0], F_SETFL, O_NONBLOCK);
        char byte;
        while (read(hold[0], &byte, 1) != 0)
            play(loot);
        _exit(write(report[1], &loot, sizeof loot) == sizeof loot ? 0 : 1);
    }
    close(hold[0]);
    close(report[1]);
    hold_ = hold[1];
    report_ = report[0];
}

Loot Impostor::end() {
    Loot loot;
    close(hold_);
    hold_ = -1;
    EXPECT_EQ(read(report_, &loot, sizeof loot), static_cast<ssize_t>(sizeof loot));
    return loot;
}

Impostor::~Impostor() {
    close(hold_);
    close(report_);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
}

Stage::Stage() {
    void* const memory =
        mmap(nullptr, sizeof *reached_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    reached_ = memory == MAP_FAILED ? nullptr : new (memory) std::atomic<int>{0};
}

Stage::~Stage() { munmap(reached_, sizeof *reached_); }

bool Stage::awaited() const {
    for (const int64_t end = now_ns() + 20'000'000'000; now_ns() < end; usleep(200))
        if (reached_->load(std::memory_order_acquire) != 0)
            return true;
    return false;
}

void read_all(int link, Loot& loot) {
    for (int i = 0; i < 100; ++i) {
        unsigned char bytes[4096];
        iovec part{bytes, sizeof bytes};
        alignas(cmsghdr) unsigned char control[CMSG_SPACE(64 * sizeof(int))];
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const ssize_t size = recvmsg(link, &message, MSG_DONTWAIT);
        if (size <= 0)
            return;
        ++loot.messages;
        loot.bytes += static_cast<int>(size);
        for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
             header = CMSG_NXTHDR(&message, header)) {
            if (header->cmsg_type != SCM_RIGHTS)
                continue;
            const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            loot.descriptors += static_cast<int>(count);
            for (size_t k = 0; k < count; ++k) {
                int fd;
                memcpy(&fd, CMSG_DATA(header) + k * sizeof fd, sizeof fd);
                close(fd);
            }
        }
    }
}

void speak(int link, const Tuple& tuple, bool as_acceptor) {
    SocketFacts connector{};
    SocketFacts acceptor{};
    look_up_socket(tuple.connector, tuple.acceptor, connector);
    look_up_socket(tuple.acceptor, tuple.connector, acceptor);
    for (const Kind kind : {kHello, kSigned, kProposal}) {
        if ((kind == kSigned) == as_acceptor)
            continue;
        const Message message = message_of(kind, connector.cookie, acceptor.cookie);
        const int memory = kind == kProposal ? Forged().make() : -1;
        send_message(link, message, memory);
        if (memory >= 0)
            close(memory);
        usleep(300);
    }
}

}  // namespace loopfast::hostile
