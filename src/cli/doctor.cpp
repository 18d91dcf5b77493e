// See doctor.h. Each check tries the thing itself where that can be tried, and otherwise reads what the
// kernel says about it.
#include "cli/doctor.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file_size.h"
#include "cli/config.h"
#include "cli/failure.h"
#include "cli/processes.h"
#include "cli/program.h"
#include "filters/inspect.h"
#include "guard/watcher.h"
#include "policy/guard_view.h"
#include "segment/segment.h"
#include "table/arena.h"
#include "version.h"

namespace loopfast::cli {

namespace {

enum class Verdict { kGood, kNote, kForbids };

struct Check {
    std::string name;
    Verdict verdict;
    std::string text;
    std::string advice;  ///< what to do, where there is something to do
};

const char* word_for(Verdict verdict) {
    switch (verdict) {
    case Verdict::kGood:
        return "ok";
    case Verdict::kNote:
        return "note";
    default:
        return "forbids";
    }
}

class Doctor {
public:
    explicit Doctor(const DoctorOptions& options) : options_(options) {
        process_ = options.pid ? fmt::format("/proc/{}", *options.pid) : "/proc/self";
    }

    /// After examine(): the process could not be inspected.
    bool blind() const { return blind_; }

    std::vector<Check> examine() {
        versions();
        // What is the process's own is looked at before we go where it lives.
        limits();
        addresses();
        file_size();
        seccomp();
        processors();
        configuration();
        namespaces();
        if (enter_network()) {
            abstract_sockets();
            identity();
            filters();
        }
        memory();
        return std::move(checks_);
    }

private:
    void good(const char* name, const std::string& text) {
        checks_.push_back({name, Verdict::kGood, text, ""});
    }
    void note(const char* name, const std::string& text, const std::string& advice) {
        checks_.push_back({name, Verdict::kNote, text, advice});
    }
    void forbids(const char* name, const std::string& text, const std::string& advice) {
        checks_.push_back({name, Verdict::kForbids, text, advice});
    }

    /// The value of one line of the process's /proc/PID/status.
    std::string status_of(const std::string& field) const {
        std::ifstream file(process_ + "/status");
        for (std::string line; std::getline(file, line);)
            if (line.rfind(field + ":", 0) == 0)
                return line.substr(line.find_first_not_of(" \t", field.size() + 1));
        return "";
    }

    void versions() {
        utsname system{};
        uname(&system);
        char* rest = nullptr;
        const long major = strtol(system.release, &rest, 10);
        const long minor = *rest == '.' ? strtol(rest + 1, nullptr, 10) : 0;
        if (major < 5 || (major == 5 && minor < 14))
            forbids("kernel", fmt::format("Linux {}", system.release),
                    "Linux 5.14 or later is needed: earlier ones do not name network namespaces.");
        else
            good("kernel", fmt::format("Linux {}, {}", system.release, system.machine));
        try {
            good("library", fmt::format("loopfast {}, {}", LOOPFAST_VERSION, find_library()));
        } catch (const Failure& failure) {
            forbids("library", failure.what(),
                    "Install loopfast, or name the library with LOOPFAST_LIBRARY.");
        }
        if (options_.pid) {
            const Scan scan = scan_processes(options_.pid);
            if (!scan.processes.empty())
                good("process", fmt::format("{} has loopfast and has used it", scan.processes[0].program));
            else if ((blind_ = scan.unreadable != 0))
                note("process", unreadable(*options_.pid).text, unreadable(*options_.pid).advice);
            else
                note("process", fmt::format("process {} has no connection that ever opted in", *options_.pid),
                     "Start it with `loopfast run`, or opt sockets in (loopfast.h).");
        }
    }

    void limits() {
        rlimit files{};
        if (prlimit(options_.pid.value_or(0), RLIMIT_NOFILE, nullptr, &files) != 0)
            return note("descriptors", fmt::format("the limit cannot be read: {}", strerror(errno)), "");
        const auto text = fmt::format("limit {} (hard {})", files.rlim_cur, files.rlim_max);
        // One hidden descriptor for each fused connection, above the soft limit where there is room; else out
        // of the last quarter of the program's own (base/hidden.cpp).
        constexpr rlim_t kRoom = 65536;
        const rlim_t base = std::min(files.rlim_cur, kRoom);
        if (files.rlim_cur >= base + kRoom || files.rlim_max >= base + kRoom || may_raise_limits())
            return good("descriptors", text);
        const auto advice =
            fmt::format("Raise the hard limit for more (LimitNOFILE={}:{}).", files.rlim_cur, base + kRoom);
        if (files.rlim_max > files.rlim_cur)
            return note("descriptors",
                        fmt::format("{}: at most {} connections of a process can be fused, more stay on the "
                                    "kernel lane (limit)",
                                    text, files.rlim_max - base),
                        advice);
        note("descriptors",
             fmt::format(
                 "{}: each fused connection takes one of the program's own numbers. At most {} of a "
                 "process can be fused, more stay on the kernel lane (limit), and the program can then "
                 "open {} descriptors instead of {}",
                 text, base / 4, files.rlim_cur - base / 4, files.rlim_cur),
             advice);
    }

    /// What the library maps is hardly memory, but it is addresses.
    void addresses() {
        rlimit space{};
        if (prlimit(options_.pid.value_or(0), RLIMIT_AS, nullptr, &space) != 0)
            return note("address space", fmt::format("the limit cannot be read: {}", strerror(errno)), "");
        if (space.rlim_cur == RLIM_INFINITY)
            return good("address space", "not limited");
        note("address space",
             fmt::format(
                 "limited to {} MiB: the library takes 50 MiB of it once and 8 MiB for each end of a fused "
                 "connection, and keeps them; so much less is left to the program",
                 space.rlim_cur >> 20),
             "Raise the limit (ulimit -v, LimitAS=), or keep a program out that needs all of it.");
    }

    /// The limit on the size of files counts for shared memory, too.
    void file_size() {
        rlimit size{};
        if (prlimit(options_.pid.value_or(0), RLIMIT_FSIZE, nullptr, &size) != 0)
            return;
        const uint64_t least = std::max<uint64_t>(arena_size(), segment_size(kDefaultCapacity));
        if (size.rlim_cur >= least)
            return;
        forbids("file size",
                fmt::format("limited to {} bytes, and shared memory of {} is needed", size.rlim_cur, least),
                fmt::format("Raise it (LimitFSIZE={}, or ulimit -f {}).", least, (least + 1023) / 1024));
    }

    /// Whether the process may raise its hard limits, as the library then does: CAP_SYS_RESOURCE in the first
    /// user namespace.
    bool may_raise_limits() const {
        constexpr uint64_t kSysResource = uint64_t{1} << 24;
        std::ifstream map(process_ + "/uid_map");
        std::string ids;
        getline(map, ids);
        return (strtoull(status_of("CapEff").c_str(), nullptr, 16) & kSysResource) != 0 &&
               ids.find("4294967295") != std::string::npos;
    }

    void seccomp() {
        const std::string mode = status_of("Seccomp");
        if (mode == "2")
            note("seccomp", "system calls are filtered",
                 "It must allow memfd_create, AF_UNIX and netlink sockets, and epoll; what follows has tried "
                 "them.");
        else if (mode == "1")
            forbids("seccomp", "strict mode", "No socket can be made there.");
        else
            good("seccomp", mode.empty() ? "cannot be read" : "none");
    }

    void processors() {
        cpu_set_t set;
        CPU_ZERO(&set);
        const int count =
            sched_getaffinity(options_.pid.value_or(0), sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
        if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
            note("processors", "one: waits never spin",
                 "Small messages gain less; throughput gains all the same.");
        else
            good("processors", fmt::format("{} of {} usable", count, sysconf(_SC_NPROCESSORS_ONLN)));
    }

    void configuration() {
        const char* const named = getenv("LOOPFAST_CONFIG");
        const std::string file = named != nullptr && *named != 0 ? named : default_config_file();
        if (file.empty())
            return good("configuration", "none, defaults hold");
        try {
            assume_ = read_config(file).assume.value_or(assume_);
            good("configuration", file);
        } catch (const Failure& failure) {
            forbids("configuration", failure.what(), "`loopfast run` will not start with it.");
        }
    }

    void namespaces() {
        const auto name = [](const std::string& process, const char* kind) {
            char text[64] = "";
            const ssize_t size =
                readlink(fmt::format("{}/ns/{}", process, kind).c_str(), text, sizeof text - 1);
            return size > 0 ? std::string(text, static_cast<size_t>(size)) : "";
        };
        std::string text;
        for (const char* const kind : {"net", "user", "pid"}) {
            const std::string own = name(process_, kind);
            const std::string first = name("/proc/1", kind);
            text += fmt::format(
                "{}{}{}", text.empty() ? "" : ", ", own.empty() ? std::string(kind) + " unknown" : own,
                own.empty() || first.empty() || own == first ? "" : " (not that of process 1)");
        }
        // A fact, and the answer to "why not with that other one".
        good("namespaces", text + "; only processes of the same network namespace can be fused");
    }

    /// To where the process lives, whose packets it is about.
    bool enter_network() {
        if (!options_.pid)
            return true;
        struct stat theirs {};
        struct stat own {};
        const std::string path = process_ + "/ns/net";
        if (stat(path.c_str(), &theirs) == 0 && stat("/proc/self/ns/net", &own) == 0 &&
            theirs.st_ino == own.st_ino)
            return true;
        const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        const bool entered = fd >= 0 && setns(fd, CLONE_NEWNET) == 0;
        if (!entered)
            note("filters", fmt::format("its network namespace cannot be entered: {}", strerror(errno)),
                 "Ask as root.");
        if (fd >= 0)
            close(fd);
        return entered;
    }

    void abstract_sockets() {
        const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        const std::string name = fmt::format("loopfast/doctor/{}", getpid());
        std::copy(name.begin(), name.end(), address.sun_path + 1);
        const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
        const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
        if (listener >= 0 && bind(listener, generic, size) == 0 && listen(listener, 1) == 0 &&
            connect(other, generic, size) == 0)
            good("abstract sockets", "work");
        else
            forbids(
                "abstract sockets", fmt::format("cannot be used: {}", strerror(errno)),
                "A sandbox (Landlock, SELinux, AppArmor, RestrictAddressFamilies=) forbids the two ends to "
                "meet: allow AF_UNIX.");
        close(listener);
        close(other);
    }

    void identity() {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int diagnosis = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
        if (fd < 0)
            forbids("sockets", fmt::format("TCP sockets cannot be made: {}", strerror(errno)), "");
        else if (diagnosis < 0)
            forbids("identity",
                    fmt::format("the kernel cannot be asked who owns a socket: {}", strerror(errno)),
                    "A sandbox forbids netlink: allow AF_NETLINK.");
        else if ((cookie_ = namespace_of(fd)) == 0)
            forbids("identity", "the kernel does not name network namespaces",
                    "Linux 5.14 or later is needed.");
        else
            good("identity", "sock_diag answers, the namespace has a cookie");
        close(fd);
        close(diagnosis);
    }

    void memory() {
        const int fd = memfd_create("loopfast-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        const int sized = fd < 0 ? 0 : set_file_size(fd, 4096);
        if (sized < 0)
            errno = -sized;
        if (fd < 0 || sized < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0)
            forbids("shared memory", fmt::format("memfd_create: {}", strerror(errno)), "");
        else
            good("shared memory", "sealed memfds can be had");
        close(fd);
    }

    void filters() {
        int error;
        const GuardPage* const page = map_guard(cookie_, nullptr, error);
        guard::State state;
        const bool guarded = page != nullptr && read_guard(*page, state.everywhere);
        if (guarded) {
            good("guard", fmt::format("at work, process {}", page->pid));
            state.unseen = page->unseen;
        } else {
            state = guard::look_once();
        }
        const uint32_t unseen = state.unseen;
        for (uint32_t i = 0; i < state.everywhere.count; ++i)
            objection(state.everywhere.list[i]);
        if (state.everywhere.more != 0)
            forbids("filters", fmt::format("and {} more", state.everywhere.more), "");
        const bool by_group = group_is_forbidden(guarded ? page : nullptr, state);
        std::string hidden;
        for (uint32_t kind = 1; kind < 32; ++kind)
            if ((unseen & 1U << kind) != 0)
                hidden += fmt::format("{}{}", hidden.empty() ? "" : ", ", kind_name(static_cast<Kind>(kind)));
        if (!state.everywhere.any() && !by_group && hidden.empty())
            good("filters", "nothing looks at loopback packets");
        if (!guarded && !hidden.empty()) {
            const char* const said = getenv("LOOPFAST_ASSUME");
            const bool strict = (said != nullptr && *said != 0 ? said : assume_) == "strict";
            const auto text = fmt::format("this user may not ask about: {}; no guard runs", hidden);
            const char* const advice = "Run `loopfast guard` as root (loopfast-guard.service).";
            if (strict)
                forbids("filters", text + "; assume = \"strict\"", advice);
            else
                note("filters", text + "; it is assumed that there is nothing", advice);
        } else if (!hidden.empty()) {
            note("filters", fmt::format("the guard may not ask about: {}", hidden),
                 "It needs CAP_NET_ADMIN and CAP_BPF of the host.");
        }
        if (!guarded && hidden.empty())
            note("guard", "none is at work here",
                 "Programs without privileges see captures only; `loopfast guard` tells them the rest.");
    }

    void objection(const Objection& objection) {
        const char* advice = "";
        switch (objection.kind) {
        case Kind::kNftables:
        case Kind::kIptables:
            advice = "Let established connections over lo pass before such a rule (nftables: `ct state "
                     "established "
                     "accept`, without a counter), or limit it to other devices or to new connections.";
            break;
        case Kind::kTrafficControl:
            advice = objection.text == std::string_view("device: lo is down")
                         ? "`ip link set lo up`: until then no packet goes through it."
                         : "`tc qdisc show dev lo`, `tc filter show dev lo ingress`, `bpftool net` show it.";
            break;
        case Kind::kXdp:
            advice = "`ip link show lo` and `bpftool net` show it.";
            break;
        case Kind::kCapture:
            advice = "The fast path is there again for new connections when the capture has ended.";
            break;
        case Kind::kIpsec:
            advice = "`ip xfrm policy` shows it.";
            break;
        case Kind::kCgroup:
            advice =
                "`bpftool cgroup tree` shows it; systemd's IPAddressAllow=, IPAddressDeny= and IPAccounting= "
                "are such programs.";
            break;
        default:
            break;
        }
        forbids("filters", objection.text, advice);
    }

    /// The process's own control group, by its directory.
    bool group_is_forbidden(const GuardPage* page, const guard::State& state) {
        std::ifstream file(process_ + "/cgroup");
        std::string path;
        for (std::string line; std::getline(file, line);)
            if (line.rfind("0::", 0) == 0)
                path = line.substr(3);
        for (const char* const root : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
            struct stat status {};
            if (path.empty() || stat((root + path).c_str(), &status) != 0)
                continue;
            Objection found{};
            if (page != nullptr) {
                const GuardState read = read_guard(*page, status.st_ino);
                if (page->count == 0 && read.objects)
                    found = read.objection;
            } else if (std::binary_search(state.cgroups.begin(), state.cgroups.end(), status.st_ino)) {
                found = state.cgroup_objection;
            }
            if (found.kind == Kind::kNone)
                return false;
            objection(found);
            return true;
        }
        return false;
    }

    const DoctorOptions& options_;
    bool blind_ = false;
    std::string process_;
    uint64_t cookie_ = 0;
    std::string assume_ = "fuse";  ///< what the configuration file says
    std::vector<Check> checks_;
};

}  // namespace

int doctor(const DoctorOptions& options) {
    if (options.pid && kill(*options.pid, 0) != 0 && errno == ESRCH)
        throw Failure(kFailed, fmt::format("there is no process {}", *options.pid));
    Doctor examiner(options);
    const std::vector<Check> checks = examiner.examine();
    const bool forbidden = std::any_of(checks.begin(), checks.end(),
                                       [](const Check& check) { return check.verdict == Verdict::kForbids; });
    if (options.json) {
        nlohmann::json list = nlohmann::json::array();
        for (const Check& check : checks)
            list.push_back(
                {{"name", check.name},
                 {"verdict", word_for(check.verdict)},
                 {"text", check.text},
                 {"advice", check.advice.empty() ? nlohmann::json() : nlohmann::json(check.advice)}});
        fmt::print(
            "{}\n",
            nlohmann::json{{"fast_path", forbidden ? "forbidden" : "possible"}, {"checks", list}}.dump(2));
    } else {
        for (const Check& check : checks) {
            fmt::print("{:<8} {:<17} {}\n", word_for(check.verdict), check.name, check.text);
            if (!check.advice.empty())
                fmt::print("{:27}{}\n", "", check.advice);
        }
        if (forbidden)
            fmt::print("The fast path is forbidden here.\n");
        else if (examiner.blind())
            fmt::print(
                "The fast path is possible here, as far as this can be told without a look into process "
                "{}.\n",
                *options.pid);
        else
            fmt::print("The fast path is possible here.\n");
    }
    return forbidden ? kFailed : 0;
}

}  // namespace loopfast::cli
