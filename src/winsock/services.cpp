// Services, protocols, and hosts by their address. What is given out lies in memory of the thread's.
#include <cstring>

#include "winsock/names.h"
#include "winsock/probe.h"
#include "winsock/socket.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

namespace {

/// An entry, and the pointers into it that its structure needs.
struct Kept {
    native::Known known;
    char* aliases[native::Known::kMostAliases + 1];

    char** list() {
        for (unsigned i = 0; i < known.alias_count; ++i)
            aliases[i] = known.aliases[i];
        aliases[known.alias_count] = nullptr;
        return aliases;
    }
};

/// `find` fills a Known. @return false with the thread's last error set.
template <typename Find> bool found(Find find) {
    int error = check_call();
    if (error == 0 && !find())
        error = WSANO_DATA;
    if (error != 0)
        last_error = static_cast<DWORD>(error);
    return error == 0;
}

bool named(const char* name) {
    const bool good = name != nullptr;
    if (!good)
        last_error = check_call() != 0 ? static_cast<DWORD>(check_call()) : WSAEFAULT;
    return good;
}

template <typename Key> servent* service(Key key, const char* protocol) {
    static thread_local Kept kept;
    static thread_local servent result;
    if (!found([&] { return native::find_service(key, protocol, kept.known); }))
        return nullptr;
    result = {kept.known.name, kept.list(), kept.known.protocol, static_cast<short>(kept.known.number)};
    return &result;
}

template <typename Key> protoent* protocol(Key key) {
    static thread_local Kept kept;
    static thread_local protoent result;
    if (!found([&] { return native::find_protocol(key, kept.known); }))
        return nullptr;
    result = {kept.known.name, kept.list(), static_cast<short>(kept.known.number)};
    return &result;
}

/// @return 0 or an error. `bytes` is the address, `name` the host's.
int host_at(const char* bytes, int size, int family, char* name, size_t name_size) {
    if (const int error = check_call(); error != 0)
        return error;
    if (family != AF_INET && family != AF_INET6)
        return WSAEAFNOSUPPORT;
    if (size != (family == AF_INET ? 4 : 16) || bytes == nullptr ||
        !readable(bytes, static_cast<size_t>(size)))
        return WSAEFAULT;
    sockaddr_storage address{};
    if (family == AF_INET) {
        auto* const four = reinterpret_cast<sockaddr_in*>(&address);
        four->sin_family = AF_INET;
        memcpy(&four->sin_addr, bytes, 4);
    } else {
        auto* const six = reinterpret_cast<sockaddr_in6*>(&address);
        six->sin6_family = AF_INET6;
        memcpy(&six->sin6_addr, bytes, 16);
    }
    return getnameinfo(reinterpret_cast<const sockaddr*>(&address),
                       family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6), name,
                       static_cast<DWORD>(name_size), nullptr, 0, NI_NAMEREQD);
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API servent* WSAAPI getservbyname(const char* name, const char* proto) {
    return named(name) ? service(name, proto) : nullptr;
}
LOOPFAST_API servent* WSAAPI getservbyport(int port, const char* proto) {
    // A port that was made by htons as well as one that a short has made negative.
    return service(static_cast<int>(static_cast<u_short>(port)), proto);
}
LOOPFAST_API protoent* WSAAPI getprotobyname(const char* name) {
    return named(name) ? protocol(name) : nullptr;
}
LOOPFAST_API protoent* WSAAPI getprotobynumber(int number) { return protocol(number); }

LOOPFAST_API hostent* WSAAPI gethostbyaddr(const char* bytes, int size, int family) {
    static thread_local hostent host;
    static thread_local char name[1025];
    static thread_local char address[16];
    static thread_local char* addresses[] = {address, nullptr};
    static thread_local char* no_aliases[1];
    if (const int error = host_at(bytes, size, family, name, sizeof name); error != 0) {
        last_error = static_cast<DWORD>(error);
        return nullptr;
    }
    memcpy(address, bytes, static_cast<size_t>(size));
    host = {name, no_aliases, static_cast<short>(family), static_cast<short>(size), addresses};
    return &host;
}
