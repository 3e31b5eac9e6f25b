//! The requirements of the tests: the package, root file systems to boot, and a folder for control groups. A test
//! without them is skipped. If the package is given, a missing program is a failure.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sockbroker_test_support::program::run;
use sockbroker_test_support::skip::{root_or_skip, skip};

use crate::guest::Guest;

/// The environment variable with the path of the `.deb` under test, which `deploy/package` builds.
const PACKAGE: &str = "SOCKBROKER_PACKAGE";
/// The packages that the tests need in addition to the essential ones.
const PARTS: &str = "apt,dbus,iproute2,iputils-ping,libpam-systemd,passwd,procps,python3,python3-scapy,systemd-sysv,tcpdump";
/// The time limit for creating the tree. It takes 30 seconds with a fast network.
const TREE: Duration = Duration::from_mins(10);

/// The system of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// A minimal Debian 13, with systemd 257.
    Reference,
    /// The oldest supported one: Debian 12, with systemd 252. That of this machine if it has this version.
    Oldest,
    /// The system of this machine.
    Own,
}

impl System {
    /// The version of systemd; `None` if it can be any.
    fn systemd(self) -> Option<&'static str> {
        match self {
            Self::Reference => Some("systemd 257 "),
            Self::Oldest => Some("systemd 252 "),
            Self::Own => None,
        }
    }

    /// Whether it is the system of this machine.
    fn is_own(self) -> bool {
        match self {
            Self::Reference => false,
            Self::Oldest => own_systemd().starts_with("systemd 252 "),
            Self::Own => true,
        }
    }

    fn tree(self) -> PathBuf {
        match self {
            _ if self.is_own() => PathBuf::from("/"),
            Self::Oldest => release("bookworm"),
            Self::Reference | Self::Own => release("trixie"),
        }
    }
}

/// Returns the version of systemd of this machine; empty if it has none.
fn own_systemd() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    let find = || {
        let output = Command::new("systemctl").arg("--version").output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    FOUND.get_or_init(|| find().unwrap_or_default())
}

/// Boots a guest of this system with the package at `/package.deb`, not installed yet. Returns `None` if the test is
/// skipped, and reports it.
pub(crate) fn bare_or_skip(system: System, test: &str) -> Option<Guest> {
    let Some(package) = env::var_os(PACKAGE) else {
        skip("SOCKBROKER_PACKAGE names no package", test);
        return None;
    };
    if !root_or_skip(test) {
        return None;
    }
    let Some(cgroups) = cgroups() else {
        skip("no control groups of version 2 to be made here", test);
        return None;
    };
    if system.is_own() && !Path::new("/usr/bin/dpkg").exists() {
        skip("this machine's own system is not Debian", test);
        return None;
    }
    let guest = Guest::boot(&system.tree(), cgroups);
    if let Some(expected) = system.systemd() {
        let version = guest.ok("systemctl --version");
        assert!(version.starts_with(expected), "{version}");
    }
    guest.write(
        "/package.deb",
        fs::read(&package)
            .unwrap_or_else(|error| panic!("{PACKAGE} is {}: {error}", package.display())),
    );
    if system.is_own() {
        // Container images prevent packages from starting services.
        guest.ok("rm -f /usr/sbin/policy-rc.d");
    }
    Some(guest)
}

/// Boots a guest of the reference system with the package installed and two users: alice, who is in the group of the
/// broker, and bob, who is not.
pub(crate) fn installed_or_skip(test: &str) -> Option<Guest> {
    installed_on_or_skip(System::Reference, test)
}

/// Runs a test in a guest of this system with the package and the users, or skips it.
pub(crate) fn on(system: System, test: &str, hold: fn(&Guest)) {
    if let Some(guest) = installed_on_or_skip(system, test) {
        hold(&guest);
    }
}

fn installed_on_or_skip(system: System, test: &str) -> Option<Guest> {
    let guest = bare_or_skip(system, test)?;
    install(&guest);
    Some(guest)
}

/// Installs the package, and creates alice and bob.
pub(crate) fn install(guest: &Guest) {
    guest.ok("apt-get install --quiet --assume-yes /package.deb");
    guest.ok("useradd --create-home alice && useradd --create-home bob");
    guest.ok("usermod --append --groups sockbroker alice");
}

/// Enables a role, with the steps of the documentation.
pub(crate) fn take_role(guest: &Guest, role: &str) {
    let drop_ins = "/etc/systemd/system/sockbrokerd.service.d";
    guest.ok(&format!(
        "mkdir -p {drop_ins}
         ! [ -e /usr/share/sockbroker/roles/{role}.conf ] || cp /usr/share/sockbroker/roles/{role}.conf {drop_ins}
         cp /usr/share/sockbroker/policy.d/{role}.toml /etc/sockbroker/policy.d/
         systemctl daemon-reload
         systemctl restart sockbrokerd.service"
    ));
}

/// Returns the folder in which control groups of version 2 can be created.
fn cgroups() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let mut folders = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].iter().map(PathBuf::from);
        let folder = folders.find(|folder| folder.join("cgroup.procs").exists())?;
        let trial = folder.join(format!("sockbroker-{}", std::process::id()));
        fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)).ok()?;
        Some(folder)
    };
    FOUND.get_or_init(find).as_deref()
}

/// Returns the tree of a release of Debian. It is created once and kept in the build folder. Its name depends on the
/// packages.
fn release(suite: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let tree = folder.join(format!("{suite}-{}", PARTS.replace(',', "-")));
    // Other tests can need it at the same time.
    let lock = File::create(folder.join(format!("{suite}.lock"))).unwrap();
    lock.lock().unwrap();
    if !tree.exists() {
        make(suite, &tree);
    }
    tree
}

fn make(suite: &str, tree: &Path) {
    let unfinished = tree.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).unwrap();
    }
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=essential", &format!("--include={PARTS}")]);
    command.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
    ]);
    command.args(["--dpkgopt=path-exclude=/usr/share/locale/*", suite]);
    command.arg(&unfinished).args(mirror());
    let ended = run(&mut command, TREE);
    assert_eq!(ended.code, Some(0), "mmdebstrap makes no tree:\n{}", ended.output);
    // Empty, so that systemd generates a machine ID for the guest.
    fs::write(unfinished.join("etc/machine-id"), "").unwrap();
    let hosts = unfinished.join("etc/hosts");
    if !hosts.exists() {
        fs::write(hosts, "127.0.0.1 localhost\n").unwrap();
    }
    fs::rename(unfinished, tree).unwrap();
}

/// Returns the package mirror of this machine, if it is configured.
fn mirror() -> Option<OsString> {
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").ok()?;
    sources.lines().find_map(|line| Some(line.strip_prefix("URIs:")?.trim().into()))
}
