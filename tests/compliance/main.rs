//! CPython's `socket` is the oracle: every scenario of `oracle/scenarios/` runs on it and on the
//! broker, and both transcripts must be equal. One test a theme, and one that no method is missing.
//!
//! The runner is Python (`oracle/run.py`, standard library only) and moves into namespaces of its own.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

/// How long one theme may take; the runner bounds every scenario by itself.
const LONGEST_WAIT: Duration = Duration::from_mins(15);

/// What a run of the runner printed, and whether it found no difference.
struct Outcome {
    output: String,
    good: bool,
}

impl Outcome {
    /// The counts; fails with all that was printed if there was a difference.
    fn counts(&self) -> &str {
        assert!(self.good, "{}", self.output);
        self.output.trim_end()
    }
}

/// The runner with these arguments. Fails with advice where there is no Python for it.
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

/// Reads all that the child prints and waits for its end, but not for ever.
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

/// Sends what can be read from a pipe when it ends.
fn collect(pipe: Option<impl Read + Send + 'static>, sender: mpsc::SyncSender<String>) {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            drop(pipe.read_to_end(&mut bytes));
        }
        drop(sender.send(String::from_utf8_lossy(&bytes).into_owned()));
    });
}

/// Where the themes record which methods they called.
fn record() -> PathBuf {
    let name = format!("compliance-called-{}", std::process::id());
    // Not in the build folder, which may belong to another user.
    let folder = std::env::temp_dir().join(name);
    drop(std::fs::create_dir_all(&folder));
    folder
}

/// Declares the themes: the outcome of each is made once in this process.
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

        /// Every theme has run when this returns.
        fn run_all() {
            $(
                $theme();
            )*
        }
    };
}

themes! {
    ancillary beyond connecting connections convert datagram delivery descriptors errors files inet6
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
fn every_theme_is_a_test() {
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
fn the_same_answers_come_over_stdio() {
    let themes = ["stream", "unix", "unix_names", "rights"].map(|theme| ["--theme", theme]);
    let outcome = run(["--stdio"].into_iter().chain(themes.into_iter().flatten()));
    println!("{}", outcome.counts());
}

#[test]
fn the_same_answers_come_as_base64() {
    let themes = ["datagram", "options", "packet", "rights"].map(|theme| ["--theme", theme]);
    let outcome = run(["--base64"].into_iter().chain(themes.into_iter().flatten()));
    println!("{}", outcome.counts());
}

#[test]
fn wrong_answers_are_noticed() {
    let outcome = run(["--self-test", "--theme", "convert", "--theme", "options"]);
    println!("{}", outcome.counts());
}
