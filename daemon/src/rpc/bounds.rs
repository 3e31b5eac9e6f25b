//! Limits on the contents of a message, checked before it is decoded: a message of eight megabytes can hold
//! millions of values, and a decoded value takes many times the memory of its text.
//!
//! One pass over the text counts the values without decoding them. Lists that the contract bounds are found
//! by the name of their parameter.

use std::borrow::Cow;

use serde_json::value::RawValue;
use sockbroker_proto::error::ErrorKind;

use crate::config::limits::{Limits, size};
use crate::error::LimitExceeded;
use crate::rpc::error::RpcError;
use crate::rpc::methods::Method;
use crate::rpc::methods::outcome;
use crate::session::broker::Broker;

/// Checks a request before it is decoded. Returns the number of items in its lists.
pub(super) fn admit(
    method: &Method,
    text: &str,
    params: Option<&RawValue>,
    broker: &Broker,
) -> Result<usize, RpcError> {
    let refuse = |exceeded: LimitExceeded| {
        method.outcomes.count(outcome(Some(ErrorKind::Limit)));
        broker.metrics.limit_exceeded(exceeded.name);
        RpcError::limit(exceeded, 0).of_call(method.call())
    };
    check_message(text, &broker.limits).map_err(refuse)?;
    let params = params.map_or("", RawValue::get);
    let items = check_lists(method.parameters, params, &broker.limits).map_err(refuse)?;
    Ok(size(items))
}

/// Refuses a message with more JSON values than the limit allows.
pub(super) fn check_message(text: &str, limits: &Limits) -> Result<(), LimitExceeded> {
    let limit = LimitExceeded { name: "message_values", value: limits.message_values };
    // Every counted value takes at least one byte.
    if text.len() as u64 <= limit.value {
        return Ok(());
    }
    let mut rest = text.as_bytes();
    let mut values = 0;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => behind_text(after),
            b',' | b'[' | b'{' => {
                values += 1;
                if values > limit.value {
                    return Err(limit);
                }
                after
            }
            _ => after,
        };
    }
    Ok(())
}

/// What follows a string whose opening quote was read.
fn behind_text(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest {
            [b'"', after @ ..] => return after,
            [b'\\', _, after @ ..] | [_, after @ ..] => rest = after,
            [] => return rest,
        }
    }
}

/// The meaning of a value for its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The parameters, by name or by position, or the fields of one message.
    Fields,
    /// The messages of `sendmmsg`.
    Messages,
    /// A list whose items are counted.
    List(Counted),
    /// A value without its own limit.
    Other,
}

/// What the items of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Messages,
    Buffers,
    Ancillary,
    Handles,
    Restrictions,
    Address,
}

/// The number of variants of [`Counted`].
const KINDS: usize = 6;

impl Counted {
    fn limit(self, limits: &Limits) -> LimitExceeded {
        macro_rules! limit {
            ($name:ident) => {
                LimitExceeded { name: stringify!($name), value: limits.$name }
            };
        }
        match self {
            Self::Messages => limit!(batch_messages),
            Self::Buffers => limit!(message_buffers),
            Self::Ancillary => limit!(ancillary_items),
            Self::Handles => limit!(poll_handles),
            Self::Restrictions => limit!(restriction_items),
            Self::Address => limit!(address_items),
        }
    }
}

/// The role of a parameter or field, by its name.
fn role(name: &str) -> Role {
    match name {
        "messages" => Role::Messages,
        "buffers" | "msg" => Role::List(Counted::Buffers),
        "ancdata" => Role::List(Counted::Ancillary),
        "fds" => Role::List(Counted::Handles),
        "rules" | "filters" => Role::List(Counted::Restrictions),
        "address" | "source_address" | "sockaddr" => Role::List(Counted::Address),
        _ => Role::Other,
    }
}

/// A list or an object whose end was not read yet.
#[derive(Debug)]
struct Open {
    role: Role,
    is_object: bool,
    /// The position of the next item of a list.
    index: usize,
    /// In an object, the role of the value after the name. `None` where a name comes next.
    named: Option<Role>,
}

struct Counter<'a> {
    names: &'a [&'a str],
    limits: &'a Limits,
    counts: [u64; KINDS],
    open: Vec<Open>,
}

/// Refuses parameters with a list that is longer than its limit. `params` is JSON. Returns the number of
/// items in all lists together.
fn check_lists(names: &[&str], params: &str, limits: &Limits) -> Result<u64, LimitExceeded> {
    if names.iter().all(|name| role(name) == Role::Other) {
        return Ok(0);
    }
    Counter { names, limits, counts: [0; KINDS], open: Vec::new() }.count(params)
}

impl Counter<'_> {
    fn count(mut self, text: &str) -> Result<u64, LimitExceeded> {
        let mut rest = text.as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            rest = match byte {
                b'"' => {
                    let behind = behind_text(after);
                    let length = rest.len() - behind.len();
                    self.text(rest.get(..length).unwrap_or_default())?;
                    behind
                }
                b'[' | b'{' => {
                    let role = self.value()?;
                    let is_object = *byte == b'{';
                    self.open.push(Open { role, is_object, index: 0, named: None });
                    after
                }
                b']' | b'}' => {
                    self.open.pop();
                    after
                }
                b',' => {
                    if let Some(open) = self.open.last_mut() {
                        open.named = None;
                    }
                    after
                }
                b':' | b' ' | b'\t' | b'\r' | b'\n' => after,
                _ => {
                    self.value()?;
                    let end = |byte: &u8| matches!(byte, b',' | b']' | b'}');
                    let length = rest.iter().position(end).unwrap_or(rest.len());
                    rest.get(length..).unwrap_or_default()
                }
            };
        }
        Ok(self.counts.iter().sum())
    }

    /// Reads a string: the name of a field, or a value.
    fn text(&mut self, quoted: &[u8]) -> Result<(), LimitExceeded> {
        match self.open.last_mut() {
            Some(open) if open.is_object && open.named.is_none() => {
                // A name may be written with escapes.
                let name = serde_json::from_slice::<Cow<'_, str>>(quoted).unwrap_or_default();
                let is_fields = open.role == Role::Fields;
                let nested = Role::List(Counted::Address);
                let inner = if open.role == nested { nested } else { Role::Other };
                open.named = Some(if is_fields { role(&name) } else { inner });
                Ok(())
            }
            _ => self.value().map(|_role| ()),
        }
    }

    /// Counts a value that begins, and returns its role.
    fn value(&mut self) -> Result<Role, LimitExceeded> {
        let Some(open) = self.open.last_mut() else { return Ok(Role::Fields) };
        let index = open.index;
        open.index += 1;
        let (counted, role) = match open.role {
            Role::Fields => {
                let by_index = || self.names.get(index).map_or(Role::Other, |name| role(name));
                let role = open.named.unwrap_or_else(by_index);
                if role == Role::List(Counted::Address) {
                    // The items of each address are counted separately.
                    self.counts[Counted::Address as usize] = 0;
                }
                return Ok(role);
            }
            Role::Messages => (Counted::Messages, Role::Fields),
            Role::List(Counted::Address) => (Counted::Address, open.role),
            Role::List(counted) => (counted, Role::Other),
            Role::Other => return Ok(Role::Other),
        };
        let limit = counted.limit(self.limits);
        let count = &mut self.counts[counted as usize];
        *count += 1;
        if *count > limit.value { Err(limit) } else { Ok(role) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exceeded(names: &[&str], params: &str, limits: &Limits) -> Option<&'static str> {
        check_lists(names, params, limits).err().map(|limit| limit.name)
    }

    #[test]
    fn separators_within_strings_are_not_counted() {
        let limits = Limits { message_values: 3, ..Limits::default() };
        for (text, refused) in [
            ("[1,2,3]", false),
            ("[1,2,3,4]", true),
            (r#"{"a":[1,2]}"#, false),
            (r#"{"a":[1,2],"b":{}}"#, true),
            (r#"["[[[,,,\",,,{{{"]"#, false),
            (r#"["\\",[],[],1]"#, true),
            (r#"["never ends,,,,"#, false),
            (r#"["\"#, false),
        ] {
            assert_eq!(check_message(text, &limits).is_err(), refused, "{text}");
        }
    }

    #[test]
    fn lists_are_found_by_position_and_by_name() {
        let limits = Limits { message_buffers: 2, ancillary_items: 1, ..Limits::default() };
        let names = ["handle", "buffers", "ancdata", "flags", "address"];
        for (params, limit) in [
            (r#"[1,["",""],[[1,2,"a,b,c"]],0,["::1",9]]"#, None),
            (r#"[1,["","",""]]"#, Some("message_buffers")),
            (r#"[1,[],[[1,2,""],[1,2,""]]]"#, Some("ancillary_items")),
            (r#"{"buffers":["","",{"attachment":0}]}"#, Some("message_buffers")),
            (r#"{"b\u0075ffers" : [ 1 , 2 , 3 ] }"#, Some("message_buffers")),
            (r#"{"flags":["","",""],"handle":[1,2,3]}"#, None),
            (r#"{"ancdata":[],"buffers":null,"handle":1}"#, None),
        ] {
            assert_eq!(exceeded(&names, params, &limits), limit, "{params}");
        }
        assert_eq!(exceeded(&["level"], "[[1,2,3]]", &limits), None);
    }

    #[test]
    fn messages_share_the_limits_of_their_call() {
        let limits = Limits { message_buffers: 3, batch_messages: 2, ..Limits::default() };
        let names = ["handle", "messages", "flags"];
        let message = |buffers: &str| format!(r#"{{"buffers":[{buffers}],"address":["::1",9]}}"#);
        for (messages, limit) in [
            ([message("1,2"), message("3")].join(","), None),
            ([message("1,2"), message("3,4")].join(","), Some("message_buffers")),
            ([message(""), message(""), message("")].join(","), Some("batch_messages")),
        ] {
            assert_eq!(exceeded(&names, &format!("[1,[{messages}],0]"), &limits), limit);
        }
    }

    #[test]
    fn nested_items_of_an_address_are_counted() {
        let limits = Limits { address_items: 4, ..Limits::default() };
        let names = ["handle", "address", "source_address"];
        for (params, limit) in [
            (r#"[1,["::1",9,0,0],["::1",9,0,0]]"#, None),
            (r#"[1,["::1",9,0,0,0]]"#, Some("address_items")),
            (r"[1,[[],[[]],[[]]]]", Some("address_items")),
            (r#"[1,{"family":2,"base64":"AA=="}]"#, None),
            (r#"[1,{"a":[1,2],"b":{"c":3}}]"#, Some("address_items")),
        ] {
            assert_eq!(exceeded(&names, params, &limits), limit, "{params}");
        }
    }

    #[test]
    fn rules_and_filters_are_counted_together() {
        let limits = Limits { restriction_items: 2, ..Limits::default() };
        let names = ["rules", "filters"];
        assert_eq!(exceeded(&names, r#"[["a"],[{"allow":["bind","listen"]}]]"#, &limits), None);
        let many = r#"{"rules":["a","b"],"filters":[{"allow":["bind"]}]}"#;
        assert_eq!(exceeded(&names, many, &limits), Some("restriction_items"));
    }
}
