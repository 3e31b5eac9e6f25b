//! Methods for a server: decoded parameters, and results with their types.
//!
//! `#[api]` generates a struct of each method's parameters, which implements [`Parameters`], and for each trait a
//! server trait whose `register` adds every method to a [`Register`].

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The parameters of one method.
pub trait Parameters: Sized + Send + 'static {
    /// The method's name on the wire.
    const METHOD: &'static str;
    /// The names of the parameters, in order.
    const NAMES: &'static [&'static str];
    /// The type of the result.
    type Result: Serialize + Send + 'static;
    /// A slot for each parameter that is decoded so far.
    type Slots: Default;

    /// Decodes the parameter at `index` of [`Self::NAMES`].
    fn decode_slot<'de, D: Deserializer<'de>>(
        slots: &mut Self::Slots,
        index: usize,
        value: D,
    ) -> Result<(), D::Error>;

    /// The parameters, or the name of the first required one that is missing.
    fn from_slots(slots: Self::Slots) -> Result<Self, &'static str>;
}

/// A method table, to which server traits add their methods.
pub trait Register {
    /// The context of a call.
    type Call: Send + 'static;
    /// The error type of methods.
    type Error: Send + 'static;

    /// Adds a method that never waits.
    fn add<P, H>(&mut self, handler: H)
    where
        P: Parameters,
        H: Fn(&Self::Call, P) -> Result<P::Result, Self::Error> + Send + Sync + 'static;

    /// Adds a method that can wait.
    fn add_async<P, H, F>(&mut self, handler: H)
    where
        P: Parameters,
        H: Fn(Self::Call, P) -> F + Send + Sync + 'static,
        F: Future<Output = Result<P::Result, Self::Error>> + Send + 'static;
}

/// Why parameters were not decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum ParametersError {
    /// They are neither an object nor a list, have an unknown name, a name twice, or too many values.
    Shape(String),
    /// A value does not fit its parameter; the text is the decoder's.
    Value(String),
    /// A required parameter is absent.
    Missing(&'static str),
}

/// Decodes the parameters of a request, by name or by position.
pub fn decode<P: Parameters>(params: Option<&RawValue>) -> Result<P, ParametersError> {
    let mut slots = P::Slots::default();
    if let Some(params) = params {
        let mut refusal = None;
        let visitor = Shape::<P> { slots: &mut slots, refusal: &mut refusal, of: PhantomData };
        let mut decoder = serde_json::Deserializer::from_str(params.get());
        let decoded = decoder.deserialize_any(visitor);
        if let Some(text) = refusal {
            return Err(ParametersError::Shape(text));
        }
        decoded.map_err(|error| ParametersError::Value(error.to_string()))?;
    }
    P::from_slots(slots).map_err(ParametersError::Missing)
}

/// Visits an object or a list of parameters.
struct Shape<'a, P: Parameters> {
    slots: &'a mut P::Slots,
    /// The error of the whole, which the decoder's error type cannot carry.
    refusal: &'a mut Option<String>,
    of: PhantomData<P>,
}

impl<P: Parameters> Shape<'_, P> {
    fn refuse<E: serde::de::Error>(self, text: String) -> E {
        *self.refusal = Some(text);
        E::custom("parameters")
    }

    fn refuse_kind<T, E: serde::de::Error>(self) -> Result<T, E> {
        Err(self.refuse("parameters are given by name or by position".to_owned()))
    }
}

impl<'de, P: Parameters> Visitor<'de> for Shape<'_, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("parameters by name or by position")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut given = 0_u64;
        while let Some(key) = map.next_key_seed(Key)? {
            let Some(index) = P::NAMES.iter().position(|name| *name == key) else {
                let known = P::NAMES.join(", ");
                let text = format!("unknown parameter `{key}`; the parameters are: {known}");
                return Err(self.refuse(text));
            };
            if given & 1 << index != 0 {
                return Err(self.refuse(format!("parameter `{key}` appears twice")));
            }
            given |= 1 << index;
            map.next_value_seed(Slot::<P> { slots: self.slots, index })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0..P::NAMES.len() {
            if seq.next_element_seed(Slot::<P> { slots: self.slots, index })?.is_none() {
                return Ok(());
            }
        }
        if seq.next_element::<serde::de::IgnoredAny>()?.is_some() {
            let (most, names) = (P::NAMES.len(), P::NAMES.join(", "));
            return Err(self.refuse(format!("at most {most} parameters: {names}")));
        }
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.refuse_kind()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.refuse_kind()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.refuse_kind()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.refuse_kind()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.refuse_kind()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.refuse_kind()
    }
}

/// Decodes one parameter into its slot.
struct Slot<'a, P: Parameters> {
    slots: &'a mut P::Slots,
    index: usize,
}

impl<'de, P: Parameters> DeserializeSeed<'de> for Slot<'_, P> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        P::decode_slot(self.slots, self.index, value)
    }
}

/// A key, borrowed if it has no escapes.
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

/// For generated code: the error of an index for which there is no parameter.
#[doc(hidden)]
pub fn unknown_index<E: serde::de::Error>(index: usize) -> E {
    E::custom(format!("no parameter {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::transfer::RecvParams;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn of(text: &str) -> Result<RecvParams, ParametersError> {
        decode(Some(&raw(text)))
    }

    #[test]
    fn parameters_are_decoded_by_name_and_by_position() {
        for text in [
            r#"{"handle":7,"bufsize":9}"#,
            "[7,9]",
            "[7,9,null]",
            r#"{"bufsize":9,"h\u0061ndle":7}"#,
        ] {
            let RecvParams { handle, bufsize, flags } = of(text).unwrap();
            assert_eq!((handle.number(), bufsize, flags), (7, 9, None), "{text}");
        }
    }

    #[test]
    fn errors_name_the_parameter() {
        use ParametersError::{Missing, Shape};
        let shape = |text: &str| Err(Shape(text.to_owned()));
        let result = |text| of(text).map(drop);
        assert_eq!(
            result(r#"{"handel":1}"#),
            shape("unknown parameter `handel`; the parameters are: handle, bufsize, flags")
        );
        assert_eq!(result(r#"{"handle":1,"handle":1}"#), shape("parameter `handle` appears twice"));
        assert_eq!(result("[1,2,3,4]"), shape("at most 3 parameters: handle, bufsize, flags"));
        for text in ["17", "-1", "1.5", "true", "null", "\"handle\""] {
            assert_eq!(
                result(text),
                shape("parameters are given by name or by position"),
                "{text}"
            );
        }
        assert_eq!(result("[1]"), Err(Missing("bufsize")));
        assert_eq!(decode::<RecvParams>(None).map(drop), Err(Missing("handle")));
        assert!(matches!(of("[1,\"a\"]"), Err(ParametersError::Value(_))));
    }

    #[test]
    fn null_differs_from_absence_in_a_nested_option() {
        use crate::api::socket::SocketParams;
        let timeout = |text: &str| {
            decode::<SocketParams>(Some(&RawValue::from_string(text.to_owned()).unwrap()))
                .unwrap()
                .timeout
        };
        assert_eq!(timeout("{}"), None);
        assert_eq!(timeout(r#"{"timeout":null}"#), Some(None));
        assert_eq!(timeout(r#"{"timeout":0.5}"#), Some(Some(0.5)));
    }
}
