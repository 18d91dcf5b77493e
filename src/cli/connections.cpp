// See connections.h. Nothing that is read is trusted: a number is an index only after it was compared with
// its bound, and an address is only ever given back to the kernel, which reads that process's memory.
#include "cli/connections.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>

#include <fmt/format.h>

#include "policy/reason.h"
#include "table/table.h"

namespace loopfast::cli {

namespace {

/// Room for a T of another process. Such a T is only looked at, never constructed or destroyed: its
/// pointers mean nothing here.
template <class T> class Foreign {
public:
    bool read(pid_t pid, uint64_t address) {
        iovec here{bytes_, sizeof(T)};
        iovec there{reinterpret_cast<void*>(address), sizeof(T)};  // NOLINT: an address over there
        return process_vm_readv(pid, &here, 1, &there, 1, 0) == static_cast<ssize_t>(sizeof(T));
    }
    const T& operator*() const { return *reinterpret_cast<const T*>(bytes_); }
    const T* operator->() const { return &**this; }

private:
    alignas(T) std::byte bytes_[sizeof(T)]{};
};

std::string format_endpoint(const Endpoint& endpoint) {
    char text[INET6_ADDRSTRLEN] = "";
    if (endpoint.family != AF_INET && endpoint.family != AF_INET6)
        return "-";
    inet_ntop(endpoint.family, endpoint.ip, text, sizeof text);
    const unsigned port = ntohs(endpoint.port);
    return endpoint.family == AF_INET6 ? fmt::format("[{}]:{}", text, port)
                                       : fmt::format("{}:{}", text, port);
}

/// The table of one process.
class Table {
public:
    explicit Table(const LoopfastProcess& process) : pid_(process.pid) {
        const auto first = std::find_if(process.mappings.begin(), process.mappings.end(),
                                        [](const ArenaMapping& mapping) { return mapping.offset == 0; });
        if (first != process.mappings.end())
            address_ = first->address;
    }

    /// @return what is wrong with it, or an empty string.
    std::string open() {
        if (address_ == 0)
            return "no table";
        if (!header_->read(pid_, address_))
            return errno == EPERM ? "not permitted to read its memory" : "its memory cannot be read";
        const ArenaHeader& header = **header_;
        if (header.magic != kArenaMagic)
            return "starting";
        if (header.version != kArenaVersion || header.shared_size != sizeof(SharedHalf) ||
            header.stream_size != sizeof(Stream) || header.slots > kSlots)
            return "other version of the library";
        return "";
    }

    /// The connection behind a descriptor. @return false if there is none, or it was listed already.
    bool read(int fd, ConnectionStatus& status) {
        const ArenaHeader& header = **header_;
        Foreign<uint64_t> packed;
        if (static_cast<uint32_t>(fd) >= header.descriptors ||
            !packed.read(pid_, header.table_address + static_cast<uint64_t>(fd) * sizeof(uint64_t)))
            return false;
        const TableEntry entry(*packed);
        if (entry.kind() != EntryKind::kStream || entry.index() >= header.slots)
            return false;
        if (!shared_->read(pid_, address_ + kArenaHeaderSize + uint64_t{entry.index()} * sizeof(SharedHalf)))
            return false;
        const SharedHalf& shared = **shared_;
        if (shared.generation != entry.generation() || shared.state == State::kFree ||
            shared.state == State::kIdle || !seen_.insert(entry.index()).second)
            return false;
        status.fd = fd;
        fill(shared, status);
        add_ring(header.streams_address + uint64_t{entry.index()} * sizeof(Stream), entry, status);
        return true;
    }

private:
    /// One of the process's texts; anything may stand there, and it goes to a terminal.
    std::string objection_text(uint32_t number) {
        Foreign<ObjectionTexts>& texts = *texts_;
        if (number == 0 || number > kObjectionTexts || !texts.read(pid_, (*header_)->objections_address))
            return "";
        std::string text((*texts)[number - 1], strnlen((*texts)[number - 1], kObjectionTextSize));
        std::replace_if(
            text.begin(), text.end(), [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
        return text;
    }

    void fill(const SharedHalf& shared, ConnectionStatus& status) {
        const auto role = static_cast<Role>(shared.role.load());
        const bool ring = shared.out_lane == Lane::kRing && shared.in_lane == Lane::kRing &&
                          shared.state != State::kKernel && shared.peer_left == 0;
        const auto reason = static_cast<int>(shared.reason.load());
        status.local = format_endpoint(shared.local);
        status.peer = format_endpoint(shared.remote);
        status.role = role == Role::kConnector ? "connector" : role == Role::kAcceptor ? "acceptor" : "-";
        status.lane = ring ? "ring" : "kernel";
        if (!ring && reason != LOOPFAST_REASON_NONE)
            status.reason = reason_name(reason);
        else if (shared.state == State::kCandidate || shared.state == State::kOffered)
            status.reason = reason_name(LOOPFAST_REASON_BELOW_THRESHOLD);
        const uint32_t objection = shared.objection;
        if (!ring && (reason == LOOPFAST_REASON_FILTER || reason == LOOPFAST_REASON_CAPTURE ||
                      reason == LOOPFAST_REASON_POLICY))
            status.objection = objection_text(objection);
        status.bytes_sent = shared.kernel_out;
        status.bytes_received = shared.kernel_in;
        status.messages_sent = shared.counters.messages_out;
        status.messages_received = shared.counters.messages_in;
        status.bells = shared.counters.bells;
        status.sleeps = shared.counters.sleeps;
    }

    /// What went through the ring: its cursors count from the ring's first byte. They are in memory that
    /// the peer can write too; a figure that is printed can do no harm.
    void add_ring(uint64_t stream_address, TableEntry entry, ConnectionStatus& status) {
        Foreign<Stream>& stream = *stream_;
        Foreign<Segment>& segment = *segment_;
        if (!stream.read(pid_, stream_address) || stream->generation != entry.generation() ||
            stream->segment.segment == nullptr ||
            !segment.read(pid_, reinterpret_cast<uint64_t>(stream->segment.segment)))
            return;
        const int side = stream->side();
        const auto& out = segment->direction[side];
        const auto& in = segment->direction[1 - side];
        status.bytes_sent += out.producer.head.load(std::memory_order_relaxed).harmless();
        status.bytes_received += in.consumer.tail.load(std::memory_order_relaxed).harmless();
    }

    pid_t pid_;
    uint64_t address_ = 0;
    std::set<uint32_t> seen_;  ///< slots, since duplicates of a descriptor are one connection
    std::unique_ptr<Foreign<ArenaHeader>> header_ = std::make_unique<Foreign<ArenaHeader>>();
    std::unique_ptr<Foreign<SharedHalf>> shared_ = std::make_unique<Foreign<SharedHalf>>();
    std::unique_ptr<Foreign<Stream>> stream_ = std::make_unique<Foreign<Stream>>();
    std::unique_ptr<Foreign<ObjectionTexts>> texts_ = std::make_unique<Foreign<ObjectionTexts>>();
    std::unique_ptr<Foreign<Segment>> segment_ = std::make_unique<Foreign<Segment>>();
};

}  // namespace

std::vector<int> open_descriptors(pid_t pid) {
    std::vector<int> descriptors;
    DIR* directory = opendir(fmt::format("/proc/{}/fd", pid).c_str());
    if (directory == nullptr)
        return descriptors;
    while (const dirent* entry = readdir(directory))
        if (entry->d_name[0] != '.')
            descriptors.push_back(static_cast<int>(strtol(entry->d_name, nullptr, 10)));
    closedir(directory);
    std::sort(descriptors.begin(), descriptors.end());
    return descriptors;
}

ProcessStatus read_connections(const LoopfastProcess& process) {
    ProcessStatus status{.pid = process.pid, .program = process.program, .note = {}, .connections = {}};
    Table table(process);
    status.note = table.open();
    if (!status.note.empty())
        return status;
    for (const int fd : open_descriptors(process.pid)) {
        ConnectionStatus connection;
        if (table.read(fd, connection))
            status.connections.push_back(connection);
    }
    return status;
}

}  // namespace loopfast::cli
