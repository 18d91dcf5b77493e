// A program that locks whatever it maps (mlockall with MCL_FUTURE): a connection in the ring takes the pages
// that its bytes have touched, which stay in memory, and not the 8 MiB of each end. And segments and tables
// in the maps of any program: in no core dump, as the kernel's are in none.
//
//     locked_memory_test [call|number]   through libc's mlockall, or through syscall()
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "connection.h"
#include "require.h"

namespace {

constexpr int kSkipped = 77;
constexpr int kPairs = 10;
constexpr long kMostKibForAll = 12 * 1024;  // of more than 160 MiB that are mapped

/// @return the process's resident memory in KiB.
long resident() {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with("VmRSS:"))
            return std::strtol(line.c_str() + 6, nullptr, 10);
    return -1;
}

struct Segments {
    int all = 0;
    int locked = 0;
    int in_dumps = 0;
};

/// @return what the kernel says of the segments that are mapped.
Segments segments() {
    Segments found;
    std::ifstream file("/proc/self/smaps");
    bool one = false;
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with("VmFlags:")) {
            if (line.find('-') != std::string::npos && line.find(" rw-s ") != std::string::npos)
                one = line.find("loopfast-segment") != std::string::npos;
            continue;
        }
        if (one) {
            line += ' ';
            ++found.all;
            found.locked += line.find(" lo ") != std::string::npos ? 1 : 0;
            found.in_dumps += line.find(" dd ") != std::string::npos ? 0 : 1;
        }
        one = false;
    }
    return found;
}

/// @return how much of what may be written, in mappings of more than 256 KiB, a core dump would have, in KiB.
long large_in_dumps() {
    constexpr long kLarge = 256;
    long sum = 0;
    long size = 0;
    bool writable = false;
    std::ifstream file("/proc/self/smaps");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("Size:"))
            size = std::strtol(line.c_str() + 5, nullptr, 10);
        else if (line.starts_with("VmFlags:"))
            sum += writable && size > kLarge && line.find(" dd") == std::string::npos ? size : 0;
        else if (line.find(" rw") != std::string::npos)
            writable = true;
        else if (line.find(" r-") != std::string::npos || line.find(" --") != std::string::npos)
            writable = false;
    }
    return sum;
}

/// Sends `size` bytes that have their place in them one way, and compares.
void carry(const Connection& connection, size_t size) {
    std::thread sender([&] {
        std::vector<unsigned char> bytes(size);
        for (size_t i = 0; i < size; ++i)
            bytes[i] = static_cast<unsigned char>(i * 7 + i / 251);
        for (size_t sent = 0; sent < size;) {
            const ssize_t part = send(connection.ours, bytes.data() + sent, size - sent, 0);
            REQUIRE(part > 0);
            sent += static_cast<size_t>(part);
        }
    });
    std::vector<unsigned char> got(65536);
    for (size_t at = 0; at < size;) {
        const ssize_t part = recv(connection.peer, got.data(), got.size(), 0);
        REQUIRE(part > 0);
        for (ssize_t i = 0; i < part; ++i, ++at)
            REQUIRE(got[static_cast<size_t>(i)] == static_cast<unsigned char>(at * 7 + at / 251));
    }
    sender.join();
}

void close_both(const Connection& connection) {
    close(connection.ours);
    close(connection.peer);
}

/// @return whether `act` came to its end in a child.
template <typename Act> bool in_child(Act act) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        act();
        std::_Exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return status == 0;
}

long lock(bool by_number, int flags) { return by_number ? syscall(SYS_mlockall, flags) : mlockall(flags); }

/// Segments come and go while other threads are inside of them: what is in their place is there at each
/// moment.
void close_under_receivers() {
    for (int round = 0; round < 200; ++round) {
        const Connection connection = connect_to_itself();
        std::thread receiver([&] {
            char byte = 0;
            while (recv(connection.peer, &byte, 1, MSG_DONTWAIT) != 0 && errno != EBADF &&
                   errno != ENOTSOCK) {
            }
        });
        const char text[] = "text";
        REQUIRE(send(connection.ours, text, sizeof text, 0) == sizeof text);
        close(connection.ours);
        receiver.join();
        close(connection.peer);
    }
}

}  // namespace

int main(int argc, char** argv) {
    alarm(240);
    const bool by_number = argc > 1 && std::strcmp(argv[1], "number") == 0;

    // In a process of its own: in this one, nothing of the library's is mapped before the lock.
    REQUIRE(in_child([] {
        const long before = large_in_dumps();
        close_both(connect_to_itself());
        const Connection plain = connect_to_itself();
        REQUIRE(segments().all > 0 && segments().locked == 0 && segments().in_dumps == 0);
        REQUIRE(large_in_dumps() == before);
        carry(plain, 100'000);
    }));

    if (lock(by_number, MCL_FUTURE) != 0) {
        std::perror("memory cannot be locked here");
        return kSkipped;
    }
    const long at_first = resident();
    std::vector<Connection> connections;
    for (int i = 0; i < kPairs; ++i)
        connections.push_back(connect_to_itself());
    const Segments now = segments();
    REQUIRE(now.all >= 2 * kPairs && now.locked == now.all && now.in_dumps == 0);
    const long grown = resident() - at_first;
    std::printf("%d pairs: %ld KiB more in memory, %d segments, all of them locked\n", kPairs, grown,
                now.all);
    REQUIRE(grown < kMostKibForAll);

    for (const Connection& connection : connections)
        carry(connection, 3'000'000);
    for (const Connection& connection : connections)
        close_both(connection);
    const long when_closed = resident();
    for (Connection& connection : connections)
        connection = connect_to_itself();  // in the addresses of those before
    REQUIRE(resident() - when_closed < kMostKibForAll);
    for (const Connection& connection : connections)
        carry(connection, 100'000);
    close_under_receivers();

    // A child's memory is not locked, and after munlockall nobody's.
    REQUIRE(in_child([&] {
        for (const Connection& connection : connections)
            close_both(connection);
        const Connection of_child = connect_to_itself();
        REQUIRE(segments().all > 0 && segments().locked == 0);
        carry(of_child, 100'000);
    }));
    for (const Connection& connection : connections)
        close_both(connection);
    REQUIRE((by_number ? syscall(SYS_munlockall) : munlockall()) == 0);
    const Connection after = connect_to_itself();
    REQUIRE(segments().all > 0 && segments().locked == 0);
    carry(after, 100'000);
    return 0;
}
