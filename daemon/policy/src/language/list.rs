//! Lists in a policy file. An empty one is refused: a list that lost its last value must not start to
//! mean every value.

use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error};

use crate::language::name::{PathPrefix, Pattern};

/// Reads a list that must have a value.
pub(crate) struct NonEmpty<T> {
    name: &'static str,
    /// What to do instead of writing an empty list.
    remedy: &'static str,
    items: PhantomData<T>,
}

impl<T> NonEmpty<T> {
    /// The list of a field.
    pub(crate) fn field(name: &'static str) -> Self {
        Self { name, remedy: "remove the field", items: PhantomData }
    }

    /// The verbs of a rule.
    pub(crate) fn verbs(name: &'static str) -> Self {
        Self { name, remedy: "remove the rule", items: PhantomData }
    }

    /// A list of subjects.
    fn subjects(name: &'static str) -> Self {
        let remedy = "remove the field; for everyone, write `subject = { everyone = true }`";
        Self { name, remedy, items: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for NonEmpty<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        let list = Vec::deserialize(deserializer)?;
        if list.is_empty() {
            let Self { name, remedy, .. } = self;
            return Err(D::Error::custom(format!(
                "`{name}` is an empty list: list at least one value, or {remedy}"
            )));
        }
        Ok(list)
    }
}

/// Declares a reader for each field of `subject` that holds a list.
macro_rules! subjects {
    ($($field:ident $item:ty;)*) => {$(
        pub(crate) fn $field<'de, D>(deserializer: D) -> Result<Vec<$item>, D::Error>
        where
            D: Deserializer<'de>,
        {
            NonEmpty::subjects(stringify!($field)).deserialize(deserializer)
        }
    )*};
}

subjects! {
    users toml::Spanned<String>;
    uids u32;
    groups toml::Spanned<String>;
    gids u32;
    units Pattern;
    cgroups PathPrefix;
    certificates Pattern;
    tokens Pattern;
}

#[cfg(test)]
mod tests {
    use crate::fixture::file_of_rule;
    use crate::language::file::{FileError, RuleText};

    fn refused(rule: &str) -> FileError {
        file_of_rule(rule).unwrap_err()
    }

    #[test]
    fn an_empty_list_is_refused_at_its_position() {
        let fields = [
            "family",
            "type",
            "protocol",
            "local",
            "local_ports",
            "remote",
            "remote_ports",
            "interface",
            "path",
            "option",
            "netlink",
        ];
        for field in fields {
            let allow = "subject = { everyone = true }\nallow = [\"send\", \"option\"]\n";
            let error = refused(&format!("{allow}{field} = [ ]"));
            let message =
                format!("`{field}` is an empty list: list at least one value, or remove the field");
            assert_eq!(
                (error.line, error.column, error.message),
                (6, field.len() + 4, message.clone())
            );
            // A filter of `session.restrict` has the same reader, and no positions.
            let filter = format!("{{ \"allow\": [\"send\"], \"{field}\": [] }}");
            let error = serde_json::from_str::<RuleText>(&filter).unwrap_err().to_string();
            assert!(error.starts_with(&message), "{error}");
        }
        for field in ["allow", "deny"] {
            let error = refused(&format!("{field} = []"));
            assert_eq!((error.line, error.column), (4, field.len() + 4));
            assert!(error.message.ends_with("or remove the rule"), "{error}");
        }
    }

    #[test]
    fn an_empty_list_of_subjects_is_refused_at_its_position() {
        for field in
            ["users", "uids", "groups", "gids", "units", "cgroups", "certificates", "tokens"]
        {
            let error = refused(
                &format!("subject = {{ uids = [7], {field} = [] }}\nallow = [\"send\"]")
                    .replace("uids = [7], uids", "uids"),
            );
            let start = if field == "uids" { 0 } else { "uids = [7], ".len() };
            assert_eq!((error.line, error.column), (4, start + field.len() + 16), "{error}");
            assert!(
                error.message.contains(&format!("`{field}` is an empty list"))
                    && error.message.contains("`subject = { everyone = true }`"),
                "{error}"
            );
        }
    }
}
