//! Configuration and policy that only root can read, passed to the service as systemd credentials.

use crate::environment::installed_or_skip;

const STORE: &str = "/etc/credstore";
const POLICY: &str = "version = 1\n\n[[rule]]\nname = \"names alone\"\n\
    subject = { everyone = true }\nallow = [\"hostname\"]\n";

#[test]
fn credentials_readable_only_by_root_override_host_files() {
    let test = "credentials_readable_only_by_root_override_host_files";
    let Some(guest) = installed_or_skip(test) else { return };
    let info = || guest.ok_as("alice", "sockbroker info");
    assert!(info().contains("rules from /etc/sockbroker/policy.toml"), "{}", info());
    guest.write(&format!("{STORE}/sockbrokerd.policy.toml"), POLICY);
    guest.write(&format!("{STORE}/sockbrokerd.toml"), "[limits]\nbatch_calls = 7\n");
    guest.ok(&format!("chmod 0600 {STORE}/*; systemctl restart sockbrokerd.service"));
    let output = info();
    let place = "/run/credentials/sockbrokerd.service/policy.toml";
    assert!(output.contains(&format!("1 rule from {place}")), "{output}");
    let limits = guest.ok_as("alice", "sockbroker info --limits");
    let limit = limits.lines().find(|line| line.starts_with("batch_calls")).unwrap();
    assert_eq!(limit.split_whitespace().nth(1), Some("7"), "{limit}");
    guest.ok_as("alice", "sockbroker call socket.gethostname");
    let refused = guest.run_as("alice", "sockbroker call socket.socket");
    assert!(refused.code != Some(0) && refused.output.contains("no rule allows it"), "{refused:?}");
    guest.ok("systemctl reload sockbrokerd.service");
    assert!(info().contains(&format!("1 rule from {place}")), "{}", info());
    // The unit checks the credentials before it starts the service.
    guest.write(&format!("{STORE}/sockbrokerd.policy.toml"), "version = 9\n");
    assert_ne!(guest.run("systemctl restart sockbrokerd.service").code, Some(0));
    assert!(guest.log().contains(&format!("{place}: ")), "{}", guest.log());
    guest.ok(&format!(
        "rm {STORE}/*; systemctl reset-failed; systemctl restart sockbrokerd.service"
    ));
    assert!(info().contains("rules from /etc/sockbroker/policy.toml"), "{}", info());
}
