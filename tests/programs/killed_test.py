#!/usr/bin/env python3
"""kill -9 of one end at random moments, about a thousand times: the other end always gets the end of the
connection, soon, and never a wrong byte; forked relatives of the killed go on with the stream; nothing is
left over. And an end that is stopped for a while and goes on.

    killed_test.py [--seconds SECONDS] [--kernel]

With --kernel everything runs without loopfast: what the test itself is worth.
"""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness import observe
from harness.case import FAST, Case, main, seeded
from harness.process import BUILD, Program, ending, stacks
from harness.wait import TimeLimit, until

PEER = BUILD / "tests" / "programs" / "stream_peer"
#: The survivor must have heard of it by then. Generous: other tests may share the two processors, and who does not
#: hear of it at all never will.
SOON = 20.0
SECONDS = 40.0
FRONT = FAST
AT_ONCE = 3


def lifetime(rng: random.Random) -> int:
    """Microseconds: often within the first exchanges, when the connection is handed over."""
    return rng.randrange(rng.choice((2_000, 6_000, 30_000, 100_000)))


class Listener:
    """A `stream_peer listen`, and what it said of each connection."""

    def __init__(self, case: Case, mode: str, *options: str):
        self.program: Program = case.start(PEER, "listen", mode, *options, front=FRONT, stdin=subprocess.PIPE)
        self._read = 0
        self._ends: dict[int, list[str]] = {}
        self._lock = threading.Lock()

    def port(self) -> int | None:
        """None: it was killed before it could say."""
        def said() -> str | None:
            line = self.program.output().partition("\n")
            return line[0] if line[1] else ("" if self.program.process.poll() is not None else None)
        line = until(lambda: (said(),) if said() is not None else None, "the listener's port", 20, 0.001)[0]
        return int(line.split()[1]) if line else None

    def end_of(self, identity: int) -> list[str] | None:
        with self._lock:
            text = self.program.output()[self._read:]
            whole = text.rpartition("\n")[0]
            if whole:
                self._read += len(whole) + 1
                for line in whole.splitlines():
                    fields = line.split()
                    if fields[0] == "end":
                        self._ends[int(fields[1])] = fields[2:]
                    elif fields[0] != "port":
                        raise self.program.failure(f"said: {line}")
            return self._ends.pop(identity, None)

    def finish(self) -> None:
        self.program.process.stdin.close()
        if self.program.wait(10) != 0:
            raise self.program.failure("a survivor did not end well")


def ends_in(output: str) -> list[list[str]]:
    return [line.split()[2:] for line in output.splitlines() if line.startswith("end ")]


class Killed(Case):
    def setUp(self) -> None:
        super().setUp()
        self.identities = iter(range(1000, 10**9, 10))
        self.kills = 0
        self.streamed = 0
        self.counting = threading.Lock()

    def counted(self, kills: int, streamed: int) -> None:
        with self.counting:
            self.kills += kills
            self.streamed += streamed

    def check_end(self, end: list[str], where: str) -> None:
        """eof or reset, nothing else; the errno of a reset is one of a reset."""
        self.assertIn(end[0], ("eof", "reset"), f"{where}: {end}")
        self.counted(0, int(end[1]))

    def heard(self, listener: Listener, identity: int, what: str, required: bool) -> list[str] | None:
        """Waits for the line about a connection. One that was killed at its very start may never have said
        its number: then nothing of it may be open either, which the end of the test looks at."""
        try:
            return until(lambda: listener.end_of(identity), f"the end of connection {identity} ({what})",
                         SOON if required else 0.3, 0.002)
        except AssertionError as problem:
            if required:
                states = "\n".join(stacks(pid) for pid in observe.namespace_members())
                raise listener.program.failure(f"{problem}\n{states}") from None
            return None

    def kill_a_connector(self, rng: random.Random, listener: Listener) -> None:
        identity, life = next(self.identities), lifetime(rng)
        victim = self.start(PEER, "connect", rng.choice(("blocking", "epoll")), str(listener.port()), str(identity),
                            "1", "--die-after", str(life), front=FRONT)
        self.assertEqual(victim.wait(20), -signal.SIGKILL, victim.output())
        killed = time.monotonic()
        established = any(connection.startswith("end") for connection in victim.output().splitlines())
        end = self.heard(listener, identity, f"its peer killed after {life} us", f"begun {identity}\n" in victim.output())
        if end is not None:
            self.check_end(end, f"connection {identity}")
            self.assertLess(time.monotonic() - killed, SOON)
        self.assertFalse(established, victim.output())
        self.counted(1, 0)

    def kill_a_listener(self, rng: random.Random) -> None:
        life = lifetime(rng) + 3000
        victim = Listener(self, rng.choice(("blocking", "epoll")), "--die-after", str(life))
        port = victim.port()
        if port is not None:
            identity = next(self.identities)
            survivor = self.start(PEER, "connect", rng.choice(("blocking", "epoll")), str(port), str(identity), "3",
                                  front=FRONT)
            self.assertEqual(victim.program.wait(20), -signal.SIGKILL)
            # It ends by itself when all of its connections have ended.
            code = survivor.wait(SOON)
            if code != 0:
                raise survivor.failure(f"{ending(code)}; its peer was killed after {life} us")
            ends = ends_in(survivor.output())
            self.assertEqual(len(ends), 3, survivor.output())
            for end in ends:
                self.check_end(end, f"connection {identity}")
            survivor.close()
        victim.program.close()
        self.counted(1, 0)

    def kill_a_parent(self, rng: random.Random, listener: Listener) -> None:
        """The relative goes on in both directions, ends in order, and the other side has seen both."""
        identity = next(self.identities)
        fork_after = rng.randrange(25_000)
        life = lifetime(rng)
        victim = self.start(PEER, "connect", rng.choice(("blocking", "epoll")), str(listener.port()), str(identity),
                            "1", "--fork-after", str(fork_after), "--die-after", str(life), front=FRONT)
        self.assertEqual(victim.wait(20), -signal.SIGKILL, victim.output())
        end = self.heard(listener, identity, "its peer's parent killed", True)
        self.check_end(end, f"connection {identity}")
        report = until(lambda: re.search(r"^relative (.*)\n", victim.output(), re.MULTILINE), "the relative's report", SOON)
        relative = report[1].split()[1:]
        if relative[0] != "eof" or end[0] != "eof":
            raise victim.failure(f"fork after {fork_after} us, killed after {life} us: the other side saw {end}")
        self.assertEqual(end[2], relative[3], "all that the relative sent was received")
        self.assertEqual(end[3], relative[1], "all that was sent to it was received")
        victim.close()
        self.counted(1, 0)

    def test_campaign(self) -> None:
        rng = seeded()
        listeners = [Listener(self, mode) for mode in ("blocking", "epoll")]
        for listener in listeners:
            listener.port()
        end = time.monotonic() + SECONDS
        problems: list[BaseException] = []

        def rounds(seed: int) -> None:
            mine = random.Random(seed)
            try:
                while time.monotonic() < end and not problems:
                    kind = mine.randrange(10)
                    if kind < 5:
                        self.kill_a_connector(mine, mine.choice(listeners))
                    elif kind < 8:
                        self.kill_a_listener(mine)
                    else:
                        self.kill_a_parent(mine, mine.choice(listeners))
            except BaseException as problem:  # pylint: disable=broad-except
                problems.append(problem)

        threads = [threading.Thread(target=rounds, args=(rng.random(),)) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{self.kills} killed, {self.streamed / 1e6:.0f} MB received and checked by the survivors")
        if problems:
            raise problems[0]
        self.assertGreater(self.kills, SECONDS * 2, "too few to mean anything")
        for listener in listeners:
            pid = listener.program.pid
            # standard input, output, error, the listening socket; the library's epoll sets per thread went
            # with their threads, the main thread's may be there.
            until(lambda pid=pid: len(observe.of_connections(pid)) <= 4, "the survivor's descriptors are gone")
            until(lambda pid=pid: observe.segments(pid) == 0, "the survivor's segments are gone")
        until(lambda: not observe.socket_names(), "no socket name is left")
        for listener in listeners:
            listener.finish()

    def test_stopped_and_continued(self) -> None:
        """SIGSTOP of either side in the middle of a stream: the other waits without burning time, and no
        byte is lost."""
        rng = seeded()
        for mode in ("blocking", "epoll"):
            listener = Listener(self, mode)
            for _ in range(10):
                connector = self.start(PEER, "connect", mode, str(listener.port()), "7000", "2")
                try:
                    until(lambda pid=connector.pid: observe.lanes(pid)["ring"] == 2, "both are on the ring lane", 2)
                    break
                except TimeLimit:
                    # Four threads that are inside the kernel all the time may stay on the kernel lane.
                    connector.kill()
                    for identity in (7000, 7001):
                        self.heard(listener, identity, "a first attempt", True)
            self.assert_on_ring(connector, listener.port(), 2)
            for stopped, other in ((listener.program, connector), (connector, listener.program)) * 2:
                os.kill(stopped.pid, signal.SIGSTOP)

                def sleeps(pid: int = other.pid) -> bool:
                    before = processor_time(pid)
                    time.sleep(0.2)
                    return processor_time(pid) - before < 0.1

                time.sleep(rng.random() * 0.1)
                # Until it has filled the ring; one that burns time would do so in each of these moments.
                until(sleeps, "the other end sleeps")
                other.require_alive()
                os.kill(stopped.pid, signal.SIGCONT)
                time.sleep(rng.random() * 0.05)
            connector.process.send_signal(signal.SIGTERM)
            ends = ends_in(connector.succeed(30))
            self.assertEqual([end[0] for end in ends], ["eof", "eof"])
            for identity in (7000, 7001):
                self.assertEqual(self.heard(listener, identity, "an orderly end", True)[0], "eof")
            self.assertGreater(min(int(end[1]) for end in ends), 100_000)
            listener.finish()


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    if "--seconds" in sys.argv:
        at = sys.argv.index("--seconds")
        os.environ["LOOPFAST_TEST_KILL_SECONDS"] = sys.argv[at + 1]
        del sys.argv[at:at + 2]
    if "--kernel" in sys.argv:
        sys.argv.remove("--kernel")
        os.environ["LOOPFAST_TEST_KERNEL"] = "1"
    FRONT = () if "LOOPFAST_TEST_KERNEL" in os.environ else FAST
    SECONDS = float(os.environ.get("LOOPFAST_TEST_KILL_SECONDS", SECONDS))
    main(needs=[str(PEER)], preload=False)
