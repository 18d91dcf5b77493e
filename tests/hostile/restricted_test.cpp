// Processes that may not do everything: sandboxes, filters, other users, missing files. They work as over
// TCP, on the ring where that can be, and on the kernel lane with a reason where it cannot. Each case is
// tried in both roles, the other end being an ordinary process.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "loopfast.h"
#include "victim_process.h"

namespace loopfast::hostile {
namespace {

/// A system call that is refused, whatever its first argument or with this one.
struct Refused {
    long number;
    long first = -1;
};

void refuse_calls(const std::vector<Refused>& calls, unsigned action) {
    std::vector<sock_filter> filter;
    for (const Refused& one : calls) {
        filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
        filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(one.number), 0,
                                  static_cast<unsigned char>(one.first >= 0 ? 3 : 1)));
        if (one.first >= 0) {
            filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)));
            filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(one.first), 0, 1));
        }
        filter.push_back(BPF_STMT(BPF_RET | BPF_K, action));
    }
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(79);
}

std::function<void()> without(const std::vector<Refused>& calls) {
    return [calls] { refuse_calls(calls, SECCOMP_RET_ERRNO | EPERM); };
}

/// What container engines refuse by default, as errors.
void as_in_a_container() {
    refuse_calls({{SYS_mount},
                  {SYS_umount2},
                  {SYS_pivot_root},
                  {SYS_unshare},
                  {SYS_setns},
                  {SYS_bpf},
                  {SYS_perf_event_open},
                  {SYS_keyctl},
                  {SYS_add_key},
                  {SYS_request_key},
                  {SYS_userfaultfd},
                  {SYS_kexec_load},
                  {SYS_init_module},
                  {SYS_finit_module},
                  {SYS_delete_module},
                  {SYS_reboot},
                  {SYS_swapon},
                  {SYS_swapoff},
                  {SYS_ptrace},
                  {SYS_process_vm_readv},
                  {SYS_process_vm_writev},
                  {SYS_kcmp},
                  {SYS_quotactl},
                  {SYS_acct},
                  {SYS_settimeofday},
                  {SYS_clock_settime},
                  {SYS_adjtimex},
                  {SYS_iopl},
                  {SYS_ioperm},
                  {SYS_io_uring_setup},
                  {SYS_io_uring_enter},
                  {SYS_open_by_handle_at},
                  {SYS_name_to_handle_at},
                  {SYS_move_pages},
                  {SYS_mbind},
                  {SYS_socket, 40 /* AF_VSOCK */}},
                 SECCOMP_RET_ERRNO | EPERM);
}

/// As a service manager does it with its usual options: anything outside the usual set ends the process.
void as_a_service() {
    refuse_calls({{SYS_mount},
                  {SYS_umount2},
                  {SYS_pivot_root},
                  {SYS_bpf},
                  {SYS_perf_event_open},
                  {SYS_ptrace},
                  {SYS_process_vm_readv},
                  {SYS_process_vm_writev},
                  {SYS_kcmp},
                  {SYS_userfaultfd},
                  {SYS_kexec_load},
                  {SYS_init_module},
                  {SYS_finit_module},
                  {SYS_delete_module},
                  {SYS_reboot},
                  {SYS_swapon},
                  {SYS_swapoff},
                  {SYS_chroot},
                  {SYS_settimeofday},
                  {SYS_clock_settime},
                  {SYS_acct},
                  {SYS_iopl},
                  {SYS_ioperm},
                  {SYS_io_uring_setup},
                  {SYS_personality},
                  {SYS_setns},
                  {SYS_unshare},
                  {SYS_socket, AF_PACKET},
                  {SYS_socket, AF_ALG}},
                 SECCOMP_RET_KILL_PROCESS);
}

/// In a mount namespace of its own.
void with_proc(const char* how) {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        _exit(77);
    int result = 0;
    if (std::string(how) == "none")
        result = mount("tmpfs", "/proc", "tmpfs", 0, nullptr);
    else
        result = mount("/proc", "/proc", nullptr, MS_BIND | MS_REC, nullptr) == 0
                     ? mount(nullptr, "/proc", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr)
                     : -1;
    if (result != 0)
        _exit(77);
}

/// Abstract names outside are out of reach (Linux 6.12). @return false where the kernel does not know it.
bool scope_abstract_names() {
    struct {
        uint64_t handled_access_fs, handled_access_net, scoped;
    } attributes{0, 0, 1 /* LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET */};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const long rules = syscall(444 /* landlock_create_ruleset */, &attributes, sizeof attributes, 0);
    return rules >= 0 && syscall(446 /* landlock_restrict_self */, rules, 0) == 0;
}

bool landlock_scopes() {
    const long version = syscall(444, nullptr, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
    return version >= 6;
}

struct Talk {
    int fused_ends = 0;
    long reason = -1;  ///< of the restricted end
};

/// A connection between the two, the restricted one in this role.
Talk talk(Victim& restricted, bool connects, const std::function<void(int)>& at = nullptr) {
    Victim ordinary;
    Victim& connector = connects ? restricted : ordinary;
    Victim& acceptor = connects ? ordinary : restricted;
    const long port = acceptor.result("listen");
    EXPECT_EQ(connector.result("connect " + std::to_string(port)), 0);
    EXPECT_EQ(acceptor.result("accept"), 0);
    acceptor.result("unlisten");
    Talk came;
    for (int i = 0; i < 24; ++i) {
        if (at)
            at(i);
        for (Victim* sender : {&connector, &acceptor}) {
            Victim& receiver = sender == &connector ? acceptor : connector;
            EXPECT_EQ(sender->result("send 30"), 30);
            EXPECT_EQ(receiver.ask("recv 30").bytes, std::string(30, 'v'));
        }
        if (::testing::Test::HasFailure())
            return came;
    }
    came.fused_ends = (connector.result("lane") == 1) + (acceptor.result("lane") == 1);
    came.reason = restricted.result("reason");
    EXPECT_EQ(ordinary.result("close"), 0);
    EXPECT_EQ(restricted.result("recv 10"), 0);
    EXPECT_EQ(restricted.result("close"), 0);
    return came;
}

struct Restriction {
    const char* name;
    std::function<void()> before;
    int fused_ends;          ///< 0 or 2
    std::set<long> reasons;  ///< of the restricted end
};
void PrintTo(const Restriction& one, std::ostream* out) { *out << one.name; }

const Restriction kRestrictions[] = {
    {"none", nullptr, 2, {LOOPFAST_REASON_NONE}},
    {"container", as_in_a_container, 2, {LOOPFAST_REASON_NONE}},
    {"service", as_a_service, 2, {LOOPFAST_REASON_NONE}},
    {"no_unix_sockets", without({{SYS_socket, AF_UNIX}}), 0, {LOOPFAST_REASON_RESTRICTED}},
    {"no_netlink",
     without({{SYS_socket, AF_NETLINK}}),
     0,
     {LOOPFAST_REASON_IDENTITY, LOOPFAST_REASON_RESTRICTED, LOOPFAST_REASON_PEER_NOT_OPTED_IN}},
    {"no_memfd",
     without({{SYS_memfd_create}}),
     0,
     {LOOPFAST_REASON_POLICY, LOOPFAST_REASON_LIMIT, LOOPFAST_REASON_RESTRICTED}},
    {"no_limits", without({{SYS_prlimit64}}), 2, {LOOPFAST_REASON_NONE, LOOPFAST_REASON_LIMIT}},
    {"no_threads", without({{SYS_clone}, {SYS_clone3}}), 2, {LOOPFAST_REASON_NONE}},
    {"no_files", without({{SYS_openat, 5}}), 2, {LOOPFAST_REASON_NONE}},
    {"read_only_proc", [] { with_proc("read-only"); }, 2, {LOOPFAST_REASON_NONE}},
    {"no_proc", [] { with_proc("none"); }, 2, {LOOPFAST_REASON_NONE, LOOPFAST_REASON_CAPTURE}},
};

class Restricted : public ::testing::TestWithParam<Restriction> {};

TEST_P(Restricted, Works) {
    const Restriction& one = GetParam();
    for (const bool connects : {true, false}) {
        Victim restricted(0, "", one.before);
        if (!restricted.alive())
            GTEST_SKIP() << "this restriction cannot be had here";
        const Talk came = talk(restricted, connects);
        EXPECT_TRUE(one.fused_ends == 0 ? came.fused_ends == 0
                                        : came.fused_ends == 2 || came.reason != LOOPFAST_REASON_NONE);
        EXPECT_EQ(one.reasons.count(came.reason), 1U) << came.reason;
        EXPECT_TRUE(restricted.exits());
    }
}

INSTANTIATE_TEST_SUITE_P(Hostile, Restricted, ::testing::ValuesIn(kRestrictions),
                         [](const auto& test) { return std::string(test.param.name); });

/// At any moment of a connection's life it gives up all calls that it does not make by itself; one more ends
/// it.
TEST(Sandbox, EnteredAtAnyMoment) {
    for (const bool connects : {true, false})
        for (const int moment : {0, 1, 2, 3, 4, 10, 20}) {
            Victim restricted;
            const Talk came = talk(restricted, connects, [&](int i) {
                if (i == moment) {
                    ASSERT_EQ(restricted.result("sandbox"), 0);
                }
            });
            ASSERT_FALSE(HasFailure()) << "entered before round " << moment << (connects ? ", connects" : "");
            EXPECT_LE(came.fused_ends, 1) << "the other end may not have looked yet";
            EXPECT_EQ(came.reason, LOOPFAST_REASON_RESTRICTED);
            EXPECT_TRUE(restricted.exits());
        }
}

TEST(Landlock, NamesOutOfReach) {
    if (!landlock_scopes())
        GTEST_SKIP() << "the kernel cannot scope abstract names";
    for (const bool connects : {true, false}) {
        Victim restricted(0, "", [] {
            if (!scope_abstract_names())
                _exit(77);
        });
        const Talk came = talk(restricted, connects);
        // It may still be found by others: the scope keeps it from reaching out.
        if (!connects) {
            EXPECT_EQ(came.fused_ends, 0);
            EXPECT_EQ(came.reason, LOOPFAST_REASON_RESTRICTED);
        }
    }
}

TEST(OtherRoot, EnteredAfterTheStart) {
    if (geteuid() != 0)
        GTEST_SKIP() << "needs root";
    for (const bool connects : {true, false})
        for (const int moment : {0, 1, 3, 12}) {
            Victim restricted;
            const Talk came = talk(restricted, connects, [&](int i) {
                if (i == moment) {
                    ASSERT_EQ(restricted.result("chroot"), 0);
                }
            });
            EXPECT_EQ(came.fused_ends, 2);
        }
}

TEST(OtherUser, BecomesOneAfterTheStart) {
    if (geteuid() != 0)
        GTEST_SKIP() << "needs root";
    for (const bool connects : {true, false})
        for (const int moment : {-1, 0, 1, 2, 3, 12}) {
            Victim restricted;
            if (moment == -1) {
                ASSERT_EQ(restricted.result("setuid 54321"), 0);
            }
            const Talk came = talk(restricted, connects, [&](int i) {
                if (i == moment) {
                    ASSERT_EQ(restricted.result("setuid 54321"), 0);
                }
            });
            // Made by root and proven by another user: not the same owner. Before and after that it is.
            EXPECT_TRUE(came.fused_ends == 2 || came.reason != LOOPFAST_REASON_NONE);
            if (moment == -1 || moment == 12) {
                EXPECT_EQ(came.fused_ends, 2) << moment;
            }
        }
}

/// A copy of the program with a mark that makes the loader ignore the preload.
class Privileged : public ::testing::Test {
protected:
    void SetUp() override {
        if (geteuid() != 0)
            GTEST_SKIP() << "needs root";
        place_ = std::filesystem::temp_directory_path() / ("loopfast-privileged." + std::to_string(getpid()));
        std::filesystem::copy_file(VICTIM_PROGRAM, place_, std::filesystem::copy_options::overwrite_existing);
        chmod(place_.c_str(), 0755);
    }
    void TearDown() override { std::filesystem::remove(place_); }
    void works_without_the_library() {
        for (const bool connects : {true, false}) {
            Victim restricted(54321, "", nullptr, place_.c_str());
            if (!restricted.alive())
                GTEST_SKIP() << "programs there cannot have privileges";
            Victim& victim = restricted;
            EXPECT_EQ(victim.result("lane"), -2) << "the library is not in it";
            victim.result("unmarked 1");
            const Talk came = talk(restricted, connects);
            EXPECT_EQ(came.fused_ends, 0);
        }
    }
    std::filesystem::path place_;
};

TEST_F(Privileged, SetUserId) {
    ASSERT_EQ(chown(place_.c_str(), 0, 0), 0);
    ASSERT_EQ(chmod(place_.c_str(), 04755), 0);
    works_without_the_library();
}

TEST_F(Privileged, FileCapabilities) {
    vfs_cap_data capabilities{};
    capabilities.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE;
    capabilities.data[0].permitted = 1U << CAP_NET_BIND_SERVICE;
    if (setxattr(place_.c_str(), "security.capability", &capabilities, sizeof capabilities, 0) != 0)
        GTEST_SKIP() << "files there cannot have capabilities";
    works_without_the_library();
}

}  // namespace
}  // namespace loopfast::hostile
