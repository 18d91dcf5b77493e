// Filters and captures: may this stream be on the ring? Asked before it is fused, and again when the verdict
// may have changed. Either end that finds an objection leaves, and that is enough.
//
// A verdict that forbids is for the connection's lifetime: it goes on over the kernel lane when the rule is
// gone as well. New connections are judged anew.
#include <sys/socket.h>

#include "base/syscall.h"
#include "filters/inspect.h"
#include "link/identity.h"
#include "policy/policy.h"
#include "stream/stream.h"

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

namespace loopfast {

namespace {

Judgement judge_stream(Stream& stream, int fd, bool fresh) {
    // The look comes first: it tells whether the group matters, and the first one of all finds the guard.
    const Judgement judgement = judge(fd, stream.cgroup, fresh);
    if (stream.cgroup == 0 && judgement.reason == Reason::kNone && cgroups_matter()) {
        SocketFacts facts{};
        const SharedHalf& shared = *stream.shared;
        bool told = false;
        // Once for what is about to be fused: it can stay where it is. What is fused leaves if it cannot be
        // told whose it is.
        for (int attempt = 0; !told && attempt < (fresh ? 1 : 20); ++attempt)
            told = look_up_socket(shared.local, shared.remote, facts);
        if (!told)
            return {Reason::kLimit, remember_objection("the control group of the socket is not told"), 0};
        // Where the kernel does not tell groups it has none that is not the program's own.
        if (facts.cgroup == 0)
            return judgement;
        stream.cgroup = facts.cgroup;
        return judge(fd, stream.cgroup, fresh);
    }
    return judgement;
}

void note(Stream& stream, const Judgement& judgement) {
    stream.shared->objection.store(judgement.text, std::memory_order_relaxed);
}

uint32_t option(int fd, int name) {
    uint32_t value = 0;
    socklen_t size = sizeof value;
    return sys::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : 0;
}

}  // namespace

Reason led_astray(const Stream& stream, int fd, bool fresh) {
    const Endpoint& local = stream.shared->local;
    const Endpoint& remote = stream.shared->remote;
    // 127.0.0.0/8 and ::1 do not leave through any other device, and the kernel has carried a connection of
    // theirs until now. What has changed since may forbid them all the same.
    if (fresh && is_loopback(local) && is_loopback(remote))
        return Reason::kNone;
    const uint32_t device = option(fd, SO_BINDTOIFINDEX);
    switch (way_between({local.family, local.ip, remote.ip, local.port, remote.port, option(fd, SO_MARK),
                         device != 0 ? device : remote.scope})) {
    case Way::kLo:
        return Reason::kNone;
    case Way::kElsewhere:
        return Reason::kNotLocal;
    case Way::kNotNow:
        return Reason::kLimit;
    case Way::kUntold:
        break;
    }
    return assume_strict() ? Reason::kPolicy : Reason::kNone;
}

void note_socket_filter(Stream& stream) {
    stream.shared->objection.store(remember_objection("socket-filter: the socket has a filter of its own"),
                                   std::memory_order_relaxed);
}

namespace {

/// Two connections of which one is translated may have sockets whose addresses look like the two ends of a
/// third one: who goes by them would join strangers.
bool goes_astray_by_nat(const Stream& stream, int fd) {
    const SharedHalf& shared = *stream.shared;
    const Endpoint& service = stream.role == Role::kConnector ? shared.remote : shared.local;
    return is_translated(fd, service.family, service.ip, service.port);
}

}  // namespace

Reason forbidden(Stream& stream, int fd) {
    if (goes_astray_by_nat(stream, fd)) {
        stream.shared->objection.store(remember_objection("nat: the connection's addresses are translated"),
                                       std::memory_order_relaxed);
        return Reason::kFilter;
    }
    if (has_socket_filter(fd)) {
        note_socket_filter(stream);
        return Reason::kFilter;
    }
    const Judgement judgement = judge_stream(stream, fd, true);
    note(stream, judgement);
    if (judgement.reason == Reason::kNone)
        stream.judged.store(judgement.word, std::memory_order_relaxed);
    return judgement.reason;
}

void reconsider(Stream& stream, int fd) {
    // On top of a copy of this very thread, in a signal handler, nothing can be left: the next call will.
    if (held_locks != 0)
        return;
    Judgement judgement = judge_stream(stream, fd, false);
    if (judgement.reason == Reason::kNone) {
        // It may be an address, a route or a routing rule that has changed.
        const Reason way = led_astray(stream, fd, false);
        if (way == Reason::kLimit)
            return;  // the next call asks again
        judgement.reason = way;
    }
    if (judgement.reason == Reason::kNone) {
        stream.judged.store(judgement.word, std::memory_order_relaxed);
        return;
    }
    note(stream, judgement);
    // What is unread was sent before, and keeps this end here until it is read; then the next call tries
    // again.
    if (leave(stream, fd, judgement.reason, Unread::kKept))
        stream.judged.store(judgement.word, std::memory_order_relaxed);
}

}  // namespace loopfast
