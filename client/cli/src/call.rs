//! `sockbroker call`: one method, its result as JSON.

use serde_json::Value;
use sockbroker_proto::bytes::Bytes;

use crate::args::CallArgs;
use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::Screen;
use crate::value;

/// Calls and prints.
pub(crate) fn run(global: &Global, args: &CallArgs) -> Result<Exit, Failure> {
    // Before the broker is asked for: a wrong command line is no matter of a broker.
    let parameters = value::parameters(&args.parameters)?;
    let result = Connection::open(global)?.call(&args.method, parameters)?;
    let mut screen = Screen::new();
    let printed = if args.raw { raw(&mut screen, &result) } else { screen.json(&result) };
    printed.map(|()| Exit::Done)
}

/// A text or received bytes as they are; anything else as JSON on one line.
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
