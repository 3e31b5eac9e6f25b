"""Builds the wheel and the sdist, compares them with the sources, installs the wheel, and runs a program and pytest with it.

    distributions.py --broker sockbrokerd

It needs `venv`, and a package index for `build`, `flit_core` and `pytest`. A warning of the build is a failure.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

from run import HERE, MODES, PACKAGE, start_broker

BUILD = "build==1.3.0"
PYTEST = "pytest==8.4.2"
ENTRY_POINTS = "[pytest11]\nsockbroker=sockbroker.pytest_plugin\n"
LICENCES = {"LICENSE-MIT", "LICENSE-APACHE"}
LONGEST_WAIT = 300
PROGRAM = """
import pathlib, socket, sys, sockbroker
assert pathlib.Path(sockbroker.__file__).is_relative_to(sys.prefix), sockbroker.__file__
assert socket.socket.__mro__[1] is not sys.modules["sockbroker.native"].Socket, "a native socket"
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    accepted, _ = server.accept()
    with accepted:
        client.sendall(b"through the wheel")
        print(accepted.recv(100).decode())
"""
TEST = """
import sys
def test_broker(sockbroker, sockbroker_port):
    assert sockbroker.url == sys.argv[-1].partition("=")[2]
    with sockbroker.socket.create_connection(sockbroker_port.address): pass
"""


def run(*command, cwd=None):
    """The output of a program, which must succeed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=inherited, timeout=LONGEST_WAIT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def environment(folder, *packages):
    """Creates a virtual environment with these packages. Returns its interpreter."""
    run(sys.executable, "-m", "venv", folder)
    python = pathlib.Path(folder, "bin", "python")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages)
    return python


def build(folder):
    """Builds the sdist from a copy of the sources, and the wheel from the sdist. Returns their paths."""
    copy = folder / "copy"
    shutil.copytree(HERE.parent, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "tests"))
    python = environment(folder / "builder", BUILD)
    before = files_below(copy)
    output = run(python, "-m", "build", "--outdir", folder / "dist", copy)
    if "warning" in output.lower():
        raise SystemExit(f"the build warns:\n{output}")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", copy)
    compare("the sources after a build and an installation", files_below(copy), before)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def files_below(folder):
    """The paths of all files and folders in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def compare(what, found, wanted):
    """Fails with the difference if the sets of paths are not equal."""
    if found != wanted:
        raise SystemExit(f"{what} lacks {sorted(wanted - found)} and has in addition {sorted(found - wanted)}")
    print(f"{what}: {len(found)} files, as in the sources")


def check_contents(sdist, wheel):
    """Checks that both consist of the sources and the licences."""
    sources = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        (metadata,) = (name for name in files if name.endswith("/entry_points.txt"))
        entry_points = archive.read(metadata).decode().strip() + "\n"
    if entry_points != ENTRY_POINTS:
        raise SystemExit(f"{wheel.name} has other entry points: {entry_points}")
    inside = {name for name in files if name.startswith("sockbroker/")}
    compare(wheel.name, inside, sources)
    licences = {pathlib.PurePath(name).name for name in files - inside if "/licenses/" in name}
    compare(f"licences of {wheel.name}", licences, LICENCES)
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    files = {name for name in files if ".egg-info/" not in name} - {"PKG-INFO", "setup.cfg"}
    wanted = {f"src/{name}" for name in sources} | LICENCES | {"README.md", "pyproject.toml"}
    compare(sdist.name, files, wanted)


def check_installed(wheel, broker, folder):
    """Checks that a program uses the installed package in every mode, and not another copy."""
    python = environment(folder / "user", "--no-index", "--no-deps", wheel)
    process, path = start_broker(broker, folder)
    try:
        for mode in MODES[1:]:
            output = run(python, "-m", "sockbroker", "--mode", mode, "--broker", path, "-c", PROGRAM, cwd=folder)
            if output != "through the wheel\n":
                raise SystemExit(f"{mode}: {output}")
            print(f"{wheel.name} installed, {mode}: {output.strip()}")
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", PYTEST)
        test = pathlib.Path(folder, "test_wheel.py")
        test.write_text(TEST)
        output = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, f"--sockbroker={path}", cwd=folder)
        print(f"{wheel.name} installed, pytest: {output.splitlines()[-1]}")
        if not output.splitlines()[-1].startswith("1 passed"):
            raise SystemExit(output)
    finally:
        process.terminate()
        process.wait(30)


def main():
    """Checks all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sdist, wheel = build(folder)
        check_contents(sdist, wheel)
        check_installed(wheel, given.broker, folder)


if __name__ == "__main__":
    main()
