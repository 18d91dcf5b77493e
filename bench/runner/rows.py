"""The table: what is measured, how, and what it must reach.

A row compares two lanes, sampled in turn, by the ratio of their medians (above 1: loopfast is better), or
bounds an absolute figure of loopfast's from above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from . import idle, nginx, programs, redis
from .lanes import Lane, Lanes

Sample = dict[str, Any]
KIBIBYTE = 1024


@dataclass(frozen=True)
class Row:
    """One line of the table. `sample` measures one lane once and returns at least {"value": …}."""

    name: str
    work: str
    unit: str
    kernel: Lane
    loopfast: Lane
    sample: Callable[[Lane, float], Sample]
    least: float | None = None
    aim: float | None = None
    #: "more": higher figures are better; "less": lower ones are; "bound": loopfast's figure itself is bounded
    better: str = "more"
    missing: str | None = None
    most_alternations: int | None = None


def _pingpong(build) -> Callable[[Lane, float], Sample]:
    def sample(lane: Lane, seconds: float) -> Sample:
        result = programs.measure(build, "pingpong", lane, seconds)
        return {**result, "value": result["p50_ns"] / 1000}
    return sample


def _against_bare_ring(build) -> Callable[[Lane, float], Sample]:
    """The "kernel" column holds the bare ring here; both figures are means, in the same mood of the machine."""
    def sample(lane: Lane, seconds: float) -> Sample:
        if lane.expect == "kernel":
            return {"value": programs.bare_ring_ns(build, lane, seconds) / 1000}
        return {"value": programs.measure(build, "pingpong", lane, seconds)["mean_ns"] / 1000}
    return sample


def _stream(build) -> Callable[[Lane, float], Sample]:
    def sample(lane: Lane, seconds: float) -> Sample:
        result = programs.measure(build, "stream", lane, seconds)
        return {**result, "value": result["bytes_per_second"] * 8 / 1e9}
    return sample


def _short(build) -> Callable[[Lane, float], Sample]:
    def sample(lane: Lane, seconds: float) -> Sample:
        result = programs.measure(build, "short_connections", lane, seconds)
        return {**result, "value": result["connections_per_second"] / 1000}
    return sample


def _get(clients: int, pipeline: int) -> Callable[[Lane, float], Sample]:
    return lambda lane, seconds: {"value": redis.get(lane, clients, pipeline, seconds) / 1000}


def _web(connections: int) -> Callable[[Lane, float], Sample]:
    return lambda lane, seconds: {"value": nginx.requests(lane, connections, seconds) / 1000}


def _idle_time(build) -> Callable[[Lane, float], Sample]:
    def sample(lane: Lane, seconds: float) -> Sample:
        return {"value": idle.observe(build, lane, 100, max(3.0, seconds)).processor_ns_per_second / 1000}
    return sample


def _idle_memory(build) -> Callable[[Lane, float], Sample]:
    def sample(lane: Lane, seconds: float) -> Sample:
        parts = idle.memory_per_connection(build, lane, 50, 250)
        return {**parts, "value": (parts["private"] + parts["shared"]) / KIBIBYTE}
    return sample


def _port_pingpong(build) -> Callable[[Lane, float], Sample]:
    def sample(lane: Lane, seconds: float) -> Sample:
        result = programs.measure(build, "port_pingpong", lane, seconds)
        return {**result, "value": result["p50_ns"] / 1000}
    return sample


def _load(build, server: str) -> Callable[[Lane, float], Sample]:
    def sample(lane: Lane, seconds: float) -> Sample:
        result = programs.measure(build, server, lane, seconds, client="load")
        return {**result, "value": result["requests_per_second"] / 1000}
    return sample


def _posix_door(posix: Lane, sample_posix: Callable[[Lane, float], Sample],
                sample_winsock: Callable[[Lane, float], Sample]) -> Callable[[Lane, float], Sample]:
    """The "kernel" column holds the POSIX door here, on the ring as well."""
    def sample(lane: Lane, seconds: float) -> Sample:
        return sample_posix(posix, seconds) if lane.expect == "kernel" else sample_winsock(lane, seconds)
    return sample


BYSTANDER = {
    "close": "open and close", "read-file": "seek in and read a file", "write-null": "write", "pipe": "write and read a pipe",
    "unix-socket": "send and receive, AF_UNIX", "poll": "poll a pipe", "epoll_wait": "epoll_wait on a pipe",
    "epoll_ctl": "epoll_ctl", "dup": "dup and close", "tcp-socket": "make and close a TCP socket",
    "fork": "fork, exit and wait", "exec": "vfork, exec and wait"}


def _bystander(lanes: Lanes) -> list[Row]:
    """A program that never opts in, without the library ("kernel") and with it preloaded."""
    def sample(operation: str) -> Callable[[Lane, float], Sample]:
        def measured(lane: Lane, seconds: float) -> Sample:
            result = programs.bystander(lanes.build, lane, "time", operation, min(seconds, 0.5))
            return {**result, "value": result["ns"]}
        return measured

    return [Row(f"bystander-{name}", f"preloaded, never opted in: {work}", "ns", lanes.kernel(), lanes.bystander(),
                sample(name), better="less") for name, work in BYSTANDER.items()]


def _winsock(lanes: Lanes) -> list[Row]:
    """The Winsock door: against the same program over the kernel, and against the POSIX door."""
    build, kernel = lanes.build, lanes.kernel()
    missing = None if (build / "bench" / "port_server").exists() else "the Winsock door is not built"
    pair, server = lanes.winsock(), lanes.winsock_server()
    return [
        Row("port-pingpong", "Winsock door: 64 B ping-pong, overlapped, completion ports, p50", "us", kernel, pair,
            _port_pingpong(build), 8, 8, better="less", missing=missing),
        Row("port-pingpong-posix", "the same against blocking sockets of the POSIX door (in the kernel's column)", "us",
            kernel, pair, _posix_door(lanes.ring(), _pingpong(build), _port_pingpong(build)), 0.7, 0.7,
            better="less", missing=missing),
        Row("port-50", "Winsock door: completion-port server, 50 clients", "k/s", kernel, server,
            _load(build, "port_server"), 8, 8, missing=missing),
        Row("port-50-posix", "the same against an epoll server of the POSIX door (in the kernel's column)", "k/s",
            kernel, server, _posix_door(lanes.ring(), _load(build, "epoll_server"), _load(build, "port_server")),
            0.7, 0.7, missing=missing),
    ]


def table(lanes: Lanes) -> list[Row]:
    """All rows: those that must reach something first, then the ones for information."""
    build, kernel, ring = lanes.build, lanes.kernel(), lanes.ring()
    off = lanes.ring("--spin", "off")
    no_redis, no_nginx = redis.missing(), nginx.missing()
    return [
        Row("pingpong", "64 B ping-pong, blocking sockets, p50", "us", kernel, ring, _pingpong(build),
            30, 60, better="less"),
        Row("pingpong-bare", "the same, mean, against the bare ring (in the kernel's column)", "us", kernel, ring,
            _against_bare_ring(build), 0.5, 0.5, better="less",
            missing=None if (build / "bench" / "micro").exists() else "microbenchmarks not built"),
        Row("pingpong-nospin", "the same with spinning off", "us", kernel, off, _pingpong(build),
            1.3, 1.8, better="less"),
        Row("stream", "one stream, 64 KiB writes", "Gbit/s", kernel, ring, _stream(build), 3, 6),
        Row("get-50", "redis-benchmark GET, 50 clients", "k/s", kernel, ring, _get(50, 1), 8, 16,
            missing=no_redis),
        Row("get-1", "redis-benchmark GET, 1 client", "k/s", kernel, ring, _get(1, 1), 10, 20, missing=no_redis),
        Row("get-50-nospin", "GET, 50 clients, spinning off", "k/s", kernel, off, _get(50, 1), 5, 11,
            missing=no_redis),
        Row("get-50-p16", "GET, 50 clients, pipeline of 16", "k/s", kernel, ring, _get(50, 16), 2, 3,
            missing=no_redis),
        Row("get-50-plain-clients", "the same server with clients that do not use loopfast", "k/s", kernel,
            lanes.server_only(), _get(50, 1), 0.98, 1.0, missing=no_redis),
        Row("short", "short connections (connect, 64 B each way, close)", "k/s", kernel, lanes.loaded(),
            _short(build), 0.95, 1.0),
        Row("idle-time", "processor time, 100 idle fused connections, both sides", "us/s", kernel, ring,
            _idle_time(build), 0, 0, better="bound"),
        Row("idle-memory", "memory of an idle fused connection, both sides and segment", "KiB", kernel, ring,
            _idle_memory(build), 32, 16, better="bound", most_alternations=2),
        *_winsock(lanes),
        *_bystander(lanes),
        Row("stream-nospin", "one stream, 64 KiB writes, spinning off", "Gbit/s", kernel, off, _stream(build)),
        Row("get-1-nospin", "GET, 1 client, spinning off", "k/s", kernel, off, _get(1, 1), missing=no_redis),
        Row("nginx-1", "nginx, wrk with 1 connection", "k/s", kernel, ring, _web(1), missing=no_nginx),
        Row("nginx-32", "nginx, wrk with 32 connections", "k/s", kernel, ring, _web(32), missing=no_nginx),
    ]


def against(rows: list[Row], other: Lanes) -> list[Row]:
    """The same work with two builds' libraries: the other one stands where the kernel stood, and nothing is asked of
    the ratio. Both run this build's programs. Without the rows that compare with something else than the kernel, and
    those of the Winsock door, whose programs are linked with this build's."""
    lane_of = {row.name: row.loopfast for row in table(other)}
    return [replace(row, kernel=replace(lane_of[row.name], name="other"), least=None, aim=None) for row in rows
            if row.name != "pingpong-bare" and not row.name.startswith("port-")]
