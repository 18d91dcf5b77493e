// A thread is in a call when another one closes the descriptor, and just then what the call waits for comes.
// The call holds the file, as in the kernel: it has its byte, however the two fall together.
#include <sys/ioctl.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "connection.h"
#include "require.h"

namespace {

void pause_for(int rounds) {
    for (int i = 0; i < rounds; ++i)
        asm volatile("");
}

/// Until the thread with this id sleeps in a system call.
void await_sleep(int thread) {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    for (bool sleeps = false; !sleeps; usleep(50)) {
        char text[256] = {};
        std::FILE* const file = std::fopen(path, "re");
        REQUIRE(file != nullptr);
        REQUIRE(std::fread(text, 1, sizeof text - 1, file) > 0);
        std::fclose(file);
        const char* const name_ends = std::strrchr(text, ')');
        sleeps = name_ends != nullptr && name_ends[2] == 'S';
    }
}

}  // namespace

/// close_race_test ROUNDS
int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
    const Connection connection = connect_to_itself();
    int refused = 0;
    for (int round = 0; round < rounds; ++round) {
        const int number = dup(connection.ours);
        REQUIRE(number >= 0);
        std::atomic<int> waiter{0};
        bool held = false;
        std::thread thread([&] {
            waiter = gettid();
            char byte = 0;
            held = recv(number, &byte, 1, 0) == 1;
        });
        while (waiter == 0) {
        }
        await_sleep(waiter);
        REQUIRE(send(connection.peer, "x", 1, 0) == 1);
        pause_for(round % 200 * 300);
        REQUIRE(close(number) == 0);
        thread.join();
        refused += held ? 0 : 1;
        char byte = 0;
        if (!held)
            REQUIRE(recv(connection.ours, &byte, 1, 0) == 1);
    }
    std::printf("%d of %d refused\n", refused, rounds);
    return refused == 0 ? 0 : 1;
}
