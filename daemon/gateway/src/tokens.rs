//! Tokens: names, hashes, and what limits them.
//!
//! The file has the SHA-256 of each token. A token has 256 random bits, so that a slow hash would protect nothing, and
//! would let strangers keep the gateway busy. It is looked up by its hash: the time of that reveals nothing about it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use sockbroker_monitor::message::gateway::{NAME_MAX, RULES_MAX, is_plain, is_rule};
use sockbroker_policy::subject::RemoteIdentity;
use toml::value::{Date, Datetime, Offset, Time};

/// What every token begins with, so that scanners for secrets find it.
const PREFIX: &str = "sbk_";
/// The longest token in bytes.
const LENGTH_MAX: usize = 128;

/// The hash of a token.
pub(crate) type Hash = [u8; 32];
/// The bearer of a token, and when the token expires.
type Bearer = (RemoteIdentity, Option<SystemTime>);

/// Checks entries for the file of tokens as the broker reads them, and that none has expired by now.
pub fn check(text: &str, now: SystemTime) -> Result<(), String> {
    let tokens = Tokens::read(text.as_bytes())?;
    let expired = |token: &&Token| token.expires.is_some_and(|expires| expires <= now);
    match tokens.0.values().find(expired) {
        Some(token) => Err(format!("tokens: the token {:?} has expired", token.name)),
        None => Ok(()),
    }
}

/// The tokens by the hashes of their texts.
#[derive(Debug, Default)]
pub(crate) struct Tokens(BTreeMap<Hash, Token>);

#[derive(Debug)]
struct Token {
    name: String,
    expires: Option<SystemTime>,
    networks: Option<Vec<IpNet>>,
    rules: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    sha256: String,
    expires: Option<Datetime>,
    networks: Option<Vec<String>>,
    rules: Option<Vec<String>>,
}

impl Tokens {
    /// Reads the file of tokens.
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|error| format!("tokens: {error}"))?;
        let file: File = toml::from_str(text).map_err(|error| format!("tokens: {error}"))?;
        let mut tokens = BTreeMap::new();
        let mut names = std::collections::BTreeSet::new();
        for written in file.token {
            let name = written.name.clone();
            let fail = |what: &str| format!("tokens: the token {name:?} {what}");
            if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_plain) {
                return Err(fail("needs a name without blanks of at most 255 bytes"));
            }
            if !names.insert(name.clone()) {
                return Err(fail("is there twice"));
            }
            let rules = written.rules.as_deref().unwrap_or_default();
            if rules.len() > RULES_MAX || !rules.iter().all(|rule| is_rule(rule)) {
                return Err(fail("names more than 64 rules, or one that cannot exist"));
            }
            let hash = hash_of_text(&written.sha256)
                .ok_or_else(|| fail("needs sha256 = \"...\" with 64 hexadecimal digits"))?;
            let networks = written.networks.map(|networks| {
                networks.iter().map(|text| network(text)).collect::<Option<Vec<_>>>()
            });
            let networks = match networks {
                Some(None) => return Err(fail("has networks that are not like 10.1.0.0/16")),
                Some(Some(networks)) => Some(networks),
                None => None,
            };
            let expires = written.expires.map(|expires| time(&expires));
            let expires = match expires {
                Some(None) => return Err(fail("needs a date for expires, like 2027-03-01")),
                Some(expires) => expires,
                None => None,
            };
            let token = Token { name: written.name, expires, networks, rules: written.rules };
            if tokens.insert(hash, token).is_some() {
                return Err(fail("has the secret of another one"));
            }
        }
        Ok(Self(tokens))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bearer of a token, with the hash of the token.
    pub(crate) fn find(
        &self,
        text: &str,
        from: IpAddr,
        now: SystemTime,
    ) -> Result<(Hash, Bearer), &'static str> {
        let is_token = text.starts_with(PREFIX) && text.len() <= LENGTH_MAX;
        if !is_token {
            return Err("the token is not one of this broker: it begins with sbk_");
        }
        let hash: Hash = Sha256::digest(text).into();
        Ok((hash, self.judge(&hash, from, now)?))
    }

    /// The bearer of a token whose hash is known.
    pub(crate) fn judge(
        &self,
        hash: &Hash,
        from: IpAddr,
        now: SystemTime,
    ) -> Result<Bearer, &'static str> {
        let token = self.0.get(hash).ok_or("the token is unknown")?;
        if token.expires.is_some_and(|expires| expires <= now) {
            return Err("the token has expired");
        }
        let from = from.to_canonical();
        if token.networks.as_ref().is_some_and(|all| !all.iter().any(|one| one.contains(&from))) {
            return Err("the token cannot be used from this address");
        }
        let (name, rules) = (token.name.clone(), token.rules.clone());
        Ok((RemoteIdentity::Token { name, rules }, token.expires))
    }
}

/// A network, or an address.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn hash_of_text(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    is_hash.then_some(hash)
}

/// A moment in UTC, unless it has an offset; the beginning of a day without a time.
fn time(written: &Datetime) -> Option<SystemTime> {
    let Date { year, month, day } = written.date?;
    let Time { hour, minute, second, .. } =
        written.time.unwrap_or(Time { hour: 0, minute: 0, second: 0, nanosecond: 0 });
    let offset = match written.offset {
        None | Some(Offset::Z) => 0,
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60,
    };
    // Days since 1970: a year begins in March, so that the leap day is its last (Hinnant, chrono-compatible
    // date algorithms).
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60;
    let seconds = seconds + i64::from(second) - offset;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn hex(token: &str) -> String {
        Sha256::digest(token).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_limited_by_time_and_network() {
        let text = format!(
            "[[token]]\nname = \"ci\"\nsha256 = \"{}\"\nexpires = 2027-03-01\nnetworks = [\"127.0.0.0/8\", \"::1\"]\n\
             rules = [\"a\"]\n[[token]]\nname = \"me\"\nsha256 = \"{}\"\n",
            hex("sbk_one"),
            hex("sbk_two"),
        );
        let tokens = Tokens::read(text.as_bytes()).unwrap();
        let expires = at(1_803_859_200);
        let before = expires - Duration::from_secs(1);
        let found = tokens.find("sbk_one", HERE, before).unwrap();
        let rules = Some(vec!["a".to_owned()]);
        assert_eq!(found.1.0, RemoteIdentity::Token { name: "ci".to_owned(), rules });
        assert_eq!(found.1.1, Some(expires));
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        assert!(tokens.find("sbk_one", mapped, before).is_ok());
        let elsewhere = "192.0.2.1".parse().unwrap();
        for (token, from, now, part) in [
            ("sbk_one", HERE, expires, "expired"),
            ("sbk_one", elsewhere, before, "from this address"),
            ("sbk_on", HERE, before, "unknown"),
            ("one", HERE, before, "begins with sbk_"),
        ] {
            assert!(tokens.find(token, from, now).unwrap_err().contains(part), "{token}");
        }
        assert_eq!(tokens.find("sbk_two", elsewhere, expires).unwrap().1.1, None);
    }

    #[test]
    fn a_file_with_a_mistake_is_refused() {
        let hash = hex("sbk_one");
        let good = format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\n");
        assert!(Tokens::read(good.as_bytes()).is_ok() && Tokens::read(b"").is_ok());
        for (more, part) in [
            ("expired = 2027-03-01\n".to_owned(), "unknown field"),
            ("networks = [\"10.0.0.0/33\"]\n".to_owned(), "networks"),
            ("expires = 10:00:00\n".to_owned(), "needs a date"),
            (good.clone(), "is there twice"),
            (good.replace("\"a\"", "\"b\""), "the secret of another"),
            (good.replace("\"a\"", "\"b c\""), "without blanks"),
            (format!("[[token]]\nname = \"b\"\nsha256 = \"{}\"\n", &hash[1..]), "64 hexadecimal"),
        ] {
            let error = Tokens::read(format!("{good}{more}").as_bytes()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2000-03-01", 951_868_800),
            ("2027-03-01T12:30:15Z", 1_803_904_215),
            ("2027-03-01T12:30:15+02:00", 1_803_897_015),
        ] {
            assert_eq!(time(&text.parse().unwrap()), Some(at(seconds)), "{text}");
        }
    }
}
