//! The toolbar of Wireshark: another filter, or another interface, during the capture.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use sockbroker_client::CaptureRequest;
use sockbroker_client::blocking::CaptureStream;

use super::args::interfaces;
use super::brokers;
use super::control::{
    self, ADD, ERROR, FILTER, INITIALIZED, INTERFACE, LOG, Message, NONE, SET, STATUS,
};
use super::log::Log;
use super::names::{ALL, PROMISCUOUS_HINT};
use super::running::{Current, Running};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::sniff::filter::Filter;
use crate::sniff::open::open_filtered;

/// The most messages of Wireshark that wait. A user makes a few in a second.
const WAITING_MESSAGES_MAX: usize = 16;

/// The messages of the toolbar.
pub(super) type Messages = Receiver<Message>;

/// Reads the messages of the toolbar on a thread. Opens the FIFO at once: Wireshark waits for that.
pub(super) fn listen(path: &Path) -> Messages {
    let (sender, messages) = mpsc::sync_channel(WAITING_MESSAGES_MAX);
    let path = path.to_owned();
    thread::spawn(move || {
        // Without the FIFO, or after a message that cannot be read, the capture continues without a toolbar.
        let Ok(mut input) = File::open(path) else { return };
        while let Ok(Some(message)) = control::read(&mut input) {
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    messages
}

/// What the toolbar changes.
pub(super) struct Toolbar {
    pub(super) connection: Arc<Connection>,
    pub(super) current: Current,
    /// The thread that writes the packets continues with these captures.
    pub(super) captures: Sender<CaptureStream>,
    pub(super) request: CaptureRequest,
    pub(super) filter: Option<Filter>,
    pub(super) log: Arc<Log>,
}

impl Toolbar {
    /// Handles messages until Wireshark closes its end. `path` is the FIFO for messages to it.
    pub(super) fn run(mut self, messages: &Messages, path: &Path) {
        let Ok(mut output) = File::options().write(true).open(path) else { return };
        for message in messages {
            // An error of a write means that Wireshark has closed its end.
            if self.handle(&message, &mut output).is_err() {
                return;
            }
        }
    }

    fn handle(&mut self, message: &Message, output: &mut File) -> std::io::Result<()> {
        let text = String::from_utf8_lossy(&message.payload);
        let text = text.trim();
        let changed = match (message.command, message.control) {
            (INITIALIZED, _) => return self.describe(output),
            (SET, FILTER) => self.set_filter(text),
            (SET, INTERFACE) => self.set_interface(text),
            // A control of another version.
            _ => return Ok(()),
        };
        match changed {
            Ok(text) => {
                self.log.message(&text);
                control::write(output, NONE, STATUS, text.as_bytes())?;
                control::write(output, LOG, ADD, format!("{text}\n").as_bytes())
            }
            Err(failure) => {
                let text = failure.to_string();
                self.log.error(&text);
                control::write(output, LOG, ADD, format!("{text}\n").as_bytes())?;
                control::write(output, NONE, ERROR, text.as_bytes())
            }
        }
    }

    /// Shows the interfaces that can be selected, and what is captured now.
    fn describe(&self, output: &mut File) -> std::io::Result<()> {
        let names = brokers::names_of(&self.connection).unwrap_or_else(|failure| {
            self.log.error(&failure.to_string());
            vec![self.interface()]
        });
        for name in &names {
            let display = if name == ALL { "all interfaces" } else { name };
            control::write(output, INTERFACE, ADD, format!("{name}\0{display}").as_bytes())?;
        }
        control::write(output, INTERFACE, SET, self.interface().as_bytes())?;
        let expression = self.filter.as_ref().map(|filter| filter.expression.as_str());
        control::write(output, FILTER, SET, expression.unwrap_or_default().as_bytes())
    }

    fn interface(&self) -> String {
        self.request.interfaces.first().cloned().unwrap_or_else(|| ALL.to_owned())
    }

    /// Replaces the filter. Returns a message.
    fn set_filter(&mut self, expression: &str) -> Result<String, Failure> {
        let filter = (!expression.is_empty()).then(|| Filter::compile(expression.to_owned()));
        let filter = filter.transpose()?;
        if let Some(running) = self.current.get() {
            running.set_filter(filter.as_ref())?;
        }
        self.filter = filter;
        Ok(match expression {
            "" => "all packets are captured".to_owned(),
            expression => format!("only packets of the filter {expression:?} are captured"),
        })
    }

    /// Continues the capture on another interface. If that cannot be captured, the earlier one continues.
    fn set_interface(&mut self, interface: &str) -> Result<String, Failure> {
        let request = CaptureRequest { interfaces: interfaces(interface), ..self.request.clone() };
        let (connection, filter) = (&self.connection, self.filter.as_ref());
        let stream = open_filtered(connection, request.clone(), filter, PROMISCUOUS_HINT)?;
        let earlier = self.current.replace(Running::new(&self.connection, &stream));
        // The writer continues with it at the end of the earlier one.
        if self.captures.send(stream).is_ok()
            && let Some(earlier) = earlier
        {
            earlier.stop();
        }
        self.request = request;
        Ok(format!("packets of {interface} are captured"))
    }
}
