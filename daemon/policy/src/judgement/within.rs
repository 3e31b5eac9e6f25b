//! The rights of one subject on the sockets of one network namespace.

use crate::judgement::action::{OpenCapture, Request, ScopedCapture};
use crate::judgement::denial::Denial;
use crate::judgement::namespace::Namespace;
use crate::judgement::permit::Permit;
use crate::judgement::question::Question;
use crate::judgement::rights::Rights;

/// What one subject is allowed to do on sockets of one network namespace.
#[derive(Debug, Clone, Copy)]
pub struct RightsIn<'a> {
    rights: &'a Rights,
    namespace: &'a Namespace,
}

impl Rights {
    /// What is allowed on sockets of a network namespace.
    pub fn within<'a>(&'a self, namespace: &'a Namespace) -> RightsIn<'a> {
        RightsIn { rights: self, namespace }
    }
}

impl RightsIn<'_> {
    /// Judges a request about a socket of this namespace, and everything that it includes.
    pub fn authorize<R: Request>(&self, request: R) -> Result<Permit<R>, Box<Denial>> {
        self.rights.authorize_in(self.namespace, request)
    }

    /// Judges a capture in this namespace, and finds the packets that it is allowed to see.
    pub fn authorize_capture(
        &self,
        capture: OpenCapture,
    ) -> Result<Permit<ScopedCapture>, Box<Denial>> {
        self.rights.authorize_capture_in(self.namespace, capture)
    }

    /// Whether a question about a socket of this namespace is granted.
    pub fn grants(&self, question: &Question<'_>) -> bool {
        self.rights.decide(&Question { namespace: self.namespace, ..question.clone() }).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{OWNER, TCP, rules};
    use crate::judgement::action::{Create, Handover, Inspect};
    use crate::judgement::namespace::{Other, owns};
    use crate::judgement::policy::Policy;
    use crate::judgement::subject::Subject;
    use crate::language::netns::Netns;

    fn rights(uid: u32, text: &str) -> Rights {
        Policy::new(OWNER, rules(text), false).select(&Subject::new(uid, uid), Vec::new())
    }

    fn rule(name: &str, fields: &str) -> String {
        format!("[[rule]]\nname = \"{name}\"\nsubject = {{ everyone = true }}\n{fields}\n")
    }

    /// The places of requests: the broker's, the caller's, two named ones, a named one that is the caller's, one that is unknown,
    /// and one that the caller owns.
    fn places() -> [Namespace; 7] {
        let named = |name: &str, is_callers| {
            Namespace::Other(Other { is_callers, is_owned: false, name: Some(name.into()) })
        };
        [
            Namespace::Broker,
            Namespace::from(&Netns::Caller),
            named("lab1", false),
            named("lab2", false),
            named("lab1", true),
            Namespace::unknown(),
            Namespace::from(&Netns::Owned),
        ]
    }

    /// In which of the places a user can create a TCP socket.
    fn granted(uid: u32, text: &str) -> [bool; 7] {
        let rights = rights(uid, text);
        places()
            .map(|namespace| rights.within(&namespace).authorize(Create { socket: TCP }).is_ok())
    }

    #[test]
    fn a_rule_grants_in_the_namespaces_that_it_names_and_in_no_other() {
        let allow = |netns: &str| rule("a", &format!("allow = [\"create\"]\n{netns}"));
        for (netns, places) in [
            ("", [true, false, false, false, false, false, false]),
            ("netns = [\"caller\"]", [false, true, false, false, true, false, false]),
            ("netns = [\"lab1\"]", [false, false, true, false, true, false, false]),
            ("netns = [\"owned\"]", [false, false, false, false, false, false, true]),
            ("netns = [\"lab2\", \"caller\"]", [false, true, false, true, true, false, false]),
            // A passed socket of an unknown namespace is granted by no rule.
            ("netns = [\"any\"]", [false, true, true, true, true, false, true]),
        ] {
            assert_eq!(granted(7, &allow(netns)), places, "{netns}");
        }
    }

    #[test]
    fn a_rule_denies_in_the_namespaces_that_it_names_and_in_unknown_ones() {
        let all = "allow = [\"create\"]\nnetns = [\"caller\", \"lab1\", \"lab2\", \"owned\"]";
        let deny =
            |netns: &str| rule("a", all) + &rule("d", &format!("deny = [\"create\"]\n{netns}"));
        for (netns, places) in [
            ("", [false, true, true, true, true, false, true]),
            ("netns = [\"caller\"]", [true, false, true, true, false, false, true]),
            ("netns = [\"lab1\"]", [true, true, false, true, false, false, true]),
            ("netns = [\"owned\"]", [true, true, true, true, true, false, false]),
            ("netns = [\"any\"]", [true, false, false, false, false, false, false]),
        ] {
            assert_eq!(granted(0, &deny(netns)), places, "{netns}");
        }
    }

    #[test]
    fn the_built_in_rule_reaches_no_other_namespace() {
        let places = [true, false, false, false, false, true, false];
        assert_eq!(granted(0, ""), places);
        assert_eq!(granted(OWNER, ""), places);
    }

    #[test]
    fn a_user_without_an_id_owns_nothing() {
        assert!(owns(7, Some(7)) && owns(0, Some(0)));
        assert!(!owns(7, Some(8)) && !owns(7, None) && !owns(65534, Some(65534)));
    }

    #[test]
    fn a_refusal_names_the_namespace_and_the_grant() {
        let rights = rights(7, &rule("a", "allow = [\"create\"]"));
        for (namespace, grant, what) in [
            (Netns::Caller, "[\"caller\"]", "in the network namespace of the caller"),
            (Netns::Owned, "[\"owned\"]", "in a network namespace that the caller owns"),
            (Netns::Named("lab1".into()), "[\"lab1\"]", "in the network namespace \"lab1\""),
        ] {
            let namespace = Namespace::from(&namespace);
            let denial = rights.within(&namespace).authorize(Create { socket: TCP }).unwrap_err();
            assert!(denial.what.ends_with(what), "{denial}");
            assert!(denial.grant.contains(&format!("netns = {grant}")), "{denial}");
        }
    }

    #[test]
    fn a_permit_keeps_the_namespace_for_which_it_was_given() {
        let rights = rights(7, &rule("a", "allow = [\"create\"]\nnetns = [\"lab1\"]"));
        let namespace = Namespace::from(&Netns::Named("lab1".into()));
        let permit = rights.within(&namespace).authorize(Create { socket: TCP }).unwrap();
        assert_eq!(permit.namespace(), &namespace);
        assert_eq!(permit.question().namespace, &namespace);
        // Everybody who has been granted something can inspect.
        assert!(rights.within(&namespace).authorize(Inspect { socket: TCP }).is_ok());
    }

    #[test]
    fn words_of_an_action_name_the_namespace() {
        let rights = rights(7, &rule("a", "allow = [\"create\"]\nnetns = [\"lab1\"]"));
        let judge = |words: &str| {
            let described: crate::judgement::words::Described = words.parse().unwrap();
            rights.authorize(described).is_ok()
        };
        assert!(judge("create netns=lab1") && !judge("create") && !judge("create netns=lab2"));
    }

    #[test]
    fn descriptors_escape_only_what_is_denied_in_their_namespace() {
        let rights =
            rights(7, &rule("d", "deny = [\"connect\"]\nremote = [\"any\"]\nnetns = [\"lab1\"]"));
        let escapes = places().map(|namespace| rights.escaped_by(TCP, &namespace).is_some());
        assert_eq!(escapes, [false, false, true, false, true, true, false]);
        let rights = self::rights(7, &rule("h", "allow = [\"handover\"]"));
        let namespace = Namespace::from(&Netns::Caller);
        let handover = Handover { socket: TCP, escapes: None };
        assert!(rights.within(&namespace).authorize(handover).is_err());
    }
}
