//! Lists the link types of interfaces.

use serde_json::json;
use sockbroker_pcapng::LinkType;

use super::args::SniffArgs;
use super::{link, open};
use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::Screen;

/// `sniff -L`: opens a capture, which ends at once, because its interfaces have their link types.
pub(super) fn run(global: &Global, args: &SniffArgs) -> Result<Exit, Failure> {
    if args.interfaces()?.is_empty() {
        return Err(Failure::usage(
            "cannot list the link types of any: packets have those of their interfaces; name one",
        ));
    }
    let connection = Connection::open(global)?;
    let stream = open::open(&connection, args, None)?;
    let mut screen = Screen::new();
    if global.json {
        let interfaces = stream.opened().interfaces.iter();
        let objects = interfaces.map(|found| {
            let described = link::describe(LinkType(found.link_type));
            json!({"interface": found.name, "link_type": found.link_type, "description": described})
        });
        screen.json(&objects.collect())?;
        return Ok(Exit::Done);
    }
    for interface in &stream.opened().interfaces {
        screen.line(format_args!("Data link types for {}:", interface.name))?;
        screen.line(format_args!("  {}", link::describe(LinkType(interface.link_type))))?;
    }
    Ok(Exit::Done)
}
