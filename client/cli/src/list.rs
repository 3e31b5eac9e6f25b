//! `sockbroker handles` and `sockbroker sessions`: list open handles and sessions.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_proto::address::AddressValue;
use sockbroker_proto::api::admin::{HandleInfo, ServingState, SessionSummary};
use sockbroker_proto::api::session::Persistence;
use sockbroker_proto::constant;

use crate::args::HandlesArgs;
use crate::connection::{Connection, decode};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::screen::Screen;
use crate::table::Table;

const HANDLE_COLUMNS: [&str; 9] =
    ["session#", "handle#", "family", "type", "proto#", "state", "local", "peer", "age#"];

const SESSION_COLUMNS: [&str; 9] = [
    "session#",
    "uid#",
    "kind",
    "outlives",
    "connections#",
    "handles#",
    "linger#",
    "age#",
    "closes in#",
];

/// `sockbroker handles`.
pub(crate) fn handles(global: &Global, args: &HandlesArgs) -> Result<Exit, Failure> {
    let connection = Connection::open(global)?;
    let mut screen = Screen::new();
    let Some(period) = args.watch else {
        print_handles(&mut screen, global, &connection, args)?;
        return Ok(Exit::Done);
    };
    let (signals, changed) = mpsc::channel();
    // The receiver is gone when the program ends.
    let interrupt = Interrupt::with(move || signals.send(()).unwrap_or_default())?;
    loop {
        screen.clear()?;
        print_handles(&mut screen, global, &connection, args)?;
        // Wait for the period, or until a signal arrives.
        changed.recv_timeout(Duration::from_secs_f64(period)).unwrap_or_default();
        if interrupt.is_set() {
            return Ok(Exit::Done);
        }
    }
}

fn print_handles(
    screen: &mut Screen,
    global: &Global,
    connection: &Connection,
    args: &HandlesArgs,
) -> Result<(), Failure> {
    let listed = list_handles(connection, args)?;
    if global.json {
        let object = |(session, handles)| json!({ "session": session, "handles": handles });
        let all: Value = listed.into_iter().map(object).collect();
        // Repeated lists are JSON Lines.
        return if args.watch.is_some() { screen.line(all) } else { screen.json(&all) };
    }
    let mut table = Table::new(&HANDLE_COLUMNS);
    for (session, handles) in listed {
        for handle in &handles {
            table.line(cells(session, handle));
        }
    }
    table.print(screen)
}

/// A session number and the handles of that session.
type SessionHandles = (u64, Vec<HandleInfo>);

fn list_handles(
    connection: &Connection,
    args: &HandlesArgs,
) -> Result<Vec<SessionHandles>, Failure> {
    let of = |session: u64| {
        let handles = connection.call_typed("admin.handles", json!({ "session": session }))?;
        Ok((session, handles))
    };
    if let Some(session) = args.of {
        return of(session).map(|listed| vec![listed]);
    }
    if args.all {
        let sessions: Vec<SessionSummary> = connection.call_typed("admin.sessions", json!({}))?;
        // Skip a session that has ended since the list was made.
        return Ok(sessions.iter().filter_map(|summary| of(summary.session).ok()).collect());
    }
    let mine = connection.call_typed("session.handles", json!({ "all_sessions": true }));
    let handles: Vec<HandleInfo> = match mine {
        // A restricted session can list only its own handles.
        Err(failure) if failure.exit() == Exit::Failed && !failure.is_denied() => {
            connection.call_typed("session.handles", json!({}))?
        }
        handles => handles?,
    };
    let mut listed: Vec<SessionHandles> = Vec::new();
    for handle in handles {
        match listed.last_mut() {
            Some((session, handles)) if *session == handle.session => handles.push(handle),
            _ => listed.push((handle.session, vec![handle])),
        }
    }
    Ok(listed)
}

fn cells(session: u64, handle: &HandleInfo) -> Vec<String> {
    let state = match (handle.listening, &handle.peer) {
        (true, _) => "listening",
        (false, AddressValue::None(())) => "",
        (false, _) => "connected",
    };
    vec![
        session.to_string(),
        handle.handle.to_string(),
        constant_name("AF_", handle.family),
        constant_name("SOCK_", handle.r#type),
        handle.proto.to_string(),
        state.to_owned(),
        address(&handle.local),
        address(&handle.peer),
        age(handle.age),
    ]
}

/// What a session is. One that waits has no process until a client connects.
fn kind(session: &SessionSummary) -> &'static str {
    match session.state {
        ServingState::Waiting => "waiting",
        ServingState::Served if session.opened => "opened",
        ServingState::Served => "implicit",
    }
}

/// What a session outlives.
fn outlives(session: &SessionSummary) -> &'static str {
    match session.persist {
        Some(Persistence::Service) => "service",
        Some(Persistence::Worker) => "worker",
        None => "",
    }
}

/// `sockbroker sessions`.
pub(crate) fn sessions(global: &Global) -> Result<Exit, Failure> {
    let result = Connection::open(global)?.call("admin.sessions", json!({}))?;
    let mut screen = Screen::new();
    if global.json {
        screen.json(&result)?;
        return Ok(Exit::Done);
    }
    let sessions: Vec<SessionSummary> = decode("admin.sessions", result)?;
    let mut table = Table::new(&SESSION_COLUMNS);
    for session in sessions {
        table.line(vec![
            session.session.to_string(),
            session.uid.to_string(),
            kind(&session).to_owned(),
            outlives(&session).to_owned(),
            session.connections.to_string(),
            session.handles.to_string(),
            age(session.linger),
            age(session.age),
            session.until.map(age).unwrap_or_default(),
        ]);
    }
    table.print(&mut screen)?;
    Ok(Exit::Done)
}

/// Returns the name of the constant with this prefix and value, such as `AF_INET` for 2, else the number.
fn constant_name(prefix: &str, number: i32) -> String {
    let same =
        |(name, value): &(&str, i64)| name.starts_with(prefix) && *value == i64::from(number);
    constant::names().find(same).map_or_else(|| number.to_string(), |(name, _)| name.to_owned())
}

/// Formats an address in its usual notation.
fn address(address: &AddressValue) -> String {
    let value = serde_json::to_value(address).unwrap_or_default();
    match &value {
        Value::Null => "-".to_owned(),
        // A name in the abstract namespace begins with NUL.
        Value::String(path) => path.replace('\0', "@"),
        Value::Array(items) => match items.as_slice() {
            [Value::String(host), Value::Number(port)] => format!("{host}:{port}"),
            [Value::String(host), Value::Number(port), Value::Number(_), Value::Number(_)] => {
                format!("[{host}]:{port}")
            }
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}

/// Formats seconds with a suitable unit.
fn age(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!("{:.1} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_shown_by_name() {
        assert_eq!(constant_name("AF_", 2), "AF_INET");
        assert_eq!(constant_name("SOCK_", 3), "SOCK_RAW");
        assert_eq!(constant_name("AF_", 9999), "9999");
    }

    #[test]
    fn addresses_are_shown_in_their_usual_notation() {
        let of = |value: Value| address(&serde_json::from_value(value).unwrap());
        assert_eq!(of(json!(["127.0.0.1", 80])), "127.0.0.1:80");
        assert_eq!(of(json!(["::1", 80, 0, 0])), "[::1]:80");
        assert_eq!(of(json!("/run/x")), "/run/x");
        assert_eq!(of(json!(null)), "-");
        assert_eq!(of(json!(["lo", 3, 0, 772, "AAAA"])), "[\"lo\",3,0,772,\"AAAA\"]");
    }

    #[test]
    fn ages_are_shown_with_a_suitable_unit() {
        assert_eq!([age(0.26), age(90.0), age(5400.0)], ["0.3 s", "1.5 min", "1.5 h"]);
    }
}
