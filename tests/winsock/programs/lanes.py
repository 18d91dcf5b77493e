#!/usr/bin/env python3
"""Which way the bytes go when one end is a program of the Winsock door and the other is something else.

    lanes.py BUILD

Both ends through the Winsock door, or one of them and a POSIX program under `loopfast run`: the ring. One end a plain
POSIX program: the kernel. Asserted by loopfast_lane() where an end can ask, and by `loopfast status --json` while the
connection stands.

    lanes.py server | client PORT      one POSIX end, as tests/winsock/programs/end.c is one
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
SECONDS = 30
SIZE = 1000


def serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print("listening", listener.getsockname()[1], flush=True)
        peer, _ = listener.accept()
        with peer:
            while data := peer.recv(SIZE):
                peer.sendall(data)


def call(port: int) -> None:
    out = bytes(i * 7 & 0xff for i in range(SIZE))
    with socket.create_connection(("127.0.0.1", port)) as peer:
        for _ in range(100):
            peer.sendall(out)
            data = b""
            while len(data) < SIZE:
                part = peer.recv(SIZE - len(data))
                if not part:
                    raise SystemExit("the server closed")
                data += part
            if data != out:
                raise SystemExit("other bytes came back")
        print("100 exchanges, good", flush=True)
        sys.stdin.readline()
        peer.shutdown(socket.SHUT_WR)
        if peer.recv(1):
            raise SystemExit("more came back")


class End:
    """A program that is one end, and the lane that it must be on as itself and as status see it."""

    def __init__(self, build: Path, kind: str, role: str, port: int | None = None) -> None:
        arguments = [role] if port is None else [role, str(port)]
        posix = [sys.executable, str(HERE)]
        command = {"winsock": [str(build / "tests/winsock/programs/end")],
                   "run": [str(build / "loopfast"), "run", "--", *posix], "plain": posix}[kind]
        self.kind = kind
        self.process = subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.lines: list[str] = []

    def line(self, start: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(start):
                return line.rstrip()
        raise SystemExit(f"{self.kind}: no line {start!r} in {self.lines}")

    def finish(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.lines += [line.rstrip() for line in self.process.stdout]
        self.process.wait(SECONDS)
        if self.process.returncode != 0:
            raise SystemExit(f"{self.kind} ended with {self.process.returncode}: {self.lines}")


def status(build: Path, pid: int) -> list[dict]:
    output = subprocess.run([str(build / "loopfast"), "status", "--json", "--pid", str(pid)], capture_output=True,
                            text=True, timeout=SECONDS, check=True).stdout
    found = json.loads(output)
    return [connection for process in found for connection in process["connections"]]


def check(build: Path, server_kind: str, client_kind: str, lane: str) -> None:
    server = End(build, server_kind, "server")
    client = None
    try:
        port = int(server.line("listening ").split()[1])
        client = End(build, client_kind, "client", port)
        client.line("100 exchanges, good")
        # The end that confirms last may still be about to say so.
        deadline = time.monotonic() + SECONDS
        for end in (server, client):
            if end.kind == "plain":
                continue
            mine: list[dict] = []
            while time.monotonic() < deadline:
                mine = [one for one in status(build, end.process.pid)
                        if str(port) in (one["local"].rsplit(":")[-1], one["peer"].rsplit(":")[-1])]
                if mine and all(one["lane"] == lane for one in mine):
                    break
                time.sleep(0.1)
            lanes = [one["lane"] for one in mine]
            # A connection that never met another end of ours need not be listed.
            if lanes != [lane] and not (lane == "kernel" and not lanes):
                raise SystemExit(f"{server_kind} and {client_kind}: status says {mine} of {end.kind}")
            if lane == "ring" and mine[0]["bytes_sent"] < 100 * SIZE // 2:
                raise SystemExit(f"{server_kind} and {client_kind}: few bytes in the ring: {mine}")
        client.finish()
        server.finish()
        for end in (server, client):
            said = [line.rsplit(" ", 1)[1] for line in end.lines if line.startswith("[fast] lane")]
            if end.kind == "winsock" and said != [lane]:
                raise SystemExit(f"{server_kind} and {client_kind}: the program says {said}")
        print(f"server {server_kind}, client {client_kind}: {lane}", flush=True)
    finally:
        for end in (server, client):
            if end is not None and end.process.poll() is None:
                end.process.kill()


def main() -> None:
    if sys.argv[1] == "server":
        serve()
    elif sys.argv[1] == "client":
        call(int(sys.argv[2]))
    else:
        build = Path(sys.argv[1]).resolve()
        for server_kind, client_kind, lane in (("winsock", "winsock", "ring"), ("winsock", "run", "ring"),
                                               ("run", "winsock", "ring"), ("winsock", "plain", "kernel"),
                                               ("plain", "winsock", "kernel")):
            check(build, server_kind, client_kind, lane)


if __name__ == "__main__":
    main()
