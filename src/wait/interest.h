// What an epoll set knows of each descriptor that was added to it. See epoll_set.h for what it is used for.
#pragma once

#include <cstddef>
#include <cstdint>

namespace loopfast {

struct Interest {
    /// A descriptor that means the stream: the entry's own number, `fd`, may be closed.
    int open(int fd) const { return via != 0 ? via - 1 : fd; }

    uint32_t slot;
    uint32_t generation;
    uint32_t events;  ///< as epoll_ctl was given them
    uint64_t data;
    uint64_t seen_position;   ///< edge-triggered: what was reported already
    uint64_t seen_in_kernel;  ///< the same for bytes that came over the kernel lane
    uint64_t seen_order;      ///< up to which the kernel was asked first, see stream/order.h
    uint32_t seen_full;
    int via;           ///< 0, or a duplicate plus one: the entry's own descriptor was closed
    uint32_t entered;  ///< kernel_waits_ when the kernel's set was told of it
    uint32_t seen_ended;
    uint32_t told;       ///< the last round of scans that reported it
    uint32_t hot_index;  ///< place in the hot list plus one; 0: cold, or not managed
    uint16_t quiet;      ///< scans without an event
    bool used : 1;
    bool stream : 1;      ///< a stream, fused or not
    bool managed : 1;     ///< in our hands; else in the kernel's set E
    bool disabled : 1;    ///< a one-shot that fired
    bool edge : 1;        ///< an edge is due whatever the positions say
    bool edge_due : 1;    ///< one of a call under way, unless the kernel told of it first
    bool registered : 1;  ///< link and kernel socket are in H
    bool had_room : 1;    ///< when it was registered: the first event says so, and that is no news
    /// The program took it out. Link and kernel socket stay registered until the stream is closed: event
    /// loops take a descriptor out and put it back at every request.
    bool dormant : 1;
    bool listed : 1;  ///< on the kernel's list of what is ready, were it there: it was reported last time
    bool owed : 1;    ///< it belongs to E again, which had no memory for it: see give_to_kernel
};

/// Interest by descriptor number, in blocks made at the first use.
class InterestTable {
public:
    Interest* find(int fd) const {
        const auto block = static_cast<uint32_t>(fd) / kBlock;
        if (fd < 0 || blocks_ == nullptr || block >= kBlocks || blocks_[block] == nullptr)
            return nullptr;
        return &blocks_[block][static_cast<uint32_t>(fd) % kBlock];
    }
    Interest* make(int fd);
    void release();
    template <typename Visit> void each(Visit visit) const {
        for (uint32_t block = 0; block < blocks_end_; ++block)
            for (uint32_t i = 0; blocks_[block] != nullptr && i < kBlock; ++i)
                if (blocks_[block][i].used)
                    visit(static_cast<int>(block * kBlock + i), blocks_[block][i]);
    }

private:
    static constexpr uint32_t kBlock = 64;
    static constexpr uint32_t kBlocks = 16384;
    Interest** blocks_ = nullptr;
    uint32_t blocks_end_ = 0;  ///< above every block that was made
};

/// The entries of a set in the kernel, as /proc tells of them: `visit` is given `argument` and, of each, the
/// descriptor's number, the events and the data. @return false when the kernel does not say.
using EntryVisit = void (*)(void* argument, int fd, uint32_t events, uint64_t data);
bool each_entry_in_kernel(int set_fd, EntryVisit visit, void* argument);

/// What a set in the kernel still waits for on `fd`: a one-shot that fired has nothing left of its interest.
/// The kernel says so in /proc only. @return epoll bits, or -1 when it does not say.
long interest_in_kernel(int set_fd, int fd);

/// Whether every call by which this process can itself make the descriptor ready is noted (base/own_calls.h):
/// pipes, sockets, and those that are written to. Signals, changed files or what a ring of the kernel's
/// completes come in other ways.
bool made_ready_by_noted_calls(int fd);

/// Zeroed memory, without malloc; nullptr when there is none. Given back with munmap.
void* zeroed_pages(size_t size);

}  // namespace loopfast
