// An impostor: a process of the victims' user, in their network namespace, in another container (process,
// mount and user namespaces of its own). It owns neither end of the connection, and may do what it likes with
// names and links. It runs until the test is done with it and then tells what it got hold of.
#pragma once

#include <netinet/in.h>
#include <sys/types.h>

#include <atomic>
#include <functional>

#include "link/address.h"

namespace loopfast::hostile {

/// The endpoint 127.0.0.1:port.
inline Endpoint local(long port) {
    Endpoint endpoint;
    endpoint.family = AF_INET;
    endpoint.port = htons(static_cast<uint16_t>(port));
    endpoint.ip[0] = 127;
    endpoint.ip[3] = 1;
    return endpoint;
}

struct Loot {
    int contained = 0;    ///< the namespaces are really its own
    int links = 0;        ///< links that it had with one of the victims
    int descriptors = 0;  ///< that somebody sent it
    int messages = 0;     ///< whole or half, that it was sent
    int bytes = 0;
};

class Impostor {
public:
    /// `play` is called again and again until the test ends it. `uid` not 0: as another user.
    explicit Impostor(const std::function<void(Loot&)>& play, uid_t uid = 0);
    ~Impostor();
    Impostor(const Impostor&) = delete;
    Impostor& operator=(const Impostor&) = delete;
    Loot end();

private:
    pid_t pid_ = -1;
    int hold_ = -1;
    int report_ = -1;
};

/// How far an impostor has come, for the test that must not go on before.
class Stage {
public:
    Stage();
    ~Stage();
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;
    void reach() { reached_->store(1, std::memory_order_release); }  // pairs with the load in awaited()
    /// Waits for reach(). @return false if it does not come.
    bool awaited() const;

private:
    std::atomic<int>* reached_;  ///< shared with the impostor's process
};

/// Reads what there is on a link, into the loot.
void read_all(int link, Loot& loot);
/// Says all that a good acceptor, or a good connector, would say on its link.
void speak(int link, const Tuple& tuple, bool as_acceptor);

}  // namespace loopfast::hostile
