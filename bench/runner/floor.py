"""What this machine's caches take to carry one word to the other processor and back.

On a virtual machine the processors may be neighbours at one moment and far apart at the next (0.2 and 0.9 us were
seen within minutes), and whatever spins on shared memory is faster or slower by it, while the kernel's lane is not.
So each row says between which floors it was measured.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path


def word(build: Path) -> list[float]:
    """@return the median of a round trip in microseconds; nothing where it cannot be measured."""
    program = build / "bench" / "wake_floor"
    try:
        output = subprocess.run([program, "--means", "word", "--seconds", "0.03"], capture_output=True, text=True,
                                check=True, timeout=30).stdout
        return [round(json.loads(output)["word_ns"] / 1000, 3)]
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return []
