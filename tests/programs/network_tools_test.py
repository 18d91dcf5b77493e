#!/usr/bin/env python3
"""The tools people measure and mend networks with: iperf3 (both directions, several streams), sockperf, and
pipelines of nc and socat."""

import hashlib
import json
import os
import subprocess
import sys

from harness.case import free_port, listening, main
from harness.compared import LONG, Compared, Lane, scaled
from harness.wait import until

SIZE = scaled(8_000_000, 200_000_000)
#: A sender that is done before the other end has begun to read leaves it nothing to fuse with, and the proof of who
#: is who takes a few calls of each end.
PAUSING = ('(for i in 0 1 2 3 4 5 6 7; do tail -c +$((i * 30000 + 1)) "$1" | head -c 30000; sleep 0.02; done; '
           'tail -c +240001 "$1") | ')


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Iperf(Compared):
    def test_streams(self) -> None:
        """A number of bytes each way, on one stream and on several at once: all of them arrive."""

        def scenario(lane: Lane) -> object:
            port = free_port()
            server = self.serve(port, "iperf3", "-s", "-B", "127.0.0.1", "-p", str(port), front=lane.server)
            before, results = self.holds(server), []
            for options in (["-P1"], ["-P1", "-R"], ["-P4"], ["-P4", "-R"], ["-P2", "--bidir"], ["-Z"], ["-l", "1000"]):
                if not LONG and options[0] in ("-Z", "-l"):
                    continue
                client = self.start("iperf3", "-c", "127.0.0.1", "-p", str(port), "-J", "-n", str(5 * SIZE), *options,
                                    front=lane.client)
                report = json.loads(client.succeed(60))
                self.assertNotIn("error", report)
                sums = [report["end"][key]["bytes"] for key in report["end"] if key.startswith("sum_received")]
                results.append((options, len(report["start"]["connected"]), len(sums)))
                if "--bidir" not in options:  # there each direction ends with the other one
                    sent = report["end"]["sum_sent"]["bytes"]
                    self.assertGreaterEqual(sent, 5 * SIZE)
                    # What was in flight at the end is not counted by the receiver: buffers at most, which is all of
                    # it in the short form.
                    self.assertGreaterEqual(sums[0], sent - 100_000_000)
                    self.assertLessEqual(sums[0], sent)
            self.holds_again(server, before, 1)  # /dev/urandom
            return results

        self.compare(scenario, fused=8)


class Sockperf(Compared):
    def test_ping_pong_and_throughput(self) -> None:
        """It numbers its messages and says which were lost, doubled or out of order."""

        def scenario(lane: Lane) -> object:
            port = free_port()
            server = self.serve(port, "sockperf", "sr", "--tcp", "-i", "127.0.0.1", "-p", str(port), front=lane.server)
            results = []
            modes = (["ping-pong", "-m", "20000"], ["ping-pong", "-m", "64"],
                     ["under-load", "-m", "200", "--mps", "5000"], ["throughput", "-m", "1400"])
            for mode in modes[:scaled(1, 4)]:
                client = self.start("sockperf", *mode, "--tcp", "-i", "127.0.0.1", "-p", str(port), "-t",
                                    str(scaled(1, 5)), front=lane.client)
                text = client.succeed(60)
                if mode[0] != "throughput":
                    self.assertIn("# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0", text)
                self.assertNotIn("ERROR", text)
                results.append((mode, "Test ended" in text))
            server.require_alive()
            return results

        self.compare(scenario, fused=scaled(1, 4))


class Pipelines(Compared):
    """nc and socat at either end, in every pair, with half closes, files and programs behind them."""

    LISTEN = {
        "nc": lambda port: ["nc", "-l", "-N", "127.0.0.1", str(port)],
        "socat": lambda port: ["socat", "-t30", "-", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"],
    }
    CONNECT = {
        "nc": lambda port: ["nc", "-N", "127.0.0.1", str(port)],
        "socat": lambda port: ["socat", "-t30", "-", f"TCP:127.0.0.1:{port}"],
    }

    def pipe(self, lane: Lane, listen: str, connect: str, there: bytes, back: bytes) -> tuple[str, str]:
        """Both ends send a file, end their half, and write down what came."""
        port = free_port()
        ends = []
        for name, front, command, data in (("listen", lane.server, self.LISTEN[listen](port), back),
                                           ("connect", lane.client, self.CONNECT[connect](port), there)):
            (self.folder / f"{name}.in").write_bytes(data)
            script = PAUSING + f'"${{@:2}}" >{self.folder}/{name}.out'
            ends.append(self.start("bash", "-c", script, "bash", self.folder / f"{name}.in", *command, front=front))
            if name == "listen":
                listening(ends[0], port)
        for end in ends:
            end.succeed(60)
        return sha((self.folder / "listen.out").read_bytes()), sha((self.folder / "connect.out").read_bytes())

    def test_both_ways(self) -> None:
        def scenario(lane: Lane) -> object:
            results = []
            for listen in self.LISTEN:
                for connect in self.CONNECT:
                    # Where an nc hears the other's end it does not send the rest of its own, kernel TCP or not.
                    two_ways = ((0, SIZE), (SIZE, SIZE // 2)) if listen == connect == "socat" else ()
                    for there, back in ((SIZE, 0), (0, 0), (5, 5), *two_ways):
                        data, answer = os.urandom(there), os.urandom(back)
                        got = self.pipe(lane, listen, connect, data, answer)
                        self.assertEqual(got, (sha(data), sha(answer)), (listen, connect, there, back))
                        results.append((listen, connect, there, back))
            return results

        # Half closed before there was anything to gain, by the end whose file is empty, most stay on the kernel lane.
        self.compare(scenario, fused=2)

    def test_a_chain(self) -> None:
        """tar | nc -> socat, forking, that passes on -> nc | tar, as people move folders."""

        def scenario(lane: Lane) -> object:
            first, second = free_port(), free_port()
            listener = self.start("bash", "-c", f"nc -l 127.0.0.1 {second} >{self.folder}/moved", front=lane.server)
            listening(listener, second)
            relay = self.serve(first, "socat", f"TCP-LISTEN:{first},bind=127.0.0.1,reuseaddr,fork",
                               f"TCP:127.0.0.1:{second}", front=lane.server)
            data = os.urandom(SIZE)
            (self.folder / "move").write_bytes(data)
            self.start("bash", "-c", f"cat {self.folder}/move | tee >(sha256sum >/dev/null) | "
                       f"nc -N 127.0.0.1 {first}", front=lane.client).succeed(60)
            listener.succeed(60)
            relay.require_alive()
            self.assertEqual(sha((self.folder / "moved").read_bytes()), sha(data))
            return len(data)

        self.compare(scenario, fused=2, inside=True)

    def test_programs_behind_sockets(self) -> None:
        """socat EXEC and SYSTEM, nc with a shell behind it: the socket or a pipe becomes standard input."""

        def scenario(lane: Lane) -> object:
            results = []
            for options in ("EXEC:cat", "SYSTEM:'cat; echo end'", "EXEC:cat,nofork"):
                port = free_port()
                server = self.serve(port, "socat", "-t30", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", options,
                                    front=lane.server)
                for size in (10, 30_000, SIZE):
                    data = b"%d" % size + os.urandom(size)
                    (self.folder / "data").write_bytes(data)
                    client = self.start("bash", "-c", PAUSING + f"nc -N 127.0.0.1 {port} | sha256sum", "bash",
                                        self.folder / "data", front=lane.client)
                    wanted = data + (b"end\n" if "SYSTEM" in options else b"")
                    self.assertEqual(client.succeed(60).split()[0], sha(wanted), (options, size))
                    results.append((options, size))
                server.require_alive()
            return results

        # A connection that an executed program still holds a close-on-exec copy of is not fused.
        self.compare(scenario, fused=0)

    def test_interactive(self) -> None:
        """A line each way, again and again: the time between lines is spent asleep in poll or select."""

        def scenario(lane: Lane) -> object:
            results = []
            for listen in ("nc", "socat"):
                for connect in ("nc", "socat"):
                    port = free_port()
                    ends = [self.start(*self.LISTEN[listen](port), front=lane.server, stdin=subprocess.PIPE)]
                    listening(ends[0], port)
                    ends.append(self.start(*self.CONNECT[connect](port), front=lane.client, stdin=subprocess.PIPE))
                    for number in range(scaled(40, 400)):
                        for mine, other in (ends, ends[::-1]):
                            line = f"line {number} " + "x" * (number * 7 % 900) + "\n"
                            mine.process.stdin.write(line.encode())
                            mine.process.stdin.flush()
                            until(lambda other=other, line=line: other.output().endswith(line), "the line arrives")
                    for end in ends:
                        end.process.stdin.close()
                    for end in ends:
                        end.succeed(20)
                    results.append((listen, connect, [sha(end.output().encode()) for end in ends]))
            return results

        self.compare(scenario, fused=4)


if __name__ == "__main__":
    main(needs=["iperf3", "sockperf", "nc", "socat"])
