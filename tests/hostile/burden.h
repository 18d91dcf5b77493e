// Descriptors that are a burden to whoever lets go of them last.
#pragma once

namespace loopfast::hostile {

/// A TCP socket with SO_LINGER for an hour, whose bytes nobody will ever take. Who closes the last descriptor
/// of it waits, whether it was ever taken out of the message or thrown away with it.
class Lingering {
public:
    Lingering();
    ~Lingering();
    Lingering(const Lingering&) = delete;
    Lingering& operator=(const Lingering&) = delete;
    /// One that is nobody else's but the kernel's, once it has been sent and closed here.
    int make();

private:
    int listener_;
};

}  // namespace loopfast::hostile
