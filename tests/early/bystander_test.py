#!/usr/bin/env python3
"""A process that never opts in: what the preloaded library adds to its calls, counted by the instruction.

build/bench/bystander steps through each operation with and without the library; the counts are exact and the same
on every run, so the bounds are close. No operation may make a system call more than without the library, but for a
fork (the child asks for its process id) and for the start of a program (the loader maps one library more).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BUILD = Path(os.environ["LOOPFAST_BUILD"])
BYSTANDER = str(BUILD / "bench" / "bystander")
LIBRARY = str(BUILD / "libloopfast.so")

#: instructions that may be added to each call of the operation's: a look into a table that is not there
PER_CALL = 30
CALLS = {"close": 2, "pipe": 2, "unix-socket": 2, "read-file": 1, "epoll_create": 2, "dup": 2, "tcp-socket": 2}
#: a wait looks again afterwards whether its set has become known meanwhile
DEARER = {"epoll_wait": 60, "epoll_ctl": 60, "select": 40, "fcntl": 60, "tcp-socket": 75}
FORK = 1500
START = 200_000
START_CALLS = 16


def count(operation: str, preload: bool) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOOPFAST")}
    if preload:
        environment["LD_PRELOAD"] = LIBRARY
    run = subprocess.run([BYSTANDER, "count", operation], env=environment, stdout=subprocess.PIPE, timeout=60,
                         check=False)
    if run.returncode != 0:
        print(f"{operation}: cannot be counted here (no ptrace?)")
        sys.exit(77)
    return json.loads(run.stdout)


def main() -> int:
    if not os.access(BYSTANDER, os.X_OK):
        print("bench/bystander is not built")
        return 77
    failed = 0
    names = subprocess.run([BYSTANDER, "list"], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    for name in names:
        if name == "exec":  # a vfork and a start
            continue
        plain, loaded = count(name, False), count(name, True)
        more = loaded["instructions"] - plain["instructions"]
        calls = loaded["calls"] - plain["calls"]
        most = FORK if name == "fork" else START if name == "start" else DEARER.get(name, PER_CALL * CALLS.get(name, 1))
        most_calls = 1 if name == "fork" else START_CALLS if name == "start" else 0
        good = more <= most and calls <= most_calls
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {name:13} {plain['instructions']:8.0f} + {more:.0f} instructions "
              f"(at most {most}), {plain['calls']:.0f} + {calls:.0f} system calls")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
