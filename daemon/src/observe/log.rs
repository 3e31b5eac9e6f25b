//! The log. It goes to the journal, with a field for each fact, if standard error leads there; else each
//! event is a line on standard error.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as lines};

use super::journal::{Entry, Journal, Priority, SOCKET};

/// The variable that names the level.
const VARIABLE: &str = "SOCKBROKER_LOG";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What is logged, as a level or as levels of modules: `info`, `warn,sockbrokerd::ops=debug`.
#[derive(Debug)]
pub struct LogFilter(EnvFilter);

/// The value of `SOCKBROKER_LOG`, or `info` without it. The error describes an invalid value.
pub fn configured_filter() -> Result<LogFilter, String> {
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => filter(&text).map(LogFilter),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(LogFilter(EnvFilter::new("info"))),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{VARIABLE} is not UTF-8")),
    }
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    // The library takes a word that is not a level for a module, and logs all of that module.
    let is_level =
        |level: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level.trim()));
    let level = |part: &str| part.rsplit_once('=').map_or(part, |(_, level)| level).to_owned();
    if let Some(wrong) = text.split(',').map(level).find(|level| !is_level(level)) {
        let known = LEVELS.join(", ");
        return Err(format!("{VARIABLE}: no log level {wrong:?}: the levels are {known}"));
    }
    text.parse().map_err(|error| format!("{VARIABLE}: {error}"))
}

/// Starts the log. Payload is never logged.
pub fn start(filter: LogFilter) {
    let journal = leads_to_journal().then(|| ToJournal::open(Path::new(SOCKET)));
    match journal {
        Some(Ok(journal)) => tracing_subscriber::registry().with(filter.0).with(journal).init(),
        // Standard error leads to the journal too, without fields.
        Some(Err(_)) | None => start_on_stderr(filter),
    }
}

/// Starts the log on standard error, wherever that leads: a process that ends at once may have gone before
/// the journal finds its unit.
pub fn start_on_stderr(filter: LogFilter) {
    let ansi = io::stderr().is_terminal();
    let format = lines::format().with_target(false).with_ansi(ansi);
    let format = WithProcess { format, process: process_name() };
    let lines = lines::layer().with_writer(io::stderr).with_ansi(ansi).event_format(format);
    tracing_subscriber::registry().with(filter.0).with(lines).init();
}

/// The name of a process of the broker other than the monitor, such as `worker alice (uid 1000)`: the monitor gives it as
/// the first argument.
fn process_name() -> Option<String> {
    let name = std::env::args_os().next()?;
    name.to_str()?.strip_prefix("sockbrokerd: ").map(str::to_owned)
}

/// Lines that end with the name of the process.
struct WithProcess<F> {
    format: F,
    process: Option<String>,
}

impl<S, N, F> FormatEvent<S, N> for WithProcess<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &lines::FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(process) = &self.process else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} process={process:?}", line.trim_end_matches('\n'))
    }
}

/// Whether standard error is still the stream that the service manager connected to the journal
/// (`$JOURNAL_STREAM`, `systemd.exec(5)`).
fn leads_to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let own = std::fs::metadata("/proc/self/fd/2");
    own.is_ok_and(|own| stream == format!("{}:{}", own.dev(), own.ino()))
}

/// Sends events to the journal.
#[derive(Debug)]
struct ToJournal {
    journal: Journal,
    process: Option<String>,
}

impl ToJournal {
    fn open(path: &Path) -> io::Result<Self> {
        let journal = Journal::open(path)?;
        // A journal that does not read must not delay the broker.
        journal.never_wait()?;
        Ok(Self { journal, process: process_name() })
    }

    fn send(&self, facts: &Facts, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut entry = Entry::new(&facts.line(), priority(*metadata.level()));
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            entry.put("CODE_FILE", file);
            entry.put("CODE_LINE", &line.to_string());
        }
        entry.put("TARGET", metadata.target());
        for (name, value) in &facts.fields {
            entry.put_own(name, value);
        }
        match self.journal.send(&entry) {
            Ok(()) => {}
            // The journal does not read, and standard error leads to it too.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The entry is too long, or the journal has ended. A further failure cannot be reported.
            Err(_) => drop(writeln!(io::stderr(), "{}", facts.line())),
        }
    }
}

impl<S: Subscriber> Layer<S> for ToJournal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut facts = Facts::default();
        event.record(&mut facts);
        if let Some(process) = &self.process {
            facts.fields.push(("process", process.clone()));
        }
        self.send(&facts, event);
    }
}

fn priority(level: Level) -> Priority {
    match level {
        Level::ERROR => Priority::Error,
        Level::WARN => Priority::Warning,
        Level::INFO => Priority::Info,
        _ => Priority::Debug,
    }
}

/// The message and the fields of an event.
#[derive(Debug, Default)]
struct Facts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Facts {
    /// One line with everything, because `journalctl` does not show fields by default.
    fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.fields {
            // Writing to a string cannot fail.
            write!(line, " {name}={value}").ok();
        }
        line
    }
}

impl Visit for Facts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use sockbroker_test_support::folder::Folder;

    use super::*;

    #[test]
    fn unknown_levels_are_refused() {
        for text in ["info", "WARN", "off", "warn,sockbrokerd::ops=debug", "sockbrokerd=trace"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for (text, wrong) in [("verbose", "verbose"), ("info,ops", "ops"), ("ops=loud", "loud")] {
            let error = filter(text).unwrap_err();
            assert!(error.contains(&format!("no log level {wrong:?}")), "{error}");
        }
    }

    #[test]
    fn an_event_is_an_entry_with_a_field_for_each_fact() {
        let folder = Folder::new();
        let path = folder.join("journal");
        let reader = sockbroker_test_support::journal::Journal::bind(&path);
        let subscriber = tracing_subscriber::registry().with(ToJournal::open(&path).unwrap());
        let nothing: Option<u32> = None;
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(uid = 7_u32, unit = "a.service", nothing, "odd");
            tracing::info!(reason = "x\n_UID=0\nMESSAGE=y", "two\nlines");
            tracing::error!(method = %"socket.recv", "failed");
        });
        let entry = reader.entry();
        for (name, value) in [
            ("MESSAGE", "odd uid=7 unit=a.service"),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "sockbrokerd"),
            ("SOCKBROKER_UID", "7"),
            ("SOCKBROKER_UNIT", "a.service"),
            ("CODE_FILE", file!()),
        ] {
            assert_eq!(entry[name], value, "{name}");
        }
        assert!(!entry.contains_key("SOCKBROKER_NOTHING"));
        let entry = reader.entry();
        assert_eq!(entry["SOCKBROKER_REASON"], "x\n_UID=0\nMESSAGE=y");
        assert!(entry["MESSAGE"].starts_with("two\nlines") && !entry.contains_key("_UID"));
        assert_eq!(reader.entry()["PRIORITY"], "3");
    }

    #[test]
    fn an_entry_and_a_line_have_the_name_of_the_process() {
        let folder = Folder::new();
        let path = folder.join("journal");
        let reader = sockbroker_test_support::journal::Journal::bind(&path);
        let process = Some("worker alice (uid 1000)".to_owned());
        let journal = ToJournal { process: process.clone(), ..ToJournal::open(&path).unwrap() };
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || tracing::warn!(number = 7, "odd"));
        let entry = reader.entry();
        assert_eq!(entry["SOCKBROKER_PROCESS"], "worker alice (uid 1000)");
        assert_eq!(entry["MESSAGE"], "odd number=7 process=worker alice (uid 1000)");
        let written = folder.join("lines");
        let file = std::fs::File::create(&written).unwrap();
        let format = lines::format().without_time().with_ansi(false).with_target(false);
        let layer = lines::layer().with_writer(file).event_format(WithProcess { format, process });
        let subscriber = tracing_subscriber::registry().with(layer.with_ansi(false));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(number = 7, "odd"));
        let line = std::fs::read_to_string(&written).unwrap();
        assert_eq!(line, " WARN odd number=7 process=\"worker alice (uid 1000)\"\n");
    }

    #[test]
    fn a_journal_that_does_not_read_does_not_delay_the_log() {
        let folder = Folder::new();
        let path = folder.join("journal");
        let _reader = sockbroker_test_support::journal::Journal::bind(&path);
        let subscriber = tracing_subscriber::registry().with(ToJournal::open(&path).unwrap());
        sockbroker_test_support::bounded(10, move || {
            tracing::subscriber::with_default(subscriber, || {
                for number in 0..5_000 {
                    tracing::info!(number, "and on");
                }
            });
        });
    }
}
