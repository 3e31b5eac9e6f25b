//! Lists interfaces.

use serde_json::json;

use super::args::SniffArgs;
use crate::connection::{Connection, decode};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::Screen;

/// The method that lists interfaces.
const NAMES: &str = "socket.if_nameindex";

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
    let found = connection.call_within(NAMES, json!({}))?;
    decode(NAMES, found)
}

/// The names of interfaces. `wanted` can contain numbers of the list, as for tcpdump. A name goes before a number.
pub(super) fn named(
    connection: &Connection,
    wanted: Vec<String>,
    netns: Option<&String>,
) -> Result<Vec<String>, Failure> {
    let number = |word: &String| word.parse::<u64>().ok();
    if !wanted.iter().any(|word| number(word).is_some()) {
        return Ok(wanted);
    }
    let mut parameters = json!({});
    if let Some(netns) = netns {
        parameters["netns"] = json!(netns);
    }
    let found: Vec<(u64, String)> = connection.call_typed(NAMES, parameters)?;
    let name = |word: String| {
        let Some(wanted) = number(&word) else { return Ok(word) };
        if found.iter().any(|(_, name)| *name == word) {
            return Ok(word);
        }
        let numbered = found.iter().find(|(index, _)| *index == wanted);
        numbered.map(|(_, name)| name.clone()).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("there is no interface with the name or the number {word}; `sockbroker sniff -D` lists them"),
            )
        })
    };
    wanted.into_iter().map(name).collect()
}
