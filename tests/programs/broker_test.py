#!/usr/bin/env python3
"""mosquitto: publishers and subscribers of all three qualities of service, large messages, retained ones, a
subscriber that is killed and comes back to its session."""

import hashlib
import os
import random
import signal
import subprocess

from harness.case import free_port, main
from harness.compared import Compared, Lane, scaled
from harness.process import Program
from harness.wait import until

MESSAGES = scaled(1500, 6000)


class Mosquitto(Compared):
    def broker(self, lane: Lane) -> Program:
        self.port = free_port()
        configuration = self.folder / f"mosquitto-{lane.name}.conf"
        user = "user root" if os.getuid() == 0 else ""
        configuration.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
                                 f"max_queued_messages 0\nmax_inflight_messages 50\n{user}\n")
        return self.serve(self.port, "mosquitto", "-c", configuration, front=lane.server)

    def subscribe(self, lane: Lane, topic: str, count: int, *options: object) -> Program:
        one = self.start("mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.port), "-t", topic, "-C", str(count), "-W", "60",
                         *options, front=lane.client)
        return one

    def publish(self, lane: Lane, topic: str, *options: object, **more: object) -> Program:
        return self.start("mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), "-t", topic, *options,
                          front=lane.client, **more)

    def settled(self, lane: Lane, topic: str, subscribers: list[Program]) -> None:
        """Every subscriber has its subscription: it has seen a first message."""
        until(lambda: (self.publish(lane, topic, "-m", "begin").succeed(30) or True) and
              all("begin" in one.output() for one in subscribers), "the subscribers are there", 60, 0.05)

    def test_messages(self) -> None:
        lines = [f"{number} " + "m" * (number * 31 % 900) for number in range(MESSAGES)]
        (self.folder / "lines").write_text("\n".join(lines) + "\n")
        big = random.Random(1).randbytes(scaled(6_000_000, 100_000_000))
        (self.folder / "big").write_bytes(big)

        def scenario(lane: Lane) -> object:
            broker = self.broker(lane)
            before = self.holds(broker)
            results = []
            for quality in ("0", "1", "2"):
                topic = f"news/{quality}"
                subscribers = [self.subscribe(lane, topic, 10**9, "-q", quality) for _ in range(3)]
                self.settled(lane, topic, subscribers)
                with (self.folder / "lines").open() as file:
                    self.publish(lane, topic, "-q", quality, "-l", stdin=file.fileno()).succeed(60)
                self.publish(lane, topic, "-q", quality, "-m", "the end").succeed(40)
                for subscriber in subscribers:
                    # The last two publishers are two connections: at quality 0 the broker may read either first.
                    until(lambda subscriber=subscriber: {"the end", lines[-1]} <= set(subscriber.output().splitlines()),
                          "all came", 60)
                    got = [line for line in subscriber.output().splitlines() if line not in ("begin", "the end")]
                    self.assertEqual(len(got), MESSAGES)
                    self.assertTrue(got == lines, "messages differ or are out of order")
                    subscriber.stop(signal.SIGINT)
                results.append((quality, hashlib.sha256("\n".join(got).encode()).hexdigest()))
            # One large retained message, for whoever comes later.
            self.publish(lane, "large", "-r", "-q", "1", "-f", self.folder / "big").succeed(60)
            for _ in range(2):
                got = self.folder / "got"
                self.start("bash", "-c", f"mosquitto_sub -h 127.0.0.1 -p {self.port} -t large -C 1 -W 30 -N >{got}",
                           front=lane.client).succeed(60)
                self.assertTrue(got.read_bytes() == big)
            self.session(lane, results)
            self.holds_again(broker, before, 1)
            self.assertEqual(broker.stop(signal.SIGTERM), 0)
            return results

        # At least the publishers of many lines and their subscribers.
        self.compare(scenario, fused=6)

    def session(self, lane: Lane, results: list) -> None:
        """A subscriber with a session is killed; what was published meanwhile it gets when it is back."""
        options = ("-q", "1", "-i", "keeper", "-c")
        first = self.subscribe(lane, "kept", 10**9, *options)
        self.settled(lane, "kept", [first])
        first.kill()
        sent = [f"meanwhile {number} " + "k" * 500 for number in range(100)]
        publisher = self.publish(lane, "kept", "-q", "1", "-l", stdin=subprocess.PIPE)
        publisher.process.stdin.write(("\n".join(sent) + "\n").encode())
        publisher.process.stdin.close()
        publisher.succeed(40)
        again = self.subscribe(lane, "kept", 10**9, *options)
        until(lambda: again.output().endswith(sent[-1] + "\n"), "the session's messages")
        got = [line for line in again.output().splitlines() if line.startswith("meanwhile")]
        self.assertEqual(got, sent)
        again.stop(signal.SIGINT)
        results.append(len(got))


if __name__ == "__main__":
    main(needs=["mosquitto", "mosquitto_pub", "mosquitto_sub"])
