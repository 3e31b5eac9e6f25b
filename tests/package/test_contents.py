"""Tests the contents of the packages: both have exactly the expected files."""

import gzip
import os
import platform
import re
import tempfile
import tomllib
import unittest
from pathlib import Path

import packages
from packages import ROOT, output

# Where Wireshark looks for programs that capture. On RPM systems, a script creates the link.
EXTCAP = f"/usr/lib/{platform.machine()}-linux-gnu/wireshark/extcap/sockbroker-extcap"

# Paths that differ between Debian and RPM systems.
MOVED = {
    "/usr/lib/python3/dist-packages/": "/usr/share/sockbroker/python/",
    "/usr/share/zsh/vendor-completions/": "/usr/share/zsh/site-functions/",
}
ONLY_DEB = {
    EXTCAP,
    "/usr/share/doc/sockbroker/changelog.Debian.gz",
    "/usr/share/doc/sockbroker/changelog.gz",
    "/usr/share/doc/sockbroker/copyright",
    "/usr/share/lintian/overrides/sockbroker",
}
ONLY_RPM = {
    "/usr/share/doc/sockbroker/CHANGELOG.md",
    "/usr/share/licenses/sockbroker/LICENSE-APACHE",
    "/usr/share/licenses/sockbroker/LICENSE-MIT",
}


def elsewhere(path: str) -> str:
    """Returns the path in the .rpm of a file of the .deb."""
    for here, there in MOVED.items():
        if path.startswith(here):
            return there + path.removeprefix(here)
    return path


class Contents(unittest.TestCase):
    def setUp(self) -> None:
        self.deb = packages.FIRST.deb
        self.rpm = packages.FIRST.rpm

    def test_both_packages_have_the_same_files(self) -> None:
        deb = {elsewhere(path): entry for path, entry in self.deb.items() if path not in ONLY_DEB}
        rpm = {path: entry for path, entry in self.rpm.items() if path not in ONLY_RPM}
        self.assertEqual(sorted(deb), sorted(rpm))
        self.assertEqual([path for path in deb if deb[path] != rpm[path]], [])
        self.assertLessEqual(ONLY_DEB, set(self.deb))
        self.assertLessEqual(ONLY_RPM, set(self.rpm))

    def test_documented_files_exist(self) -> None:
        promised = {"/usr/bin/sockbroker", "/usr/bin/sockbrokerd", "/usr/libexec/sockbroker/add-subordinate-ids"}
        promised |= {"/etc/sockbroker/sockbrokerd.toml", "/etc/sockbroker/policy.toml"}
        promised |= {f"/usr/lib/systemd/{kind}/sockbrokerd.{unit}"
                     for kind in ("system", "user") for unit in ("service", "socket")}
        promised |= {f"/usr/lib/{place}" for place in (
            "sysusers.d/sockbroker.conf", "tmpfiles.d/sockbroker.conf", "sysctl.d/60-sockbroker.conf",
            "systemd/system-preset/90-sockbroker.preset")}
        promised |= {"/usr/share/bash-completion/completions/sockbroker",
                     "/usr/share/fish/vendor_completions.d/sockbroker.fish",
                     "/usr/share/zsh/vendor-completions/_sockbroker"}
        for source, place in {
            "deploy/config/policy.d": "/usr/share/sockbroker/policy.d",
            "deploy/systemd/roles": "/usr/share/sockbroker/roles",
            "deploy/systemd/modules-load.d": "/usr/share/sockbroker/modules-load.d",
        }.items():
            promised |= {f"{place}/{file.name}" for file in (ROOT / source).iterdir()}
        python = ROOT / "client/python/src"
        promised |= {f"/usr/lib/python3/dist-packages/{file.relative_to(python)}"
                     for pattern in ("*.py", "*.pyi", "py.typed") for file in python.rglob(pattern)}
        promised |= {f"/usr/share/man/man{page.suffix[1:]}/{page.name}.gz"
                     for page in (ROOT / "deploy/man").iterdir()}
        self.assertEqual(sorted(promised - set(self.deb)), [])

    def test_licences_of_all_compiled_crates_exist(self) -> None:
        notices = gzip.decompress(self.deb["/usr/share/doc/sockbroker/notices.gz"].content).decode()
        for crate in ("tokio", "serde_json", "jsonrpsee-types", "clap"):
            self.assertRegex(notices, rf"(?m)^    {crate} [0-9.]+: .*(MIT|Apache-2.0)")
        self.assertGreater(notices.count("Permission is hereby granted"), 20)
        self.assertNotIn("None", re.findall(r"(?m)^    \S+ \S+: (.*)$", notices))

    def test_each_subcommand_has_a_manual_page(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "sockbroker")
            program.write_bytes(self.deb["/usr/bin/sockbroker"].content)
            program.chmod(0o755)
            output(program, "man", "--folder", Path(folder, "man"))
            pages = {f"/usr/share/man/man1/{page.name}.gz" for page in Path(folder, "man").iterdir()}
        self.assertGreater(len(pages), 10)
        self.assertEqual(pages, {path for path in self.deb if path.startswith("/usr/share/man/man1/")})

    def test_root_owns_all_files_and_only_programs_are_executable(self) -> None:
        for path, entry in [*self.deb.items(), *self.rpm.items()]:
            with self.subTest(path):
                self.assertEqual(entry.owner, "root:root")
                program = path.startswith(("/usr/bin/", "/usr/libexec/"))
                self.assertEqual(entry.mode, 0o777 if entry.link else 0o755 if program else 0o644)

    def test_wireshark_finds_the_program_by_a_link(self) -> None:
        links = {path: entry.link for path, entry in self.deb.items() if entry.link}
        self.assertEqual({path: os.path.normpath(Path(path).parent / link) for path, link in links.items()},
                         {EXTCAP: "/usr/bin/sockbroker"})

    def test_only_configuration_is_kept_at_upgrades(self) -> None:
        for files in (self.deb, self.rpm):
            kept = {path for path, entry in files.items() if entry.configuration}
            self.assertEqual(kept, {path for path in files if path.startswith("/etc/")})

    def test_files_have_no_data_of_the_build_machine(self) -> None:
        home = Path.home()
        words = {str(ROOT), os.environ["CARGO_TARGET_DIR"], os.environ.get("CARGO_HOME", f"{home}/.cargo"),
                 f"{home}/.rustup"}
        self.assertEqual(output("rpm", "-qp", "--qf", "%{BUILDHOST}", packages.FIRST.rpm_path), b"(none)")
        for package in (packages.FIRST.deb_path, packages.FIRST.rpm_path):
            self.assertEqual([word for word in words if word.encode() in package.read_bytes()], [])
        for path, entry in [*self.deb.items(), *self.rpm.items()]:
            with self.subTest(path):
                self.assertNotIn("__pycache__", path)
                self.assertEqual([word for word in words if word.encode() in entry.content], [])

    def test_programs_are_stripped_and_files_are_not_empty(self) -> None:
        for path in ("/usr/bin/sockbroker", "/usr/bin/sockbrokerd"):
            with tempfile.NamedTemporaryFile() as program:
                program.write(self.deb[path].content)
                program.flush()
                sections = output("readelf", "--sections", "--wide", program.name)
            self.assertIn(b" .text ", sections)
            self.assertNotIn(b" .debug_line", sections)
            self.assertNotIn(b" .symtab ", sections)
        empty = [Path(path).name for path, entry in self.deb.items() if not entry.content and not entry.link]
        self.assertEqual(empty, ["py.typed"])

    def test_package_creates_the_groups_of_the_policy(self) -> None:
        made = set(re.findall(r"^[ug] (\S+)", self.deb["/usr/lib/sysusers.d/sockbroker.conf"].content.decode(), re.M))
        named = set()
        for path, entry in self.deb.items():
            if path.endswith(".toml") and "policy" in path:
                for rule in tomllib.loads(entry.content.decode()).get("rule", []):
                    named |= set(rule.get("subject", {}).get("groups", []))
        self.assertEqual(made, named)

    def test_scripts_are_those_of_the_tree(self) -> None:
        control = packages.FIRST.control()
        for name in ("postinst", "prerm", "postrm"):
            self.assertEqual(control[name].decode(), (ROOT / "deploy/deb" / name).read_text())
        scripts = packages.FIRST.scriptlets()
        for file in (ROOT / "deploy/rpm").iterdir():
            self.assertIn(file.read_text().strip(), scripts)
