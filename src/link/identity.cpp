// See identity.h. One netlink message asks for one socket; a dump is never needed.
#include "link/identity.h"

#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#include "base/syscall.h"
#include "filters/netlink.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace loopfast {

namespace {

constexpr uint32_t kOverflowUid = 65534;
/// TCP_ESTABLISHED; the header that has it and the one with the whole of tcp_info do not go together.
constexpr uint8_t kEstablished = 1;

struct Request {
    nlmsghdr header;
    inet_diag_req_v2 body;
};

void put_address(const Endpoint& endpoint, bool mapped, __be32 (&to)[4]) {
    memset(to, 0, sizeof to);
    if (endpoint.family == AF_INET6) {
        memcpy(to, endpoint.ip, 16);
    } else if (mapped) {
        to[2] = __builtin_bswap32(0xffff);
        memcpy(&to[3], endpoint.ip, 4);
    } else {
        memcpy(to, endpoint.ip, 4);
    }
}

/// The three switches of a sign.
int sign_in(const Attributes& attributes) {
    const Attribute found = attributes.find(INET_DIAG_SOCKOPT);
    const auto options = found.as<inet_diag_sockopt>();
    if (found.size < sizeof options)
        return kNoSign;
    return (options.mc_loop != 0 ? kSignLoop : 0) | (options.mc_all != 0 ? kSignAll : 0) |
           (options.recverr_rfc4884 != 0 ? kSignErrors : 0);
}

void put_counts(const Attribute& info, uint32_t unacknowledged, SocketFacts& facts) {
    facts.counted =
        info.size >= offsetof(tcp_info, tcpi_bytes_received) + sizeof(tcp_info::tcpi_bytes_received);
    if (!facts.counted)
        return;
    memcpy(&facts.acknowledged, info.data + offsetof(tcp_info, tcpi_bytes_acked), sizeof facts.acknowledged);
    memcpy(&facts.received, info.data + offsetof(tcp_info, tcpi_bytes_received), sizeof facts.received);
    facts.unacknowledged = unacknowledged;
}

bool ask(int netlink, const Endpoint& local, const Endpoint& remote, bool mapped, SocketFacts& facts) {
    Request request{};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    request.header.nlmsg_flags = NLM_F_REQUEST;
    request.header.nlmsg_seq = mapped ? 2 : 1;
    request.body.sdiag_family =
        static_cast<unsigned char>(mapped ? AF_INET6 : static_cast<int>(local.family));
    request.body.sdiag_protocol = IPPROTO_TCP;
    request.body.idiag_ext = 1 << (INET_DIAG_INFO - 1);
    request.body.idiag_states = ~0U;
    request.body.id.idiag_sport = local.port;
    request.body.id.idiag_dport = remote.port;
    put_address(local, mapped, request.body.id.idiag_src);
    put_address(remote, mapped, request.body.id.idiag_dst);
    request.body.id.idiag_if = local.scope;
    request.body.id.idiag_cookie[0] = INET_DIAG_NOCOOKIE;
    request.body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    if (sys::send(netlink, &request, sizeof request, MSG_DONTWAIT) != sizeof request)
        return false;

    alignas(nlmsghdr) unsigned char answer[2048];
    // The kernel answers within the send; DONTWAIT makes sure that nothing here can block.
    const long size = sys::recv(netlink, answer, sizeof answer, MSG_DONTWAIT);
    if (size < static_cast<long>(sizeof(nlmsghdr) + sizeof(inet_diag_msg)))
        return false;
    nlmsghdr header;
    memcpy(&header, answer, sizeof header);
    if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY || header.nlmsg_seq != request.header.nlmsg_seq)
        return false;
    inet_diag_msg found;
    memcpy(&found, answer + NLMSG_HDRLEN, sizeof found);
    // The lookup also finds a listener for the port: what it found must be the connection asked for.
    if (found.id.idiag_sport != local.port || found.id.idiag_dport != remote.port)
        return false;
    facts.uid = found.idiag_uid;
    facts.cookie = static_cast<uint64_t>(found.id.idiag_cookie[1]) << 32 | found.id.idiag_cookie[0];
    facts.established = found.idiag_state == kEstablished;
    const size_t before = NLMSG_LENGTH(sizeof found);
    const size_t end =
        header.nlmsg_len < static_cast<size_t>(size) ? header.nlmsg_len : static_cast<size_t>(size);
    const Attributes attributes(answer + before, end > before ? end - before : 0);
    facts.cgroup = attributes.find(INET_DIAG_CGROUP_ID).as<uint64_t>();
    facts.sign = sign_in(attributes);
    put_counts(attributes.find(INET_DIAG_INFO), found.idiag_wqueue, facts);
    return true;
}

}  // namespace

bool look_up_socket(const Endpoint& local, const Endpoint& remote, SocketFacts& facts) {
    const int netlink = sys::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (netlink < 0)
        return false;
    // The other end of an IPv4 connection may be a dual-stack socket; the kernel's table holds both kinds
    // under the same addresses, so asking as IPv4 finds it, and the mapped form is for older kernels.
    bool found = ask(netlink, local, remote, false, facts);
    if (!found && local.family == AF_INET)
        found = ask(netlink, local, remote, true, facts);
    sys::close(netlink);
    return found;
}

uint64_t cookie_of(int fd) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    const auto ask = [&] { return sys::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size); };
    return sys::insisting(ask) == 0 ? cookie : 0;
}

bool same_namespace(int tcp_fd, int link_fd) {
    uint64_t mine = 0;
    uint64_t links = 0;
    socklen_t size = sizeof mine;
    if (sys::getsockopt(tcp_fd, SOL_SOCKET, SO_NETNS_COOKIE, &mine, &size) < 0)
        return false;
    size = sizeof links;
    return sys::getsockopt(link_fd, SOL_SOCKET, SO_NETNS_COOKIE, &links, &size) == 0 && mine == links;
}

bool credentials_of(int link_fd, Credentials& credentials) {
    ucred found{};
    socklen_t size = sizeof found;
    if (sys::getsockopt(link_fd, SOL_SOCKET, SO_PEERCRED, &found, &size) < 0)
        return false;
    credentials = {found.pid, found.uid};
    return true;
}

bool peer_name_of(int link_fd, sockaddr_un& name, socklen_t& size) {
    name = {};
    size = sizeof name;
    return sys::getpeername(link_fd, &name, &size) == 0 && size > sizeof name.sun_family &&
           size <= sizeof name;
}

bool uid_is_exact(uint32_t uid) {
    if (uid != kOverflowUid)
        return true;
    // Without a user namespace the map is the identity over all ids, and "nobody" is a user like others.
    const long fd = sys::call(SYS_openat, AT_FDCWD, sys::word("/proc/self/uid_map"), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    char text[64] = {};
    const long size = sys::read(static_cast<int>(fd), text, sizeof text - 1);
    sys::close(static_cast<int>(fd));
    return size > 0 && strstr(text, "4294967295") != nullptr;
}

}  // namespace loopfast
