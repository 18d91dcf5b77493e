"""Processor time and memory of connections that are silent, read from /proc for both sides.

Memory of a connection is the slope between two numbers of connections, so what a process pays once (the
library, its tables) does not count as a connection's; it is what loopfast adds: the same slope over
kernel TCP is subtracted. Three parts:

    private   anonymous memory of both sides
    shared    pages of the memfds that either side maps, each counted once, whether touched or not
    tables    page tables that the mappings need (VmPTE): kernel memory, but each connection's own
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from .lanes import Lane
from .process import Program
from .programs import server_port

SETTLE_SECONDS = 1.5


@dataclass
class Memory:
    """Bytes of both sides together."""

    private: int = 0
    shared: int = 0
    tables: int = 0

    def slope(self, smaller: Memory, connections: int) -> dict[str, float]:
        return {part: (getattr(self, part) - getattr(smaller, part)) / connections
                for part in ("private", "shared", "tables")}


def processor_ns(pid: int) -> int:
    """Time that all threads of `pid` have been on a processor."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total


def _kilobytes(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _memfd_pages(pid: int) -> dict[tuple[int, int], int]:
    """Bytes allocated to each memfd that `pid` maps, by (device, inode)."""
    pages: dict[tuple[int, int], int] = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "memfd:" not in line:
            continue
        status = os.stat(f"/proc/{pid}/map_files/{_map_name(line.split()[0])}")
        pages[(status.st_dev, status.st_ino)] = status.st_blocks * 512
    return pages


def _map_name(addresses: str) -> str:
    """`maps` pads addresses with zeros, `map_files` does not."""
    return "-".join(f"{int(address, 16):x}" for address in addresses.split("-"))


def memory_of(pids: list[int]) -> Memory:
    memory = Memory()
    touched = 0
    allocated: dict[tuple[int, int], int] = {}
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        memory.private += _kilobytes(rollup, "Pss_Anon")
        touched += _kilobytes(rollup, "Pss_Shmem")
        memory.tables += _kilobytes(Path(f"/proc/{pid}/status").read_text(), "VmPTE")
        try:
            allocated.update(_memfd_pages(pid))
        except PermissionError:  # map_files is for the privileged: then pages nobody touched are not seen
            pass
    memory.shared = max(touched, sum(allocated.values()))
    return memory


@dataclass
class Idle:
    """What one pair of idle processes cost."""

    processor_ns_per_second: float
    memory: Memory


def observe(build: Path, lane: Lane, connections: int, seconds: float) -> Idle:
    """Both sides with `connections` silent connections, watched for `seconds`."""
    program = str(build / "bench" / "idle")
    claim = ("--expect", lane.expect)
    with Program([*lane.server, program, "server", *claim], lane.server_cpu) as server:
        client = Program([*lane.client, program, "client", "--port", str(server_port(server)),
                          "--connections", str(connections), *claim], lane.client_cpu)
        with client:
            client.line(lambda line: '"ready"' in line, 60.0)
            time.sleep(SETTLE_SECONDS)
            pids = [server.pid, client.pid]
            before = sum(processor_ns(pid) for pid in pids)
            begin = time.monotonic()
            time.sleep(seconds)
            used = sum(processor_ns(pid) for pid in pids) - before
            elapsed = time.monotonic() - begin
            memory = memory_of(pids)
            server.require_alive()
            client.require_alive()
    return Idle(used / elapsed, memory)


def memory_per_connection(build: Path, lane: Lane, few: int, many: int) -> dict[str, float]:
    """@return bytes per connection: private, shared, tables."""
    smaller = observe(build, lane, few, 0.0).memory
    larger = observe(build, lane, many, 0.0).memory
    return larger.slope(smaller, many - few)
