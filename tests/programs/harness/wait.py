"""Waiting for a condition: it holds, or the wait fails at its time limit. No test sleeps and hopes. Limits are for what
has failed: a machine that runs ten other things needs seconds for what takes milliseconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: The long forms (`./dev apps --long`) have that much more to do.
LIMITS = 5 if os.environ.get("LOOPFAST_TEST_LONG", "") == "1" else 1


class TimeLimit(AssertionError):
    """What was waited for did not happen in time."""


def until(condition: Callable[[], T], what: str, seconds: float = 30.0, pause: float = 0.01) -> T:
    """Calls `condition` until it returns something true, and returns that."""
    seconds *= LIMITS
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeLimit(f"{what}: not within {seconds:.0f} s (last: {value!r})")
        time.sleep(pause)
