"""Tests installing, upgrading and removing the packages, on copies of this machine without a service manager.

tests/service tests the units under systemd.
"""

import unittest

import machine
import packages

HERE = [
    "/usr/bin/sockbrokerd",
    "/etc/sockbroker/policy.toml",
    "/etc/systemd/system/sockets.target.wants/sockbrokerd.socket",
    "/run/sockbroker",
]
# Paths that must not exist: the service is not enabled, and no unit is masked.
NEVER = [
    "/etc/systemd/system/multi-user.target.wants/sockbrokerd.service",
    "/etc/systemd/system/sockbrokerd.service",
    "/etc/systemd/system/sockbrokerd.socket",
]

STATE = f'''
state() {{
    section "$1"
    for path in {" ".join(HERE + NEVER)}; do
        if [ -e "$path" ] || [ -L "$path" ]; then echo "$path"; fi
    done
}}
left() {{
    section "$1"
    find /etc /usr /run -xdev -path "*sockbroker*" | sort
}}
groups() {{
    section groups
    getent group | grep ^sockbroker | cut -d: -f1 | sort
}}
check() {{
    section check
    setpriv --reuid=sockbroker --regid=sockbroker --clear-groups sockbrokerd --check \
        --config /etc/sockbroker/sockbrokerd.toml --policy /etc/sockbroker/policy.toml
    sockbroker policy check --strict /etc/sockbroker/policy.toml /usr/share/sockbroker/policy.d/*.toml
}}
# The link for Wireshark in a folder: where it leads, and whether the program answers under that name.
extcap() {{
    section extcap
    readlink -f "$1/sockbroker-extcap"
    "$1/sockbroker-extcap" --extcap-interfaces 2>/dev/null | grep -o "^interface {{value=sockbroker}}"
}}
# Runs a package tool, and prints its output only if it fails.
quietly() {{
    "$@" >/package/log 2>&1 || {{ cat /package/log; exit 1; }}
}}
import() {{
    section python
    cd /
    /usr/bin/python3 -B -c "import sockbroker; print(sockbroker.__file__)"
}}
'''

EXTCAP = ["/usr/bin/sockbroker", "interface {value=sockbroker}"]
GROUPS = [
    "sockbroker", "sockbroker-capture", "sockbroker-netns", "sockbroker-options", "sockbroker-ping", "sockbroker-ports", "sockbroker-scapy",
    "sockbroker-system", "sockbroker-unix"]


class Install(unittest.TestCase):
    def setUp(self) -> None:
        reason = machine.unavailable()
        if reason:
            self.skipTest(reason)

    def test_deb_enables_its_socket_keeps_configuration_and_is_purged_completely(self) -> None:
        sections = machine.sections(packages.FIRST.deb_path, STATE + r"""
            export DEBIAN_FRONTEND=noninteractive
            install() { quietly dpkg --force-depends --force-confold -i /package/*.deb; }
            install
            state installed
            groups
            import
            extcap /usr/lib/$(uname -m)-linux-gnu/wireshark/extcap
            check
            echo "# mine" >>/etc/sockbroker/policy.toml
            systemctl disable sockbrokerd.socket 2>/dev/null
            install
            state upgraded
            section configuration; tail -n 1 /etc/sockbroker/policy.toml
            mkdir -p /etc/systemd/system/sockbrokerd.service.d
            cp /usr/share/sockbroker/roles/capture.conf /etc/systemd/system/sockbrokerd.service.d/
            dpkg --force-depends -r sockbroker >/dev/null 2>&1
            state removed
            dpkg -P sockbroker >/dev/null 2>&1
            left purged
        """)
        self.assertEqual(sections["installed"], HERE)
        self.assertEqual(sections["groups"], GROUPS)
        self.assertEqual(sections["extcap"], EXTCAP)
        self.assertEqual(sections["python"], ["/usr/lib/python3/dist-packages/sockbroker/__init__.py"])
        # A unit that the administrator has disabled stays disabled.
        self.assertTrue(any(line.endswith(" rules, 0 warnings") for line in sections["check"]), sections["check"])
        self.assertEqual(sections["upgraded"], [path for path in HERE if not path.endswith(".socket")])
        self.assertEqual(sections["configuration"], ["# mine"])
        self.assertEqual(sections["removed"], ["/etc/sockbroker/policy.toml"])
        self.assertEqual(sections["purged"], [])

    def test_rpm_enables_its_socket_keeps_configuration_and_removes_all_unchanged_files(self) -> None:
        sections = machine.sections(packages.FIRST.rpm_path, STATE + r"""
            version=$(/usr/bin/python3 -c "import sys; print(*sys.version_info[:2], sep=\".\")")
            site=/usr/lib/python$version/site-packages
            mkdir -p $site
            rpm --initdb
            install() { quietly rpm --nodeps "$@" /package/*.rpm; }
            install -i --test
            install -i
            state installed
            groups
            PYTHONPATH=$site import | sed "s,$site,SITE,"
            extcap /usr/lib64/wireshark/extcap
            section verified; rpm -V --nodeps sockbroker
            check
            echo "# mine" >>/etc/sockbroker/policy.toml
            systemctl disable sockbrokerd.socket 2>/dev/null
            install -U --replacepkgs
            state upgraded
            section configuration; tail -n 1 /etc/sockbroker/policy.toml
            rpm --nodeps -e sockbroker 2>/dev/null
            left removed
        """)
        self.assertEqual(sections["installed"], HERE)
        self.assertEqual(sections["groups"], GROUPS)
        self.assertEqual(sections["extcap"], EXTCAP)
        self.assertEqual(sections["python"], ["SITE/sockbroker/__init__.py"])
        self.assertEqual(sections["verified"], [])
        self.assertTrue(any(line.endswith(" rules, 0 warnings") for line in sections["check"]), sections["check"])
        self.assertEqual(sections["upgraded"], [path for path in HERE if not path.endswith(".socket")])
        self.assertEqual(sections["configuration"], ["# mine"])
        self.assertEqual(sections["removed"], ["/etc/sockbroker", "/etc/sockbroker/policy.toml.rpmsave"])
