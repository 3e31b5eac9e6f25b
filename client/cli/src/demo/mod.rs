//! `sockbroker demo`: the whole story in a place of its own, step by step.

mod place;
mod wire;
mod echo;
mod ping;
mod sniffer;

use serde_json::json;
use sockbroker_sys::socket;

use crate::failure::{Exit, Failure};
use crate::link::Link;
use crate::screen::{Look, Screen};
use wire::Wire;

/// Tells and shows. Any step that does not go as told is a failure.
pub(crate) fn run() -> Result<Exit, Failure> {
    let mut screen = Screen::new();
    let title = screen.look(Look::Bold, "sockbroker: network sockets without privileges");
    screen.line(format_args!("{title}\n"))?;

    heading(&mut screen, "1. A place where nothing can be harmed")?;
    let link = place::prepare(&mut screen)?;

    heading(&mut screen, "2. What this program may not do by itself")?;
    refused(&mut screen, "AF_INET, SOCK_RAW, IPPROTO_ICMP", libc::AF_INET, libc::IPPROTO_ICMP)?;
    refused(&mut screen, "AF_PACKET, SOCK_RAW, 0", libc::AF_PACKET, 0)?;

    let mut wire = Wire::new(link, screen);
    wire.heading("3. The echo of Python's documentation, through the broker, over IPv4")?;
    echo::run(&mut wire, "127.0.0.1")?;
    wire.heading("4. The same over IPv6")?;
    wire.unless_without_ipv6(|wire| echo::run(wire, "::1"))?;
    wire.heading("5. A ping by a raw socket")?;
    ping::run(&mut wire)?;
    wire.heading("6. The sniffer of Python's documentation, on all that passes the loopback")?;
    sniffer::run(&mut wire)?;
    wire.summary()?;
    Ok(Exit::Done)
}

fn heading(screen: &mut Screen, text: &str) -> Result<(), Failure> {
    let text = screen.look(Look::Bold, text);
    screen.line(text)
}

/// Shows that the kernel refuses a socket to this very process.
fn refused(screen: &mut Screen, told: &str, family: i32, proto: i32) -> Result<(), Failure> {
    match socket::create(family, libc::SOCK_RAW, proto) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let refused = screen.look(Look::Good, "EPERM, as it should be");
            screen.line(format_args!("  {:<42}{refused}", format!("socket({told})")))
        }
        Err(error) => Err(Failure::system("a socket was refused for another reason", &error)),
        Ok(_socket) => Err(Failure::new(
            Exit::Failed,
            format!("this program could make a socket ({told}) after it gave everything up"),
        )),
    }?;
    if family == libc::AF_PACKET { screen.line("") } else { Ok(()) }
}

/// The number of a handle in a result.
fn handle(made: &serde_json::Value) -> Result<u64, Failure> {
    let handle = made.get("handle").and_then(serde_json::Value::as_u64);
    handle.ok_or_else(|| Failure::protocol("a socket was made without a handle"))
}

/// Makes sure that the broker answers before anything is timed.
fn greeted(link: Link) -> Result<Link, Failure> {
    link.call("session.info", json!({}))?;
    Ok(link)
}
