//! What the packages need: the programs that their units call.

use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A dependency of the `.deb`, and of the `.rpm`.
type Needs = Option<(&'static str, &'static str)>;

/// Programs by path: the dependency of the `.deb` and that of the `.rpm`; none where every system has it, or the
/// package itself.
const PROGRAMS: [(&str, Needs); 3] = [
    ("/usr/bin/sockbrokerd", None),
    // coreutils, which is essential.
    ("/usr/bin/env", None),
    ("/bin/kill", Some(("procps", "\"/bin/kill\" = "))),
];

/// The programs of the `Exec` lines of a unit.
fn called(unit: &Path) -> Vec<String> {
    let text = fs::read_to_string(unit).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Exec"));
    let program = |line: &str| {
        let (_, command) = line.split_once('=').unwrap();
        let program = command.split_whitespace().next().unwrap();
        program.trim_start_matches(['-', '+', '@', '!', ':']).to_owned()
    };
    lines.map(program).collect()
}

#[test]
fn the_packages_depend_on_what_their_units_call() {
    let manifest = fs::read_to_string(Path::new(ROOT).join("client/cli/Cargo.toml")).unwrap();
    let depends = manifest.lines().find(|line| line.starts_with("depends = ")).unwrap();
    let (_, requires) = manifest.split_once("[package.metadata.generate-rpm.requires]").unwrap();
    let mut seen = 0;
    for folder in ["deploy/systemd", "deploy/systemd/user"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let unit = entry.unwrap().path();
            if unit.extension().is_none_or(|extension| extension != "service") {
                continue;
            }
            for program in called(&unit) {
                let known = PROGRAMS.iter().find(|(path, _)| *path == program);
                let (_, needs) =
                    known.unwrap_or_else(|| panic!("{program}: which package has it?"));
                if let Some((deb, rpm)) = needs {
                    assert!(depends.contains(deb) && requires.contains(rpm), "{program}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 3, "the units call more than {seen} programs");
}
