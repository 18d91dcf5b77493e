"""One running program, with loopfast in it or without, its output in a file.

A program is ended by the number of the process that was started here, or by its session, which begins
with that process. Everything has a time limit: a hang is a failure, never a test that hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .wait import LIMITS

#: Absolute: programs are started in folders and as users of their own.
BUILD = Path(os.environ.get("LOOPFAST_BUILD", Path(__file__).resolve().parents[3] / "build")).resolve()
COMMAND = BUILD / "loopfast"
LIBRARY = BUILD / "libloopfast.so"

#: A hang is reported after this long unless a test says otherwise.
PATIENCE = 60.0


def clean_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without anything of loopfast's, which the test script itself may run under."""
    kept = {name: value for name, value in os.environ.items()
            if name != "LD_PRELOAD" and (name == "LOOPFAST_BUILD" or not name.startswith("LOOPFAST"))}
    return {**kept, "LC_ALL": "C.UTF-8", **(changes or {})}


def fast(*options: str) -> tuple[str, ...]:
    """What stands in front of a command that is to run with loopfast."""
    return (str(COMMAND), "run", *options, "--")


class Failed(AssertionError):
    """A program ended badly or not at all."""


class Program:
    """A program in a session of its own. `front` is () for one without loopfast, fast() for one with it."""

    def __init__(self, command: Sequence[str | Path], front: Sequence[str] = (), *,
                 env: Mapping[str, str] | None = None, cwd: str | Path | None = None,
                 stdin: int = subprocess.DEVNULL, user: str | None = None):
        self.command = [*front, *map(str, command)]
        self._output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command, stdin=stdin, stdout=self._output, stderr=subprocess.STDOUT,
            env=clean_environment(env), cwd=cwd, start_new_session=True, user=user,
            group=user, extra_groups=[] if user else None)

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        """Everything it has printed so far, to standard output and error."""
        if self._output.closed:
            return ""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def failure(self, what: str) -> Failed:
        return Failed(f"{' '.join(self.command)} (pid {self.pid}): {what}\n--- its output, the end of it:\n"
                      + self.output()[-3000:])

    def require_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise self.failure(f"ended early: {ending(code)}")

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit status, once it has ended by itself."""
        seconds *= LIMITS
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            where = stacks(self.pid)
            self.kill()
            raise self.failure(f"hung: no end within {seconds:.0f} s\n{where}") from None

    def succeed(self, seconds: float = PATIENCE) -> str:
        """Waits for its end, which must be with status 0. @return what it printed."""
        code = self.wait(seconds)
        if code != 0:
            raise self.failure(ending(code))
        return self.output()

    def kill(self) -> None:
        """SIGKILL, to it and to what it started."""
        self._signal_session(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self, number: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Asks it to end, and fails if it does not. @return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(seconds)

    def close(self) -> None:
        """Clean-up, whatever happened."""
        self._signal_session(signal.SIGKILL)
        try:
            self.process.wait(PATIENCE)
        finally:
            self._output.close()
            if self.process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    self.process.stdin.close()

    def _signal_session(self, number: int) -> None:
        for pid in session_members(self.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def session_members(session: int) -> list[int]:
    """The processes of a session that was started here (a daemon that left it is not found)."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append(int(entry))
    return found


def stacks(pid: int) -> str:
    """Where each thread of a hanging process is, as far as /proc tells."""
    lines = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            base = Path("/proc", str(pid), "task", task)
            lines.append(f"thread {task}: {(base / 'comm').read_text().strip()}, "
                         f"in {(base / 'wchan').read_text()}, syscall {(base / 'syscall').read_text().strip()}")
    except OSError as problem:
        lines.append(str(problem))
    return "\n".join(lines)


def ending(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
