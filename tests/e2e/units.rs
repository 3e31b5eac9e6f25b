//! The shipped units: `systemd-analyze` accepts them and rates the exposure of the service.

use std::fs;
use std::path::Path;
use std::process::Command;

use sockbroker_test_support::Folder;
use sockbroker_test_support::skip::program_or_skip;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd");

/// Installs the units with these roles. Omits programs that this machine does not have.
fn installed(roles: &[&str]) -> Folder {
    let folder = Folder::new();
    for unit in ["sockbrokerd.service", "sockbrokerd.socket"] {
        let text = fs::read_to_string(Path::new(UNITS).join(unit)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("Documentation="));
        let text: Vec<_> = lines.collect();
        folder.write(unit, &text.join("\n").replace("/usr/bin/sockbrokerd", "/bin/true"));
    }
    let drop_ins = folder.join("sockbrokerd.service.d");
    fs::create_dir(&drop_ins).unwrap();
    for role in roles {
        let file = format!("{role}.conf");
        fs::copy(Path::new(UNITS).join("roles").join(&file), drop_ins.join(file)).unwrap();
    }
    folder
}

/// What systemd before version 254 reports, and ignores.
const SINCE_254: &str = "Unknown key 'FileDescriptorStorePreserve' in section [Service], ignoring.";

fn analyze(folder: &Folder, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).current_dir(folder.path()).output().unwrap();
    let report = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&report).into_owned())
}

#[test]
fn systemd_analyze_accepts_the_units_in_every_role() {
    if !program_or_skip("systemd-analyze", "systemd_analyze_accepts_the_units_in_every_role") {
        return;
    }
    let names = fs::read_dir(Path::new(UNITS).join("roles")).unwrap();
    let roles: Vec<_> = names
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(roles.len(), 6, "{roles:?}");
    for role in roles.iter().map(String::as_str).chain([""]) {
        let folder =
            installed(&[role].iter().copied().filter(|r| !r.is_empty()).collect::<Vec<_>>());
        let units = ["./sockbrokerd.service", "./sockbrokerd.socket"];
        let (sound, report) =
            analyze(&folder, &[&["verify", "--recursive-errors=no"], &units[..]].concat());
        let known = |line: &&str| line.is_empty() || line.ends_with(SINCE_254);
        assert!(sound || report.lines().all(|line| known(&line)), "{role}: {report}");
    }
}

#[test]
fn systemd_exposure_is_within_its_bound() {
    if !program_or_skip("systemd-analyze", "systemd_exposure_is_within_its_bound") {
        return;
    }
    for (roles, most) in [
        (&[][..], "21"),
        (&["capture"][..], "23"),
        (&["scapy"], "23"),
        (&["ports"], "21"),
        (&["capture", "options", "ports"], "25"),
        (&["system"], "25"),
    ] {
        let folder = installed(roles);
        let threshold = format!("--threshold={most}");
        let arguments =
            ["security", "--offline=yes", "--no-pager", &threshold, "./sockbrokerd.service"];
        let (within, report) = analyze(&folder, &arguments);
        let overall = report.lines().find(|line| line.contains("Overall")).unwrap_or(&report);
        assert!(within, "{roles:?}: {overall}");
    }
}
