//! The summary of a method: the first sentence of its documentation.

/// The first sentence of the first paragraph on one line, without its full stop.
///
/// A sentence ends with a full stop and a blank outside of backticks; the full stop within an
/// abbreviation ("e.g.") does not end it.
pub(super) fn first_sentence(documentation: &str) -> String {
    let paragraph = documentation.trim().split("\n\n").next().unwrap_or_default();
    let mut sentence = String::new();
    let mut code = false;
    for word in paragraph.split_whitespace() {
        if !sentence.is_empty() {
            sentence.push(' ');
        }
        sentence.push_str(word);
        code ^= word.matches('`').count() % 2 == 1;
        let abbreviation = word.trim_end_matches('.').contains('.') && !word.contains('`');
        if word.ends_with('.') && !code && !abbreviation {
            break;
        }
    }
    sentence.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_the_first_sentence() {
        let cases = [
            ("One.", "One"),
            ("One. Two.", "One"),
            ("One\nline. Two.", "One line"),
            ("`a. b` is code. Two.", "`a. b` is code"),
            (
                "`socket.recv(bufsize[, flags])`: reads, e.g. twice. Two.",
                "`socket.recv(bufsize[, flags])`: reads, e.g. twice",
            ),
            ("Calls `socket.recv`. Two.", "Calls `socket.recv`"),
            ("No stop\n\nTwo.", "No stop"),
            ("", ""),
        ];
        for (documentation, summary) in cases {
            assert_eq!(first_sentence(documentation), summary);
        }
    }
}
