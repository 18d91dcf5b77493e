"""A Redis client over a plain socket, with pipelining; and a Redis server to talk to.

Strings come back as bytes, errors as RedisError values (in a pipeline one error must not hide the rest).
"""

from __future__ import annotations

import socket
from pathlib import Path

from .case import FAST, Case, connect, free_port, on_ring
from .process import PATIENCE, Program
from .wait import until


class RedisError(Exception):
    pass


def encode(*arguments: object) -> bytes:
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


class Redis:
    """One connection. Not for two threads at once."""

    def __init__(self, port: int, fast: bool = True, seconds: float = PATIENCE):
        self.socket = connect(port, fast, seconds)
        self._buffer = bytearray()
        self._at = 0

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *arguments: object) -> None:
        self.socket.sendall(encode(*arguments))

    def call(self, *arguments: object) -> object:
        self.send(*arguments)
        reply = self.reply()
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def pipeline(self, commands: list[tuple]) -> list[object]:
        """Sends all, then reads all. The replies must fit what the two ends buffer, as with any client."""
        self.socket.sendall(b"".join(encode(*command) for command in commands))
        return [self.reply() for _ in commands]

    def reply(self) -> object:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            data = self._take(size + 2)
            if data[-2:] != b"\r\n":
                raise AssertionError(f"a value does not end where it should: {data[-20:]!r}")
            return data[:-2]
        if kind == b"*":
            return None if int(rest) < 0 else [self.reply() for _ in range(int(rest))]
        raise AssertionError(f"not a reply: {line[:80]!r}")

    def _more(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        if self._at:
            del self._buffer[:self._at]
            self._at = 0
        self._buffer += data

    def _line(self) -> bytes:
        while True:
            end = self._buffer.find(b"\r\n", self._at)
            if end >= 0:
                line = bytes(self._buffer[self._at:end])
                self._at = end + 2
                return line
            self._more()

    def _take(self, size: int) -> bytes:
        while len(self._buffer) - self._at < size:
            self._more()
        data = bytes(self._buffer[self._at:self._at + size])
        self._at += size
        return data


class RedisCase(Case):
    """Tests with Redis servers."""

    def server(self, *options: str, port: int | None = None, folder: Path | None = None,
               front: tuple[str, ...] = FAST) -> tuple[Program, int]:
        port = port or free_port()
        program = self.serve(port, "redis-server", "--port", str(port), "--bind", "127.0.0.1",
                             "--dir", folder or self.folder, "--save", "", "--enable-debug-command", "yes",
                             "--loglevel", "notice", *options, front=front)
        with Redis(port, fast=False) as client:
            until(lambda: b"\r\nloading:0" in client.call("INFO", "persistence"), "the data set is loaded")
        return program, port

    def client(self, port: int, fast: bool = True, seconds: float = PATIENCE) -> Redis:
        client = Redis(port, fast, seconds)
        self.addCleanup(client.close)
        return client

    def warm(self, client: Redis, command: str = "ECHO") -> None:
        """A few exchanges beyond the threshold of `loopfast run`: now the connection is on the ring. How many depends
        on whose calls fall together, and a server that has a forked child waits for its end. (One that subscribes
        may say PING only.)"""
        for _ in range(30):
            reply = client.call(command, b"x" * 3000)
            self.assertEqual(reply, b"x" * 3000 if command == "ECHO" else [b"pong", b"x" * 3000])
            if on_ring(client.socket):
                return
        self.fail("thirty exchanges, and not on the ring")

    def digest(self, port: int, fast: bool = False) -> bytes:
        """Redis' own sum over everything it stores."""
        with Redis(port, fast) as client:
            digest = client.call("DEBUG", "DIGEST")
        self.assertEqual(len(digest), 40)
        self.assertNotEqual(digest, b"0" * 40, "an empty data set compares equal to everything")
        return digest
