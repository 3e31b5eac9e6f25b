//! Lists in a policy file. An empty one is refused: a list that lost its last value must not come to
//! mean every value.

use serde::de::{Deserialize, Deserializer, Error};

use crate::language::message_class::MessageClass;
use crate::language::name::{PathPrefix, Pattern};
use crate::language::option_class::OptionClass;
use crate::language::value::{Family, Network, Ports, Protocol, SocketType};
use crate::language::verb::Verb;

/// Declares a reader for each field that holds a list, with the way out of an empty one.
macro_rules! lists {
    ($($way_out:literal { $($name:literal $field:ident $item:ty;)* })*) => {$($(
        pub(crate) fn $field<'de, D>(deserializer: D) -> Result<Vec<$item>, D::Error>
        where
            D: Deserializer<'de>,
        {
            let list = Vec::deserialize(deserializer)?;
            if list.is_empty() {
                return Err(D::Error::custom(concat!(
                    "`", $name, "` is an empty list: list at least one value, or ", $way_out
                )));
            }
            Ok(list)
        }
    )*)*};
}

lists! {
    "remove the rule" {
        "allow" allow Verb;
        "deny" deny Verb;
    }
    "remove the field" {
        "family" family Family;
        "type" kind SocketType;
        "protocol" protocol Protocol;
        "local" local Network;
        "local_ports" local_ports Ports;
        "remote" remote Network;
        "remote_ports" remote_ports Ports;
        "interface" interface Pattern;
        "path" path PathPrefix;
        "option" option OptionClass;
        "netlink" netlink MessageClass;
    }
    "remove the field; for everyone, write `subject = { everyone = true }`" {
        "users" users toml::Spanned<String>;
        "uids" uids u32;
        "groups" groups toml::Spanned<String>;
        "gids" gids u32;
        "units" units Pattern;
        "cgroups" cgroups PathPrefix;
    }
}

#[cfg(test)]
mod tests {
    use crate::language::file::{Directory, FileError, RuleText, read};

    struct Nobody;

    impl Directory for Nobody {
        fn user(&self, _name: &str) -> Option<u32> {
            None
        }

        fn group(&self, _name: &str) -> Option<u32> {
            None
        }
    }

    fn refused(rule: &str) -> FileError {
        read("p", &format!("version = 1\n[[rule]]\nname = \"a\"\n{rule}\n"), &Nobody).unwrap_err()
    }

    #[test]
    fn an_empty_list_is_refused_at_its_place() {
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
            // A filter of `session.restrict` has the same reader, and no places.
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
    fn an_empty_list_of_subjects_is_refused_at_its_place() {
        for field in ["users", "uids", "groups", "gids", "units", "cgroups"] {
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
