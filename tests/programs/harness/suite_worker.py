"""Runs tests of Python's own test suite in this process and writes each one's outcome as a line of JSON.

    python3 suite_worker.py OUTCOMES SECONDS MODULE LEFT_OUT [TEST...]

OUTCOMES is the file to append to; a test that takes longer than SECONDS ends the process with every
thread's traceback, so that the last line, a "start", names it. TESTs are ids to run instead of all; those whose id contains a
word of LEFT_OUT (separated by commas) are not run.
"""

import faulthandler
import json
import sys
import time
import unittest

OUTCOMES, SECONDS, MODULE, LEFT_OUT, *WANTED = sys.argv[1:]


class Outcomes(unittest.TestResult):
    """Keeps nothing, says everything at once: the process may die in the next test."""

    def __init__(self) -> None:
        super().__init__()
        self.file = open(OUTCOMES, "a", buffering=1, encoding="utf-8")

    def say(self, test: object, outcome: str, detail: str = "") -> None:
        name = test.id() if isinstance(test, unittest.TestCase) else str(test)
        self.file.write(json.dumps({"test": name, "outcome": outcome, "detail": detail[-3000:],
                                    "at": time.monotonic()}) + "\n")

    def startTest(self, test):
        faulthandler.dump_traceback_later(float(SECONDS), exit=True)
        self.say(test, "start")
        super().startTest(test)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)

    def addSuccess(self, test):
        self.say(test, "passed")

    def addError(self, test, err):
        self.say(test, "failed", self._exc_info_to_string(err, test))

    addFailure = addError

    def addSkip(self, test, reason):
        self.say(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        self.say(test, "failed as expected")

    def addUnexpectedSuccess(self, test):
        self.say(test, "failed", "unexpected success")

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.say(test, "failed", f"{subtest}: {self._exc_info_to_string(err, test)}")


def only(suite: unittest.TestSuite, wanted: set[str]) -> unittest.TestSuite:
    """The tests of a suite with these ids (none given: all), in the class suites that they came in."""
    kept = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            kept.addTest(only(test, wanted))
        elif (not wanted or test.id() in wanted) and not any(word in test.id() for word in LEFT_OUT.split(",")):
            kept.addTest(test)
    return kept


# Python's multiprocessing imports this script again in the processes that it spawns.
if __name__ == "__main__":
    suite = unittest.defaultTestLoader.loadTestsFromName(MODULE)
    result = Outcomes()
    only(suite, set(WANTED)).run(result)
    result.say("end", "end")
