// socket.h: the few plain libc socket calls that the measuring programs are made of.
//
// Nothing here knows loopfast, except lane_of(), which asks for it by name at run time: the programs are
// ordinary ones, as a user would have them, and are not linked with the library.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arguments.h"

namespace bench {

[[noreturn]] void die(const char* what);

/// A listening socket on 127.0.0.1 and a free port; prints "listening PORT" for whoever starts the client.
int listen_and_announce();
int accept_one(int listener);
/// Connects to 127.0.0.1, with TCP_NODELAY as every request/response program sets it.
int connect_to(uint16_t port);

void send_all(int fd, const void* data, size_t size);
/// @return false when the stream ended before the first byte.
bool receive_all(int fd, void* data, size_t size);

/// The lane that the loaded libloopfast reports for `fd`; the kernel's if none is loaded.
Lane lane_of(int fd);
const char* lane_name(Lane lane);
/// Ends the program with an error unless `fd` is on the lane that was claimed.
void require_lane(int fd, Lane expected);

uint64_t now_ns();

}  // namespace bench
