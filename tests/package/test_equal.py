"""Tests that two builds of one commit are equal."""

import hashlib
import unittest
from pathlib import Path

import packages
from packages import Entry


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def difference(first: dict[str, Entry], again: dict[str, Entry]) -> list[str]:
    """Returns which files differ, and how."""
    lines = [f"only in one: {path}" for path in sorted(set(first) ^ set(again))]
    for path in sorted(set(first) & set(again)):
        one, other = first[path], again[path]
        if one != other:
            lines.append(f"{path}: {one.mode:o} {one.owner} {digest(one.content)}, "
                         f"again {other.mode:o} {other.owner} {digest(other.content)}")
    return lines


class Equal(unittest.TestCase):
    def check(self, first: Path, again: Path, inside: list[str]) -> None:
        one, other = (digest(path.read_bytes()) for path in (first, again))
        print(f"{first.name}: {one}, again {other}")
        self.assertEqual(one, other, "\n".join(inside) or "the files are equal, what is around them is not")

    def test_deb_is_reproducible(self) -> None:
        first, again = packages.FIRST, packages.AGAIN
        inside = difference(first.deb, again.deb)
        inside += [name for name, text in first.control().items() if again.control().get(name) != text]
        self.check(first.deb_path, again.deb_path, inside)

    def test_rpm_is_reproducible(self) -> None:
        first, again = packages.FIRST, packages.AGAIN
        inside = difference(first.rpm, again.rpm)
        self.check(first.rpm_path, again.rpm_path, inside)
