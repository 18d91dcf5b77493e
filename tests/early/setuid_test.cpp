// A program that changes its identity while a thread of the library's is there. libc has each thread of a
// process make the call, by a signal of its own, and waits for all of them: for ever, if one never hears of
// it.
#include <dirent.h>
#include <grp.h>

#include "connection.h"
#include "require.h"

namespace {

int threads() {
    DIR* const tasks = opendir("/proc/self/task");
    REQUIRE(tasks != nullptr);
    int count = 0;
    while (const dirent* const task = readdir(tasks))
        count += task->d_name[0] != '.';
    closedir(tasks);
    return count;
}

}  // namespace

int main() {
    const Connection connection = connect_to_itself();
    for (int wait = 0; wait < 1000 && threads() < 2; ++wait)
        usleep(1000);
    REQUIRE(threads() >= 2);
    alarm(30);
    REQUIRE(setgid(getgid()) == 0);
    REQUIRE(setuid(getuid()) == 0);
    REQUIRE(setgroups(0, nullptr) == 0 || errno == EPERM);
    REQUIRE(send(connection.ours, "x", 1, 0) == 1);
    char byte = 0;
    REQUIRE(recv(connection.peer, &byte, 1, 0) == 1 && byte == 'x');
}
