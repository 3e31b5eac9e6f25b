//! `sockbroker call`: calls one method and prints the result.

use serde_json::Value;
use sockbroker_proto::bytes::Bytes;

use crate::args::CallArgs;
use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::Screen;
use crate::value;

pub(crate) fn run(global: &Global, args: &CallArgs) -> Result<Exit, Failure> {
    // Check the command line before connecting to a broker.
    let parameters = value::parameters(&args.parameters)?;
    let result = Connection::open(global)?.call(&args.method, parameters)?;
    let mut screen = Screen::new();
    let printed = if args.raw { raw(&mut screen, &result) } else { screen.json(&result) };
    printed.map(|()| Exit::Done)
}

/// Prints a string or received bytes unchanged, and any other result as JSON on one line.
fn raw(screen: &mut Screen, result: &Value) -> Result<(), Failure> {
    let received = result.get("data").zip(result.get("eof")).map(|(data, _)| data);
    if let Some(data) = received
        && let Ok(Bytes::Inline(bytes)) = serde_json::from_value(data.clone())
    {
        return screen.bytes(&bytes);
    }
    match result {
        Value::String(text) => screen.line(text),
        other => screen.line(other),
    }
}
