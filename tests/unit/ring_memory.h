// A ring for tests: one direction's words and data in a memfd of its own, with pages around it that must
// not be touched, and bytes whose value follows from their position in the stream.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "segment/ring.h"

namespace loopfast {

/// The byte at position `p` of every stream in these tests.
inline unsigned char byte_at(uint64_t p) {
    return static_cast<unsigned char>((p * 0x9e3779b97f4a7c15ULL) >> 56);
}

inline std::vector<unsigned char> bytes_at(uint64_t position, size_t size) {
    std::vector<unsigned char> bytes(size);
    for (size_t i = 0; i < size; ++i)
        bytes[i] = byte_at(position + i);
    return bytes;
}

/// The first place where `bytes` are not those of `position` on, or `size`.
inline size_t first_wrong(const unsigned char* bytes, uint64_t position, size_t size) {
    for (size_t i = 0; i < size; ++i)
        if (bytes[i] != byte_at(position + i))
            return i;
    return size;
}

class RingMemory {
public:
    static constexpr size_t kGuard = 1 << 20;

    explicit RingMemory(uint64_t capacity) : capacity_(capacity) {
        fd_ = static_cast<int>(memfd_create("ring-test", MFD_CLOEXEC));
        if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(capacity)) != 0)
            abort();
        void* const reserved = mmap(nullptr, capacity + 2 * kGuard, PROT_NONE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (reserved == MAP_FAILED)
            abort();
        data_ = static_cast<unsigned char*>(reserved) + kGuard;
        if (mmap(data_, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd_, 0) == MAP_FAILED)
            abort();
    }
    ~RingMemory() {
        munmap(data_ - kGuard, capacity_ + 2 * kGuard);
        close(fd_);
    }
    RingMemory(const RingMemory&) = delete;
    RingMemory& operator=(const RingMemory&) = delete;

    RingWriter writer() { return {direction, producer, data_, capacity_}; }
    RingReader reader() { return {direction, consumer, data_, capacity_}; }
    uint64_t capacity() const { return capacity_; }

    /// Pages that the data occupies in memory.
    uint64_t pages_used() const {
        struct stat status {};
        fstat(fd_, &status);
        return static_cast<uint64_t>(status.st_blocks) * 512 / 4096;
    }

    uint64_t head() const { return direction.producer.head.load(std::memory_order_relaxed).harmless(); }
    uint64_t tail() const { return direction.consumer.tail.load(std::memory_order_relaxed).harmless(); }

    RingResult write(const void* bytes, size_t size, uint64_t limit, bool may_grow = true) {
        const iovec part{const_cast<void*>(bytes), size};
        return writer().write(Buffers(&part, 1), size, limit, may_grow);
    }
    /// Writes up to `size` bytes of the stream until no more is taken. @return how many were.
    size_t fill(size_t size, uint64_t limit, bool may_grow = true) {
        const auto bytes = bytes_at(head(), size);
        size_t done = 0;
        for (;;) {
            const RingResult result = write(bytes.data() + done, size - done, limit, may_grow);
            done += result.size;
            if (result.size == 0 || done == size)
                return done;
        }
    }
    RingResult read(void* bytes, size_t size, RingReader::Mode mode = RingReader::kConsume) {
        const iovec part{bytes, size};
        Buffers to(&part, 1);
        return reader().read(&to, size, mode);
    }
    /// Reads until nothing is left. @return false at the first wrong byte.
    bool drain() {
        std::vector<unsigned char> bytes(65536);
        for (;;) {
            const uint64_t position = tail();
            const RingResult result = read(bytes.data(), bytes.size());
            if (result.status != RingResult::kDone ||
                first_wrong(bytes.data(), position, result.size) != result.size)
                return false;
            if (result.size == 0)
                return position == head();
        }
    }

    Direction direction{};
    ProducerState producer;
    ConsumerState consumer;

private:
    uint64_t capacity_;
    int fd_;
    unsigned char* data_;
};

}  // namespace loopfast
