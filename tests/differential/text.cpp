// What traces are made of: names, bytes, patterns; and the count of SIGPIPE.
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "script.h"

namespace differential {

namespace {

thread_local int sigpipes = 0;  // the kernel sends it to the thread whose call failed

int64_t milliseconds_now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1'000'000;
}

}  // namespace

bool await(const std::function<bool()>& condition, int milliseconds) {
    const int64_t end = milliseconds_now() + milliseconds;
    for (int round = 0;; ++round) {
        if (condition())
            return true;
        // So many looks at least: a machine that lets us look only now and then lets the others do nothing
        // either.
        if (milliseconds_now() >= end && round >= milliseconds / 10)
            return false;
        const timespec pause{0, round < 20 ? 50'000 : 1'000'000};
        nanosleep(&pause, nullptr);
    }
}

std::string error_name(int error) {
    const char* const name = strerrorname_np(error);
    return name != nullptr ? name : std::to_string(error);
}

std::string shown(std::string_view bytes) {
    if (bytes.size() <= 40) {
        std::string text = "\"";
        for (const char c : bytes)
            text +=
                c >= ' ' && c <= '~' ? std::string(1, c) : format("\\x%02x", static_cast<unsigned char>(c));
        return text + "\"";
    }
    uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
    for (const char c : bytes)
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return format("%zu bytes #%016llx", bytes.size(), static_cast<unsigned long long>(hash));
}

std::string pattern(size_t size, unsigned seed) {
    std::string bytes(size, '\0');
    uint64_t state = seed * 0x9e3779b97f4a7c15U + 1;
    for (size_t i = 0; i < size; ++i) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[i] = static_cast<char>('a' + state % 26);
    }
    return bytes;
}

std::string format(const char* text, ...) {
    char buffer[1024];
    va_list list;
    va_start(list, text);
    vsnprintf(buffer, sizeof buffer, text, list);
    va_end(list);
    return buffer;
}

int count_of_sigpipe() { return sigpipes; }

void count_sigpipe() {
    struct sigaction action {};
    action.sa_handler = [](int) { ++sigpipes; };
    action.sa_flags = SA_RESTART;  // it must not be a handler that interrupts calls
    sigaction(SIGPIPE, &action, nullptr);
}

}  // namespace differential
