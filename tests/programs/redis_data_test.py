#!/usr/bin/env python3
"""Redis keeps what it was given: values of all sizes written and read back over both lanes, append-only
file and snapshots written by forked children while traffic goes on, compared with a kernel-only server."""

import random
import threading
import unittest

from harness.case import main, on_ring, seeded
from harness.redis import Redis, RedisCase, RedisError
from harness.wait import until


def value_of(key: str, size: int) -> bytes:
    """The value that belongs to a key: no two alike, known without storing them."""
    return random.Random(key).randbytes(size)


class Traffic(threading.Thread):
    """A client with loopfast that writes and checks without pause until it is told to stop."""

    def __init__(self, port: int, seed: int):
        super().__init__(daemon=True)
        self.client = Redis(port)
        self.random = random.Random(seed)
        self.prefix = f"traffic:{seed}"
        self.rounds = 0
        self.problem: BaseException | None = None
        self._end = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while not self._end.is_set():
                number = self.random.randrange(200)
                key = f"{self.prefix}:{number}"
                value = value_of(key, self.random.choice((1, 30, 900, 5000, 70000)))
                got = self.client.pipeline([("SET", key, value), ("GET", key), ("RPUSH", f"{self.prefix}:log", number)])
                if got[0] != b"OK" or got[1] != value:
                    raise AssertionError(f"{key}: {str(got)[:200]}")
                self.rounds += 1
        except BaseException as problem:  # pylint: disable=broad-except
            self.problem = problem

    def give_up(self) -> None:
        """Ends it, whatever it may have found."""
        self._end.set()
        self.join(30)
        self.client.close()

    def stop(self) -> None:
        self.give_up()
        if self.is_alive():
            raise AssertionError(f"a client hangs after {self.rounds} rounds")
        if self.problem:
            raise self.problem
        if self.rounds == 0:
            raise AssertionError("a client did nothing")


class Values(RedisCase):
    def test_values_of_all_sizes(self) -> None:
        """1 B to 8 MB, written by a client of one kind, read by clients of both, singly and pipelined."""
        server, port = self.server()
        sizes = [1, 2, 100, 1447, 1448, 4095, 4096, 4097, 16384, 65535, 65536, 70001, 1 << 20, 3_000_001, 8 << 20]
        for writer_is_fast in (True, False):
            with Redis(port, writer_is_fast) as writer, Redis(port, True) as fast, Redis(port, False) as slow:
                for size in sizes:
                    key = f"{writer_is_fast}:{size}"
                    self.assertEqual(writer.call("SET", key, value_of(key, size)), b"OK")
                for size in sizes:
                    key = f"{writer_is_fast}:{size}"
                    expected = value_of(key, size)
                    for reader in (fast, slow, fast):
                        self.assertTrue(reader.call("GET", key) == expected, f"{key} differs")
                self.warm(fast)
                self.assertFalse(on_ring(slow.socket))

    def test_pipelines(self) -> None:
        """Thousands of commands in one write, of mixed sizes and kinds, checked one by one."""
        server, port = self.server()
        rng = seeded()
        client = self.client(port)
        for _ in range(40):
            commands, expected = [], []
            for i in range(rng.choice((3, 50, 1000))):
                key = f"k{rng.randrange(10**9)}"
                value = value_of(key, rng.choice((1, 10, 60, 300, 1500)))
                commands += [("SET", key, value), ("STRLEN", key), ("GETRANGE", key, 1, 40), ("GETDEL", key)]
                expected += [b"OK", len(value), value[1:41], value]
            got = client.pipeline(commands)
            self.assertTrue(got == expected, "a pipeline's replies differ")
        self.warm(client)
        self.assert_on_ring(server, port)

    def test_a_deep_pipeline_that_nobody_reads_yet(self) -> None:
        """Both directions full: the server stores replies that the client takes only after its last write."""
        server, port = self.server()
        client = self.client(port)
        value = value_of("deep", 100_000)
        client.call("SET", "deep", value)
        requests = 400  # 40 MB of replies: more than any buffer between the two
        for _ in range(requests):
            client.send("GET", "deep")
        for number in range(requests):
            self.assertTrue(client.reply() == value, f"reply {number} differs")
        self.warm(client)


class Persistence(RedisCase):
    def traffic(self, port: int, clients: int) -> list[Traffic]:
        running = [Traffic(port, seed) for seed in range(clients)]
        for one in running:
            self.addCleanup(one.give_up)
        return running

    def fill(self, port: int) -> None:
        with Redis(port) as client:
            for start in range(0, 5000, 500):
                commands = []
                for number in range(start, start + 500):
                    commands += [("SET", f"s{number}", value_of(f"s{number}", number % 700 + 1)),
                                 ("HSET", f"h{number % 50}", f"f{number}", number),
                                 ("ZADD", "z", number * 3 % 1000, f"m{number}"),
                                 ("SADD", f"set{number % 7}", number), ("LPUSH", "list", number)]
                for reply in client.pipeline(commands):
                    self.assertNotIsInstance(reply, RedisError)
            client.call("SET", "big", value_of("big", 6 << 20))

    def test_append_only_file(self) -> None:
        """everysec: after an orderly end the next server, of either kind, has all of it."""
        options = ("--appendonly", "yes", "--appendfsync", "everysec")
        server, port = self.server(*options)
        traffic = self.traffic(port, 3)
        self.fill(port)
        self.assert_on_ring(server, port, 3)
        for one in traffic:
            one.stop()
        digest = self.digest(port, fast=True)
        self.assertEqual(server.stop(), 0)
        again, port = self.server(*options)
        self.assertEqual(self.digest(port, fast=True), digest)
        self.assertEqual(again.stop(), 0)
        _, port = self.server(*options, front=())
        self.assertEqual(self.digest(port), digest)

    def test_children_that_save_under_traffic(self) -> None:
        """The forked child of BGSAVE and BGREWRITEAOF inherits every connection and exits; nobody notices."""
        options = ("--appendonly", "yes", "--appendfsync", "everysec", "--dbfilename", "dump.rdb",
                   "--auto-aof-rewrite-percentage", "0")
        server, port = self.server(*options, "--rdb-key-save-delay", "20")
        self.fill(port)
        traffic = self.traffic(port, 4)
        control = self.client(port)
        self.warm(control)  # while a child holds a connection that is not on the ring yet, it does not go there
        for command, flag in (("BGSAVE", b"rdb_bgsave_in_progress"), ("BGREWRITEAOF", b"aof_rewrite_in_progress"),
                              ("BGSAVE", b"rdb_bgsave_in_progress")):
            control.call(command)
            rounds = [one.rounds for one in traffic]
            until(lambda flag=flag: flag + b":0" in control.call("INFO", "persistence"), command, 60)
            until(lambda rounds=rounds: all(one.rounds > before for one, before in zip(traffic, rounds)),
                  "every client got on meanwhile", 20)
        info = control.call("INFO", "persistence")
        self.assertIn(b"rdb_last_bgsave_status:ok", info)
        self.assertIn(b"aof_last_bgrewrite_status:ok", info)
        self.assert_on_ring(server, port, 5)
        for one in traffic:
            one.stop()
        control.call("CONFIG", "SET", "rdb-key-save-delay", "0")
        self.assertEqual(control.call("SAVE"), b"OK")
        digest = self.digest(port, fast=True)
        copy = self.folder / "copy"
        copy.mkdir()
        (copy / "dump.rdb").write_bytes((self.folder / "dump.rdb").read_bytes())
        _, other = self.server("--dbfilename", "dump.rdb", folder=copy, front=())
        self.assertEqual(self.digest(other), digest)

    def test_killed_while_it_saves(self) -> None:
        """The server dies with its child at work: its clients get the end of the connection, at once."""
        server, port = self.server("--rdb-key-save-delay", "1000")
        self.fill(port)
        clients = [self.client(port, seconds=10) for _ in range(5)]
        for client in clients:
            self.warm(client)
        clients[0].call("BGSAVE")
        server.kill()
        for client in clients:
            self.assertRaises((ConnectionError, BrokenPipeError), client.call, "PING")


if __name__ == "__main__":
    main(needs=["redis-server"])
