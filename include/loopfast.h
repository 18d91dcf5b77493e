/* loopfast.h: opt one TCP socket in to the loopback fast path.
 *
 * A socket that opted in, connected to a socket of the same host that opted in too, exchanges its bytes
 * through shared memory instead of the kernel's network layer. Both ends must opt in; where the fast path
 * cannot be had, the connection simply works as before. The contract is that of Windows'
 * SIO_LOOPBACK_FAST_PATH:
 *
 *   - the connecting side opts in before connect();
 *   - the listening side opts in before the connection is accepted (before bind, after bind, or after
 *     listen); what accept() returns is marked like its listener;
 *   - on a socket that is already connected or connecting the call succeeds and has no effect;
 *   - it is off by default.
 *
 * Link with -lloopfast (pkg-config loopfast, or find_package(loopfast) and loopfast::loopfast), or start
 * the program with `loopfast run`. Without either, ioctl(fd, SIO_LOOPBACK_FAST_PATH, &on) fails with
 * ENOTTY; ignore that error and the program runs everywhere:
 *
 *     int on = 1;
 *     ioctl(fd, SIO_LOOPBACK_FAST_PATH, &on);
 *
 * All functions here are safe to call from any thread.
 */
#ifndef LOOPFAST_H
#define LOOPFAST_H

#ifdef __cplusplus
extern "C" {
#endif

/** The control code, for ioctl(2). The third argument points to a 4-byte Boolean, 0 or not 0.
 *  Value as in mingw-w64's mswsock.h: _WSAIOW(IOC_VENDOR, 16).
 *  Fails with EBADF (not a descriptor), ENOTSOCK (not a socket), EOPNOTSUPP (a socket, but not TCP over
 *  IPv4 or IPv6), EFAULT (the argument cannot be read), ENOTTY (loopfast is not loaded). */
#ifndef SIO_LOOPBACK_FAST_PATH
#define SIO_LOOPBACK_FAST_PATH 0x98000010u
#endif

/** The path a connection's bytes take. */
enum loopfast_lane {
    LOOPFAST_LANE_KERNEL = 0, /**< at least one direction still goes through the kernel */
    LOOPFAST_LANE_RING = 1    /**< both directions go through shared memory */
};

/** Why a connection is on the kernel lane. The numbers are stable. */
enum loopfast_reason {
    LOOPFAST_REASON_NONE = 0,      /**< none: it is on the ring lane, or still on its way there */
    LOOPFAST_REASON_NOT_TCP = 1,   /**< not a TCP socket, or not a connection of ours to judge */
    LOOPFAST_REASON_NOT_LOCAL = 2, /**< the peer is not an address of this host, or packets to it leave
                                        through another device than lo */
    LOOPFAST_REASON_PEER_NOT_OPTED_IN = 3, /**< the other end did not opt in, does not have loopfast, or
                                                has made no call yet in which it would answer */
    LOOPFAST_REASON_FILTER = 4,            /**< a packet filter would see the data */
    LOOPFAST_REASON_CAPTURE = 5,           /**< a packet capture would see the data */
    LOOPFAST_REASON_POLICY = 6,            /**< not opted in, or configured to stay on the kernel lane */
    LOOPFAST_REASON_IDENTITY = 7,          /**< the peer could not prove that it owns the other end */
    LOOPFAST_REASON_NAMESPACE = 8,         /**< the socket belongs to another network namespace */
    LOOPFAST_REASON_LIMIT = 9,             /**< no descriptor, memory or slot left for it */
    LOOPFAST_REASON_COUNTERS = 10,         /**< the kernel's byte counts disagree: somebody used the socket
                                                behind loopfast's back */
    LOOPFAST_REASON_OPTION = 11,           /**< a socket option in use that only the kernel can serve */
    LOOPFAST_REASON_BELOW_THRESHOLD = 12,  /**< too few bytes so far to be worth it (`loopfast run`) */
    LOOPFAST_REASON_RESTRICTED = 13,       /**< the process may not make the system calls that it takes, or
                                                gave up such rights itself (no_new_privs, seccomp) */
    LOOPFAST_REASON_SHARED = 14,           /**< several processes hold it (fork): moves once only one does */
    LOOPFAST_REASON_ENDING = 15            /**< it was shut down, by either end, before it could be moved */
};

/** Opts the TCP socket `fd` in (`on` not 0) or out (`on` 0). The same as the ioctl.
 *  @return 0, or -1 with errno EBADF, ENOTSOCK or EOPNOTSUPP. */
int loopfast_enable(int fd, int on);

/** @return the lane of the connection `fd` (enum loopfast_lane), or -1 with errno EBADF or ENOTSOCK. */
int loopfast_lane(int fd);

/** @return why `fd` is on the kernel lane (enum loopfast_reason), or -1 with errno EBADF or ENOTSOCK. */
int loopfast_reason(int fd);

/** @return a reason's short name, as `loopfast status` prints it ("peer-not-opted-in"); "unknown" for a
 *  number that is none. The string is static. */
const char *loopfast_reason_name(int reason);

#ifdef __cplusplus
}
#endif
#endif
