//! Users that count together, and users that the broker's user namespace does not have.

use std::path::Path;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::{Answer, LspClient, Start, User, mount, until};

use crate::arena::{PROGRAM, assert_denied, attacker, neighbour, run_with};

/// Mounts this text over `/etc/subuid`.
fn subordinate_ids(start: Start, text: &str) -> Start {
    let path = start.folder().write("subuid", text);
    mount::file(Path::new("/etc/subuid"), &path).unwrap();
    start
}

#[test]
fn subordinate_ids_of_one_user_share_its_connections() {
    let test = concat!(module_path!(), "::subordinate_ids_of_one_user_share_its_connections");
    let prepare = |start| {
        // The attacker and the neighbour are users of one account, and another user is not.
        subordinate_ids(start, "7777:4200001:2\n").limit("connections_per_user", 3)
    };
    run_with(test, prepare, |mut arena| {
        arena.attacker.expect_service();
        let mut second = neighbour().lsp(&arena.broker);
        let mut third = attacker().lsp(&arena.broker);
        second.expect_service();
        third.expect_service();
        neighbour().lsp(&arena.broker).expect_end();
        User::unrelated(3).lsp(&arena.broker).expect_service();
        drop(third);
        until("the place is free", || neighbour().lsp(&arena.broker).is_served());
    });
}

#[test]
fn subordinate_ids_of_one_user_share_its_workers() {
    let test = concat!(module_path!(), "::subordinate_ids_of_one_user_share_its_workers");
    let prepare = |start| subordinate_ids(start, "7777:4200001:2\n").limit("workers_per_user", 1);
    run_with(test, prepare, |mut arena| {
        arena.attacker.expect_service();
        assert!(!neighbour().lsp(&arena.broker).is_served());
        until("the reason is logged", || arena.broker.log().contains("limit=\"workers_per_user\""));
        User::unrelated(3).lsp(&arena.broker).expect_service();
    });
}

#[test]
fn reloading_the_policy_reads_the_accounts_again() {
    let test = concat!(module_path!(), "::reloading_the_policy_reads_the_accounts_again");
    let prepare = |start| subordinate_ids(start, "# none\n").limit("workers_per_user", 1);
    run_with(test, prepare, |mut arena| {
        arena.attacker.expect_service();
        neighbour().lsp(&arena.broker).expect_service();
        let path = arena.broker.folder().join("subuid");
        std::fs::write(path, "7777:4200001:9\n").unwrap();
        arena.broker.lsp().call("admin.reload", Value::Null).result();
        // The attacker's worker counts for the same account.
        assert!(!User::unrelated(3).lsp(&arena.broker).is_served());
    });
}

#[test]
fn rules_for_everyone_are_not_about_users_without_an_id() {
    let test = "accounts::rules_for_everyone_are_not_about_users_without_an_id";
    inside_with_users(test, || {
        let allow = "version = 1\n[[rule]]\nname = \"all\"\nallow = [\"hostname\"]\n";
        let of = |subject: &str| format!("{allow}subject = {subject}\n");
        let everyone = Start::new(PROGRAM).policy(&of("{ everyone = true }")).start().open_to_all();
        let answer = User::nobody().lsp(&everyone).call("socket.gethostname", Value::Null);
        assert_denied(&answer, "no rule", "hostname", "a rule for everyone");
        attacker().lsp(&everyone).call("socket.gethostname", Value::Null).result();
        let uid = User::nobody().uid();
        for subject in [format!("{{ uids = [{uid}] }}"), format!("{{ gids = [{uid}] }}")] {
            let named = Start::new(PROGRAM).policy(&of(&subject)).start().open_to_all();
            User::nobody().lsp(&named).call("socket.gethostname", Value::Null).result();
        }
    });
}

#[test]
fn user_with_65536_groups_is_served_and_disturbs_nobody() {
    let test = concat!(module_path!(), "::user_with_65536_groups_is_served_and_disturbs_nobody");
    run_with(
        test,
        |start| start,
        |mut arena| {
            let groups: Vec<u32> = (1_000_000..1_065_536).collect();
            let many = User::new(4_200_077, 4_200_077, &groups);
            many.lsp(&arena.broker).expect_service();
            // The opener still knows the workers of others.
            let socket = arena.tcp();
            arena.attacker.call("socket.bind", json!([socket, ["0.0.0.0", 80]])).result();
        },
    );
}

const BUFFERS: &str = r#"
version = 1

[[rule]]
name = "large buffers"
subject = { uids = [4200001, 4200002] }
allow = ["create", "option"]
family = ["AF_INET"]
type = ["SOCK_DGRAM"]
option = ["buffers-force"]
"#;

/// Gives a new socket a buffer, which takes twice as much kernel memory (`SO_RCVBUFFORCE`, `socket(7)`).
fn force_buffer(client: &mut LspClient, bytes: u32) -> (u64, Answer) {
    let socket = client.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
    let option = json!([socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes]);
    (socket, client.call("socket.setsockopt", option))
}

fn kernel_memory_is_limited(limit: &'static str, subordinate: &'static str) {
    let start = subordinate_ids(Start::new(PROGRAM), subordinate);
    let broker = start.limit(limit, 1 << 20).policy(BUFFERS).start().open_to_all();
    let (mut first, mut second) = (attacker().lsp(&broker), neighbour().lsp(&broker));
    let (socket, answer) = force_buffer(&mut first, 400_000);
    answer.result();
    let (_, refused) = force_buffer(&mut second, 200_000);
    assert_eq!(refused.fault().limit(), limit);
    // There is room for less.
    force_buffer(&mut second, 100_000).1.result();
    first.call("socket.close", json!([socket])).result();
    until("the memory is free for the other worker", || {
        let (socket, answer) = force_buffer(&mut second, 200_000);
        let fits = answer.json.get("result").is_some();
        if !fits {
            second.call("socket.close", json!([socket])).result();
        }
        fits
    });
}

#[test]
fn kernel_memory_is_limited_for_the_workers_of_all_users() {
    let test = concat!(module_path!(), "::kernel_memory_is_limited_for_the_workers_of_all_users");
    let (_, test) = test.split_once("::").unwrap();
    inside_with_users(test, || kernel_memory_is_limited("kernel_bytes_in_all", "# none\n"));
}

#[test]
fn kernel_memory_is_limited_for_the_workers_of_one_account() {
    let test = concat!(module_path!(), "::kernel_memory_is_limited_for_the_workers_of_one_account");
    let (_, test) = test.split_once("::").unwrap();
    let both = "7777:4200001:2\n";
    inside_with_users(test, move || kernel_memory_is_limited("kernel_bytes_per_user", both));
}
