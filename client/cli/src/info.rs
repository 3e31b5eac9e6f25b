//! `sockbroker info`: shows the broker, its confinement and policy, and the user of the caller.

use serde_json::{Value, json};
use sockbroker_proto::api::broker::{BrokerInfo, Landlock, PolicyInfo, Process, Seccomp};

use crate::args::InfoArgs;
use crate::connection::{Connection, decode};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::{Screen, Style};
use crate::table::Table;

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
    let mut rows = rows(&connection, &info);
    rows.extend(confinement(&about.process, about.opener.as_ref()));
    rows.extend(about.opener.as_ref().map(opener));
    rows.push(("policy", policy(&about.policy)));
    for (name, value) in rows {
        let name = screen.look(Style::Bold, &format!("{name:<12}"));
        screen.line(format_args!("{name}  {value}"))?;
    }
    if args.limits {
        screen.line("")?;
        limits_table(&connection.call("session.limits", json!({}))?).print(&mut screen)?;
    }
    Ok(Exit::Done)
}

/// The most capabilities that the summary lists by name; otherwise it prints their number.
const FEW: usize = 3;

/// Describes the broker, its capabilities and the caller on one line.
fn summary(connection: &Connection, info: &Value, about: &BrokerInfo) -> String {
    let Process { uid, capabilities, .. } = &about.process;
    let few = |names: &[String]| match names {
        [] => "no capability".to_owned(),
        names if names.len() > FEW => format!("{} capabilities", names.len()),
        names => names.join(" "),
    };
    let capabilities = match &about.opener {
        Some(opener) if capabilities.is_empty() => {
            format!("{} in its opener", few(&opener.capabilities))
        }
        Some(_) | None => few(capabilities),
    };
    let (version, endpoint) = (&about.version, connection.endpoint());
    let caller = info.get("uid").map(Value::to_string).unwrap_or_default();
    format!(
        "sockbrokerd {version} at {endpoint} runs as uid {uid} with {capabilities}; you are uid {caller}"
    )
}

fn rows(connection: &Connection, info: &Value) -> Vec<(&'static str, String)> {
    let text = |name: &str| match info.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "unknown".to_owned(),
        Some(other) => other.to_string(),
    };
    let descriptors = if info.get("descriptors") == Some(&json!(true)) {
        "descriptors can be passed"
    } else {
        "descriptors cannot be passed"
    };
    let kind = if info.get("opened") == Some(&json!(true)) { "opened" } else { "implicit" };
    vec![
        ("endpoint", connection.endpoint().to_owned()),
        ("broker", format!("version {}, protocol {}", text("version"), text("protocol"))),
        ("you", format!("uid {}, gid {}, pid {}", text("uid"), text("gid"), text("pid"))),
        ("framing", format!("{}, {descriptors}", text("framing"))),
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

/// Describes the user and the confinement of the broker: what an attacker who controls the broker could do.
fn confinement(process: &Process, opener: Option<&Process>) -> [(&'static str, String); 5] {
    let Process { pid, uid, gid, .. } = process;
    let unit = process.unit.as_ref().map(|unit| format!(", unit {unit}")).unwrap_or_default();
    let activated = if process.activated { ", socket passed by the service manager" } else { "" };
    let namespace = if process.user_namespace { " (only in its own user namespace)" } else { "" };
    let capabilities = match (process.capabilities.as_slice(), opener) {
        ([], None) => "none".to_owned(),
        ([], Some(_)) => "none in the process that serves you: the opener has them".to_owned(),
        (names, _) => format!("{}{namespace}", names.join(" ")),
    };
    let privileges = if process.no_new_privs {
        "no_new_privs is set: programs that it runs cannot gain privileges"
    } else {
        "no_new_privs is not set: programs that it runs can gain privileges"
    };
    [
        ("runs as", format!("uid {uid}, gid {gid}, pid {pid}{unit}{activated}")),
        ("capabilities", capabilities),
        ("privileges", privileges.to_owned()),
        ("seccomp", seccomp(process)),
        ("landlock", landlock(process)),
    ]
}

/// Describes the opener: what an attacker who controls it could do.
fn opener(process: &Process) -> (&'static str, String) {
    let held = match process.capabilities.as_slice() {
        [] => "no capability".to_owned(),
        names => names.join(" "),
    };
    let (pid, filter, files) = (process.pid, process.seccomp.word(), process.landlock.word());
    let purpose = "makes the calls that need a capability";
    ("opener", format!("pid {pid} with {held}: {purpose}; seccomp {filter}, landlock {files}"))
}

fn seccomp(process: &Process) -> String {
    let filters = match process.seccomp_filters {
        Some(1) => "; 1 filter in force".to_owned(),
        Some(count) => format!("; {count} filters in force"),
        None => String::new(),
    };
    let own = match process.seccomp {
        Seccomp::Errno => "errno: system calls outside its list fail, and the broker logs them",
        Seccomp::Log => "log: system calls outside its list succeed, and the kernel logs them",
        Seccomp::Off => "off: the broker has installed no filter",
    };
    format!("{own}{filters}")
}

fn landlock(process: &Process) -> String {
    let version = process.landlock_abi.map(|abi| format!("; ABI {abi}")).unwrap_or_default();
    let holds = match process.landlock {
        Landlock::Full => "full: the broker can open only the files that it needs",
        Landlock::Partial => {
            "partial: the broker can open only the files that it needs, as far as this kernel can restrict it"
        }
        Landlock::None => "none: the kernel does not support Landlock",
        Landlock::Off => "off: the broker can open every file that its user can open",
    };
    format!("{holds}{version}")
}

fn policy(policy: &PolicyInfo) -> String {
    let PolicyInfo { generation, files, rules } = policy;
    match files.as_slice() {
        [] => format!("built-in: only root and the user of the broker; generation {generation}"),
        files => {
            let noun = if *rules == 1 { "rule" } else { "rules" };
            format!("{rules} {noun} from {}; generation {generation}", files.join(" "))
        }
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
