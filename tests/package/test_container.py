"""Tests the container image: its entry point starts and serves as documented.

The tests need no container engine. They run the commands of the Containerfile on a copy of this machine, use this
machine's C library as the base image, and run the entry point in the result as its user.
"""

import json
import re
import shlex
import subprocess
import unittest
from pathlib import Path

import machine
import packages
from packages import ROOT

RECIPE = ROOT / "deploy/container/Containerfile"
KUBERNETES = ROOT / "deploy/kubernetes"


def instructions(name: str) -> list[str]:
    """Returns the arguments of all instructions with a name, each on one line."""
    text = re.sub(r"\\\n\s*", "", RECIPE.read_text())
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(name + " ")]


def start(options: str) -> str:
    """Returns a script that creates the files of the image and starts its entry point on a read-only root."""
    (unpack,) = (command for command in instructions("RUN") if "dpkg-deb" in command)
    (user,) = instructions("USER")
    command = json.loads(instructions("ENTRYPOINT")[0]) + json.loads(instructions("CMD")[0])
    return f"""
        {unpack}
        cd /
        for library in $(ldd /image/usr/bin/* | grep -o "/[^ ]*[.]so[.0-9]*" | sort -u); do
            mkdir -p /image$(dirname $library); cp -L $library /image$library
        done
        cp /etc/services /etc/protocols /image/etc/
        mount --bind /image /image
        mkdir /image/proc /image/dev; mount -t proc proc /image/proc; mount --bind /dev /image/dev
        mount -t tmpfs -o mode=755,uid=52718,gid=52718 none /image/run/sockbroker
        {{ configure; }}
        mount -o remount,bind,ro /image
        as() {{
            ids=$1 groups=$2
            shift 2
            chroot --userspec=$ids --groups=$groups /image "$@" 2>&1 || echo "ends with $?"
        }}
        export SOCKBROKER=unix:/run/sockbroker/socket
        setpriv {options} chroot --userspec={user} --groups= /image {shlex.join(command)} >/log 2>&1 &
        # 10000 marks a socket that listens. The path exists earlier, from bind(2) on.
        for i in $(seq 1800); do
            if grep -q " 00010000 .* /run/sockbroker/socket$" /proc/net/unix; then break; fi
            sleep 0.1
        done
        section health; as {user} "" {shlex.join(json.loads(instructions("HEALTHCHECK")[0].split("CMD ")[1]))}
    """


def reported_capabilities(health: list[str]) -> list[list[str]]:
    """Returns the capabilities that the broker reports: of the worker, and of the opener if there is one."""
    broker = json.loads("".join(health))["broker"]
    processes = [broker["process"], broker.get("opener")]
    return [process["capabilities"] for process in processes if process]


class Container(unittest.TestCase):
    def test_linter_has_no_findings(self) -> None:
        hadolint = Path(packages.LINTERS, "hadolint")
        command = [hadolint, "--no-color", RECIPE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_image_serves_its_group_without_capabilities_on_a_read_only_root(self) -> None:
        if reason := machine.unavailable():
            self.skipTest(reason)
        script = "configure() { :; }" + start("--no-new-privs --bounding-set=+all")
        sections = machine.sections(packages.FIRST.deb_path, script + """
            call="/usr/bin/sockbroker call"
            section member; as 61001:61001 52718 $call socket.getservbyname servicename=http
            section packets; as 61001:61001 52718 $call socket.socket family=AF_PACKET type=SOCK_RAW
            section other; as 61002:61002 "" $call socket.getservbyname servicename=http
            section shell; find /image -name "*sh" -perm /111
        """)
        self.assertEqual(reported_capabilities(sections["health"]), [[]])
        self.assertEqual(sections["member"], ["80"])
        self.assertIn("ends with 1", sections["packets"])
        self.assertIn("ends with 69", sections["other"])
        self.assertEqual(sections["shell"], [])

    def test_image_captures_with_one_capability_and_the_policy_of_the_role(self) -> None:
        if reason := machine.unavailable():
            self.skipTest(reason)
        policy = shlex.quote((KUBERNETES / "capture/policy.toml").read_text())
        configuration = shlex.quote((KUBERNETES / "sockbrokerd.toml").read_text())
        configure = f"""configure() {{
            printf %s {policy} >/image/etc/sockbroker/policy.toml
            printf %s {configuration} >/image/etc/sockbroker/sockbrokerd.toml
        }}"""
        given = "--bounding-set=-all,+setuid,+setgid,+sys_chroot,+net_raw"
        sections = machine.sections(packages.FIRST.deb_path, configure + start(given) + """
            call="/usr/bin/sockbroker call"
            section capture; as 61001:61001 52718,52719 $call socket.socket family=AF_PACKET type=SOCK_RAW
            section member; as 61001:61001 52718 $call socket.socket family=AF_PACKET type=SOCK_RAW
            section node; as 61001:61001 52718 $call socket.create_connection "address=[\\"127.0.0.1\\",9]"
        """)
        self.assertEqual(reported_capabilities(sections["health"]), [[], ["CAP_NET_RAW"]])
        self.assertIn("handle", "".join(sections["capture"]))
        self.assertIn("ends with 1", sections["member"])
        self.assertIn("not the node", "".join(sections["node"]))
