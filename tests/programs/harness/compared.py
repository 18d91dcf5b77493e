"""One scenario, four times: over kernel TCP, with loopfast on both ends, on the server only and on the client
only. What the scenario returns must be the same each time; where both ends have loopfast its connections must
in fact have been fused, and where they do not, none may have been.

    class Files(Compared):
        def test_something(self):
            def scenario(lane):
                server = self.serve(port, "server", ..., front=lane.server)
                client = self.start("client", ..., front=lane.client)
                return client.succeed()
            self.compare(scenario)

Each lane's programs are ended before the next begins, and nothing of the library's may be left of them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import observe
from .case import OWN_NAMESPACE, Case
from .process import Program, fast
from .wait import until

#: `./dev apps --long` sets it: more rounds, more bytes, every lane.
LONG = os.environ.get("LOOPFAST_TEST_LONG", "") == "1"

#: For scenarios that take their time to begin: all lanes are for the long form.
LANES = ("kernel", "both", "server", "client") if LONG else ("kernel", "both")

#: Descriptors above are the library's (base/hidden.h); no program of these tests opens so many.
FIRST_HIDDEN = 700

#: A lane's runs, should its connections end before they are fused.
ATTEMPTS = 3


def scaled(quick: int, long: int) -> int:
    """A number of rounds or bytes for each of the two forms."""
    return long if LONG else quick


@dataclass(frozen=True)
class Lane:
    """Which ends have loopfast."""

    name: str
    server: tuple[str, ...]
    client: tuple[str, ...]
    log: Path  #: what the library decided, in every program of this lane

    def decided(self) -> str:
        return self.log.read_text(errors="replace")

    def fused(self) -> int:
        """How many connections have gone over to the ring so far."""
        return self.decided().count(" fused as connector")


class Compared(Case):
    """Tests that compare the lanes."""

    def lane(self, name: str, *options: str) -> Lane:
        # Written by processes of other users too, and opened anew by each: made here, for all of them.
        log = self.folder / f"log-{name}-{time.monotonic_ns()}"
        log.touch()
        log.chmod(0o666)
        self.folder.chmod(0o755)
        with_it = fast("--log", str(log), *options)
        return Lane(name, with_it if name in ("both", "server") else (),
                    with_it if name in ("both", "client") else (), log)

    def compare(self, scenario: Callable[[Lane], object], fused: int = 1, options: Sequence[str] = (),
                lanes: Sequence[str] = ("kernel", "both", "server", "client"), inside: bool = False) -> None:
        """Runs it in each lane; the first lane's result is what the others must show. `fused` is the least
        number of connections that must have been fused where both ends have loopfast; 0: a scenario in which
        none need be (its client is one that stays on the kernel lane). `inside`: the server side has connections
        within itself, so there may be fused ones with the client on the kernel lane.

        Whether a connection is fused before it ends is a race that its programs may lose on a loaded machine, and
        losing it is no fault. So a lane that fused too few is run again, twice at most; its results must be right
        each time."""
        expected: object = None
        for name in lanes:
            with self.subTest(lane=name):
                before = set(self.folder.iterdir())
                for attempt in range(ATTEMPTS):
                    result, lane = self.in_lane(scenario, name, options)
                    if name == lanes[0]:
                        expected = result
                    else:
                        self.assertEqual(result, expected, f"the {name} lane differs from the {lanes[0]} lane")
                    if name != "both" or lane.fused() >= fused or attempt == ATTEMPTS - 1:
                        break
                    print(f"    only {lane.fused()} of {fused} were fused: once more", flush=True)
                    self.remove(set(self.folder.iterdir()) - before)
                if name == "both":
                    self.assertGreaterEqual(lane.fused(), fused, lane.decided()[-3000:])
                elif name == "kernel" or not inside:
                    self.assertEqual(lane.fused(), 0, "one end alone cannot be fused with anybody")

    @staticmethod
    def remove(entries: set[Path]) -> None:
        """What a run of a scenario has left in the test's folder, which its next run makes again."""
        for entry in entries:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def in_lane(self, scenario: Callable[[Lane], object], name: str, options: Sequence[str]) -> tuple[object, Lane]:
        """One run of the scenario, after which nothing is left of its programs."""
        lane = self.lane(name, *options)
        begin = time.monotonic()
        before = len(self.programs)
        try:
            result = scenario(lane)
        except BaseException as problem:
            self.show(problem, lane)
            raise
        finally:
            for program in self.programs[before:]:
                program.close()
        self.clean()
        print(f"    {self.id().rpartition('.')[2]}, {name}: {lane.fused()} fused, "
              f"{time.monotonic() - begin:.1f} s", flush=True)
        return result, lane

    def show(self, problem: BaseException, lane: Lane) -> None:
        """A failure in the middle of a scenario: what the programs said."""
        print(f"\n--- {type(problem).__name__} in the {lane.name} lane", flush=True)
        for program in self.programs:
            if text := program.output():
                print(f"--- the output of {' '.join(program.command)[:160]}, its end:\n{text[-800:]}", flush=True)
        if lane.name != "kernel":
            print(f"--- the library's log, its end:\n{lane.decided()[-800:]}", flush=True)

    def clean(self) -> None:
        """The programs of a lane have ended: no process and no name may be left of them."""
        if os.environ.get(OWN_NAMESPACE) == "1":
            until(lambda: not observe.namespace_members(), "no process is left")
            until(lambda: not observe.socket_names(), "no socket name is left")

    def holds(self, program: Program | int) -> tuple[int, int]:
        """What a server holds at rest: its own descriptors with the links of its connections, and its segments.
        What else the library has (a log, epoll sets, the steward's event, the capture list, the socket
        that tells of changed routes) is the process's."""
        pid = program if isinstance(program, int) else program.pid
        told = observe.netlink_sockets(pid)
        held = [target for number, target in observe.descriptors(pid).items()
                if number < FIRST_HIDDEN or (target.startswith("socket:") and target not in told)]
        return len(held), observe.segments(pid)

    def holds_again(self, program: Program | int, before: tuple[int, int], spare: int = 0) -> None:
        """A server has let everything go again that it got since `before` was taken. `spare`: descriptors that it
        may have gained for its own reasons."""
        pid = program if isinstance(program, int) else program.pid
        try:
            until(lambda: self.holds(pid)[0] <= before[0] + spare and self.holds(pid)[1] <= before[1],
                  f"it holds no more than {before} (descriptors, segments) again")
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {self.holds(pid)}; {observe.descriptors(pid)}") from None
