//! The launcher as the shell sees it: exit codes, signals, descriptors, job control.

use std::fs;

use sockbroker_test_support::namespace::inside_with_users;

use crate::stage::{ALL, Outcome, PYTHON, Stage};

#[test]
fn exit_code_and_signal_are_those_of_the_program() {
    inside_with_users("face::exit_code_and_signal_are_those_of_the_program", || {
        let stage = Stage::new(ALL);
        for script in [
            "exit 0",
            "exit 42",
            "exit 255",
            "kill -TERM $$",
            "kill -KILL $$",
            "kill -INT $$",
            "trap 'exit 3' TERM; kill -TERM $$; sleep 9",
            "echo out; echo err >&2",
            "cat; cat /proc/self/cmdline | tr '\\0' ' '",
            "ls /proc/self/fd | sort -n | tr '\\n' ' '",
            "awk '/Sig(Blk|Ign|Cgt)/' /proc/self/status",
            "trap '' PIPE; exec awk '/SigIgn/' /proc/self/status",
            "umask; pwd; env | grep -v ^_ | sort",
        ] {
            let native: Outcome = stage.natively(&["sh", "-c", script]).output().unwrap().into();
            assert_eq!(stage.run(&[], &["sh", "-c", script]), native, "{script}");
        }
        fs::write(stage.folder.join("text"), "no program").unwrap();
        let missing = stage.exec(&[], &["no-such-program"]).env("PATH", "/usr/bin").output();
        let missing = Outcome::from(missing.unwrap());
        assert_eq!(missing.code, 127, "{missing:?}");
        assert!(missing.err.starts_with("sockbroker: cannot execute no-such-program: "));
        assert_eq!(stage.run(&[], &["./text"]).code, 126);
        assert_eq!(stage.run(&["--json"], &["true"]).code, 2);
        assert_eq!(stage.run(&[], &[]).code, 2);
    });
}

#[test]
fn without_a_broker_nothing_is_started_unless_it_is_optional() {
    inside_with_users("face::without_a_broker_nothing_is_started_unless_it_is_optional", || {
        let stage = Stage::new(ALL);
        let run = |options: &[&str]| {
            let mut command = stage.exec(options, &["sh", "-c", "echo started; exit 5"]);
            Outcome::from(command.env("SOCKBROKER", "unix:/nonexistent").output().unwrap())
        };
        let refused = run(&[]);
        assert_eq!((refused.code, refused.out.as_str()), (69, ""), "{refused:?}");
        let native = run(&["--optional"]);
        assert_eq!((native.code, native.out.as_str(), native.err.as_str()), (5, "started\n", ""));
    });
}

#[test]
fn descriptors_that_were_closed_stay_closed_and_others_are_passed_on() {
    inside_with_users(
        "face::descriptors_that_were_closed_stay_closed_and_others_are_passed_on",
        || {
            let stage = Stage::new(ALL);
            let list = "ls /proc/self/fd >&4";
            for redirect in ["4>out <&-", "4>out <&- >&-", "4>out 7</dev/null 9>/dev/null", "4>out"]
            {
                let run = |launcher: &str| {
                    let script =
                        format!("rm -f out; {launcher} sh -c '{list}' {redirect}; cat out");
                    Outcome::from(stage.natively(&["sh", "-c", &script]).output().unwrap())
                };
                let exec = format!("{} exec", stage.program());
                assert_eq!(run(&exec), run(""), "{redirect}");
            }
        },
    );
}

#[test]
fn pipe_of_the_shell_ends_with_the_program() {
    inside_with_users("face::pipe_of_the_shell_ends_with_the_program", || {
        let stage = Stage::new(ALL);
        // cat ends when nobody has the pipe: the program closes it, and goes on until cat has ended.
        let script = format!(
            "mkfifo end; {} exec sh -c 'echo x; exec >&-; read line < end' | (cat; echo done > end)",
            stage.program()
        );
        let outcome: Outcome = stage.natively(&["sh", "-c", &script]).output().unwrap().into();
        assert_eq!(outcome.success(), "x\n");
        // A program in the background keeps neither the launcher nor a pipe.
        let background = "(read line < end2) >/dev/null 2>&1 </dev/null & echo started";
        let script = format!(
            "mkfifo end2; {} exec sh -c '{background}' 2>&1 | cat; echo done > end2",
            stage.program()
        );
        let outcome: Outcome = stage.natively(&["sh", "-c", &script]).output().unwrap().into();
        assert_eq!(outcome.success(), "started\n");
    });
}

#[test]
fn signals_sent_to_the_launcher_reach_the_program() {
    inside_with_users("face::signals_sent_to_the_launcher_reach_the_program", || {
        let stage = Stage::new(ALL);
        let text = "
import os, signal, sys
# Blocked, so that none arrives between two steps of this program.
waited = {getattr(signal, name) for name in sys.argv[1:]}
signal.pthread_sigmask(signal.SIG_BLOCK, waited)
os.write(1, b'ready\\n')
os.write(1, f'got {signal.Signals(signal.sigwait(waited)).name}\\n'.encode())
sys.exit(7)
";
        stage.folder.write("signals.py", text);
        for signal in ["SIGHUP", "SIGUSR1", "SIGTERM", "SIGWINCH"] {
            let script = format!(
                "rm -f out; {} exec {PYTHON} signals.py {signal} > out & while [ ! -s out ]; do :; done; \
                 kill -{signal} $!; wait $!; echo $?; cat out",
                stage.program()
            );
            let outcome: Outcome =
                stage.natively(&["bash", "-c", &script]).output().unwrap().into();
            let expected = format!("7\nready\ngot {signal}\n");
            assert_eq!(outcome.out, expected, "{signal}: {outcome:?}");
        }
    });
}

#[test]
fn job_control_of_an_interactive_shell_is_as_natively() {
    inside_with_users("face::job_control_of_an_interactive_shell_is_as_natively", || {
        let stage = Stage::new(ALL);
        let script = stage.folder.write("terminal.py", include_str!("terminal.py"));
        let script = script.to_str().unwrap();
        let native: Outcome = stage.natively(&[PYTHON, script, ""]).output().unwrap().into();
        let launcher = format!("{} exec", stage.program());
        let ours: Outcome = stage.natively(&[PYTHON, script, &launcher]).output().unwrap().into();
        assert_eq!(native.code, 0, "{native:?}");
        assert_eq!(ours, native);
    });
}
