// See end.h: the calls that move bytes.
#include "end.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <numeric>

namespace differential {

namespace {

std::string arguments(size_t size, int flags) {
    return flags == 0 ? format(" %zu", size) : format(" %zu ", size) + flag_names(flags);
}

std::string sizes_of(const std::vector<std::string>& parts) {
    std::string text;
    for (const auto& part : parts)
        text += format("%s%zu", text.empty() ? " " : "+", part.size());
    return text.empty() ? " none" : text;
}

std::string sizes_of(const std::vector<size_t>& sizes) {
    std::string text;
    for (const size_t size : sizes)
        text += format("%s%zu", text.empty() ? " " : "+", size);
    return text.empty() ? " none" : text;
}

std::vector<iovec> vector_of(const std::vector<std::string>& parts) {
    std::vector<iovec> vector;
    for (const auto& part : parts)
        vector.push_back({const_cast<char*>(part.data()), part.size()});
    return vector;
}

/// Room for parts of these sizes, each in its own place.
struct Room {
    explicit Room(const std::vector<size_t>& sizes) {
        size_t total = std::accumulate(sizes.begin(), sizes.end(), size_t{0});
        bytes.resize(total);
        size_t at = 0;
        for (const size_t size : sizes) {
            vector.push_back({bytes.data() + at, size});
            at += size;
        }
    }
    void describe(long got, Outcome& outcome) {
        outcome.value = got;
        outcome.error = errno;
        if (got >= 0) {
            outcome.data = bytes.substr(0, static_cast<size_t>(got));
            outcome.text = shown(outcome.data);
        }
    }
    std::string bytes;
    std::vector<iovec> vector;
};

std::string message_flags(int flags) { return flags == 0 ? "" : " flags " + flag_names(flags); }

}  // namespace

Outcome End::call_with_text(const std::string& what, const Body& body) const {
    return script_->run(actor_, title(what), body);
}

Outcome End::quietly(const std::string& what, const Body& body) const {
    return script_->run(actor_, title(what), body, Shown::kNo);
}

Outcome End::call(const std::string& what, const std::function<long()>& body) const {
    return call_with_text(what, [&](Outcome& outcome) {
        outcome.value = body();
        outcome.error = errno;
    });
}

Outcome End::send(const std::string& bytes, int flags) const {
    return call("send" + arguments(bytes.size(), flags),
                [&] { return ::send(fd_, bytes.data(), bytes.size(), flags); });
}

Outcome End::write(const std::string& bytes) const {
    return call("write" + arguments(bytes.size(), 0),
                [&] { return ::write(fd_, bytes.data(), bytes.size()); });
}

Outcome End::sendto(const std::string& bytes, int flags) const {
    return call("sendto" + arguments(bytes.size(), flags),
                [&] { return ::sendto(fd_, bytes.data(), bytes.size(), flags, nullptr, 0); });
}

Outcome End::writev(const std::vector<std::string>& parts) const {
    return call("writev" + sizes_of(parts), [&] {
        const auto vector = vector_of(parts);
        return ::writev(fd_, vector.data(), static_cast<int>(vector.size()));
    });
}

Outcome End::pwritev2(const std::vector<std::string>& parts, off_t offset, int flags) const {
    return call("pwritev2" + sizes_of(parts) + format(" at %ld flags %x", static_cast<long>(offset), flags),
                [&] {
                    const auto vector = vector_of(parts);
                    return ::pwritev2(fd_, vector.data(), static_cast<int>(vector.size()), offset, flags);
                });
}

Outcome End::sendmsg(const std::vector<std::string>& parts, int flags) const {
    return call("sendmsg" + sizes_of(parts) + message_flags(flags), [&] {
        auto vector = vector_of(parts);
        msghdr message{};
        message.msg_iov = vector.data();
        message.msg_iovlen = vector.size();
        return ::sendmsg(fd_, &message, flags);
    });
}

Outcome End::sendmmsg(const std::vector<std::string>& messages, int flags) const {
    return call_with_text("sendmmsg" + sizes_of(messages) + message_flags(flags), [&](Outcome& outcome) {
        auto vector = vector_of(messages);
        std::vector<mmsghdr> headers(messages.size());
        for (size_t i = 0; i < headers.size(); ++i) {
            headers[i].msg_hdr.msg_iov = &vector[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
        outcome.value = ::sendmmsg(fd_, headers.data(), static_cast<unsigned>(headers.size()), flags);
        outcome.error = errno;
        for (long i = 0; i < outcome.value; ++i)
            outcome.text += format("%s%u", i == 0 ? "" : "+", headers[static_cast<size_t>(i)].msg_len);
    });
}

Pending End::start_send(const std::string& bytes, int flags) const {
    return start("send" + arguments(bytes.size(), flags), [fd = fd_, bytes, flags](Outcome& outcome) {
        outcome.value = ::send(fd, bytes.data(), bytes.size(), flags);
        outcome.error = errno;
    });
}

Outcome End::receive(const std::string& operation, size_t size,
                     const std::function<long(char*)>& body) const {
    return call_with_text(operation, [&](Outcome& outcome) {
        Room room({size});
        const long got = body(room.bytes.data());
        room.describe(got > static_cast<long>(size) ? static_cast<long>(size) : got, outcome);
        outcome.value = got;  // MSG_TRUNC says more than it gives
    });
}

Outcome End::recv(size_t size, int flags) const {
    return receive("recv" + arguments(size, flags), size,
                   [&](char* to) { return ::recv(fd_, to, size, flags); });
}

Outcome End::read(size_t size) const {
    return receive("read" + arguments(size, 0), size, [&](char* to) { return ::read(fd_, to, size); });
}

Outcome End::recvfrom(size_t size, int flags) const {
    return call_with_text("recvfrom" + arguments(size, flags), [&](Outcome& outcome) {
        Room room({size});
        sockaddr_storage address;
        memset(&address, 0x5a, sizeof address);
        socklen_t length = sizeof address;
        room.describe(
            ::recvfrom(fd_, room.bytes.data(), size, flags, reinterpret_cast<sockaddr*>(&address), &length),
            outcome);
        outcome.text += format(" name of %u, family %x", length, address.ss_family);
    });
}

Outcome End::readv(const std::vector<size_t>& sizes) const {
    return call_with_text("readv" + sizes_of(sizes), [&](Outcome& outcome) {
        Room room(sizes);
        room.describe(::readv(fd_, room.vector.data(), static_cast<int>(sizes.size())), outcome);
    });
}

Outcome End::preadv2(const std::vector<size_t>& sizes, off_t offset, int flags) const {
    return call_with_text(
        "preadv2" + sizes_of(sizes) + format(" at %ld flags %x", static_cast<long>(offset), flags),
        [&](Outcome& outcome) {
            Room room(sizes);
            room.describe(::preadv2(fd_, room.vector.data(), static_cast<int>(sizes.size()), offset, flags),
                          outcome);
        });
}

Outcome End::recvmsg(const std::vector<size_t>& sizes, int flags) const {
    return call_with_text("recvmsg" + sizes_of(sizes) + message_flags(flags), [&](Outcome& outcome) {
        Room room(sizes);
        char name[128];
        char control[128];
        msghdr message{};
        message.msg_name = name;
        message.msg_namelen = sizeof name;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        message.msg_flags = 0x5a5a;
        message.msg_iov = room.vector.data();
        message.msg_iovlen = sizes.size();
        room.describe(::recvmsg(fd_, &message, flags), outcome);
        outcome.text += format(" name %u control %zu flags %x", message.msg_namelen, message.msg_controllen,
                               static_cast<unsigned>(message.msg_flags));
    });
}

Outcome End::recvmmsg(const std::vector<size_t>& sizes, int flags) const {
    return call_with_text("recvmmsg" + sizes_of(sizes) + message_flags(flags), [&](Outcome& outcome) {
        Room room(sizes);
        std::vector<mmsghdr> headers(sizes.size());
        for (size_t i = 0; i < sizes.size(); ++i) {
            headers[i].msg_hdr.msg_iov = &room.vector[i];
            headers[i].msg_hdr.msg_iovlen = 1;
            headers[i].msg_len = 0x5a5a;
        }
        outcome.value = ::recvmmsg(fd_, headers.data(), static_cast<unsigned>(sizes.size()), flags, nullptr);
        outcome.error = errno;
        for (size_t i = 0; i < sizes.size(); ++i) {
            const size_t size = headers[i].msg_len;
            outcome.text += format("%s%zu", i == 0 ? "" : " ", size);
            if (size <= sizes[i])
                outcome.text += ":" + shown({static_cast<char*>(room.vector[i].iov_base), size});
        }
    });
}

Pending End::start_recv(size_t size, int flags) const {
    return start("recv" + arguments(size, flags), [fd = fd_, size, flags](Outcome& outcome) {
        Room room({size});
        room.describe(::recv(fd, room.bytes.data(), size, flags), outcome);
    });
}

Outcome End::drain(size_t size) const {
    return call_with_text(format("drain %zu", size), [&](Outcome& outcome) {
        Room room({size});
        size_t got = 0;
        while (got < size) {
            pollfd entry{fd_, POLLIN, 0};
            if (::poll(&entry, 1, 5000) == 0) {
                outcome.text = "nothing more came; ";
                break;
            }
            const long result = ::recv(fd_, room.bytes.data() + got, size - got, 0);
            if (result <= 0) {
                if (result < 0 && errno == EAGAIN)
                    continue;
                outcome.text = result == 0 ? "end; " : error_name(errno) + "; ";
                break;
            }
            got += static_cast<size_t>(result);
        }
        const std::string before = outcome.text;
        room.describe(static_cast<long>(got), outcome);
        outcome.text = before + outcome.text;
    });
}

Outcome End::fill(unsigned seed, size_t chunk) const {
    return quietly("fill", [&](Outcome& outcome) {
        const std::string bytes = pattern(chunk, seed);
        size_t total = 0;
        // In large pieces, then byte by byte: the kernel has room for a byte when a page no longer fits, and
        // makes more as it moves bytes on to the receiver.
        int refused = 0;
        while (refused < 4) {
            const size_t at = total % chunk;
            const size_t piece = refused == 0 ? chunk - at : 1;
            const long sent = ::send(fd_, bytes.data() + at, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent > 0) {
                total += static_cast<size_t>(sent);
                continue;
            }
            if (errno != EAGAIN)
                break;
            pollfd entry{fd_, POLLOUT, 0};
            refused = ::poll(&entry, 1, 30) > 0 ? 0 : refused + 1;
        }
        outcome.value = static_cast<long>(total);
    });
}

int passed_descriptor(int fd, bool with_several) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -1;
    char byte = 'x';
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    int received = -1;
    mmsghdr several{message, 0};
    if ((with_several ? ::sendmmsg(pair[0], &several, 1, 0) : ::sendmsg(pair[0], &message, 0)) == 1 &&
        ::recvmsg(pair[1], &message, 0) == 1 && (header = CMSG_FIRSTHDR(&message)) != nullptr)
        std::memcpy(&received, CMSG_DATA(header), sizeof received);
    ::close(pair[0]);
    ::close(pair[1]);
    return received;
}

char* before_bad_page(size_t accessible) {
    constexpr size_t kPage = 4096;
    char* const pages = static_cast<char*>(
        mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(pages + kPage, kPage, PROT_NONE);
    memset(pages, 'x', kPage);
    return pages + kPage - accessible;
}

}  // namespace differential
