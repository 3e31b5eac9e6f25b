//! The section SYNOPSIS of the manual pages: each option with its values.

use clap::{Arg, ArgAction, Command};

/// Formats the section, with its heading. The command has its full name after [`Command::build`].
pub(crate) fn section(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut parts = vec![bold(name)];
    let options = || command.get_opts_and_flags();
    parts.extend(options().filter(|option| !option.is_required_set()).map(option));
    parts.extend(options().filter(|option| option.is_required_set()).map(option));
    let shown = |argument: &&Arg| !argument.is_hide_set();
    parts.extend(command.get_positionals().filter(shown).map(positional));
    if command.has_subcommands() {
        parts.push(italic("SUBCOMMAND"));
    }
    parts.retain(|part| !part.is_empty());
    // Each part is one word: lines break between them.
    format!(".SH SYNOPSIS\n{}\n", parts.join("\n"))
}

/// The options and flags that the help lists.
trait Listed {
    fn get_opts_and_flags(&self) -> impl Iterator<Item = &Arg>;
}

impl Listed for Command {
    fn get_opts_and_flags(&self) -> impl Iterator<Item = &Arg> {
        self.get_arguments().filter(|argument| !argument.is_positional() && !argument.is_hide_set())
    }
}

fn option(option: &Arg) -> String {
    let short = option.get_short().map(|letter| bold(&format!("-{letter}")));
    let long = option.get_long().map(|word| bold(&format!("--{word}")));
    let names = short.into_iter().chain(long).collect::<Vec<_>>().join("|");
    let repeated = matches!(option.get_action(), ArgAction::Append | ArgAction::Count);
    let values = values(option).map(|values| italic(&values)).unwrap_or_default();
    let values = match option.get_num_args() {
        Some(range) if range.takes_values() && range.min_values() == 0 => format!("[={values}]"),
        Some(range) if range.takes_values() => format!("\\~{values}"),
        _ => String::new(),
    };
    bracketed(&format!("{names}{values}"), option.is_required_set(), repeated)
}

fn positional(argument: &Arg) -> String {
    let several = argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    let words = values(argument).unwrap_or_else(|| argument.get_id().to_string());
    bracketed(&italic(&words), argument.is_required_set(), several)
}

/// The names of the values of an argument.
fn values(argument: &Arg) -> Option<String> {
    let names = argument.get_value_names()?;
    Some(names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

fn bracketed(text: &str, is_required: bool, is_repeated: bool) -> String {
    let dots = if is_repeated { "..." } else { "" };
    if is_required { format!("{text}{dots}") } else { format!("[{text}]{dots}") }
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escaped(text))
}

/// A blank of a part is not a place to break the line.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace(' ', "\\~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_their_values() {
        let command = Command::new("x")
            .disable_help_flag(true)
            .arg(Arg::new("count").short('c').long("count").value_name("COUNT").num_args(1))
            .arg(Arg::new("watch").long("watch").value_name("SECONDS").num_args(0..=1))
            .arg(Arg::new("v").short('v').action(ArgAction::Count))
            .arg(Arg::new("hidden").long("hidden").hide(true))
            .arg(Arg::new("file").short('i').value_name("FILE").num_args(1).required(true))
            .arg(Arg::new("words").value_name("WORD").num_args(0..));
        let expected = ".SH SYNOPSIS\n\\fBx\\~y\\fR\n[\\fB\\-c\\fR|\\fB\\-\\-count\\fR\\~\\fICOUNT\\fR]\n\
            [\\fB\\-\\-watch\\fR[=\\fISECONDS\\fR]]\n[\\fB\\-v\\fR]...\n\
            \\fB\\-i\\fR\\~\\fIFILE\\fR\n[\\fIWORD\\fR]...\n";
        assert_eq!(section(&command.bin_name("x y")), expected);
    }
}
