"""Warnings of modules that create their sockets in C."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

from process.common import PACKAGE, SECONDS, Broker, code, environment, program

MODULES = ("uvloop", "grpc", "psycopg2")


class Warnings(unittest.TestCase):
    def setUp(self):
        self.broker = Broker()
        self.addCleanup(self.broker.stop)
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        for name in MODULES:
            package = pathlib.Path(self.folder, name)
            package.mkdir()
            (package / "__init__.py").write_text(f"from . import inner\nname = {name!r}\n")
            (package / "inner.py").write_text("import socket\n")

    def run_text(self, text, mode, *flags):
        return program(self.broker.path, *flags, *code(text), mode=mode, PYTHONPATH=f"{self.folder}:{PACKAGE}")

    def test_each_module_warns_once_and_is_imported(self):
        text = "".join(f"import {name}\nimport {name}.inner\nprint({name}.name)\n" for name in MODULES)
        for mode in ("direct", "mediated"):
            done = self.run_text(text, mode)
            self.assertEqual(done.stdout.split(), list(MODULES))
            for name in MODULES:
                self.assertEqual(done.stderr.count(f" creates the sockets of {name}, which stay native: "), 1, done.stderr)
            self.assertEqual(done.stderr.count("RuntimeWarning"), len(MODULES))

    def test_the_warning_names_the_line_that_imports(self):
        done = self.run_text("\nimport uvloop", "direct")
        self.assertTrue(done.stderr.startswith("<string>:2: RuntimeWarning: libuv creates the sockets of uvloop"), done.stderr)

    def test_a_module_that_is_loaded_already_warns_too(self):
        text = f"""
            import uvloop, sockbroker, sys
            assert not hasattr(sys.modules["_socket"], "native_module")
            print("before")
            sockbroker.install("direct", {self.broker.path!r})
        """
        done = subprocess.run(
            [sys.executable, *code(text)], env=environment(PYTHONPATH=f"{self.folder}:{PACKAGE}"), capture_output=True,
            text=True, timeout=SECONDS,
        )  # fmt: skip
        self.assertEqual(done.stdout, "before\n")
        self.assertIn(":5: RuntimeWarning: libuv creates the sockets of uvloop", done.stderr)

    def test_other_modules_do_not_warn(self):
        done = self.run_text("import asyncio, ssl, http.client, multiprocessing", "mediated")
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
