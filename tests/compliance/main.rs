//! CPython's `socket` is the oracle: every scenario in `oracle/scenarios/` runs on CPython and on the broker, and the
//! transcripts must be equal. Each theme is a test, and one test checks that the scenarios call every method.
//!
//! The runner is a Python program (`oracle/run.py`, only the standard library) that enters new namespaces.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

/// The time limit of one theme. The runner also limits each scenario.
const LONGEST_WAIT: Duration = Duration::from_mins(15);

/// The output of the runner, and whether the transcripts were equal.
struct Outcome {
    output: String,
    good: bool,
}

impl Outcome {
    /// Returns the counts. If there was a difference, fails with the whole output.
    fn counts(&self) -> &str {
        assert!(self.good, "{}", self.output);
        self.output.trim_end()
    }
}

/// Runs the runner with these arguments. If Python is missing, fails with a hint.
fn run<I, S>(arguments: I) -> Outcome
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/compliance/oracle/run.py");
    let child = Command::new("python3")
        .arg(runner)
        .args(["--broker", env!("CARGO_BIN_EXE_sockbrokerd")])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match child {
        Ok(child) => finish(child),
        Err(error) => Outcome {
            output: format!("python3 cannot be run: {error}; install python3, 3.11 or newer"),
            good: false,
        },
    }
}

/// Reads the output of the child and waits for its end, with a time limit.
fn finish(mut child: Child) -> Outcome {
    let (sender, parts) = mpsc::sync_channel(2);
    collect(child.stdout.take(), sender.clone());
    collect(child.stderr.take(), sender);
    let mut output = String::new();
    let mut late = false;
    for _ in 0..2 {
        match parts.recv_timeout(LONGEST_WAIT) {
            Ok(part) => output.push_str(&part),
            Err(_) => late = true,
        }
    }
    if late {
        output.push_str("\nthe runner did not end in time and was killed");
        drop(child.kill());
    }
    let good = child.wait().is_ok_and(|status| status.success()) && !late;
    Outcome { output, good }
}

/// Reads a pipe to its end, and sends the text.
fn collect(pipe: Option<impl Read + Send + 'static>, sender: mpsc::SyncSender<String>) {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            drop(pipe.read_to_end(&mut bytes));
        }
        drop(sender.send(String::from_utf8_lossy(&bytes).into_owned()));
    });
}

/// The folder where the themes record the methods that they call.
fn record() -> PathBuf {
    let name = format!("compliance-called-{}", std::process::id());
    // Not in the build folder, which can belong to another user.
    let folder = std::env::temp_dir().join(name);
    drop(std::fs::create_dir_all(&folder));
    folder
}

/// Declares the themes. Each one runs once in this process.
macro_rules! themes {
    ($($theme:ident)*) => {
        const THEMES: &[&str] = &[$(stringify!($theme)),*];

        $(
            fn $theme() -> &'static Outcome {
                static OUTCOME: OnceLock<Outcome> = OnceLock::new();
                OUTCOME.get_or_init(|| {
                    let called = record().join(stringify!($theme));
                    let theme = OsStr::new(stringify!($theme));
                    run([OsStr::new("--theme"), theme, OsStr::new("--called"), called.as_os_str()])
                })
            }
        )*

        mod theme {
            $(
                #[test]
                fn $theme() {
                    println!("{}", super::$theme().counts());
                }
            )*
        }

        /// Runs all themes that have not run yet.
        fn run_all() {
            $(
                $theme();
            )*
        }
    };
}

themes! {
    ancillary connecting connections convert datagram delivery descriptors errors extensions files inet6
    lifecycle names netlink options packet raw rights stream timeouts unix unix_names vsock
}

#[test]
fn every_method_is_called_by_a_scenario() {
    run_all();
    let folder = record();
    let outcome = run([OsStr::new("--coverage"), folder.as_os_str()]);
    drop(std::fs::remove_dir_all(folder));
    println!("{}", outcome.counts());
}

#[test]
fn every_scenario_file_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/compliance/oracle/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the scenarios are there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".py").map(str::to_owned))
        .filter(|name| name != "__init__")
        .collect();
    files.sort();
    assert_eq!(files, THEMES);
}

#[test]
fn stdio_matches_cpython() {
    let themes = ["stream", "unix", "unix_names", "rights"].map(|theme| ["--theme", theme]);
    let outcome = run(["--stdio"].into_iter().chain(themes.into_iter().flatten()));
    println!("{}", outcome.counts());
}

#[test]
fn base64_payload_matches_cpython() {
    let themes = ["datagram", "options", "packet", "rights"].map(|theme| ["--theme", theme]);
    let outcome = run(["--base64"].into_iter().chain(themes.into_iter().flatten()));
    println!("{}", outcome.counts());
}

#[test]
fn runner_detects_wrong_answers() {
    let outcome = run(["--self-test", "--theme", "convert", "--theme", "options"]);
    println!("{}", outcome.counts());
}
