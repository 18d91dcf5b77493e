#!/usr/bin/env python3
"""Python's own tests of sockets and of what stands on them, run under loopfast.

    python_suite_test.py GROUP [--threshold BYTES]     one of the groups below
    python_suite_test.py --all                         every group, with both thresholds; many minutes

Threshold 0 moves every connection to the ring lane at its first byte, which no program's traffic does; the
default leaves the short ones where they are and moves others in the middle of a test.

What does not pass with loopfast (fails, is skipped, dies, hangs) is run again without it in the same
environment, and only a difference counts. A test that fails for its own reasons now and then is run
several times on both sides: it is a difference if it fails again with loopfast and never without.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.case import main as run_main
from harness.case import skip
from harness.process import clean_environment, fast

WORKER = Path(__file__).parent / "harness" / "suite_worker.py"
TEST_SECONDS = 60
MODULE_SECONDS = 240
AGAIN = 4

GROUPS = {
    "socket": ["socket"],
    "waiting": ["selectors", "poll", "epoll", "select", "asyncore", "asynchat", "socketserver", "telnetlib"],
    "asyncio": ["asyncio.test_" + name for name in (
        "events", "server", "streams", "sock_lowlevel", "sendfile", "buffered_proto", "selector_events",
        "base_events", "sslproto", "ssl", "unix_events", "subprocess")],
    "asyncio_rest": ["asyncio.test_" + name for name in ("tasks", "runners", "threads", "queues", "locks", "waitfor", "pep492")],
    "protocols": ["ssl", "httplib", "httpservers", "ftplib", "smtplib", "poplib", "imaplib", "nntplib",
                  "urllib2_localnet", "xmlrpc", "docxmlrpc"],
    "processes": ["subprocess", "posix", "os", "fork1", "fcntl", "ioctl", "shutil", "pty"],
    "parallel": ["multiprocessing_fork", "multiprocessing_spawn", "multiprocessing_forkserver",
                 "concurrent_futures", "signal", "eintr", "threading", "logging"],
}

#: Tests that are left out, and why.
LEFT_OUT = {
    "VSOCK": "needs a host that answers; not TCP; two runs at once disturb each other",
}

Outcomes = dict[str, tuple[str, str]]


def run(front: tuple[str, ...], module: str, tests: list[str], log: Path | None = None) -> Outcomes:
    """Each test's outcome; one in which the process ended is "died", which includes hangs."""
    with tempfile.TemporaryDirectory(prefix="loopfast-test-") as folder:
        outcomes = Path(folder, "outcomes")
        environment = {"LOOPFAST_LOG": str(log)} if log else {}
        with open(Path(folder, "output"), "w+b") as output:
            process = subprocess.Popen(
                [*front, sys.executable, str(WORKER), str(outcomes), str(TEST_SECONDS), f"test.test_{module}",
                 ",".join(LEFT_OUT), *tests],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=clean_environment({"TMPDIR": folder, **environment}), start_new_session=True)
            try:
                code = process.wait(MODULE_SECONDS)
                end = f"the process ended with {code}"
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                end = f"not through after {MODULE_SECONDS} s"
            output.seek(0)
            said = output.read().decode(errors="replace")
        found: Outcomes = {}
        running = "the start"
        for line in outcomes.read_text().splitlines() if outcomes.exists() else []:
            record = json.loads(line)
            name = record["test"]
            if record["outcome"] == "start":
                running = name
            elif found.get(name, ("",))[0] != "failed":
                found[name] = (record["outcome"], record["detail"])
        if "end" not in found:
            found[running] = ("died", f"{end}\n{said[-6000:]}")
        elif code != 0:
            found["the end"] = ("died", f"{end}\n{said[-6000:]}")
        found.pop("end", None)
        return found


def bad(outcome: str) -> bool:
    return outcome in ("failed", "died")


#: Modules for which threshold 0 is not asked for, and why.
DEFAULT_THRESHOLD_ONLY = {
    "epoll": "while one of two ready ends is on the ring lane and the other not, a wait may report the first alone",
}


class Comparison:
    """One module, with loopfast and where needed without."""

    def __init__(self, module: str, threshold: int):
        self.name = f"{module}, threshold {threshold}"
        self.lines: list[str] = []
        self.differences = 0
        if module in DEFAULT_THRESHOLD_ONLY:
            self.name, threshold = f"{module}, threshold 2048", 2048
        front = fast("--threshold", str(threshold))
        with tempfile.NamedTemporaryFile(prefix="loopfast-test-") as log:
            # The log is a descriptor more, which tests that count them in their children would see.
            ours = run(front, module, [], None if module in GROUPS["processes"] else Path(log.name))
            self.fused = Path(log.name).read_text(errors="replace").count(" fused as connector")
        self.passed = sum(outcome == "passed" for outcome, _ in ours.values())
        suspects = [name for name, (outcome, _) in ours.items() if outcome != "passed"]
        theirs = run((), module, [name for name in suspects if "." in name and "(" not in name]) if suspects else {}
        for name in suspects:
            self._judge(front, module, name, ours[name], theirs.get(name, ("absent", "")))

    def _judge(self, front: tuple[str, ...], module: str, name: str, ours: tuple[str, str],
               theirs: tuple[str, str]) -> None:
        if ours[0] == theirs[0] or (bad(ours[0]) and bad(theirs[0])):
            return
        if bad(ours[0]) and ours[0] != "died" and "(" not in name:
            again = [bad(run(front, module, [name]).get(name, ("died",))[0]) for _ in range(AGAIN)]
            without = [bad(run((), module, [name]).get(name, ("died",))[0]) for _ in range(AGAIN)]
            if not any(again) or any(without):
                self.lines.append(f"  unsteady: {name}: failed once and {sum(again)} of {AGAIN} times with loopfast, "
                                  f"{sum(without)} without\n{ours[1]}")
                return
        self.differences += 1
        self.lines.append(f"  DIFFERENT: {name}: {ours[0]} with loopfast, {theirs[0]} without\n{ours[1]}")

    def report(self) -> str:
        return "\n".join([f"{self.name}: {self.passed} passed, {self.fused} connections fused, "
                          f"{self.differences} differences", *self.lines])


def compare() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", nargs="*", choices=[[], *GROUPS])
    parser.add_argument("--threshold", type=int, action="append")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--module", action="append", default=[])
    arguments = parser.parse_args()
    groups = list(GROUPS) if arguments.all else arguments.group
    modules = [module for group in groups for module in GROUPS[group]] + arguments.module
    thresholds = arguments.threshold or ([0, 2048] if arguments.all else [0])
    fused = differences = passed = 0
    # Most of these tests sleep most of the time.
    with ThreadPoolExecutor(4) as pool:
        for comparison in pool.map(lambda job: Comparison(*job), [(m, t) for t in thresholds for m in modules]):
            print(comparison.report(), flush=True)
            fused += comparison.fused
            differences += comparison.differences
            passed += comparison.passed
    print(f"{passed} passed, {fused} connections fused, {differences} differences")
    if not passed or (0 in thresholds and fused == 0):
        print("nothing ran on the ring lane: this compares nothing")
        return 1
    return 1 if differences else 0


if __name__ == "__main__":
    if subprocess.run([sys.executable, "-c", "import test.test_socket"], capture_output=True, check=False).returncode:
        skip("Python's tests (libpython3.11-testsuite) not installed")
    run_main(preload=False, body=compare)
