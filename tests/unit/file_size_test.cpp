// The limit on the size of files (RLIMIT_FSIZE), which counts for shared memory as well: what is too large
// for it cannot be had, and that is all that happens. Without care SIGXFSZ ends the program.
#include "base/file_size.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include <gtest/gtest.h>

#include "segment/segment.h"
#include "table/arena.h"

namespace loopfast {
namespace {

/// What `code` says in a process whose files may have `limit` bytes; the number of the signal that ended it
/// plus 1000.
int under_limit(rlim_t limit, const std::function<int()>& code) {
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_DFL);
        const rlimit size{limit, RLIM_INFINITY};
        _exit(setrlimit(RLIMIT_FSIZE, &size) != 0 ? 99 : code());
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int segment_can_be_had() {
    int fd = -1;
    return create_segment(kDefaultCapacity, fd) ? 1 : 0;
}

TEST(FileSize, ALimitBelowASegmentRefusesIt) {
    EXPECT_EQ(under_limit(0, segment_can_be_had), 0);
    EXPECT_EQ(under_limit(segment_size(kDefaultCapacity) - 1, segment_can_be_had), 0);
    EXPECT_EQ(under_limit(segment_size(kDefaultCapacity), segment_can_be_had), 1);
}

TEST(FileSize, ALimitBelowTheArenaRefusesIt) {
    const auto arena_can_be_had = [] { return open_arena() ? 1 : 0; };
    EXPECT_EQ(under_limit(0, arena_can_be_had), 0);
    EXPECT_EQ(under_limit(arena_size() - 1, arena_can_be_had), 0);
    EXPECT_EQ(under_limit(arena_size(), arena_can_be_had), 1);
}

TEST(FileSize, ASegmentOfAPeerIsNotLimited) {
    int fd = -1;
    const MappedSegment ours = create_segment(kDefaultCapacity, fd);
    ASSERT_TRUE(ours);
    EXPECT_EQ(under_limit(0,
                          [&] {
                              const MappedSegment theirs = map_segment(fd);
                              if (!theirs)
                                  return 0;
                              theirs.data(0)[kDefaultCapacity - 1] = 'x';
                              return 1;
                          }),
              1);
    EXPECT_EQ(ours.data(0)[kDefaultCapacity - 1], 'x');
    close(fd);
}

bool pending() {
    sigset_t set;
    return sigpending(&set) == 0 && sigismember(&set, SIGXFSZ) == 1;
}

/// As if the limit was lowered after the look at it: the call itself is refused, with a signal.
bool refused_late(int fd) {
    NoSizeSignal quiet;
    if (ftruncate(fd, 100'000) == 0 || errno != EFBIG || !pending())
        return false;
    quiet.refused();
    return !pending();
}

TEST(FileSize, TheSignalIsTakenAway) {
    const int fd = memfd_create("sized", MFD_CLOEXEC);
    EXPECT_EQ(under_limit(1000, [&] { return refused_late(fd) ? 7 : 1; }), 7);
    close(fd);
}

TEST(FileSize, ASignalOfTheProgramStays) {
    const int fd = memfd_create("sized", MFD_CLOEXEC);
    EXPECT_EQ(under_limit(1000,
                          [&] {
                              sigset_t set;
                              sigemptyset(&set);
                              sigaddset(&set, SIGXFSZ);
                              sigprocmask(SIG_BLOCK, &set, nullptr);
                              raise(SIGXFSZ);
                              NoSizeSignal quiet;
                              if (ftruncate(fd, 100'000) == 0)
                                  return 1;
                              quiet.refused();
                              return pending() ? 7 : 2;
                          }),
              7);
    close(fd);
}

}  // namespace
}  // namespace loopfast
