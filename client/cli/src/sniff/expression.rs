//! The filter expression of the command line.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::failure::{Exit, Failure};

/// The most bytes of a file with an expression: more than any compiler accepts.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Joins the words of the command line, or reads the file; `None` if there is no expression.
pub(super) fn of(words: &[String], file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = file else {
        return Ok((!words.is_empty()).then(|| words.join(" ")));
    };
    if let Some(word) = words.first() {
        return Err(Failure::usage(format!(
            "the filter expression is in the file of -F: leave out `{word}`"
        )));
    }
    let text = if path == Path::new("-") {
        read("standard input", io::stdin().lock())?
    } else {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::stream(&name, &error))?;
        read(&name, file)?
    };
    let text = without_comments(&text);
    Ok((!text.is_empty()).then_some(text))
}

fn read(name: &str, source: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    source
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::stream(name, &error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let text =
            format!("{name}: a file with a filter expression has at most {FILE_BYTES_MAX} bytes");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(text)
}

/// The lines of the file, joined, without their comments.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_line_breaks_are_not_part_of_the_expression() {
        assert_eq!(without_comments("udp # all\n\n# of DHCP\n  and port 67\n"), "udp and port 67");
        assert_eq!(without_comments("# none\n"), "");
    }

    #[test]
    fn file_that_is_too_long_is_refused() {
        let bytes = "x".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        assert!(read("file", &bytes.as_bytes()[1..]).is_ok());
        let refused = read("file", bytes.as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("at most 1048576 bytes"), "{refused}");
    }
}
