"""Installing, upgrading and removing the packages, on copies of this machine without a service manager.

How the units behave under a real systemd is tested in tests/service.
"""

import unittest

import machine
import packages

STATE = r'''
state() {
    say "$1"
    for path in /usr/bin/sockbrokerd /etc/sockbroker/policy.toml /etc/systemd/system/sockets.target.wants/sockbrokerd.socket \
        /etc/systemd/system/multi-user.target.wants/sockbrokerd.service /etc/systemd/system/sockbrokerd.service /run/sockbroker; do
        if [ -e "$path" ] || [ -L "$path" ]; then echo "$path"; fi
    done
}
left() {
    say "$1"
    find /etc /usr /run -xdev \( -name "*sockbroker*" -o -path "*sockbroker*" \) | sort
}
'''

HERE = [
    "/usr/bin/sockbrokerd",
    "/etc/sockbroker/policy.toml",
    "/etc/systemd/system/sockets.target.wants/sockbrokerd.socket",
    "/run/sockbroker",
]


class Install(unittest.TestCase):
    def setUp(self) -> None:
        reason = machine.unavailable()
        if reason:
            self.skipTest(reason)

    def test_the_deb_enables_its_socket_keeps_configuration_and_is_purged_without_a_trace(self) -> None:
        told = machine.told(packages.FIRST.deb_path, STATE + r"""
            export DEBIAN_FRONTEND=noninteractive
            install() { dpkg --force-depends --force-confold -i /package/*.deb >/package/log 2>&1 || { cat /package/log; exit 1; }; }
            install
            state installed
            say groups; getent group | grep ^sockbroker | cut -d: -f1 | sort
            say python; cd /; /usr/bin/python3 -c "import sockbroker; print(sockbroker.__file__)" 2>&1
            say check; setpriv --reuid=sockbroker --regid=sockbroker --clear-groups sockbrokerd --check --config /etc/sockbroker/sockbrokerd.toml --policy /etc/sockbroker/policy.toml 2>&1
            echo "# mine" >>/etc/sockbroker/policy.toml
            systemctl disable sockbrokerd.socket 2>/dev/null
            install
            state upgraded
            say configuration; tail -n 1 /etc/sockbroker/policy.toml
            mkdir -p /etc/systemd/system/sockbrokerd.service.d
            cp /usr/share/sockbroker/roles/capture.conf /etc/systemd/system/sockbrokerd.service.d/
            dpkg --force-depends -r sockbroker >/dev/null 2>&1
            state removed
            dpkg -P sockbroker >/dev/null 2>&1
            left purged
        """)
        self.assertEqual(told["installed"], HERE)
        self.assertEqual(told["groups"], [
            "sockbroker", "sockbroker-capture", "sockbroker-options", "sockbroker-ping", "sockbroker-ports",
            "sockbroker-system", "sockbroker-unix"])
        self.assertEqual(told["python"], ["/usr/lib/python3/dist-packages/sockbroker/__init__.py"])
        # Disabled by the administrator, and left so.
        self.assertEqual(told["upgraded"], [path for path in HERE if not path.endswith(".socket")])
        self.assertEqual(told["configuration"], ["# mine"])
        self.assertEqual(told["removed"], ["/etc/sockbroker/policy.toml"])
        self.assertEqual(told["purged"], [])

    def test_the_rpm_enables_its_socket_keeps_configuration_and_removes_all_but_what_was_changed(self) -> None:
        told = machine.told(packages.FIRST.rpm_path, STATE + r"""
            site=$(/usr/bin/python3 -c "import sys; print(\"/usr/lib/python%d.%d/site-packages\" % sys.version_info[:2])")
            mkdir -p $site
            rpm --initdb
            install() { rpm --nodeps "$@" /package/*.rpm >/package/log 2>&1 || { cat /package/log; exit 1; }; }
            install -i --test
            install -i
            state installed
            say groups; getent group | grep ^sockbroker | cut -d: -f1 | sort
            say python; cd /; PYTHONPATH=$site /usr/bin/python3 -B -c "import sockbroker; print(sockbroker.__file__)" 2>&1 | sed "s,$site,SITE,"
            say verified; rpm -V --nodeps sockbroker
            say check; setpriv --reuid=sockbroker --regid=sockbroker --clear-groups sockbrokerd --check --config /etc/sockbroker/sockbrokerd.toml --policy /etc/sockbroker/policy.toml 2>&1
            echo "# mine" >>/etc/sockbroker/policy.toml
            systemctl disable sockbrokerd.socket 2>/dev/null
            install -U --replacepkgs
            state upgraded
            say configuration; tail -n 1 /etc/sockbroker/policy.toml
            rpm --nodeps -e sockbroker 2>/dev/null
            left removed
        """)
        self.assertEqual(told["installed"], HERE)
        self.assertEqual(len(told["groups"]), 7)
        self.assertEqual(told["python"], ["SITE/sockbroker/__init__.py"])
        self.assertEqual(told["verified"], [])
        self.assertEqual(told["upgraded"], [path for path in HERE if not path.endswith(".socket")])
        self.assertEqual(told["configuration"], ["# mine"])
        self.assertEqual(told["removed"], ["/etc/sockbroker", "/etc/sockbroker/policy.toml.rpmsave"])
