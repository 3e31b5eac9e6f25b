//! Upgrade, removal and purge of the package.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use sockbroker_test_support::Folder;
use sockbroker_test_support::program::run;

use crate::environment::{System, bare_or_skip, install, installed_or_skip, take_role};
use crate::guest::Guest;

const CALL: &str = "sockbroker call socket.gethostname";

/// Builds a later version of the package under test, with another comment in two configuration files.
pub(crate) fn put_later_version(guest: &Guest) {
    let folder = Folder::new();
    let (tree, package) = (folder.join("tree"), folder.join("later.deb"));
    let original = guest.path("/package.deb");
    let dpkg = |command: &mut Command| {
        let ended = run(command, Duration::from_mins(1));
        assert_eq!(ended.code, Some(0), "{}", ended.output);
    };
    dpkg(Command::new("dpkg-deb").arg("--raw-extract").arg(original).arg(&tree));
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let version = |line: &str| {
        if line.starts_with("Version: ") { "Version: 99.0-1".to_owned() } else { line.to_owned() }
    };
    let lines: Vec<_> = text.lines().map(version).collect();
    fs::write(control, lines.join("\n") + "\n").unwrap();
    for file in ["policy.toml", "sockbrokerd.toml"] {
        let file = tree.join("etc/sockbroker").join(file);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("# Of the later version.\n{text}")).unwrap();
    }
    dpkg(
        Command::new("dpkg-deb")
            .args(["-Znone", "--root-owner-group", "--build"])
            .args([&tree, &package]),
    );
    guest.write("/later.deb", fs::read(package).unwrap());
}

pub(crate) fn upgrade(guest: &Guest) {
    guest.ok("apt-get install --quiet --assume-yes --option Dpkg::Options::=--force-confdef \
              --option Dpkg::Options::=--force-confold /later.deb");
}

#[test]
fn upgrade_keeps_the_service_and_changed_configuration() {
    let test = "upgrade_keeps_the_service_and_changed_configuration";
    let Some(guest) = installed_or_skip(test) else { return };
    take_role(&guest, "capture");
    guest.ok("echo '# Of the administrator.' >>/etc/sockbroker/policy.toml");
    guest.ok_as("alice", CALL);
    let (process, socket) =
        (guest.property("MainPID"), guest.ok("stat --format %i /run/sockbroker/socket"));
    put_later_version(&guest);
    // The socket exists all the time. A connection that the old process has just accepted can end.
    let calls = format!("until [ -e /tmp/enough ]; do {CALL} || echo FAILED; done 2>&1");
    let mut caller = guest.start_as("alice", &calls);
    upgrade(&guest);
    guest.ok("touch /tmp/enough");
    let output = crate::lifecycle::output(&mut caller);
    for errno in ["ENOENT", "ECONNREFUSED", "EACCES"] {
        assert!(!output.contains(errno), "{output}");
    }
    assert!(output.matches("FAILED").count() <= 2, "{output}");

    guest.ok_as("alice", CALL);
    assert_eq!(guest.ok("dpkg-query --show --showformat '${Version}' sockbroker"), "99.0-1");
    assert_ne!(guest.property("MainPID"), process, "the old process still serves");
    assert_eq!(guest.ok("stat --format %i /run/sockbroker/socket"), socket);
    assert_eq!(guest.property("AmbientCapabilities"), "cap_kill cap_setgid cap_setuid cap_net_raw");
    let policy = guest.read("/etc/sockbroker/policy.toml").unwrap();
    assert!(policy.ends_with("# Of the administrator.\n") && !policy.starts_with("# Of the later"));
    assert!(guest.read("/etc/sockbroker/policy.d/capture.toml").is_ok());
    let untouched = guest.read("/etc/sockbroker/sockbrokerd.toml").unwrap();
    assert!(untouched.starts_with("# Of the later version.\n"));
}

#[test]
fn upgrade_does_not_start_a_stopped_service() {
    let test = "upgrade_does_not_start_a_stopped_service";
    let Some(guest) = installed_or_skip(test) else { return };
    guest.ok("systemctl disable --now sockbrokerd.socket; systemctl stop sockbrokerd.service");
    put_later_version(&guest);
    upgrade(&guest);
    assert_eq!(guest.property("ActiveState"), "inactive");
    assert_eq!(guest.property_of("sockbrokerd.socket", "ActiveState"), "inactive");
    assert_eq!(guest.run("systemctl is-enabled sockbrokerd.socket").output.trim(), "disabled");
}

/// Returns the files of the guest with the name of the project in their paths, except those of the package manager.
/// On the system of this machine, only system folders are searched: tests and builds write elsewhere.
fn files(guest: &Guest, system: System) -> BTreeSet<String> {
    let folders = match system {
        System::Reference | System::Oldest => "/",
        System::Own => "/boot /etc /usr /var",
    };
    let found = guest.ok(&format!(
        "find {folders} -xdev \\( -path /proc -o -path /sys -o -path /var/log -o -path /var/cache/apt -o -path /var/tmp \\) \
         -prune -o -path '*sockbroker*' -print; find /run -path '*sockbroker*' -print"
    ));
    found.lines().map(str::to_owned).collect()
}

/// Returns the units and processes of the project in the guest.
fn units_and_processes(guest: &Guest) -> String {
    let units = guest.ok("systemctl list-units --all --no-legend --plain 'sockbroker*'");
    let files = guest.ok("systemctl list-unit-files --no-legend --plain 'sockbroker*' || :");
    let processes = guest.run("pgrep --list-full sockbroker").output;
    units + &files + &processes
}

#[test]
fn remove_keeps_the_configuration_and_purge_removes_it() {
    let test = "remove_keeps_the_configuration_and_purge_removes_it";
    removal(System::Reference, test);
}

#[test]
fn remove_and_purge_leave_no_files_on_the_system_of_this_machine() {
    removal(System::Own, "remove_and_purge_leave_no_files_on_the_system_of_this_machine");
}

fn removal(system: System, test: &str) {
    let Some(guest) = bare_or_skip(system, test) else { return };
    let before = files(&guest, system);
    let files = |guest: &Guest| &files(guest, system) - &before;
    install(&guest);
    take_role(&guest, "capture");
    guest.ok_as("alice", CALL);
    // Python writes cache files next to its sources, and only root can write there.
    guest.ok("python3 -m sockbroker --version");
    assert!(files(&guest).contains("/usr/bin/sockbrokerd"));
    assert!(units_and_processes(&guest).contains("sockbrokerd.service"));

    guest.ok("apt-get remove --quiet --assume-yes sockbroker");
    let left = files(&guest);
    let is_known = |path: &str| {
        ["/etc/", "/var/lib/dpkg/info/", "/var/lib/systemd/deb-systemd-helper-"]
            .iter()
            .any(|folder| path.starts_with(folder))
    };
    assert!(left.iter().all(|path| is_known(path)), "{left:#?}");
    for file in ["sockbrokerd.toml", "policy.toml", "policy.d/capture.toml"] {
        assert!(left.contains(&format!("/etc/sockbroker/{file}")), "{left:#?}");
    }
    let ended = guest.run("pgrep --list-full sockbroker");
    assert_eq!(ended.code, Some(1), "{}", ended.output);
    assert_eq!(guest.property("LoadState"), "not-found");

    guest.ok("apt-get purge --quiet --assume-yes sockbroker");
    assert_eq!(files(&guest), BTreeSet::new());
    assert_eq!(units_and_processes(&guest), "");
    // The user and the groups stay, as Debian recommends: their files could otherwise get another owner.
    guest.ok("getent passwd sockbroker && getent group sockbroker sockbroker-capture");
    // The package can be installed again.
    guest.ok("apt-get install --quiet --assume-yes /package.deb");
    guest.ok_as("alice", CALL);
}
