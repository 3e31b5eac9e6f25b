"""Runs the linters of the distributions on the packages and the manual pages."""

import gzip
import subprocess
import tempfile
import unittest
from pathlib import Path

import packages
from packages import ROOT


def run_linter(*command: str | Path) -> tuple[int, str]:
    """Returns the exit status and the output of a linter."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


class Lint(unittest.TestCase):
    def test_lintian_reports_no_error_and_no_warning(self) -> None:
        status, text = run_linter("lintian", "--allow-root", "--fail-on", "error,warning", packages.FIRST.deb_path)
        self.assertEqual((status, text), (0, ""))

    def test_rpmlint_reports_only_warnings_with_a_reason(self) -> None:
        config = ROOT / "tests/package/rpmlint.toml"
        status, text = run_linter("rpmlint", "--config", config, packages.FIRST.rpm_path)
        self.assertEqual(status, 0, text)
        self.assertIn("0 errors, 0 warnings", text)

    def test_manual_pages_are_formatted_without_a_warning(self) -> None:
        pages = {path: entry for path, entry in packages.FIRST.deb.items() if path.startswith("/usr/share/man/")}
        self.assertGreater(len(pages), 15)
        with tempfile.TemporaryDirectory() as folder:
            for path, entry in pages.items():
                page = Path(folder, Path(path).stem)
                page.write_bytes(gzip.decompress(entry.content))
                with self.subTest(page.name):
                    self.assertEqual(run_linter("groff", "-ww", "-z", "-mandoc", "-Tutf8", page), (0, ""))
                    # Generated pages have another date format.
                    level = "warning" if (ROOT / "deploy/man" / page.name).exists() else "error"
                    self.assertEqual(run_linter("mandoc", "-Tlint", f"-W{level}", page), (0, ""))
