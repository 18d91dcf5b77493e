// Names and addresses: getaddrinfo and its relatives, text forms, byte order.
#include "winsock/names.h"

#include <unistd.h>

#include <cstdio>

#include "winsock/probe.h"
#include "winsock/socket.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

namespace {

constexpr unsigned kMost = 64;

#undef gethostname  // the C library's is meant
void own_name(char* name, size_t size) { ::gethostname(name, size - 1); }

std::u16string widen(const char* text) {
    std::u16string result;
    while (*text != '\0')
        result.push_back(static_cast<unsigned char>(*text++));  // host names are ASCII
    return result;
}

struct Flag {
    int windows;
    int native;
};
constexpr Flag kFlags[] = {
    {AI_PASSIVE, native::kPassive},
    {AI_CANONNAME, native::kCanonical},
    {AI_NUMERICHOST, native::kNumericHost},
    {AI_NUMERICSERV, native::kNumericService},
    {AI_ALL, native::kAll},
    {AI_ADDRCONFIG, native::kConfigured},
    {AI_V4MAPPED, native::kV4Mapped},
};

/// Allocates with the entry, so that one free() frees all of it.
template <typename Info, typename Character> struct Entry {
    Info info;
    sockaddr_storage address;
    Character name[256];
};

template <typename Info, typename Character>
int entries_of(const std::vector<native::Resolved>& found, Info*& list) {
    Info** tail = &list;
    list = nullptr;
    for (const native::Resolved& one : found) {
        auto* const entry = static_cast<Entry<Info, Character>*>(calloc(1, sizeof(Entry<Info, Character>)));
        if (entry == nullptr)
            return WSA_NOT_ENOUGH_MEMORY;
        Address address;
        address.size = one.size;
        memcpy(address.bytes, one.address, one.size);
        int size = sizeof entry->address;
        to_windows(address, reinterpret_cast<sockaddr*>(&entry->address), &size);
        entry->info.ai_family = windows_family(one.family);
        entry->info.ai_socktype = one.type;
        entry->info.ai_protocol = one.protocol;
        entry->info.ai_addrlen = one.size;
        entry->info.ai_addr = reinterpret_cast<sockaddr*>(&entry->address);
        if (one.canonical[0] != '\0') {
            for (size_t i = 0; one.canonical[i] != '\0' && i + 1 < 256; ++i)
                entry->name[i] = static_cast<Character>(one.canonical[i]);
            entry->info.ai_canonname = entry->name;
        }
        *tail = &entry->info;
        tail = &entry->info.ai_next;
    }
    return 0;
}

template <typename Info> void free_entries(Info* list) {
    while (list != nullptr) {
        Info* const next = list->ai_next;
        free(list);  // the entry begins with it
        list = next;
    }
}

template <typename Info>
int find_from(const char* node, const char* service, const Info* hints,
              std::vector<native::Resolved>& found) {
    int flags = 0;
    int family = 0;
    int type = 0;
    int protocol = 0;
    if (hints != nullptr) {
        if (!readable(hints))
            return WSAEFAULT;
        for (const Flag& flag : kFlags)
            if ((hints->ai_flags & flag.windows) != 0)
                flags |= flag.native;
        if (hints->ai_family != AF_UNSPEC) {
            family = native_family(hints->ai_family);
            if (family < 0)
                return WSAEAFNOSUPPORT;
        }
        type = hints->ai_socktype;
        protocol = hints->ai_protocol;
        if (type != 0 && type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_RAW)
            return WSAESOCKTNOSUPPORT;
    }
    // One entry for each address, of the kind that was asked for: 0 stays 0, as on Windows. Linux would give
    // one for each kind, and knows the protocol.
    const int asked = type != 0 || protocol != 0 ? type : SOCK_STREAM;
    const int known = type != 0 ? 0 : protocol;
    int error = look_up(node, service, flags, family, asked, known, found);
    if (error == WSATYPE_NOT_FOUND && type == 0 && protocol == 0)
        error = look_up(node, service, flags, family, SOCK_DGRAM, 0, found);
    for (native::Resolved& one : found) {
        if (type != 0 || protocol == 0)
            one.type = type;
        one.protocol = protocol;
    }
    return error;
}

}  // namespace

std::string narrow(const WCHAR* text) {
    std::string result;
    for (; *text != 0; ++text) {
        const unsigned code = static_cast<unsigned>(*text);
        if (code < 0x80) {
            result.push_back(static_cast<char>(code));
        } else if (code < 0x800) {
            result.push_back(static_cast<char>(0xc0 | code >> 6));
            result.push_back(static_cast<char>(0x80 | (code & 0x3f)));
        } else {
            result.push_back(static_cast<char>(0xe0 | code >> 12));
            result.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
            result.push_back(static_cast<char>(0x80 | (code & 0x3f)));
        }
    }
    return result;
}

int wsa_of_lookup(native::Lookup result) {
    switch (result) {
    case native::Lookup::kOk:
        return 0;
    case native::Lookup::kAgain:
        return WSATRY_AGAIN;
    case native::Lookup::kFail:
        return WSANO_RECOVERY;
    case native::Lookup::kService:
        return WSATYPE_NOT_FOUND;
    case native::Lookup::kMemory:
        return WSA_NOT_ENOUGH_MEMORY;
    case native::Lookup::kFlags:
        return WSAEINVAL;
    case native::Lookup::kFamily:
        return WSAEAFNOSUPPORT;
    case native::Lookup::kType:
        return WSAESOCKTNOSUPPORT;
    case native::Lookup::kNoRoom:
        return ERROR_INSUFFICIENT_BUFFER;
    default:
        return WSAHOST_NOT_FOUND;
    }
}

int look_up(const char* node, const char* service, int flags, int family, int type, int protocol,
            std::vector<native::Resolved>& found) {
    if (const int error = check_call(); error != 0)
        return error;
    if (node == nullptr && service == nullptr)
        return WSAHOST_NOT_FOUND;
    std::string own;
    if (node != nullptr && *node == '\0') {
        // The empty name is this host's.
        char name[256] = "";
        own_name(name, sizeof name);
        own = name;
        node = own.c_str();
    }
    found.resize(kMost);
    unsigned count;
    const native::Lookup result =
        native::resolve(node, service, flags, family, type, protocol, found.data(), kMost, count);
    found.resize(count);
    return wsa_of_lookup(result);
}

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API INT WSAAPI getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                    addrinfo** result) {
    std::vector<native::Resolved> found;
    if (!writable(result))
        return WSAEFAULT;
    *result = nullptr;
    int error = find_from(node, service, hints, found);
    if (error == 0)
        error = entries_of<addrinfo, char>(found, *result);
    if (error != 0)
        last_error = static_cast<DWORD>(error);
    return error;
}
LOOPFAST_API void WSAAPI freeaddrinfo(LPADDRINFO list) { free_entries(list); }

LOOPFAST_API INT WSAAPI GetAddrInfoW(PCWSTR node, PCWSTR service, const ADDRINFOW* hints,
                                     PADDRINFOW* result) {
    std::vector<native::Resolved> found;
    if (!writable(result))
        return WSAEFAULT;
    *result = nullptr;
    const std::string node_text = node != nullptr ? narrow(node) : "";
    const std::string service_text = service != nullptr ? narrow(service) : "";
    int error = find_from(node != nullptr ? node_text.c_str() : nullptr,
                          service != nullptr ? service_text.c_str() : nullptr, hints, found);
    if (error == 0)
        error = entries_of<ADDRINFOW, WCHAR>(found, *result);
    if (error != 0)
        last_error = static_cast<DWORD>(error);
    return error;
}
LOOPFAST_API void WSAAPI FreeAddrInfoW(PADDRINFOW list) { free_entries(list); }

LOOPFAST_API INT WSAAPI getnameinfo(const SOCKADDR* name, socklen_t size, PCHAR host, DWORD host_size,
                                    PCHAR service, DWORD service_size, INT flags) {
    int error = check_call();
    Address address;
    if (error == 0 && !readable(name))
        error = WSAEFAULT;
    if (error == 0)
        error = from_windows(name, size, native_family(name->sa_family), address);
    if (error == 0)
        error =
            wsa_of_lookup(native::name_of(address.bytes, address.size, host, host_size, service, service_size,
                                          (flags & NI_NUMERICHOST) != 0, (flags & NI_NAMEREQD) != 0,
                                          (flags & NI_NUMERICSERV) != 0, (flags & NI_DGRAM) != 0));
    if (error != 0)
        last_error = static_cast<DWORD>(error);
    return error;
}

LOOPFAST_API char* gai_strerrorA(int error) {
    static thread_local char text[64];
    const char* what = "no such host is known";
    if (error == WSATRY_AGAIN)
        what = "the name server did not answer in time";
    else if (error == WSATYPE_NOT_FOUND)
        what = "no such service is known";
    else if (error == WSANO_RECOVERY)
        what = "the look-up failed for good";
    else if (error != WSAHOST_NOT_FOUND)
        what = "the look-up failed";
    snprintf(text, sizeof text, "%s (%d)", what, error);
    return text;
}

LOOPFAST_API INT WSAAPI inet_pton(INT family, PCSTR text, PVOID address) {
    const int number = native_family(family);
    if (number < 0)
        return reported(WSAEAFNOSUPPORT);
    return native::parse(number, text, address) ? 1 : 0;
}
LOOPFAST_API PCSTR WSAAPI inet_ntop(INT family, const void* address, PSTR text, size_t size) {
    const int number = native_family(family);
    if (number >= 0 && native::print(number, address, text, size))
        return text;
    last_error = number < 0 ? WSAEAFNOSUPPORT : WSAEINVAL;
    return nullptr;
}
LOOPFAST_API INT WSAAPI InetPtonW(INT family, PCWSTR text, PVOID address) {
    return inet_pton(family, narrow(text).c_str(), address);
}
LOOPFAST_API PCWSTR WSAAPI InetNtopW(INT family, const void* address, PWSTR text, size_t size) {
    char narrow_text[INET6_ADDRSTRLEN];
    if (inet_ntop(family, address, narrow_text, sizeof narrow_text) == nullptr)
        return nullptr;
    const std::u16string wide = widen(narrow_text);
    if (wide.size() + 1 > size) {
        last_error = WSAEINVAL;
        return nullptr;
    }
    memcpy(text, wide.c_str(), (wide.size() + 1) * sizeof *text);
    return text;
}

namespace {

constexpr size_t kScope = 24;  ///< of an IPv6 address, as Linux lays it out

std::string number_text(unsigned number) {
    char text[12];
    snprintf(text, sizeof text, "%u", number);
    return text;
}

/// Digits to the end of the text. @return false: there are none, or others.
bool number_of(const char* text, int base, unsigned long most, unsigned long& number) {
    char* end;
    if (*text < '0' || *text > '9')
        return false;
    number = strtoul(text, &end, base);
    return *end == '\0' && number <= most;
}

/// Host and scope, without brackets and port.
bool parse_host(bool six, std::string& text, Address& address) {
    if (!six)
        return !text.empty() && text.back() > ' ' && native::parse_loosely(text.c_str(), address.bytes + 4);
    if (const size_t percent = text.find('%'); percent != std::string::npos) {
        unsigned long number;
        if (!number_of(text.c_str() + percent + 1, 10, 0xffffffff, number))
            return false;
        const auto scope = static_cast<uint32_t>(number);
        memcpy(address.bytes + kScope, &scope, sizeof scope);
        text.resize(percent);
    }
    return native::parse(native::kInet6, text.c_str(), address.bytes + 8);
}

int text_of(const sockaddr* name, DWORD size, std::string& text) {
    Address address;
    if (!readable(name))
        return WSAEFAULT;
    if (from_windows(name, static_cast<int>(size), native_family(name->sa_family), address) != 0)
        return WSAEINVAL;
    char host[INET6_ADDRSTRLEN];
    const bool six = address.family() == native::kInet6;
    native::print(address.family(), address.bytes + (six ? 8 : 4), host, sizeof host);
    text = host;
    if (uint32_t scope = 0; six) {
        memcpy(&scope, address.bytes + kScope, sizeof scope);
        if (scope != 0)
            text += "%" + number_text(scope);
    }
    if (address.port() != 0)
        text = (six ? "[" + text + "]" : text) + ":" + number_text(address.port());
    return 0;
}

template <typename Character> int give_text(const sockaddr* name, DWORD size, Character* text, DWORD* room) {
    std::string result;
    int error = check_call();
    if (error == 0 && !writable(room))
        error = WSAEFAULT;
    if (error == 0)
        error = text_of(name, size, result);
    if (error == 0 && (*room < result.size() + 1 || !writable(text, (result.size() + 1) * sizeof *text))) {
        *room = static_cast<DWORD>(result.size() + 1);
        error = WSAEFAULT;
    }
    if (error != 0)
        return error;
    for (size_t i = 0; i <= result.size(); ++i)
        text[i] = static_cast<Character>(result.c_str()[i]);
    *room = static_cast<DWORD>(result.size() + 1);
    return 0;
}

int address_of_text(std::string text, int family, sockaddr* name, int* size) {
    const int number = native_family(family);
    if (const int error = check_call(); error != 0)
        return error;
    if (number < 0)
        return WSAEINVAL;
    unsigned long port = 0;
    const bool six = number == native::kInet6;
    const size_t colon = six && text.rfind("]:") != std::string::npos ? text.rfind("]:") + 1
                         : six                                        ? std::string::npos
                                                                      : text.rfind(':');
    if (colon != std::string::npos) {
        // Port 0 is none; without a colon there is no port.
        if (!number_of(text.c_str() + colon + 1, 0, 65535, port) || port == 0)
            return WSAEINVAL;
        text.resize(colon);
    }
    if (six && text.size() > 2 && text.front() == '[' && text.back() == ']')
        text = text.substr(1, text.size() - 2);
    Address address;
    address.size = six ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    const auto short_family = static_cast<uint16_t>(number);
    memcpy(address.bytes, &short_family, sizeof short_family);
    address.bytes[2] = static_cast<unsigned char>(port >> 8);
    address.bytes[3] = static_cast<unsigned char>(port);
    if (!parse_host(six, text, address))
        return WSAEINVAL;
    return to_windows(address, name, size);
}

}  // namespace

LOOPFAST_API INT WSAAPI WSAAddressToStringA(LPSOCKADDR name, DWORD size, LPWSAPROTOCOL_INFOA, LPSTR text,
                                            LPDWORD room) {
    return reported(give_text(name, size, text, room));
}
LOOPFAST_API INT WSAAPI WSAAddressToStringW(LPSOCKADDR name, DWORD size, LPWSAPROTOCOL_INFOW, LPWSTR text,
                                            LPDWORD room) {
    return reported(give_text(name, size, text, room));
}
LOOPFAST_API INT WSAAPI WSAStringToAddressA(LPSTR text, INT family, LPWSAPROTOCOL_INFOA, LPSOCKADDR name,
                                            LPINT size) {
    return reported(text == nullptr ? WSAEFAULT : address_of_text(text, family, name, size));
}
LOOPFAST_API INT WSAAPI WSAStringToAddressW(LPWSTR text, INT family, LPWSAPROTOCOL_INFOW, LPSOCKADDR name,
                                            LPINT size) {
    return reported(text == nullptr ? WSAEFAULT : address_of_text(narrow(text), family, name, size));
}

LOOPFAST_API unsigned int WSAAPI inet_addr(const char* text) {
    in_addr address;
    if (text == nullptr)
        return INADDR_NONE;
    if (text[0] == ' ' && text[1] == '\0')
        return 0;  // its page says so
    return native::parse_loosely(text, &address) ? address.s_addr : INADDR_NONE;
}
LOOPFAST_API char* WSAAPI inet_ntoa(in_addr address) {
    static thread_local char text[INET_ADDRSTRLEN];
    native::print(native::kInet, &address, text, sizeof text);
    return text;
}

LOOPFAST_API hostent* WSAAPI gethostbyname(const char* name) {
    static thread_local hostent host;
    static thread_local in_addr addresses[kMost];
    static thread_local char* pointers[kMost + 1];
    static thread_local char* no_aliases[1];
    static thread_local char host_name[256];
    std::vector<native::Resolved> found;
    const int error = look_up(name != nullptr ? name : "", nullptr, 0, native::kInet, SOCK_STREAM, 0, found);
    if (error != 0) {
        last_error = static_cast<DWORD>(error);
        return nullptr;
    }
    for (size_t i = 0; i < found.size(); ++i) {
        memcpy(&addresses[i], found[i].address + 4, sizeof addresses[i]);
        pointers[i] = reinterpret_cast<char*>(&addresses[i]);
    }
    pointers[found.size()] = nullptr;
    snprintf(host_name, sizeof host_name, "%s", name != nullptr ? name : "");
    host = {host_name, no_aliases, AF_INET, sizeof(in_addr), pointers};
    return &host;
}

LOOPFAST_API int WSAAPI loopfast_winsock_gethostname(char* name, int size) {
    char own[256] = "";
    if (const int error = check_call(); error != 0)
        return reported(error);
    own_name(own, sizeof own);
    const size_t length = strlen(own) + 1;
    if (size < 0 || static_cast<size_t>(size) < length || !writable(name, length))
        return reported(WSAEFAULT);
    memcpy(name, own, length);
    return 0;
}

LOOPFAST_API u_long WSAAPI htonl(u_long value) { return __builtin_bswap32(value); }
LOOPFAST_API u_short WSAAPI htons(u_short value) { return __builtin_bswap16(value); }
LOOPFAST_API u_long WSAAPI ntohl(u_long value) { return __builtin_bswap32(value); }
LOOPFAST_API u_short WSAAPI ntohs(u_short value) { return __builtin_bswap16(value); }

namespace {
template <typename Value> int swapped(SOCKET s, Value value, Value* result, Value (*swap)(Value)) {
    int error;
    if (!find_socket(s, error))
        return reported(error);
    if (!writable(result))
        return reported(WSAEFAULT);
    *result = swap(value);
    return 0;
}
}  // namespace
LOOPFAST_API int WSAAPI WSAHtonl(SOCKET s, u_long value, u_long* result) {
    return swapped(s, value, result, htonl);
}
LOOPFAST_API int WSAAPI WSAHtons(SOCKET s, u_short value, u_short* result) {
    return swapped(s, value, result, htons);
}
LOOPFAST_API int WSAAPI WSANtohl(SOCKET s, u_long value, u_long* result) {
    return swapped(s, value, result, ntohl);
}
LOOPFAST_API int WSAAPI WSANtohs(SOCKET s, u_short value, u_short* result) {
    return swapped(s, value, result, ntohs);
}

extern "C" {
const in6_addr in6addr_any = IN6ADDR_ANY_INIT;
const in6_addr in6addr_loopback = IN6ADDR_LOOPBACK_INIT;
}
