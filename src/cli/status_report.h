// What `loopfast status` prints, as a table and as JSON.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace loopfast::cli {

/// One end of one connection.
struct ConnectionStatus {
    int fd = -1;
    std::string local;  ///< "127.0.0.1:6379", "[::1]:80"
    std::string peer;
    std::string role;       ///< "connector" or "acceptor"
    std::string lane;       ///< "kernel" or "ring"
    std::string reason;     ///< "" where there is none
    std::string objection;  ///< the rule, program or capture behind the reasons filter, capture and policy
    uint64_t bytes_sent = 0;
    uint64_t bytes_received = 0;
    uint64_t messages_sent = 0;
    uint64_t messages_received = 0;
    uint64_t bells = 0;   ///< times it woke its peer
    uint64_t sleeps = 0;  ///< times it slept
};

struct ProcessStatus {
    pid_t pid = 0;
    std::string program;
    std::string note;  ///< why there are no connections to show, or empty
    std::vector<ConnectionStatus> connections;
};

std::string status_table(const std::vector<ProcessStatus>& processes);
nlohmann::json status_json(const std::vector<ProcessStatus>& processes);

}  // namespace loopfast::cli
