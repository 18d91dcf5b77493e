"""How much of the machine other processes used while a sample was taken.

On a machine that is shared, a sample taken while somebody else compiles says nothing. The kernel counts
all processor time (/proc/stat) and our own programs' (rusage of ended children): the rest is others',
and steal.
"""

from __future__ import annotations

import os
import resource
import time

TICKS = os.sysconf("SC_CLK_TCK")
#: more than this part of one processor used by others: the sample is taken again
DISTURBED = 0.12


class Watch:
    """Starts at construction; ask `others()` after all programs of the sample have been waited for."""

    def __init__(self) -> None:
        self._begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        with open("/proc/stat", encoding="ascii") as stat:
            fields = [int(field) for field in stat.readline().split()[1:]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
        busy = (user + nice + system + irq + softirq + steal) / TICKS
        ours = 0.0
        for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF):
            usage = resource.getrusage(who)
            ours += usage.ru_utime + usage.ru_stime
        return time.monotonic(), busy, ours

    def others(self) -> float:
        """@return processors used by others, 0 for none, 1 for one of them all the time."""
        begin, now = self._begin, self._now()
        elapsed = max(now[0] - begin[0], 1e-3)
        return max(0.0, ((now[1] - begin[1]) - (now[2] - begin[2])) / elapsed)
