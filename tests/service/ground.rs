//! What the tests stand on: the package, trees to boot, and a place for control groups. Where something
//! of it cannot be, the test is skipped; where the package is given, missing programs are a failure.

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

/// The package under test: the path of a `.deb`, which `deploy/package` makes.
const PACKAGE: &str = "SOCKBROKER_PACKAGE";
/// The reference system, and what of it the package and the tests need beside the essential packages.
const SUITE: &str = "trixie";
const PARTS: &str = "apt,dbus,iproute2,libpam-systemd,passwd,procps,python3,systemd-sysv";
/// How long the tree may take to make: 30 seconds where the network is good.
const TREE: Duration = Duration::from_mins(10);

/// Which system a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian's current release in the least size, made by `mmdebstrap` and kept with what cargo builds.
    Reference,
    /// The machine's own, as it is.
    Own,
}

/// A guest of this system in which the package lies at `/package.deb`, not installed yet. `None` if the
/// test is skipped, which is said.
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
    if system == System::Own && !Path::new("/usr/bin/dpkg").exists() {
        skip("this machine's own system is not Debian", test);
        return None;
    }
    let tree = match system {
        System::Reference => reference().to_owned(),
        System::Own => PathBuf::from("/"),
    };
    let guest = Guest::boot(&tree, cgroups);
    guest.write(
        "/package.deb",
        fs::read(&package)
            .unwrap_or_else(|error| panic!("{PACKAGE} is {}: {error}", package.display())),
    );
    if system == System::Own {
        // Images for containers forbid packages to start anything.
        guest.ok("rm -f /usr/sbin/policy-rc.d");
    }
    Some(guest)
}

/// A guest of the reference system with the package installed, and its users: alice, who is in the group
/// of the broker, and bob, who is not.
pub(crate) fn installed_or_skip(test: &str) -> Option<Guest> {
    installed_on_or_skip(System::Reference, test)
}

/// Runs a test in a guest of this system, with the package and the users, or skips it.
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

/// Installs the package, and makes alice and bob.
pub(crate) fn install(guest: &Guest) {
    guest.ok("apt-get install --quiet --assume-yes /package.deb");
    guest.ok("useradd --create-home alice && useradd --create-home bob");
    guest.ok("usermod --append --groups sockbroker alice");
}

/// What the documentation tells an administrator to do for a role.
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

/// The folder below which control groups of version 2 can be made.
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

/// The reference system's tree. It is made once, also for later runs: with other parts it has another name.
fn reference() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let tree = folder.join(format!("{SUITE}-{}", PARTS.replace(',', "-")));
        // Other test programs may want it at the same time.
        let lock = File::create(folder.join(format!("{SUITE}.lock"))).unwrap();
        lock.lock().unwrap();
        if !tree.exists() {
            make(&tree);
        }
        tree
    })
}

fn make(tree: &Path) {
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
    command.args(["--dpkgopt=path-exclude=/usr/share/locale/*", SUITE]);
    command.arg(&unfinished).args(mirror());
    let ended = run(&mut command, TREE);
    assert_eq!(ended.code, Some(0), "mmdebstrap makes no tree:\n{}", ended.output);
    // Empty: systemd gives the guest a number of its own.
    fs::write(unfinished.join("etc/machine-id"), "").unwrap();
    fs::rename(unfinished, tree).unwrap();
}

/// The mirror that this machine's own packages come from, if it says so.
fn mirror() -> Option<OsString> {
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").ok()?;
    sources.lines().find_map(|line| Some(line.strip_prefix("URIs:")?.trim().into()))
}
