//! `sockbroker info`: which broker this is, what confines it, and as whom it sees the caller.

use serde_json::{Value, json};
use sockbroker_proto::api::broker::{BrokerInfo, Landlock, PolicyInfo, Process, Seccomp};

use crate::args::InfoArgs;
use crate::connection::{Connection, decode};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::{Screen, Style};
use crate::table::Table;

/// Asks and prints.
pub(crate) fn run(global: &Global, args: &InfoArgs) -> Result<Exit, Failure> {
    let connection = Connection::open(global)?;
    let info = connection.call("session.info", json!({}))?;
    let broker = connection.call("broker.info", json!({}))?;
    let mut screen = Screen::new();
    if global.json {
        let limits = connection.call("session.limits", json!({}))?;
        let endpoint = connection.endpoint();
        let all =
            json!({ "endpoint": endpoint, "broker": broker, "session": info, "limits": limits });
        screen.json(&all)?;
        return Ok(Exit::Done);
    }
    let about: BrokerInfo = decode("broker.info", broker)?;
    screen.line(summary(&connection, &info, &about))?;
    screen.line("")?;
    let mut facts = facts(&connection, &info);
    facts.extend(confinement(&about.process));
    facts.push(("policy", policy(&about.policy)));
    for (name, value) in facts {
        let name = screen.look(Style::Bold, &format!("{name:<12}"));
        screen.line(format_args!("{name}  {value}"))?;
    }
    if args.limits {
        screen.line("")?;
        limits_table(&connection.call("session.limits", json!({}))?).print(&mut screen)?;
    }
    Ok(Exit::Done)
}

/// Capabilities that a summary names; more are counted.
const FEW: usize = 3;

/// The broker, what it can do and who asks, in one line.
fn summary(connection: &Connection, info: &Value, about: &BrokerInfo) -> String {
    let Process { uid, capabilities, .. } = &about.process;
    let capabilities = match capabilities.as_slice() {
        [] => "no capability".to_owned(),
        names if names.len() > FEW => format!("{} capabilities", names.len()),
        names => names.join(" "),
    };
    let (version, endpoint) = (&about.version, connection.endpoint());
    let caller = info.get("uid").map(Value::to_string).unwrap_or_default();
    format!(
        "sockbrokerd {version} at {endpoint} runs as uid {uid} with {capabilities}; you are uid {caller}"
    )
}

fn facts(connection: &Connection, info: &Value) -> Vec<(&'static str, String)> {
    let text = |name: &str| match info.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "unknown".to_owned(),
        Some(other) => other.to_string(),
    };
    let descriptors = if info.get("descriptors") == Some(&json!(true)) {
        "descriptors can be passed"
    } else {
        "no descriptors"
    };
    let kind = if info.get("opened") == Some(&json!(true)) { "opened" } else { "implicit" };
    vec![
        ("endpoint", connection.endpoint().to_owned()),
        ("broker", format!("version {}, protocol {}", text("version"), text("protocol"))),
        ("you", format!("uid {}, gid {}, pid {}", text("uid"), text("gid"), text("pid"))),
        ("spelling", format!("{}, {descriptors}", text("spelling"))),
        (
            "session",
            format!(
                "{} ({kind}), {} connections, {} handles, linger {} s",
                text("session"),
                text("connections"),
                text("handles"),
                text("linger")
            ),
        ),
    ]
}

/// What the operator of a broker wants to know at once: as whom it runs, and what it could do if it
/// were taken over.
fn confinement(process: &Process) -> [(&'static str, String); 5] {
    let Process { pid, uid, gid, .. } = process;
    let unit = process.unit.as_ref().map(|unit| format!(", unit {unit}")).unwrap_or_default();
    let activated = if process.activated { ", socket passed by the service manager" } else { "" };
    let capabilities = match process.capabilities.as_slice() {
        [] => "none".to_owned(),
        names => names.join(" "),
    };
    let namespace =
        if process.user_namespace { " (count in its own user namespace alone)" } else { "" };
    let privileges = if process.no_new_privs {
        "none can be gained (no_new_privs)"
    } else {
        "programs that it runs could gain some: no_new_privs is off"
    };
    [
        ("runs as", format!("uid {uid}, gid {gid}, pid {pid}{unit}{activated}")),
        ("capabilities", format!("{capabilities}{namespace}")),
        ("privileges", privileges.to_owned()),
        ("seccomp", seccomp(process)),
        ("landlock", landlock(process)),
    ]
}

fn seccomp(process: &Process) -> String {
    let filters = match process.seccomp_filters {
        Some(1) => "; 1 filter in force".to_owned(),
        Some(count) => format!("; {count} filters in force"),
        None => String::new(),
    };
    let own = match process.seccomp {
        Seccomp::Errno => "errno: a system call that it never makes fails, and is named in its log",
        Seccomp::Log => {
            "log: a system call that it never makes succeeds, and is named in the kernel's log"
        }
        Seccomp::Off => "off: it has no filter of its own",
    };
    format!("{own}{filters}")
}

fn landlock(process: &Process) -> String {
    let version = process.landlock_abi.map(|abi| format!("; ABI {abi}")).unwrap_or_default();
    let holds = match process.landlock {
        Landlock::Full => "full: only files that it needs can be opened",
        Landlock::Partial => {
            "partial: only files that it needs can be opened, as far as this kernel holds it"
        }
        Landlock::None => "none: the kernel has no Landlock",
        Landlock::Off => "off: every file that its user may open can be opened",
    };
    format!("{holds}{version}")
}

fn policy(policy: &PolicyInfo) -> String {
    let PolicyInfo { generation, files, rules } = policy;
    match files.as_slice() {
        [] => format!("built-in: root and the broker's own user, nobody else; number {generation}"),
        files => format!("{rules} rules of {}; number {generation}", files.join(" ")),
    }
}

fn limits_table(limits: &Value) -> Table {
    let mut table = Table::new(&["limit", "value#", "unit", "meaning"]);
    for (name, limit) in limits.as_object().into_iter().flatten() {
        let text = |field: &str| limit.get(field).and_then(Value::as_str).unwrap_or_default();
        let value = limit.get("value").map(Value::to_string).unwrap_or_default();
        table.line(vec![name.clone(), value, text("unit").to_owned(), text("meaning").to_owned()]);
    }
    table
}
