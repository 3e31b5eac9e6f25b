"""Tests the packages: `main.py FOLDER AGAIN`, two folders with builds of deploy/package.

The script `run` builds both. The last line has the format of cargo's test runner, so that .ci/run can count tests.
"""

import sys
import unittest

import packages

MODULES = ["test_contents", "test_equal", "test_lint", "test_install", "test_container", "test_kubernetes"]


class Result(unittest.TextTestResult):
    """Prints skipped tests in the format of this project."""

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        print(f"SKIPPED ({reason}): {test.id()}", flush=True)


def main() -> int:
    """Runs every test and returns 0 if all passed."""
    packages.FIRST, packages.AGAIN = (packages.Built.of(folder) for folder in sys.argv[1:3])
    suite = unittest.defaultTestLoader.loadTestsFromNames(MODULES)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    failed = len(result.failures) + len(result.errors)
    verdict = "FAILED" if failed else "ok"
    print(f"test result: {verdict}. {result.testsRun - failed} passed; {failed} failed; 0 ignored")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
