"""The frame of a test script.

    class Queries(Case): ...

    if __name__ == "__main__":
        main(__doc__, needs=["redis-server"])

main() gives the script a network namespace of its own where it may (as root): then nobody else's
programs, ports or socket names are in sight, and what is left over at the end is ours for certain. It
loads the library into the script, switched off: a test opts its own sockets in one by one, so that one
script can be both a client with loopfast and a client without.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path

from . import observe
from .process import COMMAND, LIBRARY, PATIENCE, Program, clean_environment, fast, stacks
from .wait import TimeLimit, until

SKIP = 77
OWN_NAMESPACE = "LOOPFAST_TEST_NAMESPACE"
CLONE_NEWNET = 0x40000000
SIO_LOOPBACK_FAST_PATH = 0x98000010
FAST = fast()
#: A connection that carried this many bytes has been offered the ring lane (its threshold is 2048).
ESTABLISHED = 10_000


def opt_in(sock: socket.socket, on: int = 1) -> None:
    fcntl.ioctl(sock, SIO_LOOPBACK_FAST_PATH, struct.pack("i", on))


def on_ring(sock: socket.socket) -> bool:
    """Whether both directions of one of the script's own connections go through shared memory."""
    return ctypes.CDLL(None).loopfast_lane(sock.fileno()) == 1


def connect(port: int, fast: bool = True, seconds: float = PATIENCE) -> socket.socket:
    """A connection of the script's own, opted in or not; no call on it waits longer than `seconds`."""
    sock = socket.socket()
    if fast:
        opt_in(sock)
    sock.settimeout(seconds)
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Case(unittest.TestCase):
    """A test that starts programs. Afterwards none of them is left, nor anything of the library's."""

    def setUp(self) -> None:
        self.programs: list[Program] = []
        self.folder = Path(tempfile.mkdtemp(prefix="loopfast-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self._nothing_left)
        self.before = observe.descriptors(os.getpid())

    def start(self, *command: str | Path, front: Sequence[str] = FAST, **options: object) -> Program:
        """Starts a program; it is killed when the test is over, if it has not ended by then."""
        program = Program(command, front, **options)
        self.programs.append(program)
        self.addCleanup(program.close)
        return program

    def serve(self, port: int, *command: str | Path, front: Sequence[str] = FAST, **options: object) -> Program:
        """Starts a server and returns when it accepts connections on `port`."""
        program = self.start(*command, front=front, **options)
        listening(program, port)
        return program

    def assert_on_ring(self, program: Program | int, port: int, at_least: int = 1,
                       meanwhile: Callable[[], object] = lambda: None) -> None:
        """The connections of `port` that a process has are on the ring lane: all that have carried enough
        to be past the threshold of `loopfast run`. `meanwhile` makes them carry more: an end that could not
        go there when it looked, looks again after four times as much."""
        pid = program if isinstance(program, int) else program.pid
        count: dict[str, int] = {}

        def settled() -> bool:
            count.update(observe.lanes(pid, port, ESTABLISHED))
            if count["ring"] >= at_least and not count["kernel"]:
                return True
            meanwhile()
            return False

        try:
            until(settled, "the ring lane", 20)
        except TimeLimit:
            table = subprocess.run([COMMAND, "status", "--pid", str(pid)], env=clean_environment(), text=True,
                                   capture_output=True, timeout=20, check=False).stdout
            self.fail(f"{count}, wanted {at_least} or more on the ring lane and no other. Now:\n{table[:3000]}")

    def load_on_ring(self, begin: Callable[[], Program], on_ring: Callable[[], bool], seconds: float = PATIENCE) -> Program:
        """Starts a load, and returns it once `on_ring` has seen it on the ring lane. On a loaded machine one may be
        over before anybody has looked: then another one is started, three in all."""
        for _ in range(3):
            load = begin()
            if until(lambda load=load: (on_ring() and "seen") or (load.process.poll() is not None and "over"),
                     "the load's connections are on the ring lane", seconds) == "seen":
                return load
            load.succeed()
        raise load.failure("three times, and nobody has seen it on the ring lane")

    def load_of(self, server: Program, port: int, at_least: int, *command: str | Path) -> Program:
        """A load that has so many connections of a server's on the ring lane."""
        def seen() -> bool:
            server.require_alive()
            return observe.lanes(server.pid, port, ESTABLISHED)["ring"] >= at_least

        return self.load_on_ring(lambda: self.start(*command), seen)

    def _nothing_left(self) -> None:
        """Runs after all programs were ended and the script closed its sockets."""
        if os.environ.get(OWN_NAMESPACE) == "1":
            until(lambda: not observe.namespace_members(), "no process is left")
            until(lambda: not observe.socket_names(), "no socket name is left")
        self.assertEqual(observe.segments(os.getpid()), 0, "segments are left in the test itself")
        left = {number: target for number, target in observe.of_connections(os.getpid()).items()
                if number not in self.before}
        self.assertEqual(left, {}, "descriptors are left in the test itself")


def listening(program: Program, port: int, seconds: float = PATIENCE) -> None:
    """Returns as soon as somebody listens on `port`; looks without connecting."""
    wanted = f":{port:04X} "

    def found() -> bool:
        program.require_alive()
        return any(wanted in line and line.split()[3] == "0A"
                   for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()
                   if line.split()[1].endswith(wanted.strip()))

    try:
        until(found, f"port {port} is listened on", seconds)
    except AssertionError as problem:
        raise program.failure(str(problem) + "\n" + stacks(program.pid)) from None


_given: set[int] = set()


def free_port() -> int:
    """A TCP port that nobody has, given to one caller only: and below those that the kernel gives to connections,
    so that no client's own end takes it before the server that it is meant for has begun. The ports 10000 above,
    where a Redis cluster has its bus, are not given out either."""
    while True:
        port = random.SystemRandom().randrange(10_000, 20_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def seeded() -> random.Random:
    """Random numbers that LOOPFAST_TEST_SEED repeats; the seed is printed."""
    seed = int(os.environ.get("LOOPFAST_TEST_SEED", "0")) or int.from_bytes(os.urandom(4), "little")
    print(f"LOOPFAST_TEST_SEED={seed}", flush=True)
    return random.Random(seed)


def skip(why: str) -> None:
    print(f"skipped: {why}")
    sys.exit(SKIP)


def _own_namespace() -> bool:
    """A network namespace with its loopback up, if we may have one."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = bytearray(struct.pack("16sh14x", b"lo", 0))
        fcntl.ioctl(control, 0x8913, request)  # SIOCGIFFLAGS
        flags = struct.unpack_from("h", request, 16)[0]
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP
    return True


def main(needs: Sequence[str] = (), preload: bool = True, body: Callable[[], int] | None = None) -> None:
    """Runs the script's tests, or `body`, and exits: 0, 1, or 77 when a program that it needs is not there."""
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = [name for name in needs if shutil.which(name) is None]
    if missing:
        skip(f"{', '.join(missing)} not installed")
    if OWN_NAMESPACE not in os.environ:
        os.environ[OWN_NAMESPACE] = "1" if _own_namespace() else "0"
        if preload:
            os.environ["LD_PRELOAD"] = str(LIBRARY)
            os.environ["LOOPFAST"] = "off"
        os.execv(sys.executable, [sys.executable, "-u", *sys.argv])
    # Stops are failures with a place: SIGTERM is what ctest's time limit and `timeout` send.
    faulthandler.enable()
    faulthandler.register(signal.SIGTERM, chain=True)
    if body is not None:
        sys.exit(body())
    unittest.main(verbosity=2)
