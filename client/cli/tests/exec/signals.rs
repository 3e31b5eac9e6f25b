//! Signals while calls are in progress.

use sockbroker_test_support::counts::PIPELINES;
use sockbroker_test_support::namespace::inside_with_users;

use crate::stage::{ALL, PYTHON, Stage};

#[test]
fn pipelines_are_complete_with_a_delayed_broker() {
    inside_with_users("signals::pipelines_are_complete_with_a_delayed_broker", || {
        let stage = Stage::new(ALL);
        let rounds = PIPELINES.get();
        // Each pipeline runs while the shell has a socket call in progress elsewhere.
        let script = format!(
            "{PYTHON} -c 'import socket\nfor _ in range(40): socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)' &
             i=0; while [ $i -lt {rounds} ]; do echo abc | cat | cat; i=$((i+1)); done; wait"
        );
        let outcome = stage.run(&["--delay", "50"], &["sh", "-c", &script]);
        assert_eq!(outcome.success(), "abc\n".repeat(rounds as usize));
    });
}

/// Creates sockets under a storm of signals. Prints the numbers of sockets, of `EINTR`, and of others.
const STORM: &str = "
import errno, os, signal, socket, sys
count, restart, period = int(sys.argv[1]), sys.argv[2] == 'restart', float(sys.argv[3])
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, not restart)
signal.setitimer(signal.ITIMER_REAL, period, period)
good = interrupted = 0
before = len(os.listdir('/proc/self/fd'))
others = []
for _ in range(count):
    try:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
        made.close()
        good += 1
    except InterruptedError:
        interrupted += 1
    except OSError as error:
        others.append(error.errno)
signal.setitimer(signal.ITIMER_REAL, 0)
print(good, interrupted, others, len(os.listdir('/proc/self/fd')) - before)
";

fn storm(stage: &Stage, options: &[&str], arguments: [&str; 3]) -> (u32, u32) {
    let words = [&[PYTHON, "-c", STORM], &arguments[..]].concat();
    let text = stage.run(options, &words).success();
    let mut fields = text.split(' ');
    let mut number = || fields.next().unwrap().parse::<u32>().unwrap();
    let (good, interrupted) = (number(), number());
    // No other error, and no socket that the program does not know of.
    assert!(text.ends_with(" [] 0\n"), "{text}");
    (good, interrupted)
}

#[test]
fn handler_with_sa_restart_never_sees_an_interrupted_call() {
    inside_with_users("signals::handler_with_sa_restart_never_sees_an_interrupted_call", || {
        let stage = Stage::new(ALL);
        assert_eq!(storm(&stage, &[], ["400", "restart", "0.002"]), (400, 0));
        // As on kernels that let signals interrupt a received call: each answer comes after several signals.
        let options = ["--no-killable", "--delay", "20"];
        assert_eq!(storm(&stage, &options, ["60", "restart", "0.005"]), (60, 0));
    });
}

#[test]
fn handler_without_sa_restart_sees_only_eintr() {
    inside_with_users("signals::handler_without_sa_restart_sees_only_eintr", || {
        let stage = Stage::new(ALL);
        for options in [&[][..], &["--no-killable"]] {
            // On a slow machine no call ends between two signals of a short period.
            let ends = ["0.003", "0.03", "0.3"].into_iter().any(|period| {
                let (good, interrupted) = storm(&stage, options, ["400", "interrupt", period]);
                assert_eq!(good + interrupted, 400);
                good > 0
            });
            assert!(ends, "{options:?}: no call ended");
        }
    });
}

#[test]
fn low_ports_are_bound_once_under_signals() {
    inside_with_users("signals::low_ports_are_bound_once_under_signals", || {
        let stage = Stage::new(ALL);
        let text = "
import signal, socket
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
for port in range(100, 130):
    sock = socket.socket()
    sock.bind(('127.0.0.1', port))
    assert sock.getsockname()[1] == port
signal.setitimer(signal.ITIMER_REAL, 0)
print('bound')
";
        for options in [&["--delay", "12"][..], &["--no-killable", "--delay", "12"]] {
            assert_eq!(stage.python(options, text).success(), "bound\n");
        }
    });
}
