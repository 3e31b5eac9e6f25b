//! The environment of the demonstration: new namespaces, a broker with capabilities, a client without.

use std::fs;
use std::io;

use serde_json::json;
use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::{interface, namespace, process};

use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::screen::{Screen, Style};

/// The capabilities of the broker, with their names.
const GRANTED: [(Capability, &str); 2] =
    [(Capability::NetRaw, "CAP_NET_RAW"), (Capability::NetAdmin, "CAP_NET_ADMIN")];
/// Settings that forbid user namespaces to unprivileged users: the file, the value that forbids them, and
/// the setting that allows them.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

/// Enters new namespaces, starts a broker there, and drops all capabilities of this process.
pub(super) fn prepare(screen: &mut Screen) -> Result<Connection, Failure> {
    let made = enter().map_err(|error| namespace_failure(&error))?;
    interface::bring_up("lo").map_err(|error| namespace_failure(&error))?;
    let uid = process::effective_uid();
    print_fact(screen, "namespaces", &format!("{made}, with only a loopback interface"))?;
    let (capabilities, names): (Vec<_>, Vec<_>) = GRANTED.into_iter().unzip();
    capability::raise_ambient(&capabilities)
        .map_err(|error| Failure::system("cannot pass capabilities to the broker", &error))?;
    let connection = Connection::private()?;
    // Wait until the broker answers, so that no timed call includes its start.
    connection.call("session.info", json!({}))?;
    print_fact(
        screen,
        "broker",
        &format!("started in them by uid {uid}, with {}", names.join(" and ")),
    )?;
    capability::drop_permanently()
        .map_err(|error| Failure::system("cannot drop capabilities", &error))?;
    let none = capability::has_none()
        .map_err(|error| Failure::system("cannot read the capabilities of this process", &error))?;
    if !none {
        let text = "cannot drop capabilities: some remain";
        return Err(Failure::new(Exit::System, text));
    }
    print_fact(screen, "this program", "no capabilities, and no_new_privs prevents new ones")?;
    screen.line("")?;
    Ok(connection)
}

fn print_fact(screen: &mut Screen, what: &str, how: &str) -> Result<(), Failure> {
    let what = screen.look(Style::Dim, &format!("{what:<14}"));
    screen.line(format_args!("  {what}{how}"))
}

/// Enters new namespaces and returns their description. Root does not need a user namespace.
fn enter() -> io::Result<&'static str> {
    match namespace::enter_user_and_network() {
        Ok(()) => Ok("a new user namespace and a new network namespace"),
        Err(_refused) if process::effective_uid() == 0 => {
            namespace::enter_network().map(|()| "a new network namespace (as root)")
        }
        Err(error) => Err(error),
    }
}

/// The failure of creating namespaces, with what to do about it.
fn namespace_failure(error: &io::Error) -> Failure {
    let found = SETTINGS.into_iter().filter(|(file, forbids, _)| {
        let value = fs::read_to_string(format!("/proc/sys/{file}"));
        value.is_ok_and(|value| value.trim() == *forbids)
    });
    let found: Vec<_> = found.map(|(_, _, remedy)| format!("`sysctl -w {remedy}`")).collect();
    let remedy = if found.is_empty() {
        "in a container, allow unshare(2) in its seccomp profile".to_owned()
    } else {
        format!("as root, {}", found.join(" and "))
    };
    let reason = Failure::system("cannot create a user namespace", error);
    Failure::new(Exit::Forbidden, format!("{reason}; {remedy}; or run the demo as root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_namespaces_report_what_to_do() {
        let failure = namespace_failure(&io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(failure.exit(), Exit::Forbidden);
        let line = failure.to_string();
        assert!(line.contains("EPERM") && line.ends_with("or run the demo as root"), "{line}");
    }
}
