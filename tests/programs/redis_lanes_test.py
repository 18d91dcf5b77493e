#!/usr/bin/env python3
"""Redis in four lanes: one value of many megabytes, pub/sub and MONITOR by redis-cli, a replica, a cluster of
three masters whose bus runs on loopback, append-only file; and memcached with four threads."""

import hashlib
import os
import random
import signal
import sys

from harness.case import free_port, main
from harness.compared import Compared, Lane, scaled
from harness.process import Program
from harness.wait import until

BIG = scaled(20_000_000, 400_000_000)


class RedisLanes(Compared):
    def server(self, lane: Lane, *options: str) -> tuple[Program, int]:
        port = free_port()
        folder = self.folder / f"{lane.name}-{port}"
        folder.mkdir()
        return self.serve(port, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "",
                          "--enable-debug-command", "yes", *options, front=lane.server), port

    def cli(self, lane: Lane, port: int, *words: object, **more: object) -> Program:
        return self.start("redis-cli", "-p", str(port), *words, front=lane.client, **more)

    def test_a_very_large_value(self) -> None:
        value = random.Random(5).randbytes(1 << 20) * (BIG >> 20)
        (self.folder / "value").write_bytes(value)
        wanted = hashlib.sha256(value + b"\n").hexdigest()

        def scenario(lane: Lane) -> object:
            server, port = self.server(lane, "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
            before = self.holds(server)
            with (self.folder / "value").open() as file:
                self.assertEqual(self.cli(lane, port, "-x", "SET", "big", stdin=file.fileno()).succeed(90), "OK\n")
            results = []
            for _ in range(2):
                got = self.start("bash", "-c", f"redis-cli -p {port} GET big | sha256sum", front=lane.client)
                self.assertEqual(got.succeed(90).split()[0], wanted)
            results.append(self.cli(lane, port, "STRLEN", "big").succeed())
            results.append(self.cli(lane, port, "DEBUG", "DIGEST").succeed())
            # A replica gets it as a file from a forked child, and follows.
            replica, other = self.server(lane, "--replicaof", f"127.0.0.1 {port}")
            until(lambda: "master_link_status:up" in self.cli(lane, other, "INFO", "replication").succeed(), "synchronous", 60)
            with (self.folder / "value").open() as file:
                self.cli(lane, port, "-x", "APPEND", "big", stdin=file.fileno()).succeed(90)
            results.append(self.cli(lane, port, "DEBUG", "DIGEST").succeed())
            until(lambda: self.cli(lane, other, "DEBUG", "DIGEST").succeed() == results[-1], "the replica has it", 60, 0.2)
            self.assertEqual(replica.stop(), 0)
            self.holds_again(server, before, 1)
            self.assertEqual(server.stop(), 0)
            return results

        self.compare(scenario, fused=2, inside=True)  # the replica and its master are both servers

    def test_listeners(self) -> None:
        """MONITOR and SUBSCRIBE by redis-cli, a pipeline by redis-cli --pipe, redis-benchmark."""
        commands = self.folder / "commands"
        commands.write_text("".join(f"SET key{number} v{'v' * (number % 3000)}\r\nPUBLISH news message{number}\r\n"
                                    for number in range(scaled(1500, 40_000))))

        def scenario(lane: Lane) -> object:
            server, port = self.server(lane)
            before = self.holds(server)
            listeners = [self.cli(lane, port, "SUBSCRIBE", "news"), self.cli(lane, port, "MONITOR")]
            until(lambda: "subscribe" in listeners[0].output() and "OK" in listeners[1].output(), "they listen")
            with commands.open() as file:
                self.assertIn("errors: 0", self.cli(lane, port, "--pipe", stdin=file.fileno()).succeed(60))
            count = scaled(1500, 40_000)
            until(lambda: all(f"message{count - 1}" in one.output()[-300:] for one in listeners), "all is heard", 30)
            heard = [line for line in listeners[0].output().split() if line.startswith("message")]
            seen = [line.partition('"news" "')[2][:-1] for line in listeners[1].output().splitlines() if '"PUBLISH"' in line]
            wanted = [f"message{number}" for number in range(count)]
            self.assertEqual(len([word for word in heard if word != "message"]), count)
            self.assertTrue([word for word in heard if word != "message"] == wanted)
            self.assertTrue(seen == wanted)
            for one in listeners:
                one.kill()
            text = self.start("redis-benchmark", "-p", str(port), "-q", "-c", "20", "-n", str(scaled(5000, 200_000)), "-P", "8",
                              "-t", "set,get,lpush,lrange_100", front=lane.client).succeed(90)
            self.assertNotIn("rror", text)
            self.holds_again(server, before)
            return count

        self.compare(scenario, fused=20)

    def test_cluster(self) -> None:
        """Three masters; keys are moved from one to another while clients follow the redirections."""

        def scenario(lane: Lane) -> object:
            nodes = [self.server(lane, "--cluster-enabled", "yes", "--cluster-node-timeout", "4000") for _ in range(3)]
            ports = [port for _, port in nodes]
            self.cli(lane, ports[0], "--cluster", "create", *(f"127.0.0.1:{port}" for port in ports),
                     "--cluster-yes").succeed(60)
            until(lambda: all("cluster_state:ok" in self.cli(lane, port, "CLUSTER", "INFO").succeed() for port in ports),
                  "the cluster is one", 30, 0.2)
            keys = scaled(300, 5000)
            lines = "".join(f"SET k{number} v{'v' * (number * 7 % 4000)}\n" for number in range(keys))
            (self.folder / "set").write_text(lines)
            with (self.folder / "set").open() as file:
                self.assertEqual(self.cli(lane, ports[0], "-c", stdin=file.fileno()).succeed(60).split().count("OK"), keys)
            moved = self.cli(lane, ports[0], "CLUSTER", "MYID").succeed().strip()
            target = self.cli(lane, ports[1], "CLUSTER", "MYID").succeed().strip()
            self.cli(lane, ports[0], "--cluster", "reshard", f"127.0.0.1:{ports[0]}", "--cluster-from", moved, "--cluster-to",
                     target, "--cluster-slots", str(scaled(200, 3000)), "--cluster-yes").succeed(120)
            self.assertIn("All 16384 slots covered", self.cli(lane, ports[2], "--cluster", "check",
                                                              f"127.0.0.1:{ports[2]}").succeed(30))
            (self.folder / "get").write_text("".join(f"STRLEN k{number}\n" for number in range(keys)))
            with (self.folder / "get").open() as file:
                text = self.cli(lane, ports[2], "-c", stdin=file.fileno()).succeed(60)
            lengths = [int(word) for word in text.split() if word.isdigit()]
            self.assertEqual(lengths, [number * 7 % 4000 + 1 for number in range(keys)])
            for server, _ in nodes:
                self.assertEqual(server.stop(signal.SIGTERM), 0)
            return keys

        # The bus between the servers is fused whoever their clients are.
        self.compare(scenario, fused=6, inside=True)


class MemcachedLanes(Compared):
    def test_four_threads(self) -> None:
        talk = self.folder / "talk.py"
        talk.write_text("""
import random, socket, sys, threading
port, number, rounds = map(int, sys.argv[1:])
def use(seed):
    rng, sock = random.Random(seed), socket.create_connection(("127.0.0.1", port))
    file = sock.makefile("rb")
    for round in range(rounds):
        values = {f"{seed}:{rng.randrange(40)}": rng.randbytes(rng.choice((1, 700, 5000, 300_000))) for _ in range(4)}
        for key, value in values.items():
            sock.sendall(b"set %s 0 0 %d\\r\\n%s\\r\\n" % (key.encode(), len(value), value))
            assert file.readline() == b"STORED\\r\\n"
        sock.sendall(b"get " + " ".join(values).encode() + b"\\r\\n")
        found = {}
        while (line := file.readline()) != b"END\\r\\n":
            _, key, _, size = line.split()
            found[key.decode()] = file.read(int(size)); file.read(2)
        assert found == values, "values differ"
    sock.sendall(b"quit\\r\\n"); assert file.read() == b""
    done.append(seed)
done = []
threads = [threading.Thread(target=use, args=(number * 100 + one,)) for one in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(done))
""")

        def scenario(lane: Lane) -> object:
            port = free_port()
            user = ("-u", "root") if os.getuid() == 0 else ()
            server = self.serve(port, "memcached", "-l", "127.0.0.1", "-p", str(port), "-t", "4", "-m", "256", "-I", "4m", *user,
                                front=lane.server)
            before = self.holds(server)
            clients = [self.start(sys.executable, talk, str(port), str(number), str(scaled(25, 600)), front=lane.client)
                       for number in range(2)]
            results = [client.succeed(90) for client in clients]
            self.holds_again(server, before)
            self.assertEqual(server.stop(), 0)
            return results

        self.compare(scenario, fused=12)


if __name__ == "__main__":
    main(needs=["redis-server", "redis-cli", "redis-benchmark", "memcached"])
