//! Users that count together, and users that the broker's user namespace does not have.

use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::{Start, User, until};

use crate::arena::{PROGRAM, attacker, neighbour, run_with};

/// Mounts this text over `/etc/subuid`.
fn subordinate_ids(start: Start, text: &str) -> Start {
    let path = start.folder().write("subuid", text);
    let mut mount = Command::new("mount");
    assert!(mount.arg("--bind").arg(path).arg("/etc/subuid").status().unwrap().success());
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
fn users_without_an_id_in_the_namespace_connect_only_by_a_rule_that_names_them() {
    let test =
        "accounts::users_without_an_id_in_the_namespace_connect_only_by_a_rule_that_names_them";
    inside_with_users(test, || {
        let everyone = "version = 1\n[[rule]]\nname = \"all\"\nallow = [\"hostname\"]\n";
        let of = |subject: &str| format!("{everyone}subject = {subject}\n");
        let unnamed = Start::new(PROGRAM).policy(&of("{ everyone = true }")).start().open_to_all();
        let uid = User::nobody().uid();
        assert!(!User::nobody().lsp(&unnamed).is_served());
        let line = "its user has no id in the broker's user namespace";
        until("the reason is logged", || unnamed.log().contains(line));
        attacker().lsp(&unnamed).expect_service();
        let named = of(&format!("{{ uids = [{uid}] }}"));
        let named = Start::new(PROGRAM).policy(&named).start().open_to_all();
        User::nobody().lsp(&named).expect_service();
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
