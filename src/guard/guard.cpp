// See guard.h.
#include "guard/guard.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/failure.h"
#include "guard/publisher.h"
#include "guard/watcher.h"

namespace loopfast::guard {

namespace {

volatile sig_atomic_t asked_to_end = 0;

/// Tells systemd that we are ready; nothing where there is none (sd_notify(3)).
void notify_ready() {
    const char* const path = getenv("NOTIFY_SOCKET");
    sockaddr_un address{};
    if (path == nullptr || strlen(path) >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = 0;
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    constexpr char kReady[] = "READY=1";
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + strlen(path));
    static_cast<void>(sendto(fd, kReady, sizeof kReady - 1, MSG_NOSIGNAL,
                             reinterpret_cast<const sockaddr*>(&address), size));
    close(fd);
}

void say(const State& state) {
    for (uint32_t i = 0; i < state.everywhere.count; ++i)
        fmt::print("forbids: {}\n", state.everywhere.list[i].text);
    if (state.everywhere.more != 0)
        fmt::print("forbids: {} more\n", state.everywhere.more);
    if (!state.cgroups.empty())
        fmt::print("forbids in {} control groups: {}\n", state.cgroups.size(), state.cgroup_objection.text);
    if (!state.everywhere.any() && state.cgroups.empty())
        fmt::print("nothing forbids the fast path\n");
    for (uint32_t kind = 1; kind < 32; ++kind)
        if ((state.unseen & 1U << kind) != 0)
            fmt::print("not permitted to look at: {}\n", kind_name(static_cast<Kind>(kind)));
    fflush(stdout);
}

}  // namespace

int run(const GuardOptions& options) {
    if (geteuid() != 0)
        throw cli::Failure(cli::kFailed, "the guard must be root, or nobody would believe it");
    struct sigaction action {};
    action.sa_handler = [](int) { asked_to_end = 1; };
    // Open only inside ppoll(): none is missed.
    sigset_t ends;
    sigset_t before;
    sigemptyset(&ends);
    for (const int number : {SIGTERM, SIGINT}) {
        sigaction(number, &action, nullptr);
        sigaddset(&ends, number);
    }
    sigprocmask(SIG_BLOCK, &ends, &before);
    signal(SIGPIPE, SIG_IGN);

    Watcher watcher;
    Publisher publisher;
    watcher.look({});
    State state = watcher.state();
    publisher.publish(state);
    if (!publisher.warning().empty())
        fmt::print(stderr, "loopfast guard: {}\n", publisher.warning());
    if (!options.quiet)
        say(state);
    notify_ready();
    while (asked_to_end == 0) {
        auto sources = watcher.sources();
        sources.push_back({publisher.listener(), POLLIN, 0});  // poll ignores -1
        timespec storage{};
        if (ppoll(sources.data(), sources.size(), as_timespec(watcher.until_due(), storage), &before) < 0 &&
            errno != EINTR)
            throw cli::Failure(cli::kFailed, fmt::format("poll: {}", strerror(errno)));
        publisher.beat();
        if (sources.back().revents != 0)
            publisher.answer();
        sources.pop_back();
        watcher.look(sources);
        const State now = watcher.state();
        if (now.same_as(state))
            continue;
        const bool news = !now.says_the_same_as(state);
        state = now;
        publisher.publish(state);
        if (news && !options.quiet)
            say(state);
    }
    return 0;
}

}  // namespace loopfast::guard
