// `loopfast demo`: what loopfast gives on this machine, measured with two processes of our own over TCP.
// Kernel lane and ring lane alternate, so that whatever else the machine does disturbs both alike.
#pragma once

#include <string>
#include <vector>

namespace loopfast::cli {

struct DemoOptions {
    int rounds = 5;
    double seconds = 0.5;  ///< of each measurement
    bool json = false;
};

int demo(const DemoOptions& options);

}  // namespace loopfast::cli
