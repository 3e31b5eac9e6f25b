//! The field `Authorization` of HTTP requests of remote principals. The gateway has checked the one of the first request.

use std::sync::OnceLock;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};

/// The field of the first request of a connection.
#[derive(Debug, Default)]
pub(super) struct FirstAuthorization(OnceLock<Option<HeaderValue>>);

impl FirstAuthorization {
    /// Whether the client of a request is that of the first one: its field is the same, or absent.
    pub(super) fn is_same(&self, fields: &HeaderMap) -> bool {
        let mut present = fields.get_all(AUTHORIZATION).iter();
        let first = self.0.get_or_init(|| fields.get(AUTHORIZATION).cloned());
        present.all(|field| first.as_ref() == Some(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(tokens: &[&str]) -> HeaderMap {
        let token = |token: &&str| (AUTHORIZATION, HeaderValue::from_str(token).unwrap());
        tokens.iter().map(token).collect()
    }

    #[test]
    fn later_requests_have_the_field_of_the_first_or_none() {
        let first = FirstAuthorization::default();
        assert!(first.is_same(&fields(&["Bearer a"])));
        assert!(first.is_same(&fields(&["Bearer a"])) && first.is_same(&fields(&[])));
        assert!(!first.is_same(&fields(&["Bearer b"])));
        let mut both = fields(&["Bearer a"]);
        both.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert!(!first.is_same(&both));
        let none = FirstAuthorization::default();
        assert!(none.is_same(&fields(&[])) && !none.is_same(&fields(&["Bearer a"])));
    }
}
