#!/usr/bin/env python3
"""Runs the programs of this folder and compares what they print.

    run.py ours BUILD          our build of each program must print NAME.txt, line by line
    run.py wine BUILD          the Windows build of each, under Wine, must print NAME.txt too, but for the lines
                               that are marked: [fast] (the control code, which Wine lacks) and [windows] (where Wine is
                               known to be unlike Windows)
    run.py wine BUILD --write  makes NAME.txt anew: Wine's lines, and ours where they are marked

BUILD is the folder with the programs, NAME for ours and NAME.exe for the other ones. Ends with 77 when Wine is not
there. Wine gets a prefix of its own in a temporary folder, no display and no sound.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in HERE.iterdir() if path.suffix in (".c", ".cpp") and path.stem != "end")
MARKS = ("[fast]", "[windows]")
SKIP = 77
SECONDS = 60


def run(command: list[str], environment: dict[str, str] | None = None) -> list[str]:
    """What the command printed. A program that hangs, fails or crashes ends the test with what it printed until then."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               start_new_session=True)
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output += b"\n(did not end)"
    lines = output.decode(errors="replace").replace("\r", "").splitlines()
    if process.returncode != 0:
        lines.append(f"(ended with {process.returncode})")
    return lines


def plain(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith(MARKS)]


def merged(ours: list[str], theirs: list[str]) -> list[str]:
    """Wine's transcript with our marked lines, which must stand in the same places."""
    theirs = [line if not line.startswith(MARKS) else None for line in theirs]
    if len(ours) != len(theirs):
        raise SystemExit("the transcripts differ in length:\n" + "\n".join(difflib.ndiff(ours, plain(theirs))))
    return [own if other is None else other for own, other in zip(ours, theirs)]


def same(name: str, who: str, expected: list[str], got: list[str]) -> bool:
    if expected == got:
        print(f"{name}: {who}, {len(got)} lines: the same", flush=True)
        return True
    print(f"{name}: {who} differs:")
    print("\n".join(difflib.unified_diff(expected, got, f"{name}.txt", who, lineterm="")), flush=True)
    return False


class Wine:
    """Wine with a prefix of its own, which ends with it."""

    def __enter__(self) -> "Wine":
        self.folder = Path(tempfile.mkdtemp(prefix="loopfast-wine-"))
        self.environment = {
            **os.environ, "WINEPREFIX": str(self.folder / "prefix"), "WINEDEBUG": "-all", "HOME": str(self.folder),
            "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=;winealsa.drv,wineoss.drv,winepulse.drv=",
        }
        self.environment.pop("DISPLAY", None)
        try:
            made = subprocess.run(["wineboot", "--init"], env=self.environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=150).returncode
        except subprocess.TimeoutExpired:
            made = -1
        if made != 0:
            self.__exit__()
            print("Wine does not start here: skipped")
            raise SystemExit(SKIP)
        return self

    def run(self, program: Path) -> list[str]:
        return run(["wine", str(program)], self.environment)

    def __exit__(self, *_: object) -> None:
        try:
            subprocess.run(["wineserver", "-k"], env=self.environment, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)
        except (subprocess.TimeoutExpired, FileNotFoundError):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=("ours", "wine"))
    parser.add_argument("build", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("names", nargs="*", default=NAMES)
    arguments = parser.parse_args()
    expected = {} if arguments.write else {name: (HERE / f"{name}.txt").read_text().splitlines()
                                           for name in arguments.names}
    good = True
    if arguments.who == "ours":
        for name in arguments.names:
            good = same(name, "ours", expected[name], run([str(arguments.build / name)])) and good
        return 0 if good else 1
    missing = [name for name in arguments.names if not (arguments.build / f"{name}.exe").exists()]
    if shutil.which("wine") is None or shutil.which("wineboot") is None or missing:
        print("no Wine, or no build for it (g++-mingw-w64-x86-64): skipped")
        return SKIP
    with Wine() as wine:
        for name in arguments.names:
            theirs = wine.run(arguments.build / f"{name}.exe")
            if arguments.write:
                text = "\n".join(merged(run([str(arguments.build / name)]), theirs)) + "\n"
                (HERE / f"{name}.txt").write_text(text)
            elif not same(name, "Wine", plain(expected[name]), plain(theirs)):
                # Wine on a loaded machine is not always on time: once more before we believe it.
                good = same(name, "Wine", plain(expected[name]), plain(wine.run(arguments.build / f"{name}.exe"))) \
                    and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
