//! The dependencies of the packages: the programs that their units run.

use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A dependency, as the `.deb` and as the `.rpm` declare it.
type Dependency = Option<(&'static str, &'static str)>;

/// Programs with the dependencies that install them; `None` if every system or the package itself has the program.
const PROGRAMS: [(&str, Dependency); 3] = [
    ("/usr/bin/sockbrokerd", None),
    // From coreutils, which is essential.
    ("/usr/bin/env", None),
    ("/bin/kill", Some(("procps", "\"/bin/kill\" = "))),
];

/// Returns the programs of the `Exec` lines of a unit.
fn exec_programs(unit: &Path) -> Vec<String> {
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
fn packages_depend_on_the_programs_of_their_units() {
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
            for program in exec_programs(&unit) {
                let known = PROGRAMS.iter().find(|(path, _)| *path == program);
                let (_, dependency) = known.unwrap_or_else(|| {
                    panic!("{program}: add the package that installs it to PROGRAMS")
                });
                if let Some((deb, rpm)) = dependency {
                    assert!(depends.contains(deb) && requires.contains(rpm), "{program}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 3, "found only {seen} programs in the units");
}
