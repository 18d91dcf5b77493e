#!/usr/bin/env python3
"""Redis as a place where clients meet: publishing, monitoring, blocking, replication, clients that are
thrown out, threads that do the input and output, a thousand connections, and Redis' own two tools."""

import csv
import random
import threading
import time

from harness import observe
from harness.case import FAST, main, on_ring, seeded
from harness.redis import Redis, RedisCase
from harness.wait import until


class Meeting(RedisCase):
    def test_publish(self) -> None:
        """Every subscriber, with loopfast or without, gets every message in order."""
        server, port = self.server()
        subscribers = [self.client(port, fast=number % 3 > 0) for number in range(9)]
        for subscriber in subscribers:
            self.assertEqual(subscriber.call("SUBSCRIBE", "news"), [b"subscribe", b"news", 1])
        publisher = self.client(port)
        messages = [random.Random(number).randbytes(number * 37 % 9000) for number in range(600)]
        for start in range(0, 600, 50):
            batch = messages[start:start + 50]
            self.assertEqual(publisher.pipeline([("PUBLISH", "news", message) for message in batch]), [9] * 50)
            for subscriber in subscribers:
                for number, message in enumerate(batch, start):
                    self.assertTrue(subscriber.reply() == [b"message", b"news", message], f"message {number}")
        for number, subscriber in enumerate(subscribers):  # until now they have only listened
            if number % 3 > 0:
                self.warm(subscriber, "PING")
        self.assertEqual([on_ring(one.socket) for one in subscribers], [n % 3 > 0 for n in range(9)])

    def test_monitor(self) -> None:
        """A stream that only the server writes."""
        server, port = self.server()
        monitor, client = self.client(port), self.client(port)
        self.assertEqual(monitor.call("MONITOR"), b"OK")
        for start in range(0, 3000, 100):
            client.pipeline([("SET", f"key{number}", number) for number in range(start, start + 100)])
            for number in range(start, start + 100):
                self.assertIn(b'"SET" "key%d" "%d"' % (number, number), monitor.reply())
        # What the monitor itself sends may never have left the kernel lane: it sends nothing.
        received = [one for one in observe.connections(server.pid) if one["lane"] == "ring"]
        self.assertGreaterEqual(len(received), 1)

    def test_blocking_commands(self) -> None:
        """BLPOP: woken by a push, by the time limit, in the order of arrival; server and client asleep."""
        server, port = self.server()
        waiting = [self.client(port) for _ in range(20)]
        pusher = self.client(port)
        for client in waiting:
            self.warm(client)
        for _ in range(30):
            for number, client in enumerate(waiting):
                client.send("BLPOP", "queue", "20")
                until(lambda number=number: b"blocked_clients:%d\r" % (number + 1) in pusher.call("INFO", "clients"),
                      "the client waits", pause=0)
            self.assertEqual(pusher.call("RPUSH", "queue", *range(len(waiting))), len(waiting))
            for number, client in enumerate(waiting):
                self.assertEqual(client.reply(), [b"queue", b"%d" % number])
        begin = time.monotonic()
        self.assertIsNone(waiting[0].call("BLPOP", "queue", "0.3"))
        self.assertGreater(time.monotonic() - begin, 0.29)
        self.assertLess(time.monotonic() - begin, 10)
        self.assert_on_ring(server, port, 20)

    def test_client_kill(self) -> None:
        """The server closes connections: their ends see it, the others do not."""
        server, port = self.server()
        victims = [self.client(port, seconds=10) for _ in range(10)]
        control = self.client(port)
        for client in (*victims, control):
            self.warm(client)
        sockets = observe.sockets(server.pid)
        for victim in victims[:5]:  # at rest
            identity = victim.call("CLIENT", "ID")
            self.assertEqual(control.call("CLIENT", "KILL", "ID", identity), 1)
            self.assertEqual(victim.socket.recv(1), b"")
        for victim in victims[5:]:  # asleep in a blocking command, with a request still to come
            identity = victim.call("CLIENT", "ID")
            victim.send("BLPOP", "nothing", "30")
            victim.send("PING")
            self.assertEqual(control.call("CLIENT", "KILL", "ID", identity), 1)
            with self.assertRaises(ConnectionError):
                victim.reply()
        self.assertEqual(control.call("PING"), b"PONG")
        for victim in victims:
            victim.close()
        until(lambda: observe.segments(server.pid) == 1, "the server let the segments go")
        # Each had its socket and its link.
        until(lambda: observe.sockets(server.pid) == sockets - 2 * len(victims), "and the descriptors")

    def test_output_buffer_limit(self) -> None:
        """A client that does not read is thrown out when the server has stored too much for it: the ring,
        like a socket's buffer, must say no at some point."""
        server, port = self.server("--client-output-buffer-limit", "normal 20mb 0 0")
        client, control = self.client(port, seconds=20), self.client(port)
        self.warm(client)
        identity = client.call("CLIENT", "ID")
        client.call("SET", "value", b"v" * 1_000_000)
        client.socket.sendall(b"GET value\r\n" * 200)
        until(lambda: b"id=%d " % identity not in control.call("CLIENT", "LIST"), "the client is thrown out", 20)
        received = 0
        try:
            while data := client.socket.recv(1 << 20):
                received += len(data)
        except ConnectionError:
            pass  # bytes that the server had not read yet make it a reset
        self.assertLess(received, 60_000_000)
        self.assertEqual(control.call("PING"), b"PONG")

    def test_io_threads(self) -> None:
        """Threads of the server read and write the same connections in turns."""
        server, port = self.server("--io-threads", "3", "--io-threads-do-reads", "yes")
        rng = seeded()
        clients = [self.client(port, fast=number % 4 > 0) for number in range(24)]
        for _ in range(60):
            sent = []
            for client in clients:  # all at once: only then does Redis use its threads
                value = rng.randbytes(rng.choice((10, 1000, 40000)))
                client.send("ECHO", value)
                sent.append(value)
            for client, value in zip(clients, sent):
                self.assertTrue(client.reply() == value)
        for number, client in enumerate(clients):
            if number % 4 > 0:
                self.warm(client)
        self.assertEqual(observe.lanes(server.pid, port)["ring"], 18)

    def test_a_thousand_connections(self) -> None:
        server, port = self.server("--maxclients", "2000")
        descriptors = len(observe.of_connections(server.pid))
        clients = [self.client(port, fast=number % 5 > 0) for number in range(1000)]
        for client in clients:
            client.send("ECHO", b"y" * 3000)
        for client in clients:
            self.assertEqual(client.reply(), b"y" * 3000)
        for client in clients:
            self.assertEqual(client.call("ECHO", b"z" * 3000), b"z" * 3000)
        for number, client in enumerate(clients):
            if number % 5 > 0 and not on_ring(client.socket):
                self.warm(client)
        self.assertEqual(sum(on_ring(client.socket) for client in clients), 800)
        for client in clients:
            client.close()
        until(lambda: len(observe.of_connections(server.pid)) <= descriptors, "the server's descriptors are gone")
        until(lambda: observe.segments(server.pid) == 0, "the server's segments are gone")


class Replication(RedisCase):
    def test_replica_of_a_master(self) -> None:
        """The first synchronisation sends a file by a forked child; then commands flow; the link breaks
        and is made again; in the end both hold the same."""
        master, port = self.server("--repl-diskless-sync", "no")
        folder = self.folder / "replica"
        folder.mkdir()
        writer = self.client(port)
        for number in range(300):
            writer.call("SET", f"before{number}", random.Random(number).randbytes(20_000))
        replica, other = self.server("--replicaof", f"127.0.0.1 {port}", "--repl-diskless-load", "disabled",
                                     folder=folder)
        watcher = self.client(other)

        def synchronous() -> bool:
            return b"master_link_status:up" in watcher.call("INFO", "replication")

        until(synchronous, "the replica is synchronous", 30)
        for number in range(20_000):
            writer.send("SET", f"after{number % 5000}", f"value {number}")
        for _ in range(20_000):
            self.assertEqual(writer.reply(), b"OK")
        self.assertEqual(writer.call("WAIT", 1, 20_000), 1)
        self.assertEqual(self.digest(port), self.digest(other))
        # The master had a child, which saved the data, when it looked.
        self.assert_on_ring(replica, port, meanwhile=lambda: writer.call("SET", "more", bytes(100_000)))

        self.assertEqual(writer.call("CLIENT", "KILL", "TYPE", "replica"), 1)
        for number in range(2000):
            writer.call("APPEND", "log", f"{number},")
        until(lambda: synchronous() and writer.call("WAIT", 1, 1000) == 1, "the replica came back", 30)
        self.assertEqual(self.digest(port), self.digest(other))

    def test_diskless(self) -> None:
        """The forked child itself writes to the replica's connection through a pipe of the master."""
        _, port = self.server("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        writer = self.client(port)
        for number in range(300):
            writer.call("SET", f"key{number}", random.Random(number).randbytes(20_000))
        folder = self.folder / "replica"
        folder.mkdir()
        _, other = self.server("--replicaof", f"127.0.0.1 {port}", "--repl-diskless-load", "swapdb", folder=folder)
        watcher = self.client(other)
        until(lambda: b"master_link_status:up" in watcher.call("INFO", "replication"), "the replica is synchronous", 30)
        writer.call("SET", "last", "one")
        self.assertEqual(writer.call("WAIT", 1, 20_000), 1)
        self.assertEqual(self.digest(port), self.digest(other))


class Tools(RedisCase):
    def test_benchmark(self) -> None:
        """redis-benchmark, single and pipelined, beside a Python client that checks its own values."""
        server, port = self.server()
        wrong: list[str] = []
        stop = threading.Event()

        def check() -> None:
            with Redis(port) as client:
                number = 0
                while not stop.is_set():
                    number += 1
                    if client.pipeline([("SET", "mine", number), ("GET", "mine")]) != [b"OK", b"%d" % number]:
                        wrong.append(f"at {number}")

        checker = threading.Thread(target=check, daemon=True)
        checker.start()
        for arguments in (["-c", "50", "-n", "40000"], ["-c", "20", "-n", "60000", "-P", "16"],
                          ["-c", "5", "-n", "5000", "-d", "20000"], ["-c", "8", "-n", "20000", "--threads", "2"]):
            benchmark = self.load_of(server, port, 5, "redis-benchmark", "-p", str(port), "-t", "set,get,lpush,lpop,mset",
                                     "--csv", *arguments)
            rows = list(csv.DictReader(line for line in benchmark.succeed(90).splitlines() if line.startswith('"')))
            self.assertGreaterEqual(len(rows), 5)
            self.assertTrue(all(float(row["rps"]) > 0 for row in rows))
        stop.set()
        checker.join(20)
        self.assertFalse(checker.is_alive())
        self.assertEqual(wrong, [])

    def test_command_line(self) -> None:
        """redis-cli: a file of commands in, large values out, --pipe, --bigkeys; same as without loopfast."""
        _, port = self.server()
        commands = self.folder / "commands"
        commands.write_text("".join(f"SET cli{number} {'v' * (number % 4000 + 1)}\n" for number in range(5000)))
        for front in (FAST, ()):
            with commands.open() as file:
                piped = self.start("redis-cli", "-p", str(port), "--pipe", front=front, stdin=file.fileno())
                self.assertIn("errors: 0, replies: 5000", piped.succeed())
            with commands.open() as file:
                lines = self.start("redis-cli", "-p", str(port), front=front, stdin=file.fileno()).succeed()
            self.assertEqual(lines.split(), ["OK"] * 5000)
            got = self.start("redis-cli", "-p", str(port), "GET", "cli3998", front=front).succeed()
            self.assertEqual(got, "v" * 3999 + "\n")
            keys = self.start("redis-cli", "-p", str(port), "--scan", "--pattern", "cli*", front=front).succeed()
            self.assertEqual(sorted(keys.split()), sorted(f"cli{number}" for number in range(5000)))
            self.assertIn("Sampled 5000 keys",
                          self.start("redis-cli", "-p", str(port), "--bigkeys", front=front).succeed())


if __name__ == "__main__":
    main(needs=["redis-server", "redis-benchmark", "redis-cli"])
