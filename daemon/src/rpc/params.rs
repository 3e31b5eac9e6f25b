//! Parameters before the RPC library sees them: no unknown name, not too many, which were given.
//!
//! The library ignores what it does not know; here a misspelt optional parameter is an error.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::rpc::argument::plain;

/// Which parameters a request has, by their place in the method's list: `null` counts as given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Given(u32);

impl Given {
    /// Whether the parameter at this place was given.
    pub(crate) fn has(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }
}

/// Checks parameters against the names a method has; the error says what is wrong.
pub(crate) fn check(names: &[&str], params: Option<&RawValue>) -> Result<Given, String> {
    let Some(params) = params else {
        return Ok(Given::default());
    };
    let mut deserializer = serde_json::Deserializer::from_str(params.get());
    match Check(names).deserialize(&mut deserializer) {
        Ok(given) => Ok(given),
        // Without the position: it counts from the start of the parameters, not of the message.
        Err(error) => Err(plain(&error.to_string())),
    }
}

struct Check<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = Given;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Given, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("parameters by name or by position")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        let mut given = 0;
        while let Some(key) = map.next_key_seed(Key)? {
            let place = self.0.iter().position(|name| *name == key);
            let Some(place) = place else {
                let known = self.0.join(", ");
                let text = format!("unknown parameter `{key}`; the parameters are: {known}");
                return Err(serde::de::Error::custom(text));
            };
            if given & (1 << place) != 0 {
                return Err(serde::de::Error::custom(format!("parameter `{key}` stands twice")));
            }
            given |= 1 << place;
            map.next_value::<IgnoredAny>()?;
        }
        Ok(Given(given))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Given, A::Error> {
        let mut count = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
            if count > self.0.len() {
                let text = format!("at most {} parameters: {}", self.0.len(), self.0.join(", "));
                return Err(serde::de::Error::custom(text));
            }
        }
        Ok(Given((1_u64 << count).saturating_sub(1).try_into().unwrap_or(u32::MAX)))
    }
}

/// A key, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(names: &[&str], text: &str) -> Result<Given, String> {
        let raw = RawValue::from_string(text.to_owned()).map_err(|error| error.to_string())?;
        check(names, Some(&raw))
    }

    #[test]
    fn names_and_places_tell_what_was_given() {
        let names = ["handle", "timeout"];
        assert_eq!(check_text(&names, r#"{"timeout":null}"#).unwrap(), Given(0b10));
        assert_eq!(check_text(&names, "[1]").unwrap(), Given(0b01));
        assert_eq!(check_text(&names, "[1,null]").unwrap(), Given(0b11));
        assert_eq!(check_text(&names, "[]").unwrap(), Given(0));
        assert_eq!(check(&names, None).unwrap(), Given(0));
    }

    #[test]
    fn the_error_names_the_parameter() {
        let names = ["handle", "timeout"];
        for (text, part) in [
            (r#"{"timeot":1}"#, "unknown parameter `timeot`; the parameters are: handle, timeout"),
            (r#"{"handle":1,"handle":1}"#, "`handle` stands twice"),
            ("[1,2,3]", "at most 2 parameters"),
            ("\"handle\"", "by name or by position"),
            ("17", "by name or by position"),
        ] {
            let error = check_text(&names, text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
