//! Suite `python`: the cost in a Python program, measured by `python/measure.py`.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::broker::Broker;
use crate::error::Result;
use crate::figures::measured;
use crate::measure::Sample;
use crate::report::{Report, Row, Target};

/// A figure that the program prints.
#[derive(Debug, Deserialize)]
struct Figure {
    name: String,
    unit: String,
    rounds: Vec<f64>,
}

/// The targets, by the start of a figure's name.
const TARGETS: [(&str, Target); 3] = [
    ("getsockopt", Target::AtMost(2.5)),
    ("64 KiB sent and received", Target::AtLeast(5.0)),
    ("64 KiB over TCP", Target::AtMost(1.02)),
];
const UNITS: [&str; 3] = ["x ping-pong", "x attachments", "x native"];

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let broker = Broker::start()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new("python3");
    script
        .arg(root.join("python/measure.py"))
        .arg("--broker")
        .arg(broker.path())
        .args(["--process", &broker.process().to_string()])
        .env("PYTHONPATH", root.join("../../client/python/src"));
    for figure in measured::<Figure>(&mut script)? {
        report.add(row(&figure)?);
    }
    Ok(())
}

fn row(figure: &Figure) -> Result<Row> {
    let unit = UNITS.into_iter().find(|unit| *unit == figure.unit).ok_or("an unknown unit")?;
    let row = Row::new(&figure.name, Sample::of(&figure.rounds), unit);
    let target = TARGETS.iter().find(|(name, _)| figure.name.starts_with(name));
    Ok(match target {
        Some((_, target)) => row.target(*target),
        None => row,
    })
}
