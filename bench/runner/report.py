"""Medians, ratios, verdicts; JSON for machines and a markdown table for people."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from typing import Any

from .rows import Row


@dataclass
class Result:
    """All that was seen of one row."""

    row: Row
    kernel: list[dict[str, Any]] = field(default_factory=list)
    loopfast: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: str | None = None
    word: list[float] = field(default_factory=list)  #: see floor.py

    def median(self, samples: list[dict[str, Any]]) -> float | None:
        return statistics.median(sample["value"] for sample in samples) if samples else None

    @property
    def score(self) -> float | None:
        """The ratio (above 1: better than the kernel); for a bound, loopfast's figure above the kernel's."""
        kernel, loopfast = self.median(self.kernel), self.median(self.loopfast)
        if kernel is None or loopfast is None:
            return None
        if self.row.better == "bound":
            return max(0.0, loopfast - kernel)
        return kernel / loopfast if self.row.better == "less" else loopfast / kernel

    @property
    def verdict(self) -> str:
        if self.skipped:
            return f"skipped: {self.skipped}"
        if self.failures:
            return f"FAILED ({len(self.failures)})"
        if self.score is None or self.row.least is None or self.row.aim is None:
            return ""
        reached = [self.score <= goal if self.row.better == "bound" else self.score >= goal
                   for goal in (self.row.least, self.row.aim)]
        return "aim met" if all(reached) else "least met" if reached[0] else "**not met**"

    def as_json(self) -> dict[str, Any]:
        return {"name": self.row.name, "work": self.row.work, "unit": self.row.unit, "better": self.row.better,
                "least": self.row.least, "aim": self.row.aim, "score": self.score, "verdict": self.verdict,
                "word_us": self.word, "kernel_median": self.median(self.kernel), "loopfast_median": self.median(self.loopfast),
                "kernel": self.kernel, "loopfast": self.loopfast, "failures": self.failures}


def machine() -> dict[str, Any]:
    """What a reader needs to know to compare: never a name or a path of this machine."""
    model = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            model = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "")
    except OSError:
        pass
    return {"processors": os.cpu_count(), "model": model, "kernel": platform.release().split("-")[0],
            "architecture": platform.machine()}


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _spread(result: Result, samples: list[dict[str, Any]]) -> str:
    """The median with the range of the samples around it."""
    if not samples:
        return "-"
    values = [sample["value"] for sample in samples]
    text = _figure(result.median(samples))
    return text if len(values) < 2 else f"{text} ({_figure(min(values))} to {_figure(max(values))})"


def _range(values: list[float]) -> str:
    if not values:
        return ""
    least, most = f"{min(values):.2f}", f"{max(values):.2f}"
    return least if least == most else f"{least} to {most}"


def markdown(results: list[Result], other: str = "kernel") -> str:
    """The table of the run, medians with their ranges; `other` is what loopfast is compared with."""
    lines = [f"| work | unit | {other} | loopfast | ratio | at least | aim | | word, us |",
             "|---|---|---|---|---|---|---|---|---|"]
    for result in results:
        row = result.row
        times = "" if row.better == "bound" else "x"
        goals = [f"{goal:g}{times}" if goal is not None else "" for goal in (row.least, row.aim)]
        score = "" if result.score is None else (
            f"+{_figure(result.score)} {row.unit}" if row.better == "bound"
            else f"{result.score:.2f}x" if result.score < 10 else f"{result.score:.1f}x")
        lines.append(f"| {row.work} | {row.unit} | {_spread(result, result.kernel)} | "
                     f"{_spread(result, result.loopfast)} | {score} | {goals[0]} | {goals[1]} | "
                     f"{result.verdict} | {_range(result.word)} |")
    for result in results:
        lines += [f"\n{result.row.name}: {failure}" for failure in result.failures[:3]]
    return "\n".join(lines)
