//! Many crashes, many policies, many principals. The counts are those of [`counts`].

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use serde_json::{Value, json};
use sockbroker_test_support::counts::{CRASHES, GENERATIONS, PRINCIPALS};
use sockbroker_test_support::daemon::kill_process;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Answer, Daemon, LspClient, Start, User, until};

use crate::arena::{Arena, POLICY, attacker, metric, neighbour, run_with, served};
use crate::worker_ids::{FIRST, IDS, worker_in, worker_of};

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    /// Memory that it shares with no other process.
    private_kib: u64,
}

fn held(process: u32) -> Held {
    let memory = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let private = memory.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    let private_kib = private.trim().trim_end_matches(" kB").parse().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    Held { descriptors, private_kib }
}

/// The number of processes that a broker has started and that it has not waited for.
fn children(broker: u32) -> usize {
    let parent = |number: &u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let processes = fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|number| parent(number) == Some(broker)).count()
}

fn opener_of(client: &mut LspClient) -> u32 {
    let info = client.call("broker.info", Value::Null).result().clone();
    info["opener"]["pid"].as_u64().unwrap().try_into().unwrap()
}

/// Kills the attacker's worker, which has a socket of the opener, and connects again. Returns the worker's id.
fn crash(arena: &mut Arena) -> u32 {
    let socket = arena.tcp();
    arena.attacker.call("socket.bind", json!([socket, ["0.0.0.0", 80]])).result();
    let (number, id) = worker_of(&mut arena.attacker);
    kill_process(number);
    assert!(arena.attacker.wire.ends());
    arena.attacker = served(&arena.broker, &attacker());
    id
}

#[test]
fn crashes_of_a_worker_disturb_no_other_user_and_leak_nothing() {
    /// Enough for the buffers of the first messages, and less than a kilobyte for each of the full count of crashes.
    const GROWTH_KIB: u64 = 512;
    const WARM_UP: u32 = 20;
    /// The monitor keeps a page of metrics of each worker, which comes after some seconds.
    const PAGES: usize = 3;
    /// The reaper is started when it is needed, with a channel.
    const REAPERS: usize = 1;
    let test =
        concat!(module_path!(), "::crashes_of_a_worker_disturb_no_other_user_and_leak_nothing");
    // So few that a leak of ids or connections is a refusal soon.
    let prepare = |start: Start| {
        let ids = "[processes]\nworker_ids = \"2000000000-2000000015\"\n";
        let start = start.section(ids).limit("workers", 8).limit("connections_per_user", 4);
        start.limit("worker_starts_per_second", 1_000_000)
    };
    run_with(test, prepare, |mut arena| {
        let mut other = neighbour().lsp(&arena.broker);
        let socket = other.call("socket.socket", Value::Null).handle();
        let opener = opener_of(&mut other);
        let monitor = arena.broker.process().number();
        let look = || (held(monitor), held(opener), children(monitor));
        for _ in 0..WARM_UP {
            crash(&mut arena);
        }
        let before = look();
        for _ in 0..CRASHES.get() {
            let id = crash(&mut arena);
            assert!((FIRST..FIRST + 16).contains(&id), "{id}");
            other.call("socket.getsockname", json!([socket])).result();
        }
        let mut after = look();
        until("descriptors and processes are as many as before", || {
            after = look();
            after.0.descriptors <= before.0.descriptors + PAGES + REAPERS
                && after.1.descriptors <= before.1.descriptors
                && after.2 <= before.2 + REAPERS
        });
        for (before, after) in [(before.0, after.0), (before.1, after.1)] {
            let most = before.private_kib + GROWTH_KIB;
            assert!(after.private_kib <= most, "{before:?} {after:?}");
        }
        assert!(arena.broker.log().contains("a worker ended"), "{}", arena.broker.log());
        // Also of those whose end the monitor noticed because it could not pass a connection.
        let ended = metric(&arena.broker, "sockbroker_workers_ended_total");
        assert_eq!(ended, u64::from(WARM_UP + CRASHES.get()));
        // Of the attacker, the neighbour and root, who asks.
        assert_eq!(metric(&arena.broker, "sockbroker_workers "), 3);
        until("earlier connections have ended", || {
            metric(&arena.broker, "sockbroker_connections{") == 3
        });
    });
}

/// The policy of a generation: a refusal names the generation, and one port is granted.
fn policy_of(generation: u32) -> String {
    let port = port_of(generation);
    format!(
        "{POLICY}\n[[rule]]\nname = \"{generation}\"\nsubject = {{ everyone = true }}\ndeny = [\"hostname\"]\n\
         \n[[rule]]\nname = \"its port\"\nsubject = {{ uids = [{}] }}\nallow = [\"bind\"]\n\
         local = [\"0.0.0.0\"]\nlocal_ports = [\"{port}\"]\n",
        attacker().uid()
    )
}

fn port_of(generation: u32) -> u32 {
    100 + generation
}

/// A broker whose policy is replaced.
struct Reloads<'a> {
    broker: &'a Daemon,
    /// The generation of the last reload that has begun, and that of the last one that has answered.
    begun: AtomicU32,
    answered: AtomicU32,
    ended: AtomicBool,
}

impl Reloads<'_> {
    /// Calls as a user until the end, and counts the calls. A worker that is too slow to confirm a policy is killed, and
    /// `call` is then `None`.
    fn repeat(&self, count: &AtomicU32, user: &User, call: impl Fn(&mut LspClient) -> Option<()>) {
        let mut client = served(self.broker, user);
        while !self.ended.load(Ordering::SeqCst) {
            match call(&mut client) {
                Some(()) => drop(count.fetch_add(1, Ordering::SeqCst)),
                None => client = served(self.broker, user),
            }
        }
    }

    /// A refusal comes from the policy that was in force at its beginning, or from a later one.
    fn is_refused(&self, client: &mut LspClient) -> Option<()> {
        let least = self.answered.load(Ordering::SeqCst);
        let fault = try_call(client, "socket.gethostname", Value::Null)?.fault();
        let generation = fault.data.rule.as_deref().and_then(|rule| rule.parse::<u32>().ok());
        assert!(generation >= Some(least), "{fault:?} after generation {least}");
        Some(())
    }

    /// The same by a worker that begins.
    fn is_refused_by_a_new_worker(&self, client: &mut LspClient) -> Option<()> {
        let (number, _) = worker_in(&try_call(client, "broker.info", Value::Null)?);
        kill_process(number);
        assert!(client.wire.ends());
        let user = neighbour();
        *client = served(self.broker, &user);
        self.is_refused(client)
    }

    /// Worker and opener both know the port of a generation, and none of an earlier one.
    fn has_one_port(&self, client: &mut LspClient) -> Option<()> {
        let generation = self.answered.load(Ordering::SeqCst);
        let mut bind = |generation: u32| {
            let kind = json!(["AF_INET", "SOCK_STREAM"]);
            let socket = try_call(client, "socket.socket", kind)?.handle();
            let name = json!([socket, ["0.0.0.0", port_of(generation)]]);
            let bound = try_call(client, "socket.bind", name)?;
            try_call(client, "socket.close", json!([socket]))?;
            Some(!bound.is_fault())
        };
        assert!(!bind(generation - 1)?, "the port of generation {} is granted", generation - 1);
        let is_granted = bind(generation)?;
        let is_last = self.begun.load(Ordering::SeqCst) == generation;
        assert!(is_granted || !is_last, "the port of generation {generation} is refused");
        Some(())
    }
}

/// Calls a method; `None` if the connection has ended.
fn try_call(client: &mut LspClient, method: &str, params: Value) -> Option<Answer> {
    let call = request("tried", method, params).to_string();
    client.wire.send(&LspClient::frame(&call, None, 0), &[]).ok()?;
    client.next_answer()
}

#[test]
fn nobody_is_judged_by_the_old_policy_after_a_reload_has_answered() {
    const USERS: u32 = 6;
    let test =
        concat!(module_path!(), "::nobody_is_judged_by_the_old_policy_after_a_reload_has_answered");
    let prepare = |start: Start| start.section(IDS).limit("worker_starts_per_second", 1_000_000);
    run_with(test, prepare, |arena| {
        let mut root = arena.broker.lsp();
        let mut reload = |generation: u32| {
            arena.broker.folder().write("policy.toml", &policy_of(generation));
            assert_eq!(root.call("admin.reload", Value::Null).result()["generation"], generation);
        };
        // Generation 1 is that of the arena.
        reload(2);
        let reloads = Reloads {
            broker: &arena.broker,
            begun: AtomicU32::new(2),
            answered: AtomicU32::new(2),
            ended: AtomicBool::new(false),
        };
        let callers: Vec<_> = (0..USERS).map(|number| User::unrelated(100 + number)).collect();
        let counts: Vec<_> = (0..USERS + 2).map(|_| AtomicU32::new(0)).collect();
        thread::scope(|scope| {
            let (reloads, counts) = (&reloads, &counts);
            let mut count = counts.iter();
            let mut next = || count.next().unwrap();
            let (starting, binding) = (next(), next());
            let again = |client: &mut LspClient| reloads.is_refused_by_a_new_worker(client);
            scope.spawn(move || reloads.repeat(starting, &neighbour(), again));
            let bind = |client: &mut LspClient| reloads.has_one_port(client);
            scope.spawn(move || reloads.repeat(binding, &attacker(), bind));
            for user in &callers {
                let (count, call) = (next(), |client: &mut LspClient| reloads.is_refused(client));
                scope.spawn(move || reloads.repeat(count, user, call));
            }
            for generation in 3..GENERATIONS.get() + 3 {
                let seen: Vec<_> =
                    counts.iter().map(|count| count.load(Ordering::SeqCst)).collect();
                reloads.begun.store(generation, Ordering::SeqCst);
                reload(generation);
                reloads.answered.store(generation, Ordering::SeqCst);
                until("everybody has called", || {
                    let counts = counts.iter().map(|count| count.load(Ordering::SeqCst));
                    // The first call can have begun before.
                    counts.zip(&seen).all(|(count, seen)| count >= seen + 2)
                });
            }
            reloads.ended.store(true, Ordering::SeqCst);
        });
    });
}

/// The name of the rule that refuses a user.
fn refusing(user: &User) -> &'static str {
    if user.uid().is_multiple_of(2) { "even" } else { "odd" }
}

/// The policy of the arena, and rules that refuse users by their ids. A rule for each would take long to read.
fn policy_for(users: &[User]) -> String {
    let rule = |name| {
        let users = users.iter().filter(|user| refusing(user) == name);
        let uids: Vec<_> = users.map(|user| user.uid().to_string()).collect();
        let uids = uids.join(", ");
        format!(
            "\n[[rule]]\nname = \"{name}\"\nsubject = {{ uids = [{uids}] }}\ndeny = [\"hostname\"]\n"
        )
    };
    [POLICY, &rule("even"), &rule("odd")].concat()
}

#[test]
fn many_principals_have_a_worker_each_and_one_more_is_refused() {
    let test =
        concat!(module_path!(), "::many_principals_have_a_worker_each_and_one_more_is_refused");
    let count = PRINCIPALS.get();
    let users: Vec<_> = (0..count).map(|number| User::unrelated(1000 + number)).collect();
    let policy = policy_for(&users);
    // One more is kept for root.
    let prepare = move |start: Start| {
        start.folder().write("policy.toml", &policy);
        start.section(IDS).open_files(8192).limit("workers", u64::from(count) + 1)
    };
    run_with(test, prepare, move |arena| {
        let broker = &arena.broker;
        let mut clients: Vec<_> = users.iter().map(|user| served(broker, user)).collect();
        let workers: Vec<_> = clients.iter_mut().map(worker_of).collect();
        for ((user, client), (number, _)) in users.iter().zip(&mut clients).zip(&workers) {
            let rule = client.call("socket.gethostname", Value::Null).fault().data.rule;
            assert_eq!(rule.as_deref(), Some(refusing(user)));
            let name = fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap();
            let expected = format!("sockbrokerd: worker (uid {})", user.uid());
            assert!(name.starts_with(&expected), "{name:?} is not {expected}");
        }
        let (numbers, ids): (BTreeSet<_>, BTreeSet<_>) = workers.into_iter().unzip();
        assert_eq!((numbers.len(), ids.len()), (users.len(), users.len()));
        // One more, and root.
        assert!(!neighbour().lsp(broker).is_served());
        until("the refusal is logged", || broker.log().contains("limit=\"workers\""));
        let mut root = broker.lsp();
        until("all workers have answered", || {
            let sessions = root.call("admin.sessions", Value::Null).result().clone();
            let sessions = sessions.as_array().unwrap().iter();
            let found: BTreeSet<_> = sessions.filter_map(|one| one["uid"].as_u64()).collect();
            users.iter().all(|user| found.contains(&user.uid().into()))
        });
        clients.iter_mut().for_each(LspClient::expect_service);
        kill_process(*numbers.first().unwrap());
        served(broker, &neighbour()).expect_service();
    });
}
