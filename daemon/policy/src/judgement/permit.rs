//! Permits. Only [`Rights::authorize`] creates them, and every operation requires one.

use crate::judgement::action::Request;
use crate::judgement::denial::Denial;
use crate::judgement::rights::Rights;
use crate::judgement::rule_name::RuleName;

/// Proof that a request was allowed, with the request itself.
#[derive(Debug)]
#[must_use = "a permit is there to be spent on its operation"]
pub struct Permit<R> {
    request: R,
    rule: RuleName,
}

impl<R> Permit<R> {
    /// What was allowed.
    pub fn request(&self) -> &R {
        &self.request
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

impl Rights {
    /// Judges a request and everything that it includes.
    pub fn authorize<R: Request>(&self, request: R) -> Result<Permit<R>, Box<Denial>> {
        let rule = self.judge(&request.question())?;
        let mut refused = None;
        request.further(&mut |question| {
            if refused.is_none() {
                refused = self.judge(&question).err();
            }
        });
        match refused {
            Some(denial) => Err(denial),
            None => Ok(Permit { request, rule }),
        }
    }
}
