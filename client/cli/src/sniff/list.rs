//! Lists interfaces.

use serde_json::json;

use super::args::SniffArgs;
use crate::connection::{Connection, decode};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::Screen;

/// Prints the index and the name of each interface, and the name for all of them.
pub(super) fn run(global: &Global, args: &SniffArgs) -> Result<Exit, Failure> {
    let connection = Connection::open(global)?.within(args.netns.as_ref());
    let interfaces = interfaces(&connection)?;
    let mut screen = Screen::new();
    if global.json {
        let objects = interfaces.iter().map(|(index, name)| json!({"index": index, "name": name}));
        screen.json(&objects.collect())?;
        return Ok(Exit::Done);
    }
    for (index, name) in &interfaces {
        screen.line(format_args!("{index}.{name}"))?;
    }
    screen.line("any (all interfaces)")?;
    Ok(Exit::Done)
}

/// The index and the name of each interface.
pub(crate) fn interfaces(connection: &Connection) -> Result<Vec<(u64, String)>, Failure> {
    const CALL: &str = "socket.if_nameindex";
    let found = connection.call_within(CALL, json!({}))?;
    decode(CALL, found)
}
