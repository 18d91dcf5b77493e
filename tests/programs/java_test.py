#!/usr/bin/env python3
"""Java: blocking sockets, selectors and asynchronous channels as servers and as clients of one another, and
blocked calls that another thread ends by closing, which Java does with dup2 and a signal."""

import itertools
import subprocess
from pathlib import Path

from harness.case import free_port, main
from harness.compared import LONG, Compared, Lane, scaled

SOURCE = Path(__file__).parent / "java" / "Echo.java"
WAYS = ("blocking", "selector", "asynchronous")
JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx400m")


class Java(Compared):
    def setUp(self) -> None:
        super().setUp()
        self.start("javac", "-nowarn", "-d", self.folder, SOURCE, front=()).succeed(120)
        self.java = (*JAVA, "-cp", str(self.folder), "Echo")

    def test_every_way_with_every_other(self) -> None:
        pairs = list(itertools.product(WAYS, WAYS)) if LONG else list(zip(WAYS, (*WAYS[1:], WAYS[0])))

        def scenario(lane: Lane) -> object:
            results = []
            servers = {}
            for way in WAYS:
                port = free_port()
                servers[way] = port, self.serve(port, *self.java, "serve", way, str(port), front=lane.server,
                                                stdin=subprocess.PIPE)
            for serves, uses in pairs:
                port, server = servers[serves]
                client = self.start(*self.java, "use", uses, str(port), str(scaled(25, 500)), front=lane.client)
                results.append((serves, client.succeed(120)))
                server.require_alive()
            for _, server in servers.values():
                server.process.stdin.close()
                server.succeed(30)
            return results

        self.compare(scenario, fused=6 * len(pairs))

    def test_closing(self) -> None:
        """How each of them ended must be the same in every lane."""

        rounds = scaled(8, 40)

        def scenario(lane: Lane) -> object:
            results = []
            for way in WAYS[:scaled(1, 3)]:
                port = free_port()
                server = self.serve(port, *self.java, "serve", way, str(port), front=lane.server, stdin=subprocess.PIPE)
                results.append(self.start(*self.java, "closing", str(port), str(rounds), front=lane.client).succeed(240))
                server.require_alive()
            return results

        # Connections that all end so soon would be fused no more after a while, were no threshold asked for.
        self.compare(scenario, fused=7 * rounds, options=("--threshold", "2047"))


if __name__ == "__main__":
    main(needs=["java", "javac"])
