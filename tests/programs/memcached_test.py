#!/usr/bin/env python3
"""memcached: libevent and worker threads that are handed each connection; text protocol, checked values."""

import os
import random
import threading

from harness import observe
from harness.case import Case, connect, free_port, main, on_ring, seeded
from harness.wait import until


class Memcache:
    """One connection."""

    def __init__(self, port: int, fast: bool):
        self.socket = connect(port, fast)
        self.file = self.socket.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def set(self, key: str, value: bytes) -> None:
        self.socket.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(value), value))
        line = self.file.readline()
        assert line == b"STORED\r\n", line

    def get(self, *keys: str) -> dict[str, bytes]:
        self.socket.sendall(b"get " + " ".join(keys).encode() + b"\r\n")
        found = {}
        while (line := self.file.readline()) != b"END\r\n":
            word, key, _, size = line.split()
            assert word == b"VALUE", line
            found[key.decode()] = self.file.read(int(size))
            assert self.file.read(2) == b"\r\n"
        return found


class Cache(Case):
    def test_values(self) -> None:
        """Clients of both kinds at once, each on one of four worker threads, large multi-gets included."""
        port = free_port()
        user = ("-u", "root") if os.getuid() == 0 else ()
        server = self.serve(port, "memcached", "-l", "127.0.0.1", "-p", str(port), "-t", "4", "-m", "256", "-I", "4m", *user)
        rng = seeded()
        problems: list[BaseException] = []

        def use(number: int, seed: int) -> None:
            try:
                client, mine = Memcache(port, number % 3 > 0), random.Random(seed)
                for _ in range(60):
                    values = {f"{number}:{mine.randrange(50)}": mine.randbytes(mine.choice((1, 500, 4000, 100_000, 900_000)))
                              for _ in range(5)}
                    for key, value in values.items():
                        client.set(key, value)
                    if client.get(*values) != values:
                        raise AssertionError(f"client {number}: values differ")
                for _ in range(30):  # until its calls and the worker's have fallen together
                    if number % 3 > 0 and not on_ring(client.socket):
                        client.get(*values)
                if on_ring(client.socket) != (number % 3 > 0):
                    raise AssertionError(f"client {number} is on the wrong lane")
                client.close()
            except BaseException as problem:  # pylint: disable=broad-except
                problems.append(problem)

        threads = [threading.Thread(target=use, args=(number, rng.getrandbits(32))) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]
        until(lambda: observe.segments(server.pid) == 0, "the server let the segments go")
        with connect(port) as last:
            last.sendall(b"stats\r\nquit\r\n")
            text = b"".join(iter(lambda: last.recv(65536), b""))
            self.assertIn(b"STAT curr_connections", text)
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    main(needs=["memcached"])
