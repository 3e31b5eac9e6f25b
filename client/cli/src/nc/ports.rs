//! Parses the ports of nc, before it connects to a broker.

use crate::failure::Failure;

/// Returns the ports to connect to: numbers, or names of services for the resolver.
pub(super) fn to_connect(text: &str, scanning: bool) -> Result<Vec<String>, Failure> {
    let Some((first, last)) = text
        .split_once('-')
        .filter(|(first, last)| number(first).is_some() && number(last).is_some())
    else {
        return one(text, 1).map(|port| vec![port]);
    };
    if !scanning {
        return Err(Failure::usage(format!(
            "cannot connect to ports {text}: a range of ports needs -z"
        )));
    }
    let (first, last) = (checked(first, 1)?, checked(last, 1)?);
    // netcat accepts either order.
    Ok((first.min(last)..=first.max(last)).map(|port| port.to_string()).collect())
}

/// Checks a local port. With 0 the kernel chooses one.
pub(super) fn local(text: &str) -> Result<String, Failure> {
    one(text, 0)
}

fn one(text: &str, least: u16) -> Result<String, Failure> {
    match number(text) {
        Some(_) => checked(text, least).map(|port| port.to_string()),
        None if text.is_empty() => Err(Failure::usage("the port is empty")),
        None => Ok(text.to_owned()),
    }
}

/// Returns the text if the resolver would read it as a number: blanks, a sign and digits. The resolver
/// would silently truncate such a number to 16 bits.
fn number(text: &str) -> Option<&str> {
    let digits = text.trim_start().trim_start_matches(['+', '-']);
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

fn checked(text: &str, least: u16) -> Result<u16, Failure> {
    text.parse().ok().filter(|port| *port >= least).ok_or_else(|| {
        Failure::usage(format!("the port {text} is not between {least} and {}", u16::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_a_number_in_range_or_a_name() {
        for (text, port) in
            [("1", "1"), ("65535", "65535"), ("http", "http"), ("http-alt", "http-alt")]
        {
            assert_eq!(to_connect(text, false).unwrap(), [port]);
        }
        for wrong in ["0", "65536", "-1", " 70000", "+4294967376", "99999999999999999999", ""] {
            assert!(to_connect(wrong, true).is_err(), "{wrong:?}");
        }
        let line = to_connect("70000", false).unwrap_err().to_string();
        assert_eq!(line, "the port 70000 is not between 1 and 65535");
        assert_eq!(local("0").unwrap(), "0");
        assert!(local("65536").is_err());
    }

    #[test]
    fn port_range_needs_a_scan_and_is_sorted() {
        assert_eq!(to_connect("20-22", true).unwrap(), ["20", "21", "22"]);
        assert_eq!(to_connect("22-20", true).unwrap(), ["20", "21", "22"]);
        assert!(to_connect("20-22", false).unwrap_err().to_string().contains("-z"));
        for wrong in ["0-3", "65535-65536"] {
            assert!(to_connect(wrong, true).is_err(), "{wrong:?}");
        }
    }
}
