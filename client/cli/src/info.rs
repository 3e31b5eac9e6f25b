//! `sockbroker info`: which broker this is, and as whom it sees the caller.

use serde_json::{Value, json};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::link::Link;
use crate::screen::{Look, Screen};
use crate::table::Table;

/// Asks and prints.
pub(crate) fn run(global: &Global) -> Result<Exit, Failure> {
    let link = Link::open(global)?;
    let info = link.call("session.info", json!({}))?;
    let limits = link.call("session.limits", json!({}))?;
    let mut screen = Screen::new();
    if global.json {
        screen.json(&json!({ "endpoint": link.endpoint(), "session": info, "limits": limits }))?;
        return Ok(Exit::Done);
    }
    for (name, value) in facts(&link, &info) {
        let name = screen.look(Look::Bold, &format!("{name:<9}"));
        screen.line(format_args!("{name}  {value}"))?;
    }
    screen.line("")?;
    limits_table(&limits).print(&mut screen)?;
    Ok(Exit::Done)
}

fn facts(link: &Link, info: &Value) -> Vec<(&'static str, String)> {
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
        ("endpoint", link.endpoint().to_owned()),
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

fn limits_table(limits: &Value) -> Table {
    let mut table = Table::new(&["limit", "value#", "unit", "meaning"]);
    for (name, limit) in limits.as_object().into_iter().flatten() {
        let text = |field: &str| limit.get(field).and_then(Value::as_str).unwrap_or_default();
        let value = limit.get("value").map(Value::to_string).unwrap_or_default();
        table.line(vec![name.clone(), value, text("unit").to_owned(), text("meaning").to_owned()]);
    }
    table
}
