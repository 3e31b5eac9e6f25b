//! Opens the capture.

use sockbroker_client::blocking::CaptureStream;
use sockbroker_client::{CaptureRequest, Error, Netns};
use sockbroker_pcapng::LinkType;
use sockbroker_proto::api::capture::{CaptureInterface, CaptureOptions};

use super::args::SniffArgs;
use super::filter::Filter;
use super::{link, list};
use crate::connection::{Connection, failure};
use crate::failure::Failure;

/// What a grant of promiscuous mode contains.
const PROMISCUOUS_GRANT: &str = "option = [\"packet\"]";

/// Opens the capture. It is live when this returns.
pub(super) fn open(
    connection: &Connection,
    args: &SniffArgs,
    filter: Option<&Filter>,
) -> Result<CaptureStream, Failure> {
    let wanted = args.wanted_link_type()?;
    let request = CaptureRequest {
        interfaces: list::named(connection, args.interfaces()?, args.netns.as_ref())?,
        options: CaptureOptions {
            snaplen: Some(args.snaplen()),
            promiscuous: args.is_promiscuous() && !args.list_link_types,
            direction: Some(args.direction()),
            buffer_bytes: args.buffer_bytes(),
            mode: Some(args.mode()),
            packets: args.count,
            ..CaptureOptions::default()
        },
        netns: args.netns.clone().map(Netns::from),
        ..CaptureRequest::default()
    };
    let hint = "-p captures without promiscuous mode";
    let stream = open_filtered(connection, request, filter, hint)?;
    if let Some(wanted) = wanted {
        stream.opened().interfaces.iter().try_for_each(|interface| {
            let CaptureInterface { name, link_type, .. } = interface;
            let found = LinkType(*link_type);
            if found == wanted {
                return Ok(());
            }
            let (wanted, found) = (link::describe(wanted), link::describe(found));
            Err(Failure::usage(format!("{name} has no link type {wanted}: it has {found}")))
        })?;
    }
    Ok(stream)
}

/// Opens a capture with a filter. It is live when this returns. `hint` states how to capture without promiscuous mode.
pub(crate) fn open_filtered(
    connection: &Connection,
    mut request: CaptureRequest,
    filter: Option<&Filter>,
    hint: &'static str,
) -> Result<CaptureStream, Failure> {
    request.filter = filter.map(|filter| filter.program.clone()).unwrap_or_default();
    request.options.filter_text = filter.map(|filter| filter.expression.clone());
    // There is none for all interfaces.
    request.options.promiscuous &= !request.interfaces.is_empty();
    let opened = connection.broker().capture(&request).map_err(|error| {
        let failure = failure("capture.open", &error);
        // A rule can grant captures without promiscuous mode.
        if request.options.promiscuous && lacks_promiscuous_mode(&error) {
            failure.with_hint(hint)
        } else {
            failure
        }
    })?;
    let stream = opened.into_stream();
    if let Some(filter) = filter {
        stream.opened().interfaces.iter().try_for_each(|interface| filter.check(interface))?;
    }
    Ok(stream)
}

/// Whether the policy grants the capture, and no promiscuous mode.
fn lacks_promiscuous_mode(error: &Error) -> bool {
    let grant = match error {
        Error::Denied { grant, .. } => grant.as_deref(),
        _ => None,
    };
    grant.is_some_and(|grant| grant.contains(PROMISCUOUS_GRANT))
}

/// The line for people that the capture is live.
pub(super) fn describe(interfaces: &[CaptureInterface], snaplen: u32) -> String {
    let name = |interface: &CaptureInterface| {
        let CaptureInterface { name, link_type, .. } = interface;
        format!("{name}, link-type {}", link::describe(LinkType(*link_type)))
    };
    let names: Vec<_> = interfaces.iter().map(name).collect();
    let names = if names.is_empty() { "any".to_owned() } else { names.join(", ") };
    format!("listening on {names}, snapshot length {snaplen} bytes")
}
