//! Permits. Only [`Rights::authorize`] creates them, and every operation requires one.

use crate::judgement::action::{OpenCapture, Request, ScopedCapture};
use crate::judgement::denial::Denial;
use crate::judgement::namespace::Namespace;
use crate::judgement::question::Question;
use crate::judgement::rights::Rights;
use crate::judgement::rule_name::{NO_RULE, RuleName};

/// Proof that a request was allowed, with the request itself.
#[derive(Debug)]
#[must_use = "a permit is there to be spent on its operation"]
pub struct Permit<R> {
    request: R,
    namespace: Namespace,
    rule: RuleName,
}

impl<R> Permit<R> {
    /// What was allowed.
    pub fn request(&self) -> &R {
        &self.request
    }

    /// The network namespace of the socket for which it was allowed.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Consumes the permit and returns its request.
    pub fn into_request(self) -> R {
        self.request
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &RuleName {
        &self.rule
    }
}

impl<R: Request> Permit<R> {
    /// The question that the rule allowed.
    pub fn question(&self) -> Question<'_> {
        Question { namespace: &self.namespace, ..self.request.question() }
    }
}

impl Rights {
    /// Judges a request and everything that it includes, in the network namespace of its question: the broker's own,
    /// unless the request names another.
    pub fn authorize<R: Request>(&self, request: R) -> Result<Permit<R>, Box<Denial>> {
        let namespace = request.question().namespace.clone();
        self.authorize_in(&namespace, request)
    }

    /// The same for a socket of a network namespace.
    pub(super) fn authorize_in<R: Request>(
        &self,
        namespace: &Namespace,
        request: R,
    ) -> Result<Permit<R>, Box<Denial>> {
        let rule = self.judge(&Question { namespace, ..request.question() })?;
        let mut refused = None;
        request.further(&mut |question| {
            if refused.is_none() {
                refused = self.judge(&Question { namespace, ..question }).err();
            }
        });
        match refused {
            Some(denial) => Err(denial),
            None => Ok(Permit { request, namespace: namespace.clone(), rule }),
        }
    }

    /// Judges a capture on a socket of a network namespace.
    pub(super) fn authorize_capture_in(
        &self,
        namespace: &Namespace,
        capture: OpenCapture,
    ) -> Result<Permit<ScopedCapture>, Box<Denial>> {
        let mut scopes = Vec::new();
        let mut granting = None;
        for question in capture.captures() {
            let (rule, scope) = self.judge_capture(&Question { namespace, ..question })?;
            granting.get_or_insert(rule);
            scopes.push(scope);
        }
        for question in capture.options() {
            self.judge(&Question { namespace, ..question })?;
        }
        let rule = granting.unwrap_or(RuleName::BuiltIn(NO_RULE));
        let request = ScopedCapture { capture, scopes };
        Ok(Permit { request, namespace: namespace.clone(), rule })
    }
}
