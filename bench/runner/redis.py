"""redis-server with redis-benchmark, both as the distribution built them.

The server's data set is the one key that the benchmark asks for, nothing is saved. Two runs, each
longer than the one before, find how many requests fill the wanted time: the lanes differ by an order of
magnitude, and a short run counts connecting and the way to the ring as well.
"""

from __future__ import annotations

import csv
import tempfile
import time
from shutil import which

from . import witness
from .lanes import Lane
from .process import Failed, Program, free_port, wait_for_port

FIRST_REQUESTS = 20_000


def missing() -> str | None:
    absent = [name for name in ("redis-server", "redis-benchmark") if which(name) is None]
    return f"{', '.join(absent)} not installed" if absent else None


def _client(lane: Lane, port: int, test: str, requests: int, clients: int, pipeline: int,
            seconds: float, watched: bool) -> float:
    """One run of redis-benchmark; @return requests per second."""
    command = [*lane.client, "redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-t", test,
               "-n", str(requests), "-c", str(clients), "-P", str(pipeline), "--csv"]
    with Program(command, lane.client_cpu) as client:
        if watched:
            time.sleep(seconds * 0.4)
            client.require_alive()
            witness.require_lane(port, lane.expect)
        text = client.output(seconds * 10 + 30)
    for row in csv.DictReader(text.splitlines()):
        if row["test"].upper().startswith(test.upper()):
            return float(row["rps"])
    raise Failed(f"{' '.join(command)}: no result in its output: {text[-200:]}")


def get(lane: Lane, clients: int, pipeline: int, seconds: float) -> float:
    """@return GET requests per second of a fresh server, over some `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [*lane.server, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder,
                   "--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no"]
        with Program(command, lane.server_cpu) as server:
            wait_for_port(server, port)
            _client(lane, port, "set", 1, 1, 1, 1.0, watched=False)
            requests = FIRST_REQUESTS
            for share in (0.1, 0.4):
                rate = _client(lane, port, "get", requests, clients, pipeline, 1.0, watched=False)
                requests = max(FIRST_REQUESTS, int(rate * seconds * share))
            rate = _client(lane, port, "get", requests, clients, pipeline, 1.0, watched=False)
            requests = max(FIRST_REQUESTS, int(rate * seconds))
            rate = _client(lane, port, "get", requests, clients, pipeline, seconds, watched=True)
            server.require_alive()
            return rate
