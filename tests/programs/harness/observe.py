"""What can be seen from outside: the lanes of connections, and what a process or the system still holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from .process import COMMAND, clean_environment

#: How /proc names the memory that two ends share, in fd/ and in maps.
SEGMENT = "/memfd:loopfast-segment"
NAME = "@loopfast/"


def connections(pid: int) -> list[dict]:
    """The connections of one process, as `loopfast status --json` reports them."""
    run = subprocess.run([COMMAND, "status", "--json", "--pid", str(pid)], env=clean_environment(), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    # `loopfast run` has not become the program yet; a server's child has ended meanwhile.
    if "does not have loopfast" in run.stderr or "there is no process" in run.stderr:
        return []
    if run.returncode != 0:
        raise AssertionError(f"loopfast status --pid {pid}: {run.stderr}")
    return [connection for process in json.loads(run.stdout) for connection in process["connections"]]


def lanes(pid: int, port: int | None = None, at_least: int = 0) -> dict[str, int]:
    """How many established connections of a process are on which lane; of one port's, if one is given.
    Those that have carried fewer than `at_least` bytes do not count."""
    count: dict[str, int] = {"ring": 0, "kernel": 0}
    for connection in connections(pid):
        ends = [connection.get("local") or "", connection.get("peer") or ""]
        if connection["bytes_sent"] + connection["bytes_received"] >= at_least and (
                port is None or any(end.endswith(f":{port}") for end in ends)):
            count[connection["lane"]] += 1
    return count


def socket_names() -> list[str]:
    """The library's abstract socket names in this network namespace."""
    return re.findall(NAME + r"\S*", Path("/proc/net/unix").read_text())


def descriptors(pid: int) -> dict[int, str]:
    """Every descriptor of a process, hidden ones included, and what it is."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
        except OSError:  # closed meanwhile; the one that lists this folder
            continue
    return found


def of_connections(pid: int) -> dict[int, str]:
    """The descriptors of a process without those that the library has once in it, however many connections there
    are: a thread's and the steward's epoll sets, the steward's event, the list of packet sockets, the socket that
    tells of changed routes."""
    told = netlink_sockets(pid)
    return {number: target for number, target in descriptors(pid).items()
            if target not in ("anon_inode:[eventpoll]", "anon_inode:[eventfd]") and not target.endswith("/net/packet")
            and target not in told}


def netlink_sockets(pid: int) -> set[str]:
    """Those of a process's network namespace, as descriptors are shown."""
    lines = Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]
    return {f"socket:[{line.split()[-1]}]" for line in lines}


def sockets(pid: int) -> int:
    """How many descriptors of a process are sockets: the program's own and the library's links."""
    told = netlink_sockets(pid)
    return sum(target.startswith("socket:") and target not in told for target in descriptors(pid).values())


def segments(pid: int) -> int:
    """How many segments a process holds, mapped or by descriptor."""
    try:
        mapped = Path(f"/proc/{pid}/maps").read_text().count(SEGMENT)
        return mapped + sum(target.startswith(SEGMENT) for target in descriptors(pid).values())
    except OSError:
        return 0


def namespace_members() -> list[int]:
    """The other processes in this network namespace."""
    ours = os.readlink("/proc/self/ns/net")
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                if os.readlink(f"/proc/{entry}/ns/net") == ours:
                    found.append(int(entry))
            except OSError:
                continue
    return found
