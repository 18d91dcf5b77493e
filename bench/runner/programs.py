"""The small programs of bench/programs: each returns what its client printed as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .lanes import Lane
from .process import Failed, Program

START_SECONDS = 10.0


def server_port(server: Program) -> int:
    """The port that a server of ours announced."""
    return int(server.line(lambda line: line.startswith("listening "), START_SECONDS).split()[1])


def measure(build: Path, name: str, lane: Lane, seconds: float, *options: str,
            client: str | None = None) -> dict[str, Any]:
    """One run of the program `name`, with itself or `client` as its client; `seconds` of measurement. Both ends check
    that they are on the lane."""
    program = str(build / "bench" / name)
    caller = str(build / "bench" / (client or name))
    claim = ("--expect", lane.expect)
    size = options if name == "stream" else ()
    with Program([*lane.server, program, "server", *claim, *size], lane.server_cpu) as server:
        port = server_port(server)
        calling = Program([*lane.client, caller, "client", "--port", str(port), "--seconds", str(seconds),
                          *claim, *options], lane.client_cpu)
        with calling:
            try:
                text = calling.output(seconds * 5 + 20)
            except Failed as failure:
                server.require_alive()
                raise failure
        return json.loads(text.splitlines()[-1])


def bystander(build: Path, lane: Lane, verb: str, operation: str, seconds: float) -> dict[str, float]:
    """One operation of a program that has nothing to do with loopfast. @return nanoseconds, or instructions and calls."""
    command = [*lane.client, str(build / "bench" / "bystander"), verb, operation, "--seconds", str(seconds)]
    with Program(command, lane.client_cpu) as program:
        return json.loads(program.output(seconds * 5 + 60))


def bare_ring_ns(build: Path, lane: Lane, seconds: float) -> float:
    """@return mean round trip of 64 bytes over the ring alone, two threads spinning: the floor."""
    command = [str(build / "bench" / "micro"), "--benchmark_filter=BM_round_trip/64/real_time",
               f"--benchmark_min_time={seconds}", "--benchmark_format=json"]
    with Program(command, None) as micro:
        result = json.loads(micro.output(seconds * 20 + 30))
    return result["benchmarks"][0]["real_time"]
