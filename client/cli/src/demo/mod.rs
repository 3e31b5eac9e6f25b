//! `sockbroker demo`: the whole story in a place of its own, step by step.

mod environment;
mod trace;
mod echo;
mod ping;
mod sniffer;

use sockbroker_sys::socket;

use crate::failure::{Exit, Failure};
use crate::screen::{Screen, Style};
use trace::{Trace, heading};

/// Tells and shows. Any step that does not go as told is a failure.
pub(crate) fn run() -> Result<Exit, Failure> {
    let mut screen = Screen::new();
    let title = screen.look(Style::Bold, "sockbroker: network sockets without privileges");
    screen.line(format_args!("{title}\n"))?;

    heading(&mut screen, "1. A place where nothing can be harmed")?;
    let connection = environment::prepare(&mut screen)?;

    heading(&mut screen, "2. What this program may not do by itself")?;
    show_refused(
        &mut screen,
        "AF_INET, SOCK_RAW, IPPROTO_ICMP",
        libc::AF_INET,
        libc::IPPROTO_ICMP,
    )?;
    show_refused(&mut screen, "AF_PACKET, SOCK_RAW, 0", libc::AF_PACKET, 0)?;

    let mut trace = Trace::new(connection, screen);
    trace.heading("3. The echo of Python's documentation, through the broker, over IPv4")?;
    echo::run(&mut trace, "127.0.0.1")?;
    trace.heading("4. The same over IPv6")?;
    trace.skip_without_ipv6(|trace| echo::run(trace, "::1"))?;
    trace.heading("5. A ping by a raw socket")?;
    ping::run(&mut trace)?;
    trace.heading("6. The sniffer of Python's documentation, on all that passes the loopback")?;
    sniffer::run(&mut trace)?;
    trace.summary()?;
    Ok(Exit::Done)
}

/// Shows that the kernel refuses a socket to this very process.
fn show_refused(
    screen: &mut Screen,
    arguments: &str,
    family: i32,
    proto: i32,
) -> Result<(), Failure> {
    match socket::create(family, libc::SOCK_RAW, proto) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let show_refused = screen.look(Style::Good, "EPERM, as it should be");
            screen.line(format_args!("  {:<42}{show_refused}", format!("socket({arguments})")))
        }
        Err(error) => Err(Failure::system("a socket was refused for another reason", &error)),
        Ok(_socket) => Err(Failure::new(
            Exit::Failed,
            format!("this program could make a socket ({arguments}) after it gave everything up"),
        )),
    }?;
    if family == libc::AF_PACKET { screen.line("") } else { Ok(()) }
}
