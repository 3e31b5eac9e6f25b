"""Runs modules of CPython's own tests in this interpreter and writes the outcome of each test.

    suite.py --out FILE [--only ID ...] [--matching PATTERN] MODULE ...

The file is JSON: `{"version": ..., "seconds": ..., "outcomes": {id: "passed" | "skipped" | "failed"},
"details": {id: text}}`. Nothing here knows whether sockets are brokered.
"""

import argparse
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import unittest

# It hangs natively in a virtual machine as root: the guest can read the device, but not reach its own address.
LEFT_OUT = ("test.test_socket.ThreadedVSOCKSocketStreamTest.",)
_FILES = 4096
_WORST = ("passed", "skipped", "failed")


class Outcomes(unittest.TestResult):
    """The worst outcome of each test: threads and sub-tests report several times."""

    def __init__(self):
        super().__init__()
        self.outcomes = {}
        self.details = {}

    def _note(self, test, outcome, detail=None):
        name = test.id()
        before = self.outcomes.get(name, "passed")
        self.outcomes[name] = max(before, outcome, key=_WORST.index)
        if detail:
            self.details[name] = self.details.get(name, "") + detail

    def startTest(self, test):
        super().startTest(test)
        print(test.id(), flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._note(test, "passed")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._note(test, "passed")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._note(test, "failed", "unexpected success")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._note(test, "skipped", reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(test, "failed", self._exc_info_to_string(err, test))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed", self._exc_info_to_string(err, test))


def tests_of(suite):
    """Yields every test of a suite, except excluded ones."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        elif not item.id().startswith(LEFT_OUT):
            yield item


def main():
    """Runs, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--matching", default="", help="only classes with names that match the pattern")
    parser.add_argument("modules", nargs="+")
    given = parser.parse_args()
    out = os.path.abspath(given.out)

    from test import support

    # Some open as many files as they may: natively and brokered the same number, less than the broker has.
    files = min(_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    # Some fill the buffers of a connection with 512 bytes per call while another thread waits with this timeout. The
    # runner of the tests raises it too on slow machines.
    support.LOOPBACK_TIMEOUT = 60.0
    support.use_resources = ["network"]
    names = [f"test.{module}" for module in given.modules]
    # The tests create files in the current folder.
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    found = tests_of(unittest.TestLoader().loadTestsFromNames(names))
    found = [test for test in found if re.search(given.matching, type(test).__name__)]
    chosen = [test for test in found if not given.only or test.id() in given.only]
    result = Outcomes()
    started = time.monotonic()
    unittest.TestSuite(chosen).run(result)
    seconds = time.monotonic() - started
    os.chdir("/")
    shutil.rmtree(folder, ignore_errors=True)
    record = {"version": sys.version, "seconds": seconds, "outcomes": result.outcomes, "details": result.details}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(record, file)


if __name__ == "__main__":
    main()
