//! The private broker of a user, under the user's service manager.

use crate::environment::installed_or_skip;
use crate::guest::Guest;

/// Runs a command as bob, as in a login session. He is not in a group of the broker.
fn in_session(guest: &Guest, command: &str) -> String {
    guest.ok_as("bob", &format!("export XDG_RUNTIME_DIR=/run/user/$(id -u); {command}"))
}

#[test]
fn private_broker_of_a_user_ignores_the_policy_of_the_host() {
    let test = "private_broker_of_a_user_ignores_the_policy_of_the_host";
    let Some(guest) = installed_or_skip(test) else { return };
    guest.write(
        "/etc/sockbroker/policy.d/local.toml",
        "version = 1\n\n[[rule]]\nname = \"nobody\"\n\
         subject = { everyone = true }\ndeny = [\"resolve\", \"hostname\"]\n",
    );
    guest.ok("systemctl start user@$(id -u bob).service");
    let systemctl = "systemctl --user";
    in_session(&guest, &format!("{systemctl} start sockbrokerd.socket"));
    let state = format!("{systemctl} show --property ActiveState --value sockbrokerd.service");
    assert_eq!(in_session(&guest, &state).trim(), "inactive");
    let mode = in_session(&guest, "stat --format '%U %a' $XDG_RUNTIME_DIR/sockbroker.socket");
    assert_eq!(mode.trim(), "bob 600");
    let output = in_session(&guest, "sockbroker info && sockbroker call socket.gethostname");
    assert_eq!(in_session(&guest, &state).trim(), "active", "{output}");
    // Bob cannot use the broker of the host, and alice cannot use Bob's.
    let other =
        guest.run_as("alice", "sockbroker --broker /run/user/$(id -u bob)/sockbroker.socket info");
    assert!(other.output.contains("EACCES"), "{}", other.output);

    let process = in_session(
        &guest,
        &format!("{systemctl} show --property MainPID --value sockbrokerd.service"),
    );
    let process = process.trim();
    assert_eq!(guest.ok(&format!("stat --format %U /proc/{process}")).trim(), "bob");
    in_session(&guest, &format!("kill -KILL {process}"));
    in_session(&guest, "sockbroker call socket.gethostname");
    in_session(&guest, &format!("{systemctl} stop sockbrokerd.socket sockbrokerd.service"));
    in_session(&guest, "! [ -e $XDG_RUNTIME_DIR/sockbroker.socket ]");
}
