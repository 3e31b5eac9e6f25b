"""Reads the packages under test: their files with modes and owners."""

import io
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# The tree that the packages were built from.
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Entry:
    """One file of a package."""

    mode: int
    owner: str
    content: bytes
    configuration: bool
    # What a symbolic link points to.
    link: str = ""


def output(*command: str | Path, ends: tuple[int, ...] = (0,), **more: object) -> bytes:
    """Returns the output of a command. Raises an error with the output if it fails."""
    done = subprocess.run(command, capture_output=True, timeout=300, check=False, **more)  # type: ignore[call-overload]
    if done.returncode not in ends:
        raise AssertionError(f"{command} ended with {done.returncode}: {(done.stderr + done.stdout)[:2000]!r}")
    return done.stdout


@dataclass(frozen=True)
class Built:
    """The two packages of one build."""

    deb_path: Path
    rpm_path: Path

    @classmethod
    def of(cls, folder: str) -> "Built":
        """Finds the two packages in a folder."""
        (deb,), (rpm,) = Path(folder).glob("*.deb"), Path(folder).glob("*.rpm")
        return cls(deb, rpm)

    @cached_property
    def deb(self) -> dict[str, Entry]:
        """Returns the files of the .deb, by path."""
        configuration = self.control()["conffiles"].decode().split()
        entries = {}
        with tarfile.open(fileobj=io.BytesIO(output("dpkg-deb", "--fsys-tarfile", self.deb_path))) as tar:
            for member in tar:
                path = "/" + member.name.removeprefix("./").rstrip("/")
                owner = f"{member.uid}:{member.gid}".replace("0:0", "root:root")
                if member.isdir():
                    assert member.mode == 0o755 and owner == "root:root", f"folder {path}: {member.mode:o} {owner}"
                    continue
                if member.issym():
                    entries[path] = Entry(member.mode, owner, b"", False, member.linkname)
                    continue
                assert member.isfile(), f"{path} is not a file"
                content = tar.extractfile(member).read()  # type: ignore[union-attr]
                entries[path] = Entry(member.mode, owner, content, path in configuration)
        return entries

    def control(self) -> dict[str, bytes]:
        """Returns the control files of the .deb, by name."""
        with tarfile.open(fileobj=io.BytesIO(output("dpkg-deb", "--ctrl-tarfile", self.deb_path))) as tar:
            files = [member for member in tar if member.isfile()]
            contents = {file.name.removeprefix("./"): tar.extractfile(file) for file in files}
            return {name: content.read() for name, content in contents.items() if content}

    @cached_property
    def rpm(self) -> dict[str, Entry]:
        """Returns the files of the .rpm, by path."""
        form = "[%{FILENAMES}\t%{FILEMODES:octal}\t%{FILEUSERNAME}:%{FILEGROUPNAME}\t%{FILEFLAGS:fflags}\n]"
        entries = {}
        with tempfile.TemporaryDirectory() as folder:
            # Some versions exit with 1 on success; cpio checks the end of the archive.
            archive = output("rpm2cpio", self.rpm_path, ends=(0, 1))
            output("cpio", "--extract", "--quiet", "--make-directories", input=archive, cwd=folder)
            for line in output("rpm", "-qp", "--qf", form, self.rpm_path).decode().splitlines():
                path, mode, owner, flags = line.split("\t")
                kind, permissions = divmod(int(mode, 8), 0o10000)
                assert kind == 0o10, f"{path} is not a file: {mode}"
                # c: configuration file, n: noreplace.
                noreplace = "c" in flags and "n" in flags
                entries[path] = Entry(permissions, owner, Path(folder, path[1:]).read_bytes(), noreplace)
        return entries

    def scriptlets(self) -> str:
        """Returns the scripts of the .rpm."""
        return output("rpm", "-qp", "--scripts", self.rpm_path).decode()


# The folder of the linters from PyPI: that of the interpreter that runs the tests.
LINTERS = Path(sys.executable).parent

# Set by main.py.
FIRST: Built
AGAIN: Built
