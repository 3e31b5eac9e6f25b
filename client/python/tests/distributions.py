"""The wheel and the sdist: built, compared with the sources, installed, and used by a program.

    distributions.py --broker sockbrokerd

Needs `venv`, and a package index for `build` and `flit_core`. A warning of the build is a failure.
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
BESIDE = {"LICENSE-MIT", "LICENSE-APACHE"}
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


def run(*command, cwd=None):
    """What a program prints; its failure is ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=inherited, timeout=LONGEST_WAIT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def environment(folder, *packages):
    """A virtual environment with these packages; its interpreter."""
    run(sys.executable, "-m", "venv", folder)
    python = pathlib.Path(folder, "bin", "python")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages)
    return python


def build(folder):
    """Builds both from a copy of the sources, the wheel from the sdist; their paths."""
    copy = folder / "copy"
    shutil.copytree(HERE.parent, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "tests"))
    python = environment(folder / "builder", BUILD)
    before = files_below(copy)
    said = run(python, "-m", "build", "--outdir", folder / "dist", copy)
    if "warning" in said.lower():
        raise SystemExit(f"the build warns:\n{said}")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", copy)
    compare("the sources after a build and an installation", files_below(copy), before)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def files_below(folder):
    """Paths of everything in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def compare(what, found, wanted):
    """Both sets of paths are equal, or the difference is said."""
    if found != wanted:
        raise SystemExit(f"{what} lacks {sorted(wanted - found)} and has {sorted(found - wanted)} too much")
    print(f"{what}: {len(found)} files, as in the sources")


def check_contents(sdist, wheel):
    """Each source is in both, with the licences, and nothing else."""
    sources = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    inside = {name for name in files if name.startswith("sockbroker/")}
    compare(wheel.name, inside, sources)
    licences = {pathlib.PurePath(name).name for name in files - inside if "/licenses/" in name}
    compare(f"licences of {wheel.name}", licences, BESIDE)
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    files = {name for name in files if ".egg-info/" not in name} - {"PKG-INFO", "setup.cfg"}
    wanted = {f"src/{name}" for name in sources} | BESIDE | {"README.md", "pyproject.toml"}
    compare(sdist.name, files, wanted)


def check_installed(wheel, broker, folder):
    """A program uses the installed package, in every mode, and no other copy of it."""
    python = environment(folder / "user", "--no-index", "--no-deps", wheel)
    process, path = start_broker(broker, folder)
    try:
        for mode in MODES[1:]:
            said = run(python, "-m", "sockbroker", "--mode", mode, "--broker", path, "-c", PROGRAM, cwd=folder)
            if said != "through the wheel\n":
                raise SystemExit(f"{mode}: {said}")
            print(f"{wheel.name} installed, {mode}: {said.strip()}")
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
