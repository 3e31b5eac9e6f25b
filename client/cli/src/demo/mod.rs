//! `sockbroker demo`: demonstrates the broker in its own namespaces, step by step.

mod environment;
mod trace;
mod echo;
mod ping;
mod sniffer;

use sockbroker_sys::socket;

use crate::failure::{Exit, Failure};
use crate::screen::{Screen, Style};
use trace::{Trace, heading};

/// Runs all steps. A step that fails ends the demonstration.
pub(crate) fn run() -> Result<Exit, Failure> {
    let mut screen = Screen::new();
    let title = screen.look(Style::Bold, "sockbroker: network sockets without privileges");
    screen.line(format_args!("{title}\n"))?;

    heading(&mut screen, "1. An isolated environment")?;
    let connection = environment::prepare(&mut screen)?;

    heading(&mut screen, "2. What the kernel refuses to this program")?;
    show_refused(
        &mut screen,
        "AF_INET, SOCK_RAW, IPPROTO_ICMP",
        libc::AF_INET,
        libc::IPPROTO_ICMP,
    )?;
    show_refused(&mut screen, "AF_PACKET, SOCK_RAW, 0", libc::AF_PACKET, 0)?;

    let mut trace = Trace::new(connection, screen);
    trace
        .heading("3. The echo example of Python's documentation, through the broker, over IPv4")?;
    echo::run(&mut trace, "127.0.0.1")?;
    trace.heading("4. The same example over IPv6")?;
    trace.skip_without_ipv6(|trace| echo::run(trace, "::1"))?;
    trace.heading("5. A ping through a raw socket")?;
    ping::run(&mut trace)?;
    trace.heading("6. The network sniffer of Python's documentation, on the loopback interface")?;
    sniffer::run(&mut trace)?;
    trace.summary()?;
    Ok(Exit::Done)
}

/// Shows that the kernel refuses a raw socket of this family and protocol to this process.
fn show_refused(
    screen: &mut Screen,
    arguments: &str,
    family: i32,
    proto: i32,
) -> Result<(), Failure> {
    match socket::create(family, libc::SOCK_RAW, proto) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let show_refused = screen.look(Style::Good, "EPERM, as expected");
            screen.line(format_args!("  {:<42}{show_refused}", format!("socket({arguments})")))
        }
        Err(error) => Err(Failure::system("expected EPERM from socket(2)", &error)),
        Ok(_socket) => Err(Failure::new(
            Exit::Failed,
            format!("socket({arguments}) succeeded without capabilities: expected EPERM"),
        )),
    }?;
    if family == libc::AF_PACKET { screen.line("") } else { Ok(()) }
}
