"""`python3 -m sockbroker`: the command line, child processes, and what the package loads at the start."""

import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import unittest

from process.common import PACKAGE, SECONDS, Broker, code, environment, program

WHERE = "import socket, sys; print(hasattr(sys.modules['_socket'], 'native_module'))"

HEAVY = {
    "ast", "asyncio", "dataclasses", "importlib.metadata", "importlib.util", "inspect", "logging", "pathlib", "pickle",
    "shlex", "ssl", "subprocess", "tempfile", "typing", "urllib",
}  # fmt: skip
"""Modules that would slow down the start of every program."""
FOR_THE_BROKER = {"contextlib", "json", "re", "struct", "threading", "sockbroker.mediated", "sockbroker.session"}
"""What direct mode loads only when the kernel has refused a call."""
OF_THE_LAUNCHER = {"environment", "errors", "hints", "launch", "native", "settings"}
OF_DIRECT_MODE = {
    "arguments", "base", "client", "direct", "errors", "handle", "hints", "identity", "installation", "native",
    "native_modules", "os_functions", "process", "replacement", "select_functions", "settings", "socket_module",
}  # fmt: skip
"""The modules of the package that the default mode loads before the program: each one delays every program."""
STANDARD = {
    "__future__", "_functools", "_weakrefset", "functools", "importlib", "importlib._bootstrap",
    "importlib._bootstrap_external", "sitecustomize", "warnings", "weakref",
}  # fmt: skip
"""What it loads in addition to those that `socket` loads: some of them or all, by the version of Python."""


def own(loaded):
    """The loaded modules of the package."""
    return {name.partition(".")[2] for name in loaded if name.startswith("sockbroker.")}


class Launch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = Broker()
        cls.addClassCleanup(cls.broker.stop)

    def run_here(self, *arguments, **more):
        done = program(self.broker.path, *arguments, **more)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_scripts_modules_and_code_get_the_native_name_and_arguments(self):
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder, "script.py")
            script.write_text("import sys; print(__name__, sys.argv[1:], sys.path[0] == sys.argv[2])\n" + WHERE)
            self.assertEqual(self.run_here(str(script), "-x", folder), f"__main__ ['-x', '{folder}'] True\nTrue\n")
            printed = self.run_here("-m", "script", "y", "z", PYTHONPATH=f"{folder}:{PACKAGE}")
            self.assertEqual(printed, "__main__ ['y', 'z'] False\nTrue\n")
        self.assertEqual(self.run_here("-c", "import sys; print(__name__, sys.argv)", "y"), "__main__ ['-c', 'y']\n")

    def test_child_processes_are_brokered_too(self):
        text = f"""
            import multiprocessing, subprocess, sys
            subprocess.run([sys.executable, "-c", {WHERE!r}], check=True)
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                print(pool.apply(eval, ["hasattr(__import__('sys').modules['_socket'], 'native_module')"]))
        """
        for mode in ("direct", "mediated"):
            self.assertEqual(self.run_here(*code(text), mode=mode), "True\nTrue\n")

    def test_a_wrong_command_line_is_refused_with_the_reason(self):
        for arguments, text in (
            (["--mode", "other"], "unknown mode 'other': use one of direct, mediated, remote, channel"),
            (["--broker", "ftp://x"], "cannot parse the broker URL 'ftp://x': use /path, unix:/path, ssh://HOST, tls://HOST or exec:COMMAND"),
            (["--broker", "stdio:sockbrokerd --stdio"], "serves one connection only, and this package opens several; use exec:"),
            (["--broker", "ssh://-oProxyCommand=x"], "it has no valid host; use ssh://[USER@]HOST[:PORT][/PATH]"),
            (["--broker", "ssh://lab7", "--mode", "mediated"], "cannot use mode mediated with the broker at ssh://lab7: ssh passes"),
            (["--mode"], "option --mode needs a value"),
        ):
            done = program(None, *arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(text, done.stderr)

    def test_help_and_version_are_printed(self):
        self.assertIn("--mode MODE", program(None, "--help").stdout)
        self.assertRegex(program(None, "--version").stdout, r"^sockbroker \d+\.\d+\.\d+$")

    def modules(self, text, *path, **variables):
        """The modules that an interpreter without `site` has loaded after this text."""
        variables["PYTHONPATH"] = os.pathsep.join(path)
        done = subprocess.run(
            [sys.executable, "-S", "-c", f"{text}\nimport sys; print(*sys.modules)"], env=environment(**variables),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return set(done.stdout.split())

    def test_a_program_starts_without_heavy_modules(self):
        program_text = "import socket; socket.socket()"
        native = self.modules(program_text)
        for mode, heavy in (("direct", HEAVY | FOR_THE_BROKER), ("mediated", HEAVY), ("remote", HEAVY)):
            with self.subTest(mode=mode):
                variables = {"SOCKBROKER_MODE": mode, "SOCKBROKER": self.broker.path}
                loaded = self.modules(f"import sitecustomize; {program_text}", f"{PACKAGE}/sockbroker/inherit", **variables)
                self.assertIn("sockbroker.base", loaded)
                self.assertEqual(heavy & (loaded - native), set())

    def test_the_default_mode_loads_these_modules_and_no_others(self):
        variables = {"SOCKBROKER_MODE": "direct", "SOCKBROKER": self.broker.path}
        loaded = self.modules("import sitecustomize, socket", f"{PACKAGE}/sockbroker/inherit", **variables)
        self.assertEqual(own(loaded), OF_DIRECT_MODE)
        native = self.modules("import socket")
        self.assertEqual({name for name in loaded - native - STANDARD if not name.startswith("sockbroker")}, set())

    def test_the_launcher_loads_no_heavy_modules(self):
        text = """
            import sys
            from sockbroker import launch
            sys.orig_argv = [sys.executable, "-m", "sockbroker", "--mode", "direct", "script.py"]
            variables, arguments = launch.parse(sys.orig_argv[3:])
            assert launch.interpreter_options() == [] and arguments == ["script.py"]
            assert launch.environment(variables)["SOCKBROKER_MODE"] == "direct"
        """
        loaded = self.modules(textwrap.dedent(text), PACKAGE)
        self.assertEqual(own(loaded), OF_THE_LAUNCHER)
        self.assertEqual((HEAVY | FOR_THE_BROKER) & (loaded - self.modules("pass")), set())

    def test_a_sitecustomize_of_the_environment_runs_too(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "sitecustomize.py").write_text("print('the other one')")
            printed = self.run_here("-c", WHERE, PYTHONPATH=f"{PACKAGE}:{folder}")
        self.assertEqual(printed.splitlines()[-2:], ["the other one", "True"])

    def test_one_changed_import_replaces_the_module(self):
        text = """
            import socket as native, sys
            from sockbroker import socket
            assert socket is not native and set(native.__all__) <= set(dir(socket))
            with socket.create_server(("127.0.0.1", 0)) as server:
                with socket.create_connection(server.getsockname()) as client:
                    accepted, address = server.accept()
                    with accepted:
                        client.sendall(b"hello")
                        print(accepted.recv(10), socket.AddressFamily(2).name, isinstance(client, native.SocketType))
        """
        for mode in ("direct", "mediated", "remote"):
            more = {"SOCKBROKER_MODE": mode, "SOCKBROKER": f"unix:{self.broker.path}"}
            done = subprocess.run(
                [sys.executable, *code(text)], env=environment(**more), capture_output=True, text=True, timeout=SECONDS
            )
            self.assertEqual(done.stderr, "")
            self.assertTrue(done.stdout.startswith("b'hello' AF_INET"), done.stdout)

    def test_a_command_can_carry_the_connections(self):
        relay = "import sys, socket, threading\n" + _RELAY
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder, "relay.py")
            script.write_text(relay)
            url = f"exec:{sys.executable} -S {script} {self.broker.path}"
            text = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[0]); s.close()"
            done = program(url, "-c", text, mode="remote")
        self.assertEqual((done.stdout, done.stderr), ("127.0.0.1\n", ""))


_RELAY = """
upper = socket.socket(fileno=0)
lower = socket.socket(socket.AF_UNIX)
lower.connect(sys.argv[1])
def move(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.shutdown(socket.SHUT_WR)
threading.Thread(target=move, args=[lower, upper], daemon=True).start()
move(upper, lower)
"""


if __name__ == "__main__":
    unittest.main()
