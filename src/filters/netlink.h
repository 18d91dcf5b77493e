// Netlink by hand: a message is put together in a small buffer, sent, and its answers are visited where they
// arrived. No library, and no allocation but a mapping where the standing receive buffer is in use; so it can
// run inside other people's processes (base/syscall.h).
#pragma once

#include <linux/netlink.h>
#include <string.h>

#include <cstddef>
#include <cstdint>

namespace loopfast {

/// One attribute of a message. What it holds is checked for size before it is looked at.
struct Attribute {
    uint16_t type = 0;
    uint32_t size = 0;
    const unsigned char* data = nullptr;

    template <typename T> T as() const {
        T value{};
        if (size >= sizeof value)
            memcpy(&value, data, sizeof value);
        return value;
    }
    uint32_t be32() const { return __builtin_bswap32(as<uint32_t>()); }
    uint64_t be64() const { return __builtin_bswap64(as<uint64_t>()); }
    /// The string in it, or "" if it does not end.
    const char* text() const {
        return size > 0 && data[size - 1] == 0 ? reinterpret_cast<const char*>(data) : "";
    }
    bool is(const char* word) const { return strcmp(text(), word) == 0; }
};

/// The attributes of a message or of a nested attribute, one after the other.
class Attributes {
public:
    Attributes(const unsigned char* data, size_t size) : at_(data), end_(data + size) {}
    explicit Attributes(const Attribute& nested) : Attributes(nested.data, nested.size) {}

    bool next(Attribute& attribute) {
        nlattr header;
        if (end_ - at_ < static_cast<long>(sizeof header))
            return false;
        memcpy(&header, at_, sizeof header);
        if (header.nla_len < sizeof header || header.nla_len > end_ - at_)
            return false;
        attribute.type = header.nla_type & NLA_TYPE_MASK;
        attribute.size = header.nla_len - static_cast<uint32_t>(sizeof header);
        attribute.data = at_ + sizeof header;
        const long step = NLA_ALIGN(header.nla_len);
        at_ = step < end_ - at_ ? at_ + step : end_;
        return true;
    }

    /// The first one of a type; empty if there is none.
    Attribute find(uint16_t type) const {
        Attributes rest = *this;
        for (Attribute attribute; rest.next(attribute);)
            if (attribute.type == type)
                return attribute;
        return {};
    }

private:
    const unsigned char* at_;
    const unsigned char* end_;
};

/// A request under construction.
class Request {
public:
    Request(uint16_t type, uint16_t flags, const void* body, size_t size) {
        auto* const header = reinterpret_cast<nlmsghdr*>(bytes_);
        header->nlmsg_type = type;
        header->nlmsg_flags = NLM_F_REQUEST | flags;
        memcpy(bytes_ + size_, body, size);
        size_ += NLMSG_ALIGN(size);
    }
    void put(uint16_t type, const void* data, size_t size) {
        if (size_ + NLA_HDRLEN + NLA_ALIGN(size) > sizeof bytes_)
            return;
        const nlattr header{static_cast<uint16_t>(NLA_HDRLEN + size), type};
        memcpy(bytes_ + size_, &header, sizeof header);
        memcpy(bytes_ + size_ + NLA_HDRLEN, data, size);
        size_ += static_cast<size_t>(NLA_HDRLEN) + NLA_ALIGN(size);
    }
    void put(uint16_t type, const char* text) { put(type, text, strlen(text) + 1); }
    const void* finish(uint32_t number) {
        auto* const header = reinterpret_cast<nlmsghdr*>(bytes_);
        header->nlmsg_len = static_cast<uint32_t>(size_);
        header->nlmsg_seq = number;
        return bytes_;
    }
    size_t size() const { return size_; }

private:
    alignas(nlmsghdr) unsigned char bytes_[768] = {};
    size_t size_ = NLMSG_HDRLEN;
};

/// One answer: its type and what follows the header.
struct Answer {
    uint16_t type;
    const unsigned char* body;
    size_t size;

    template <typename Header> bool has() const { return size >= sizeof(Header); }
    template <typename Header> Header header() const {
        Header value{};
        if (has<Header>())
            memcpy(&value, body, sizeof value);
        return value;
    }
    template <typename Header> Attributes attributes() const {
        const size_t skip = NLMSG_ALIGN(sizeof(Header));
        return size > skip ? Attributes(body + skip, size - skip) : Attributes(body, 0);
    }
};

/// A socket and the buffer for its answers, for one question after the other.
class Netlink {
public:
    explicit Netlink(int protocol);
    ~Netlink();
    Netlink(const Netlink&) = delete;
    Netlink& operator=(const Netlink&) = delete;

    /// Sends `request` and calls `visit(answer)` for its answer, or for each one of a dump (NLM_F_DUMP).
    /// @return 0 or -errno; -EINTR when a dump was overtaken by a change and has to be repeated.
    template <typename Visit> long ask(Request& request, Visit visit) {
        answered_ = false;
        const auto call = [](void* context, const Answer& answer) {
            (*static_cast<Visit*>(context))(answer);
        };
        return exchange(request, call, &visit);
    }

    /// The last question was put and has an answer: what went wrong is what it says.
    bool answered() const { return answered_; }

private:
    long exchange(Request& request, void (*visit)(void*, const Answer&), void* context);

    int fd_;
    unsigned char* buffer_ = nullptr;
    uint32_t number_ = 0;
    bool answered_ = false;
};

}  // namespace loopfast
