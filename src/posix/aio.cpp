// POSIX AIO: libc's threads read and write where we do not see it, so a stream that is given to it goes back
// to the kernel lane first.
#include <aio.h>

#include "posix/posix.h"

namespace loopfast {

namespace {

void hand_back(const aiocb* request) {
    // A bad pointer is libc's own affair: it reads the request in this very thread.
    if (request == nullptr || !had_streams())
        return;
    if (Stream* const stream = find_stream(request->aio_fildes))
        part_with(*stream, request->aio_fildes, Reason::kOption);
}

template <typename Function> Function next(const char* name, Function& cached) {
    if (cached == nullptr)
        cached = reinterpret_cast<Function>(real::next_symbol(name));
    return cached;
}

}  // namespace

#define LOOPFAST_AIO(name)                              \
    LOOPFAST_PUBLIC int name(aiocb* request) noexcept { \
        static int (*cached)(aiocb*) = nullptr;         \
        hand_back(request);                             \
        return next(#name, cached)(request);            \
    }

LOOPFAST_AIO(aio_read)
LOOPFAST_AIO(aio_write)

LOOPFAST_PUBLIC int lio_listio(int mode, aiocb* const* list, int count, sigevent* event) noexcept {
    static int (*cached)(int, aiocb* const*, int, sigevent*) = nullptr;
    for (int i = 0; i < count; ++i)
        hand_back(list[i]);
    return next("lio_listio", cached)(mode, list, count, event);
}

// The same on 64 bits, under names of their own.
LOOPFAST_PUBLIC int aio_read64(aiocb64* request) noexcept {
    return aio_read(reinterpret_cast<aiocb*>(request));
}
LOOPFAST_PUBLIC int aio_write64(aiocb64* request) noexcept {
    return aio_write(reinterpret_cast<aiocb*>(request));
}
LOOPFAST_PUBLIC int lio_listio64(int mode, aiocb64* const* list, int count, sigevent* event) noexcept {
    return lio_listio(mode, reinterpret_cast<aiocb* const*>(list), count, event);
}

}  // namespace loopfast
