"""Rules, captures and queueing disciplines come and go every 200 ms under load, and no byte is lost.

    flapping_test.py [--seconds SECONDS]

Ends of several kinds stream all the while and check every byte: in one process and in two, with blocking calls
and with epoll, with privileges and without. The guard is killed and started again in the middle.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from common import Case, Guard, NOBODY, Pair, clean, load_rules, main, run, until, works
from harness.case import FAST, seeded
from harness.process import BUILD

PEER = BUILD / "tests" / "programs" / "stream_peer"
SECONDS = float(os.environ.get("LOOPFAST_TEST_FLAPPING_SECONDS", "10"))
#: Added where too little has happened by then, on a machine that has other things to do.
MORE = 90.0
BETWEEN = 0.2
PLAIN = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")


def lines_of(output: str) -> dict[int, list[str]]:
    return {int(line.split()[1]): line.split()[2:] for line in output.splitlines() if line.startswith("end ")}


class Flapping(Case):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(clean)
        self.problems: list[str] = []
        self.streams = self.bytes = 0
        self.counting = threading.Lock()

    def stream(self, mode: str, front: tuple[str, ...], identities: itertools.count, over: Callable[[], bool],
               microseconds: int = 700_000) -> None:
        """One connector after the other to a listener of its own; what one end sent the other has received."""
        try:
            listener = self.start(PEER, "listen", mode, front=front, stdin=subprocess.PIPE)
            port = until(lambda: listener.output().partition("\n")[0].removeprefix("port ") or None, "a port")
            while not over() and not self.problems:
                first = next(identities)
                connector = self.start(PEER, "connect", mode, str(port), str(first), "2", "--end-after", str(microseconds),
                                       front=front)
                ends = lines_of(connector.succeed())
                for identity in (first, first + 1):
                    ours = ends[identity]
                    theirs = until(lambda identity=identity: lines_of(listener.output()).get(identity),
                                   f"the end of connection {identity}")
                    if ours[0] != "eof" or theirs[0] != "eof" or ours[1] != theirs[3] or ours[3] != theirs[1]:
                        self.problems.append(f"{mode} {front}: connection {identity}: {ours} but {theirs}")
                    with self.counting:
                        self.streams += 1
                        self.bytes += int(ours[1]) + int(theirs[1])
                connector.close()
            listener.process.stdin.close()
            if listener.wait() != 0:
                self.problems.append(f"{mode} {front}: the listener: {listener.output()[-500:]}")
        except BaseException as problem:  # pylint: disable=broad-except
            self.problems.append(f"{mode} {front}: {problem!r}")

    def test_both_leave_at_once(self) -> None:
        """A rule that is there for a moment, again and again, and streams that begin and end all the while: both ends
        hear of it from the guard at the same time, in every state that a connection can be in."""
        Guard(self, "--quiet")
        end = time.monotonic() + SECONDS * 0.8

        def over() -> bool:
            now = time.monotonic()
            return now >= end + MORE or (now >= end and self.streams > SECONDS)

        identities = itertools.count(1000, 2)
        threads = [threading.Thread(target=self.stream, args=(mode, (*PLAIN, *FAST), identities, over, 150_000))
                   for mode in ("blocking", "epoll")]
        for thread in threads:
            thread.start()
        rng = seeded()
        while not over() and not self.problems:
            load_rules("table inet t { chain c { type filter hook input priority 0; counter; }; }")
            time.sleep(0.01)
            run("nft", "flush", "ruleset")
            time.sleep(0.1 + rng.random() * 0.05)
        for thread in threads:
            thread.join()
        print(f"{self.streams} streams, {self.bytes / 1e6:.0f} MB")
        self.assertEqual(self.problems, [])
        self.assertGreater(self.streams, SECONDS)

    def test_flapping(self) -> None:
        rng = seeded()
        holder: list[socket.socket] = []
        tbf = ("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "8gbit", "burst", "4m", "latency", "100ms")
        visitors = [
            (lambda: load_rules("table inet t { chain c { type filter hook input priority 0; counter; }; }"),
             lambda: run("nft", "flush", "ruleset")),
            (lambda: holder.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))),
             lambda: holder.pop().close()),
        ]
        if works(*tbf):
            run("tc", "qdisc", "del", "dev", "lo", "root")
            visitors.append((lambda: run(*tbf), lambda: run("tc", "qdisc", "del", "dev", "lo", "root")))
        if works("iptables-legacy", "-S"):
            visitors.append((lambda: run("iptables-legacy", "-A", "OUTPUT", "-o", "lo"),
                             lambda: run("iptables-legacy", "-F", "OUTPUT")))
        guard = Guard(self)
        pairs = [Pair(self, user=NOBODY), Pair(self)]
        for pair in pairs:
            pair.ask("load", "on")
        end = time.monotonic() + SECONDS
        changes = 0

        def over() -> bool:
            now = time.monotonic()
            return now >= end + MORE or (now >= end and changes > SECONDS * 2)

        identities = itertools.count(1000, 2)
        threads = [threading.Thread(target=self.stream, args=(mode, front, identities, over))
                   for mode in ("blocking", "epoll") for front in ((*PLAIN, *FAST), FAST)[:2 if mode == "epoll" else 1]]
        for thread in threads:
            thread.start()
        killed = False
        while not over() and not self.problems:
            appear, vanish = rng.choice(visitors)
            appear()
            time.sleep(BETWEEN)
            vanish()
            time.sleep(BETWEEN)
            changes += 2
            if not killed and time.monotonic() > end - SECONDS / 2:
                killed = True
                guard.process.kill()
                guard.process.wait(10)
                guard = Guard(self)
        for thread in threads:
            thread.join()
        results = [pair.ask("load", "off") for pair in pairs]
        print(f"{changes} changes; {self.streams} streams between processes, {self.bytes / 1e6:.0f} MB; {results}")
        self.assertEqual(self.problems, [])
        for result in results:
            self.assertEqual(result["problem"], "")
            # It was worth something: connections were on the ring, and left it in the middle.
            self.assertGreater(result["fused"], 0, result)
            self.assertGreater(result["left"], 0, result)
        self.assertGreater(changes, SECONDS * 2)


if __name__ == "__main__":
    if "--seconds" in sys.argv:
        at = sys.argv.index("--seconds")
        os.environ["LOOPFAST_TEST_FLAPPING_SECONDS"] = sys.argv[at + 1]
        del sys.argv[at:at + 2]
    main(needs=["nft", "tc", "setpriv", str(PEER)])
