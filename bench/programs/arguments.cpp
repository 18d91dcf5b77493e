// arguments.cpp: see arguments.h.
#include "arguments.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "socket.h"

namespace bench {

namespace {

[[noreturn]] void usage(const char* program) {
    std::fprintf(stderr,
                 "usage: %s server [--expect any|kernel|ring]\n"
                 "       %s client --port N [--expect any|kernel|ring] [--seconds S] [--NAME NUMBER]\n",
                 program, program);
    std::exit(2);
}

}  // namespace

Arguments::Arguments(int argc, char** argv) {
    if (argc < 2 || argc % 2 != 0)
        usage(argv[0]);
    if (std::strcmp(argv[1], "server") != 0 && std::strcmp(argv[1], "client") != 0)
        usage(argv[0]);
    server_ = std::strcmp(argv[1], "server") == 0;
    for (int i = 2; i + 1 < argc; i += 2) {
        if (std::strncmp(argv[i], "--", 2) != 0)
            usage(argv[0]);
        values_[argv[i] + 2] = argv[i + 1];
    }
    if (!server_ && port() == 0)
        usage(argv[0]);
}

Lane Arguments::expected_lane() const {
    auto it = values_.find("expect");
    if (it == values_.end() || it->second == "any")
        return Lane::any;
    return it->second == "ring" ? Lane::ring : Lane::kernel;
}

double Arguments::number(const std::string& name, double fallback) const {
    auto it = values_.find(name);
    if (it == values_.end())
        return fallback;
    char* end = nullptr;
    const double value = std::strtod(it->second.c_str(), &end);
    if (end == it->second.c_str() || *end != 0)
        die(("--" + name + " is not a number: " + it->second).c_str());
    return value;
}

}  // namespace bench
