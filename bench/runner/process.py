"""Starting, pinning, waiting for and stopping the programs under measurement.

Everything is ended by the number of the process that was started here, and everything has a time limit:
a program that hangs is a failure to report, never a runner that hangs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable

STOP_SECONDS = 5.0


class Failed(Exception):
    """A program ended badly, said nothing in time, or took another lane than claimed."""


def pin_to(cpu: int | None) -> Callable[[], None] | None:
    """What a child does before it becomes the program: stay on one processor (None: on all)."""
    if cpu is None or (os.cpu_count() or 1) < 2:
        return None
    return lambda: os.sched_setaffinity(0, {cpu})


class Program:
    """One running program, its output collected."""

    def __init__(self, command: list[str], cpu: int | None = None, env: dict[str, str] | None = None):
        self.command = command
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._errors: list[str] = []
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", preexec_fn=pin_to(cpu), env={**os.environ, **(env or {})},
            start_new_session=True)
        self._readers = [threading.Thread(target=self._collect, args=(stream, into), daemon=True)
                         for stream, into in ((self.process.stdout, self.lines),
                                              (self.process.stderr, self._errors))]
        for reader in self._readers:
            reader.start()

    def _collect(self, stream, into: list[str]) -> None:
        for line in stream:
            with self._news:
                into.append(line.rstrip("\n"))
                self._news.notify_all()

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, wanted: Callable[[str], bool], seconds: float) -> str:
        """The first line of output that is `wanted`."""
        end = time.monotonic() + seconds
        with self._news:
            while True:
                for line in self.lines:
                    if wanted(line):
                        return line
                left = end - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reading()):
                    raise self.failure(f"did not say what was expected within {seconds:.0f} s")
                self._news.wait(min(left, 0.2))

    def _reading(self) -> bool:
        return any(reader.is_alive() for reader in self._readers)

    def output(self, seconds: float) -> str:
        """Waits for the end; everything it printed. Fails unless it ended with 0 in time."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise self.failure(f"hung: no end within {seconds:.0f} s") from None
        for reader in self._readers:
            reader.join(STOP_SECONDS)
        if code != 0:
            raise self.failure(f"ended by signal {-code}" if code < 0 else f"ended with status {code}")
        return "\n".join(self.lines)

    def failure(self, what: str) -> Failed:
        said = "; ".join(self._errors[-3:] or self.lines[-2:])
        return Failed(f"{' '.join(self.command)}: {what}" + (f" ({said})" if said else ""))

    def require_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise self.failure(f"died by signal {-code}" if code < 0 else f"ended early with status {code}")

    def stop(self) -> None:
        """Asks it to end, then makes it; its own children in its session go with it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for reader in self._readers:
            reader.join(STOP_SECONDS)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port that is free on 127.0.0.1 at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(program: Program, port: int, seconds: float = 10.0) -> None:
    """Returns as soon as somebody accepts connections on `port`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        program.require_alive()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise program.failure(f"did not listen on port {port} within {seconds:.0f} s")
