#!/usr/bin/env python3
"""Faults on purpose: system calls of the library that fail (ENOMEM, EMFILE, ENOSPC, EINTR, ...), a clock that
jumps, limits of descriptors and memory, processes that are killed or stopped, fork storms; over checksummed
streams and over Redis and PostgreSQL, whose data is verified afterwards. Nothing may be lost, nothing may hang.

    faults_test.py [--quick] [--seconds SECONDS] [--write FILE]

--write puts the figures into a file (docs/reliability.md), between its two marks. LOOPFAST_TEST_SEED chooses a run.
"""

import argparse
import glob
import hashlib
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from harness.case import OWN_NAMESPACE, Case, free_port, main, seeded
from harness.process import BUILD
from harness.redis import Redis, RedisError
from harness.wait import until

PEER = BUILD / "tests" / "programs" / "stream_peer"
FAULTY = BUILD / "tests" / "programs" / "libloopfast_faulty.so"
POSTGRES = Path((sorted(glob.glob("/usr/lib/postgresql/*/bin")) or ["/nowhere"])[-1])
NAMES = {0: "read", 9: "mmap", 25: "mremap", 28: "madvise", 35: "nanosleep", 41: "socket", 42: "connect",
         44: "sendto", 17: "pread64", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 49: "bind", 50: "listen", 54: "setsockopt",
         55: "getsockopt", 72: "fcntl", 77: "ftruncate", 228: "clock jumps", 233: "epoll_ctl", 257: "openat",
         288: "accept4", 289: "signalfd4", 290: "eventfd2", 291: "epoll_create1", 302: "prlimit64", 319: "memfd_create", 321: "bpf"}

arguments = argparse.Namespace(quick=False, seconds=120.0, write=None)
#: What came of it, a line for each kind: name -> [faults, connections or transactions, lost].
figures: dict[str, list[int]] = {}


class Injection:
    """How programs are started so that calls of the library fail in them, and the count of those that did."""

    def __init__(self, folder: Path, rate: int, jump: int, seed: int):
        self.path = folder / f"counts-{rate}-{seed}"
        self.path.write_bytes(bytes(4 * 512))
        self.front = ("env", f"LD_PRELOAD={FAULTY}", "LOOPFAST=on", f"LOOPFAST_INJECT_RATE={rate}",
                      f"LOOPFAST_INJECT_SEED={seed}", f"LOOPFAST_INJECT_JUMP={jump}",
                      f"LOOPFAST_INJECT_COUNTS={self.path}", "LOOPFAST_THRESHOLD=100")

    def counts(self) -> dict[str, int]:
        values = struct.unpack("512I", self.path.read_bytes())
        return {NAMES.get(number, str(number)): value for number, value in enumerate(values) if value}


injected: dict[str, int] = {}


class Faults(Case):
    def setUp(self) -> None:
        super().setUp()
        self.folder.chmod(0o777)
        self.rng = seeded()

    def injection(self, rate: int, jump: int = 0) -> Injection:
        one = Injection(self.folder, rate, jump, self.rng.randrange(10**6))
        one.path.chmod(0o666)
        return one

    def note(self, kind: str, injection: Injection | None, faults: int, done: int) -> None:
        counts = injection.counts() if injection else {}
        for name, count in counts.items():
            injected[name] = injected.get(name, 0) + count
        row = figures.setdefault(kind, [0, 0, 0])
        row[0] += faults + sum(counts.values())
        row[1] += done

    def until_time(self, share: float):
        """Rounds until this share of the campaign's time is over, one at least."""
        end = time.monotonic() + share * arguments.seconds
        yield 0
        number = 1
        while time.monotonic() < end:
            yield number
            number += 1

    def streams(self, front: tuple[str, ...], count: int, milliseconds: int) -> int:
        """Streams of checked bytes both ways between two processes; all end in good order. @return how many."""
        modes = [self.rng.choice(("blocking", "epoll")) for _ in range(2)]
        listener = self.start(PEER, "listen", modes[0], front=front, stdin=subprocess.PIPE)
        port = until(lambda: re.match(r"port (\d+)\n", listener.output()), "the listener's port", 20).group(1)
        connector = self.start(PEER, "connect", modes[1], port, "1000", str(count), "--end-after",
                               str(milliseconds * 1000), front=front)
        code = connector.wait(60)
        if code != 0:
            raise connector.failure(f"ended with {code}")
        until(lambda: listener.output().count("\nend ") >= count, "the listener has heard of all ends", 30)
        listener.process.stdin.close()
        if listener.wait(30) != 0:
            raise listener.failure("did not end well")
        for program in (listener, connector):
            ends = [line.split() for line in program.output().splitlines() if line.startswith("end ")]
            self.assertEqual(len(ends), count, program.output())
            for end in ends:
                self.assertIn(end[2], ("eof", "reset"), program.output())
        listener.close()
        connector.close()
        return count

    def test_calls_that_fail_under_streams(self) -> None:
        """Each call of the library's fails now and then, at rates from one in five."""
        for number in self.until_time(0.25):
            injection = self.injection((5, 20, 100, 1000)[number % 4], jump=(0, 5000)[number // 4 % 2])
            done = self.streams(injection.front, self.rng.choice((1, 3, 8)), 300)
            self.note("calls that fail, clocks that jump: checked streams", injection, 0, done)

    def test_limits_under_streams(self) -> None:
        """Few descriptors, little memory: the connections stay on the kernel lane and work."""
        tried = 0
        for number in self.until_time(0.05):
            limits = (["--nofile=20:20"], ["--nofile=26:26"], ["--as=900000000"], ["--nofile=40:40", "--nproc=200"])
            front = ("prlimit", *limits[number % len(limits)], "env", f"LD_PRELOAD={BUILD / 'libloopfast.so'}",
                     "LOOPFAST=on", "LOOPFAST_THRESHOLD=100")
            done = self.streams(front, 3, 200)
            tried += 1
            self.note("limits of descriptors and memory: checked streams", None, 1, done)

    def test_stops_under_streams(self) -> None:
        """SIGSTOP and SIGCONT of either end, again and again, at random moments."""
        for _ in self.until_time(0.1):
            front = ("env", f"LD_PRELOAD={BUILD / 'libloopfast.so'}", "LOOPFAST=on", "LOOPFAST_THRESHOLD=100")
            listener = self.start(PEER, "listen", "epoll", front=front, stdin=subprocess.PIPE)
            port = until(lambda: re.match(r"port (\d+)\n", listener.output()), "the listener's port", 20).group(1)
            connector = self.start(PEER, "connect", "blocking", port, "1000", "3", "--end-after", "900000",
                                   front=front)
            stops = 0
            end = time.monotonic() + 0.7
            while time.monotonic() < end:
                victim = self.rng.choice((listener, connector))
                os.kill(victim.pid, signal.SIGSTOP)
                time.sleep(self.rng.random() * 0.02)
                os.kill(victim.pid, signal.SIGCONT)
                time.sleep(self.rng.random() * 0.01)
                stops += 1
            self.assertEqual(connector.wait(60), 0, connector.output())
            until(lambda: listener.output().count("\nend ") >= 3, "all ends", 30)
            listener.process.stdin.close()
            self.assertEqual(listener.wait(30), 0)
            for program in (listener, connector):
                self.assertNotRegex(program.output(), r"end \d+ (wrong|error)", program.output())
            self.note("SIGSTOP and SIGCONT: checked streams", None, stops, 3)
            listener.close()
            connector.close()

    def test_redis(self) -> None:
        """Calls that fail in the server, with forks that save, clients that are killed and come again; what was
        acknowledged is there afterwards, also after a restart."""
        for number in self.until_time(0.25):
            injection = self.injection((10, 100, 500)[number % 3])
            port = free_port()
            command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                       "--appendonly", "yes", "--appendfsync", "no", "--save", "", "--dbfilename", f"{port}.rdb",
                       "--appendfilename", f"{port}.aof", "--appenddirname", f"aof-{port}")
            server = self.serve(port, *command, front=injection.front)
            expected: dict[bytes, bytes] = {}
            kills = 0
            with Redis(port) as checker:
                for batch in range(10):
                    load = self.start("redis-benchmark", "-p", str(port), "-n", "100000", "-c", "5", "-t", "set,get",
                                      "-r", "1000", "-q", front=injection.front)
                    with Redis(port) as client:
                        items = {b"k%d-%d" % (batch, i): os.urandom(self.rng.choice((10, 1000, 40_000)))
                                 for i in range(40)}
                        answers = client.pipeline([("SET", key, value) for key, value in items.items()])
                        self.assertNotIn(RedisError, map(type, answers))
                        expected.update(items)
                    if batch % 3 == 1:
                        # One may be under way still: then this is an error, and no matter.
                        checker.pipeline([("BGREWRITEAOF",) if batch == 1 else ("BGSAVE",)])
                    time.sleep(self.rng.random() * 0.05)
                    os.kill(load.pid, signal.SIGKILL)
                    kills += 1
                    for key in self.rng.sample(sorted(expected), 10):
                        self.assertEqual(checker.call("GET", key), expected[key])
            with Redis(port) as client:
                for key, value in expected.items():
                    self.assertEqual(client.call("GET", key), value)
                client.send("SHUTDOWN", "NOSAVE")
            self.assertEqual(server.wait(30), 0, server.output())
            server = self.serve(port, *command, front=injection.front)
            with Redis(port) as client:
                until(lambda: b"\r\nloading:0" in client.call("INFO", "persistence"), "Redis has read its file", 30)
                for key, value in expected.items():
                    self.assertEqual(client.call("GET", key), value)
            server.stop(signal.SIGTERM, 30)
            self.note("calls that fail, kill -9 of clients, BGSAVE: Redis", injection, kills, 2 * len(expected))

    def test_postgres(self) -> None:
        """A process for each connection: failing calls in all of them, backends and clients that are killed, a
        storm of short connections; what was committed is there."""
        if not (POSTGRES / "postgres").exists() or os.getuid() != 0:
            self.skipTest("PostgreSQL is not installed, or this is not root")
        injection = self.injection(60)
        port = free_port()
        env = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgres",
               "HOME": str(self.folder)}
        self.start(POSTGRES / "initdb", "-D", self.folder / "data", "-A", "trust", "-N", "--locale=C.UTF-8", front=(),
                   user="postgres", cwd=self.folder).succeed(120)
        server = self.serve(port, POSTGRES / "postgres", "-D", self.folder / "data", "-p", str(port), "-F", "-c",
                            "listen_addresses=127.0.0.1", "-k", self.folder, front=injection.front,
                            user="postgres", cwd=self.folder)
        until(lambda: "ready to accept" in server.output(), "the server is ready", 60)

        def psql(text: str) -> str:
            return self.start("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text, front=injection.front, env=env,
                              user="postgres", cwd=self.folder).succeed(60)

        psql("create table kept (batch int, value text)")
        digests: dict[int, str] = {}
        done = kills = 0
        for number in self.until_time(0.2):
            values = [f"{number}-{i}-{self.rng.randrange(10**9)}" for i in range(500)]
            psql("insert into kept values " + ",".join(f"({number},'{value}')" for value in values))
            digests[number] = hashlib.md5(",".join(sorted(values)).encode()).hexdigest()
            done += len(values)
            killed = self.start("psql", "-XqAt", "-c", "select repeat('x', 1000) from generate_series(1, 100000)",
                                front=injection.front, env=env, user="postgres", cwd=self.folder)
            time.sleep(self.rng.random() * 0.1)
            os.kill(killed.pid, signal.SIGKILL)
            kills += 1
        for number, digest in digests.items():
            found = psql(f"select md5(string_agg(value, ',' order by value collate \"C\")) from kept "
                         f"where batch = {number}")
            self.assertEqual(found.strip(), digest)
        self.assertEqual(server.stop(signal.SIGINT, 60), 0, server.output())
        self.assertNotIn("PANIC", server.output())
        self.assertNotIn("terminated by signal", server.output())
        self.note("calls that fail, kill -9 of clients, forks: PostgreSQL", injection, kills, done)

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        print(report())
        if arguments.write:
            write(Path(arguments.write))


def report() -> str:
    lines = ["| faults, and under what | faults injected | streams, values or rows checked | lost |",
             "|---|---:|---:|---:|"]
    lines += [f"| {kind} | {faults:,} | {done:,} | {lost} |" for kind, (faults, done, lost) in figures.items()]
    calls = ", ".join(f"{name} {count:,}" for name, count in sorted(injected.items(), key=lambda item: -item[1]))
    return "\n".join(lines) + f"\n\nOf these, in calls of the library's: {calls}."


def write(path: Path) -> None:
    text = path.read_text()
    begin, end = "<!-- faults: written by ./dev faults -->", "<!-- end of faults -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{report()}\n{end}{after}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--write")
    known, rest = parser.parse_known_args()
    arguments.write = known.write
    arguments.seconds = known.seconds if known.seconds is not None else (8.0 if known.quick else 300.0)
    if OWN_NAMESPACE in os.environ:  # the frame has started this again, with the same arguments
        sys.argv[1:] = rest
    main(needs=["redis-server", "redis-benchmark", "prlimit"])
