/* Somebody's C program that uses an installed loopfast: the header compiles as plain C11, and all functions
 * are there and answer as loopfast.h says. Exits 0 when they do. */
#include <errno.h>
#include <loopfast.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int failed;

static void expect(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "not so: %s (errno %d, %s)\n", what, errno, strerror(errno));
        failed = 1;
    }
}

int main(void) {
    int on = 1;
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    int ends[2];
    expect(tcp >= 0 && udp >= 0 && pipe(ends) == 0, "sockets and a pipe can be had");

    // First of all: nothing that the library needs to survive it may have been set up by another call.
    expect(ioctl(tcp, SIO_LOOPBACK_FAST_PATH, (void *)1) == -1 && errno == EFAULT, "ioctl: EFAULT for 1");
    expect(SIO_LOOPBACK_FAST_PATH == 0x98000010u, "the control code is Windows'");
    expect(loopfast_enable(tcp, 1) == 0, "loopfast_enable of a TCP socket");
    expect(loopfast_enable(tcp, 0) == 0, "loopfast_enable off");
    expect(ioctl(tcp, SIO_LOOPBACK_FAST_PATH, &on) == 0, "the ioctl on a TCP socket");

    expect(loopfast_enable(-1, 1) == -1 && errno == EBADF, "EBADF for no descriptor");
    expect(loopfast_enable(ends[0], 1) == -1 && errno == ENOTSOCK, "ENOTSOCK for a pipe");
    expect(loopfast_enable(udp, 1) == -1 && errno == EOPNOTSUPP, "EOPNOTSUPP for UDP");
    expect(ioctl(-1, SIO_LOOPBACK_FAST_PATH, &on) == -1 && errno == EBADF, "ioctl: EBADF");
    expect(ioctl(ends[0], SIO_LOOPBACK_FAST_PATH, &on) == -1 && errno == ENOTSOCK, "ioctl: ENOTSOCK");
    expect(ioctl(udp, SIO_LOOPBACK_FAST_PATH, &on) == -1 && errno == EOPNOTSUPP, "ioctl: EOPNOTSUPP");
    expect(ioctl(tcp, SIO_LOOPBACK_FAST_PATH, NULL) == -1 && errno == EFAULT, "ioctl: EFAULT for NULL");

    expect(loopfast_lane(tcp) == LOOPFAST_LANE_KERNEL, "an unconnected socket is on the kernel lane");
    expect(loopfast_lane(-1) == -1 && errno == EBADF, "loopfast_lane: EBADF");
    expect(loopfast_lane(ends[0]) == -1 && errno == ENOTSOCK, "loopfast_lane: ENOTSOCK");
    expect(loopfast_reason(-1) == -1 && errno == EBADF, "loopfast_reason: EBADF");
    expect(loopfast_reason(tcp) >= 0, "loopfast_reason of a TCP socket");

    expect(strcmp(loopfast_reason_name(LOOPFAST_REASON_PEER_NOT_OPTED_IN), "peer-not-opted-in") == 0,
           "the name of a reason");
    expect(strcmp(loopfast_reason_name(LOOPFAST_REASON_BELOW_THRESHOLD), "below-threshold") == 0,
           "the name of the last reason");
    expect(strcmp(loopfast_reason_name(12345), "unknown") == 0, "the name of no reason");
    expect(strcmp(loopfast_reason_name(-1), "unknown") == 0, "the name of a negative number");
    return failed;
}
