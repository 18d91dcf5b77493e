#!/usr/bin/env python3
"""stress-ng's stressors of sockets, descriptors, waiting and signals, with --verify: each is one program that
forks its own client, so both ends are with loopfast or neither is. A stressor must end well with loopfast if
it does without; those that move bytes over TCP must have had connections on the ring lane."""

import unittest

from harness.case import main
from harness.compared import LONG, Compared, Lane, scaled

#: Options of stress-ng, and whether connections must have been fused.
SOCKETS = [
    ("--sock 2", True),
    ("--sock 1 --sock-domain ipv6", True),
    ("--sock 2 --sock-opts random --sock-nodelay", True),
    ("--sockmany 1", False),  # these three connect and part again before there was an exchange to prove it in
    ("--sockabuse 1", False),
    ("--epoll 1 --epoll-domain ipv4", False),
    ("--sockfd 1", False),  # descriptors passed over AF_UNIX
]
LONG_SOCKETS = [
    *((f"--sock 1 --sock-opts {how}", True) for how in ("send", "sendmsg", "sendmmsg")),
    ("--sock 1 --sock-zerocopy", True),
    ("--sock 1 --sock-protocol mptcp", False),
    ("--sock 4 --sendfile 1 --epoll 2", True),
]
OTHERS = ["sendfile", "splice", "vm-splice", "tee", "close", "dup", "poll", "pipe", "fork", "vfork", "clone", "sigpipe", "sigio",
          "sigq", "eventfd", "aio", "pidfd", "sockpair", "udp", "msg", "timerfd", "signest", "rawsock", "sockdiag"]


class Stressors(Compared):
    def run_both(self, options: str, fused: bool, *more: str) -> None:
        def scenario(lane: Lane) -> object:
            self.start("stress-ng", *options.split(), "--timeout", str(scaled(1, 10)), "--verify", "--temp-path",
                       self.folder, front=lane.server).succeed(120)
            return options

        lanes = ("kernel", "both") if LONG else ("both",)
        self.compare(scenario, fused=1 if fused else 0, lanes=lanes, options=more)

    def test_sockets(self) -> None:
        """At a threshold of 0: the stressors' connections are short."""
        for options, fused in SOCKETS + (LONG_SOCKETS if LONG else []):
            self.run_both(options, fused, "--threshold", "0")

    @unittest.skipUnless(LONG, "in the long form")
    def test_default_threshold(self) -> None:
        for options, _ in SOCKETS + LONG_SOCKETS:
            self.run_both(options, False)

    def test_what_is_no_socket(self) -> None:
        """Files, pipes, processes and signals, all at once in the short form: nothing of it may notice."""
        if LONG:
            for name in OTHERS:
                self.run_both(f"--{name} 1", False)
        else:
            self.run_both(" ".join(f"--{name} 1" for name in OTHERS if name not in ("udp", "rawsock")), False)


if __name__ == "__main__":
    main(needs=["stress-ng"])
