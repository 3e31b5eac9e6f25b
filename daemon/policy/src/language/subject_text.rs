//! The `subject` of a rule, as a policy file writes it.

use serde::Deserialize;
use toml::Spanned;

use crate::language::list;
use crate::language::name::{PathPrefix, Pattern};
use crate::language::position::Remark;
use crate::language::subjects::Subjects;

/// Where names of users and groups are looked up.
pub trait Directory {
    /// The id of a user.
    fn user(&self, name: &str) -> Option<u32>;
    /// The id of a group.
    fn group(&self, name: &str) -> Option<u32>;
}

/// The subject of a rule, as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SubjectText {
    pub everyone: Option<Spanned<bool>>,
    #[serde(deserialize_with = "list::users")]
    pub users: Vec<Spanned<String>>,
    #[serde(deserialize_with = "list::uids")]
    pub uids: Vec<u32>,
    #[serde(deserialize_with = "list::groups")]
    pub groups: Vec<Spanned<String>>,
    #[serde(deserialize_with = "list::gids")]
    pub gids: Vec<u32>,
    #[serde(deserialize_with = "list::units")]
    pub units: Vec<Pattern>,
    #[serde(deserialize_with = "list::cgroups")]
    pub cgroups: Vec<PathPrefix>,
    #[serde(deserialize_with = "list::certificates")]
    pub certificates: Vec<Pattern>,
    #[serde(deserialize_with = "list::tokens")]
    pub tokens: Vec<Pattern>,
}

impl SubjectText {
    /// The subjects, or a mistake in its fields together. Adds names that the directory does not have to
    /// `unknown`.
    pub(crate) fn resolve(
        written: &Spanned<Self>,
        directory: &dyn Directory,
        unknown: &mut Vec<Remark>,
    ) -> Result<Subjects, Remark> {
        let (span, text) = (written.span(), written.get_ref());
        match &text.everyone {
            Some(everyone) if !everyone.get_ref() => {
                let message = "`everyone` can only be true: remove it and name users, groups, units, cgroups, certificates or tokens";
                return Err((everyone.span(), message.to_owned()));
            }
            Some(everyone) if text.has_names() => {
                let message =
                    "`everyone` excludes every other field of `subject`: remove it, or the others";
                return Err((everyone.span(), message.to_owned()));
            }
            Some(_) => return Ok(Subjects::default()),
            None if text.has_remote_names() && text.has_local_names() => {
                let message = "`certificates` and `tokens` are of remote principals, which have no users, groups, units or \
                               cgroups: write two rules";
                return Err((span, message.to_owned()));
            }
            None if !text.has_names() => {
                let message = "`subject` names nobody: for everyone, write `everyone = true`";
                return Err((span, message.to_owned()));
            }
            None => {}
        }
        let before = unknown.len();
        let mut ids = |names: &[Spanned<String>],
                       numbers: &[u32],
                       what,
                       find: &dyn Fn(&str) -> Option<u32>| {
            let mut ids = numbers.to_vec();
            for name in names {
                match find(name.get_ref()) {
                    Some(id) => ids.push(id),
                    None => unknown.push((name.span(), format!("{what} `{}`", name.get_ref()))),
                }
            }
            (!names.is_empty() || !numbers.is_empty()).then_some(ids)
        };
        let uids = ids(&text.users, &text.uids, "user", &|name| directory.user(name));
        let gids = ids(&text.groups, &text.gids, "group", &|name| directory.group(name));
        Ok(Subjects {
            uids,
            gids,
            units: text.units.clone(),
            cgroups: text.cgroups.clone(),
            certificates: text.certificates.clone(),
            tokens: text.tokens.clone(),
            incomplete: unknown.len() > before,
        })
    }

    fn has_names(&self) -> bool {
        self.has_local_names() || self.has_remote_names()
    }

    fn has_remote_names(&self) -> bool {
        !(self.certificates.is_empty() && self.tokens.is_empty())
    }

    fn has_local_names(&self) -> bool {
        !(self.users.is_empty()
            && self.uids.is_empty()
            && self.groups.is_empty()
            && self.gids.is_empty()
            && self.units.is_empty()
            && self.cgroups.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::file_of_rule;

    const ALLOW: &str = "allow = [\"resolve\"]";

    #[test]
    fn everyone_is_a_subject_without_a_warning() {
        let content = file_of_rule(&format!("subject = {{ everyone = true }}\n{ALLOW}")).unwrap();
        assert_eq!(content.warnings, []);
        assert_eq!(content.rules[0].0.subject, Subjects::default());
    }

    #[test]
    fn a_subject_that_names_nobody_or_too_much_is_refused_at_its_position() {
        for (subject, line, column, part) in [
            ("", 2, 1, "it has no `subject`: for everyone, write `subject = { everyone = true }`"),
            ("subject = {}", 4, 11, "for everyone, write `everyone = true`"),
            ("subject = { everyone = false }", 4, 24, "can only be true"),
            ("subject = { everyone = false, uids = [7] }", 4, 24, "can only be true"),
            ("subject = { uids = [7], everyone = true }", 4, 36, "excludes every other field"),
            ("subject = { everyone = true, units = [\"a\"] }", 4, 24, "excludes every other field"),
            ("subject = { everyone = 1 }", 4, 24, "expected a boolean"),
            (
                "subject = { everyone = true, tokens = [\"a\"] }",
                4,
                24,
                "excludes every other field",
            ),
            ("subject = { uids = [7], tokens = [\"a\"] }", 4, 11, "write two rules"),
            ("subject = { certificates = [\"a*b\"] }", 4, 28, "is not a name"),
        ] {
            let error = file_of_rule(&format!("{subject}\n{ALLOW}")).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{error}");
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn a_deny_without_subject_is_about_everyone_and_a_warning() {
        let content = file_of_rule("deny = [\"resolve\"]").unwrap();
        assert_eq!(content.rules[0].0.subject, Subjects::default());
        let [warning] = content.warnings.as_slice() else { panic!("{content:?}") };
        assert_eq!(
            warning.to_string(),
            "p:2:1: rule `a`: it has no `subject`, so it applies to everyone: for everyone, write \
             `subject = { everyone = true }`"
        );
    }

    #[test]
    fn unknown_names_are_warnings_at_their_position() {
        let subject = "subject = { users = [\"alice\", \"bob\"], groups = [\"wheel\"] }";
        let content = file_of_rule(&format!("{subject}\n{ALLOW}")).unwrap();
        let warnings: Vec<_> = content.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "p:4:31: rule `a`: there is no user `bob`: the rule ignores the name",
                "p:4:49: rule `a`: there is no group `wheel`: the rule ignores the name",
            ]
        );
        let subject = &content.rules[0].0.subject;
        assert_eq!((&subject.uids, &subject.gids), (&Some(vec![1000]), &Some(vec![])));
        assert!(subject.incomplete);
    }
}
