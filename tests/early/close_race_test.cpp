// A thread is in a call when another one closes the descriptor, and just then what the call waits for comes.
// The call holds the file, as in the kernel: it has what it waited for, however the two fall together.
#include <poll.h>

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

/// What a call waits for, and whether it had that.
struct Way {
    const char* name;
    bool (*wait)(int fd);
    void (*end)(const Connection& connection);
    void (*prepare)(const Connection& connection);
    void (*clear)(const Connection& connection);
};

void send_byte(const Connection& connection) { REQUIRE(send(connection.peer, "x", 1, 0) == 1); }
void nothing(const Connection& /*connection*/) {}
char bytes[65536];
void take_all(int fd) {
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
    }
}
void fill(const Connection& connection) {
    while (send(connection.ours, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
    }
}

constexpr Way kWays[] = {
    {"recv",
     [](int fd) {
         char byte = 0;
         return recv(fd, &byte, 1, 0) == 1;
     },
     send_byte, nothing, [](const Connection& connection) { take_all(connection.ours); }},
    {"poll",
     [](int fd) {
         pollfd one{fd, POLLIN, 0};
         // One that looks again when it wakes goes by the number, in the kernel too.
         return poll(&one, 1, -1) == 1 && (one.revents == POLLIN || one.revents == POLLNVAL);
     },
     send_byte, nothing, [](const Connection& connection) { take_all(connection.ours); }},
    {"send", [](int fd) { return send(fd, "x", 1, 0) == 1; },
     [](const Connection& connection) { take_all(connection.peer); }, fill,
     [](const Connection& connection) { take_all(connection.peer); }}};

bool race(const Way& way, int rounds) {
    const Connection connection = connect_to_itself();
    int refused = 0;
    for (int round = 0; round < rounds; ++round) {
        way.prepare(connection);
        const int number = dup(connection.ours);
        REQUIRE(number >= 0);
        std::atomic<int> waiter{0};
        bool held = false;
        std::thread thread([&] {
            waiter = gettid();
            held = way.wait(number);
        });
        while (waiter == 0) {
        }
        await_sleep(waiter);
        way.end(connection);
        pause_for(round % 200 * 300);
        REQUIRE(close(number) == 0);
        thread.join();
        refused += held ? 0 : 1;
        way.clear(connection);
    }
    std::printf("%s: %d of %d refused\n", way.name, refused, rounds);
    return refused == 0;
}

}  // namespace

/// close_race_test ROUNDS
int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
    bool good = true;
    for (const Way& way : kWays)
        good = race(way, rounds) && good;
    return good ? 0 : 1;
}
