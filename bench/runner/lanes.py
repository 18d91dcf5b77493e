"""What "kernel" and "loopfast" mean: how each side of a pair of programs is started.

A lane is a claim, too: `expect` is the path that the bytes must be seen to take, or the sample fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lane:
    """How the server and the client are started, and which way their bytes must then go."""

    name: str
    expect: str
    server: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    server_cpu: int | None = 0
    client_cpu: int | None = 1


@dataclass(frozen=True)
class Lanes:
    """Makes the lanes of one run: where the build is, and whether processes are pinned."""

    build: Path
    pinned: bool = True

    def run(self, *options: str) -> tuple[str, ...]:
        return (str(self.build / "loopfast"), "run", *options, "--")

    def kernel(self) -> Lane:
        return self._lane("kernel", "kernel", (), ())

    def ring(self, *options: str) -> Lane:
        """Both sides under `loopfast run`, and the bytes in shared memory."""
        return self._lane("loopfast", "ring", self.run(*options), self.run(*options))

    def loaded(self) -> Lane:
        """Both sides under `loopfast run`, with traffic that must stay on the kernel lane."""
        return self._lane("loopfast", "kernel", self.run(), self.run())

    def server_only(self) -> Lane:
        """The server under `loopfast run`, the client without."""
        return self._lane("loopfast", "kernel", self.run(), ())

    def bystander(self) -> Lane:
        """One program that does not opt in, with the library preloaded."""
        library = self.build / "libloopfast.so"
        return self._lane("preloaded", "none", (), ("/usr/bin/env", f"LD_PRELOAD={library}"))

    def winsock(self) -> Lane:
        """Programs of the Winsock door on both sides: they set the control code themselves."""
        return self._lane("loopfast", "ring", (), ())

    def winsock_server(self) -> Lane:
        """A server of the Winsock door, a client under `loopfast run`."""
        return self._lane("loopfast", "ring", (), self.run())

    def _lane(self, name: str, expect: str, server: tuple[str, ...], client: tuple[str, ...]) -> Lane:
        cpus = (0, 1) if self.pinned else (None, None)
        return Lane(name, expect, server, client, *cpus)
