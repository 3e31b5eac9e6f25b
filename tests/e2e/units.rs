//! The shipped units: systemd finds no fault with them, and says how exposed the service is.

use std::fs;
use std::path::Path;
use std::process::Command;

use sockbroker_test_support::Folder;
use sockbroker_test_support::skip::program_or_skip;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd");

/// The units as installed, with these roles; what is not installed here is left out.
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

fn analyze(folder: &Folder, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).current_dir(folder.path()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn systemd_finds_no_fault_with_the_units_in_any_role() {
    if !program_or_skip("systemd-analyze", "systemd_finds_no_fault_with_the_units_in_any_role") {
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
        let (sound, said) =
            analyze(&folder, &[&["verify", "--recursive-errors=no"], &units[..]].concat());
        assert!(sound, "{role}: {said}");
    }
}

#[test]
fn the_service_is_exposed_no_more_than_promised() {
    if !program_or_skip("systemd-analyze", "the_service_is_exposed_no_more_than_promised") {
        return;
    }
    for (roles, most) in [
        (&[][..], "20"),
        (&["capture"][..], "20"),
        (&["scapy"], "20"),
        (&["ports"], "20"),
        (&["capture", "options", "ports"], "23"),
        (&["system"], "26"),
    ] {
        let folder = installed(roles);
        let threshold = format!("--threshold={most}");
        let arguments =
            ["security", "--offline=yes", "--no-pager", &threshold, "./sockbrokerd.service"];
        let (within, said) = analyze(&folder, &arguments);
        let overall = said.lines().find(|line| line.contains("Overall")).unwrap_or(&said);
        assert!(within, "{roles:?}: {overall}");
    }
}
