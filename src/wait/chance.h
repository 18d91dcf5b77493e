// Leaving the ring at any moment, in a library of its own: a stream leaves at the N-th occasion, where
// another thread, a filter or an exec might make it leave at just this moment. The differential cases are run
// with it (tests/differential/README.md).
#pragma once

namespace loopfast {

struct Stream;

#ifdef LOOPFAST_LEAVE
/// The program has asked for the stream's lane: its occasions are counted from here on.
void occasions_begin(Stream& stream);
/// One of the stream's occasions.
void occasion(Stream& stream, int fd);
/// One of each of the process's streams.
void occasion_for_all();

/// One at the begin of a call, and one at its end.
class Occasions {
public:
    Occasions(Stream& stream, int fd) : stream_(stream), fd_(fd) { occasion(stream, fd); }
    ~Occasions() { occasion(stream_, fd_); }
    Occasions(const Occasions&) = delete;
    Occasions& operator=(const Occasions&) = delete;

private:
    Stream& stream_;
    int fd_;
};
#else
inline void occasions_begin(Stream&) {}
inline void occasion(Stream&, int) {}
inline void occasion_for_all() {}
struct Occasions {
    Occasions(Stream&, int) {}
};
#endif

}  // namespace loopfast
