"""What the tests of filters share: the guard, pairs of connected ends, and commands with an end."""

from __future__ import annotations

import json
import os
import re
import select
import struct
import subprocess
import sys
import time
import unittest
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "programs"))

from harness import case as harness_case  # noqa: E402
from harness.case import Case, skip  # noqa: E402,F401
from harness.process import COMMAND, LIBRARY, clean_environment  # noqa: E402
from harness.wait import until  # noqa: E402

HERE = Path(__file__).resolve().parent
#: What the issue asks for: from the guard's seeing an objection to the last fused connection's leaving.
SOON = 0.1
#: From a change to the guard's seeing it. Where the kernel notifies it is a moment; captures are looked for every
#: 20 ms, programs every 50 ms. Each figure may be exceeded once by a machine that has other things to do, so what
#: is compared with them are medians.
SEEN = 0.25
#: For what has to happen and is not measured.
SOMETIME = 20.0
NOBODY = 65534
#: IPv4 and TCP with timestamps; a large packet of lo has its headers once.
HEADERS = 20 + 32


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, env=clean_environment(), text=True, capture_output=True, timeout=30, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def works(*command: str) -> bool:
    return subprocess.run(command, env=clean_environment(), capture_output=True, timeout=30,
                          check=False).returncode == 0


def unified_groups() -> Path:
    """Where control groups of the unified hierarchy are."""
    for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if Path(path, "cgroup.controllers").exists():
            return path
    raise unittest.SkipTest("no unified control group hierarchy")


def load_rules(text: str) -> None:
    """nftables rules, all of them at once."""
    done = subprocess.run(["nft", "-f", "-"], input=text + "\n", env=clean_environment(), text=True, capture_output=True,
                          timeout=30, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{text}: {done.stderr}")


def main(needs: Sequence[str]) -> None:
    """The harness's, for scripts that change rules: only as root, and only in a network namespace of their own."""
    if os.geteuid() != 0:
        skip("only root may change packet filters")
    if os.environ.get(harness_case.OWN_NAMESPACE) == "0":
        skip("no network namespace of our own can be had")
    if harness_case.OWN_NAMESPACE in os.environ and not works("nft", "list", "ruleset"):
        skip("this kernel has no nftables")
    harness_case.main(needs=needs, preload=False)


#: An address of our own, and what takes a connection from it to itself its way: commands that do and undo it.
OF_OUR_OWN = "10.7.7.7"
WAYS_CLOSED = (
    ("the address is deleted", OF_OUR_OWN, ("ip", "address", "del", f"{OF_OUR_OWN}/32", "dev", "lo"),
     ("ip", "address", "add", f"{OF_OUR_OWN}/32", "dev", "lo")),
    ("the address 127.0.0.1 is deleted", "127.0.0.1", ("ip", "address", "del", "127.0.0.1/8", "dev", "lo"),
     ("ip", "address", "add", "127.0.0.1/8", "dev", "lo")),
    ("a rule prohibits it", "127.0.0.1", ("ip", "rule", "add", "pref", "0", "to", "127.0.0.1", "prohibit"),
     ("ip", "rule", "del", "pref", "0", "to", "127.0.0.1", "prohibit")),
)


def prepare_ways(case: Case) -> None:
    """The address is there, and rules are heeded before the kernel's own table of local addresses."""
    case.addCleanup(works, "ip", "rule", "del", "pref", "10")
    case.addCleanup(works, "ip", "rule", "add", "pref", "0", "lookup", "local")
    case.addCleanup(works, "ip", "address", "del", f"{OF_OUR_OWN}/32", "dev", "lo")
    run("ip", "address", "add", f"{OF_OUR_OWN}/32", "dev", "lo")
    run("ip", "rule", "add", "pref", "10", "lookup", "local")
    run("ip", "rule", "del", "pref", "0")


def element_counted(table: str, port: int) -> tuple[int, int]:
    """The counter that stands in an element of a set or a map."""
    found = re.search(rf"{port} counter packets (\d+) bytes (\d+)", run("nft", "list", "table", *table.split()))
    return (int(found[1]), int(found[2])) if found else (0, 0)


class Pair:
    """A process of pair.py."""

    def __init__(self, case: Case, user: int | None = None, group: str | None = None, front: tuple[str, ...] = (),
                 addresses: tuple[str, ...] = (), **environment: str) -> None:
        def become() -> None:
            if group is not None:
                Path(group, "cgroup.procs").write_text(str(os.getpid()))
            if user is not None:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)

        self.log = case.folder / f"pair-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*front, sys.executable, "-u", str(HERE / "pair.py"), *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, preexec_fn=become,
                env={**clean_environment(), "LD_PRELOAD": str(LIBRARY), "LOOPFAST": "off", **environment})
        case.addCleanup(self.close)
        hello = self.answer()
        self.port, self.pid = hello["port"], hello["pid"]

    def answer(self, seconds: float = 30) -> dict:
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise AssertionError(f"no answer in {seconds} s: {self.log.read_text()}")
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"ended with {self.process.wait(5)}: {self.log.read_text()}")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer

    def ask(self, *words: object) -> dict:
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        if self.process.poll() is None:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.process.stdout.close()


class Guard:
    """`loopfast guard` in the test's network namespace."""

    def __init__(self, case: Case, *arguments: str, front: tuple[str, ...] = ()) -> None:
        self.output = case.folder / f"guard-{time.monotonic_ns()}.log"
        with self.output.open("w") as output:
            self.process = subprocess.Popen([*front, str(COMMAND), "guard", *arguments], env=clean_environment(),
                                            stdout=output, stderr=subprocess.STDOUT)
        case.addCleanup(self.close)
        if "--quiet" not in arguments:
            until(lambda: self.said() or self.process.poll() is not None, "the guard has begun", SOMETIME)

    def said(self) -> list[str]:
        return self.output.read_text().splitlines()

    def processor_time(self) -> float:
        return sum(map(int, Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) / 100

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def wait_for(self, text: str, after: int = 0, seconds: float = SOMETIME) -> float:
        """Waits until it has said something that contains `text` beyond line `after`. @return for how long."""
        begin = time.monotonic()
        try:
            until(lambda: any(text in line for line in self.said()[after:]), f"the guard says {text!r}", seconds, 0.002)
        except AssertionError as problem:
            raise AssertionError(f"{problem}; it said:\n" + "\n".join(self.said()[after:])) from None
        return time.monotonic() - begin


def doctor(*arguments: str) -> tuple[int, dict]:
    done = subprocess.run([str(COMMAND), "doctor", "--json", *arguments], env=clean_environment(), text=True,
                          capture_output=True, timeout=30, check=False)
    return done.returncode, json.loads(done.stdout)


def status(pid: int) -> list[dict]:
    done = run(str(COMMAND), "status", "--json", "--pid", str(pid))
    return [connection for process in json.loads(done) for connection in process["connections"]]


def payload(counted: tuple[int, int], header: int) -> int:
    """Bytes of data among those that were counted with their headers."""
    packets, size = counted
    return size - packets * header


def nft_counted(table: str, chain: str) -> tuple[int, int]:
    found = re.search(r"counter packets (\d+) bytes (\d+)", run("nft", "list", "chain", *table.split(), chain))
    return int(found[1]), int(found[2])


def clean() -> None:
    """What a test that failed left behind must not fail the next one too."""
    works("nft", "flush", "ruleset")
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        if Path("/proc/net", tool.split("tables")[0] + "_tables_names").read_text():
            works(tool, "-F")
    works("tc", "qdisc", "del", "dev", "lo", "root")
    works("tc", "qdisc", "del", "dev", "lo", "clsact")
    works("ip", "xfrm", "policy", "flush")
    works("ip", "xfrm", "policy", "setdefault", "in", "accept", "out", "accept", "fwd", "accept")


def captured(file: Path, port: int, source: int | None = None) -> int:
    """Bytes of data to `port` in a capture, each counted once; those of one connection, if `source` says from where."""
    data = file.read_bytes() if file.exists() else b""
    if len(data) < 24:
        return 0
    link = struct.unpack_from("<I", data, 20)[0]
    skip = {1: 14, 276: 20}[link]
    total, at = 0, 24
    seen: set[tuple[int, int]] = set()
    while at + 16 <= len(data):
        size = struct.unpack_from("<I", data, at + 8)[0]
        packet = data[at + 16 + skip:at + 16 + size]
        at += 16 + size
        if at > len(data) or len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != 6:
            continue
        header = (packet[0] & 15) * 4
        # A packet larger than 64 KiB - 1 has no length of its own.
        length = struct.unpack_from(">H", packet, 2)[0] or len(packet)
        tcp = packet[header:]
        key = (struct.unpack_from(">H", tcp, 0)[0], struct.unpack_from(">I", tcp, 4)[0])
        carried = length - header - (tcp[12] >> 4) * 4
        # "any" sees each packet of lo on its way out and on its way in.
        if struct.unpack_from(">H", tcp, 2)[0] == port and source in (None, key[0]) and carried > 0 and key not in seen:
            seen.add(key)
            total += carried
    return total
