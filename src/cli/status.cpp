// See status.h.
#include "cli/status.h"

#include <cerrno>
#include <csignal>

#include <fmt/format.h>

#include "cli/connections.h"
#include "cli/failure.h"
#include "cli/processes.h"
#include "cli/status_report.h"

namespace loopfast::cli {

int status(const StatusOptions& options) {
    const Scan scan = scan_processes(options.pid);
    if (options.pid && scan.processes.empty()) {
        if (kill(*options.pid, 0) != 0 && errno == ESRCH)
            throw Failure(kFailed, fmt::format("there is no process {}", *options.pid));
        throw Failure(
            kFailed,
            scan.unreadable > 0
                ? fmt::format("{}. {}", unreadable(*options.pid).text, unreadable(*options.pid).advice)
                : fmt::format("process {} does not have loopfast; start it with `loopfast run`",
                              *options.pid));
    }
    std::vector<ProcessStatus> processes;
    for (const LoopfastProcess& process : scan.processes)
        processes.push_back(read_connections(process));
    if (options.json) {
        fmt::print("{}\n", status_json(processes).dump(2));
    } else if (processes.empty()) {
        fmt::print("No process{} has loopfast in it.\n",
                   scan.unreadable > 0 ? " that this user may inspect" : "");
    } else {
        fmt::print("{}", status_table(processes));
    }
    return 0;
}

}  // namespace loopfast::cli
