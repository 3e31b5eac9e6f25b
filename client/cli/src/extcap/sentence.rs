//! The sentences that Wireshark reads: `interface {value=eth0}{display=Ethernet}`.

use std::fmt;

/// A sentence. Displayed as one line.
#[derive(Debug)]
pub(super) struct Sentence(String);

impl Sentence {
    /// A sentence that begins with a word.
    pub(super) fn new(word: &str) -> Self {
        Self(format!("{word} "))
    }

    /// Adds a property. What would end it is replaced: nothing can escape it.
    pub(super) fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        let is_harmful = |one: char| one.is_control() || "{}".contains(one);
        let value = value.to_string().replace(is_harmful, "_");
        self.0 = format!("{}{{{name}={value}}}", self.0);
        self
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_end_their_property_or_the_line() {
        let sentence = Sentence::new("value").with("arg", 1).with("display", "a}{b=c}\nd");
        assert_eq!(sentence.to_string(), "value {arg=1}{display=a__b=c__d}");
    }
}
