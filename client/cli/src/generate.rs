//! Shell completions and manual pages, generated from the command line.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Arg;
use clap::builder::{PossibleValuesParser, Resettable};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::{self, CompletionsArgs, ManArgs};
use crate::extcap;
use crate::failure::{Exit, Failure};
use crate::screen::{Screen, report};
use crate::synopsis;

/// `sockbroker completions SHELL`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut completion_command(), "sockbroker", &mut script);
    if args.shell == Shell::Fish {
        // The generator for fish omits positional arguments.
        let names: Vec<_> = methods().collect();
        let seen = "__fish_seen_subcommand_from call discover";
        let names = names.join(" ");
        script.extend(format!("complete -c sockbroker -n \"{seen}\" -f -a \"{names}\"\n").bytes());
    }
    Screen::new().bytes(&script)?;
    Ok(Exit::Done)
}

/// Returns the command line to complete: without hidden subcommands, and with the method names.
fn completion_command() -> clap::Command {
    let whole = args::command();
    let shown = whole.get_subcommands().filter(|found| !found.is_hide_set()).cloned();
    let added = ["help", "version"];
    let arguments = whole.get_arguments().filter(|found| !added.contains(&found.get_id().as_str()));
    let command = clap::Command::new("sockbroker").version(env!("CARGO_PKG_VERSION"));
    let command = command.args(arguments.cloned());
    let method = |argument: Arg| argument.value_parser(PossibleValuesParser::new(methods()));
    let named = |command: clap::Command| command.mut_arg("method", method);
    // `mut_arg` moves an argument to the end: parameters follow the method again.
    let called = |command: clap::Command| named(command).mut_arg("parameters", |argument| argument);
    command.subcommands(shown).mut_subcommand("call", called).mut_subcommand("discover", named)
}

/// The names of the contract's methods.
fn methods() -> impl Iterator<Item = &'static str> {
    sockbroker_proto::api::parameters().map(|(name, _)| name)
}

/// `sockbroker man`.
pub(crate) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let pages = pages()?;
    if let Some(folder) = &args.folder {
        write_all(&pages, folder)?;
        return Ok(Exit::Done);
    }
    let words = args.page.join("-");
    let name = match words.strip_prefix("sockbroker").unwrap_or(&words).trim_start_matches('-') {
        "" => "sockbroker".to_owned(),
        page => format!("sockbroker-{page}"),
    };
    let Some((_, page)) = pages.iter().find(|(found, _)| *found == name) else {
        let names: Vec<_> =
            pages.iter().filter_map(|(name, _)| name.strip_prefix("sockbroker-")).collect();
        return Err(Failure::usage(format!(
            "cannot print the manual page {name}: there is no such subcommand; choose one of {}",
            names.join(", ")
        )));
    };
    show(page)?;
    Ok(Exit::Done)
}

/// Shows a page with man(1) on a terminal; prints its source if there is none, or no man(1).
fn show(page: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        let pager = Command::new("man").args(["-l", "-"]).stdin(Stdio::piped()).spawn();
        match pager {
            Ok(mut pager) => {
                // The user can end it before it has read everything.
                drop(pager.stdin.take().map(|mut input| input.write_all(page)));
                let ended = pager.wait();
                return ended.map(drop).map_err(|error| Failure::system("cannot run man", &error));
            }
            Err(_missing) => report("man(1) cannot be run: this is the source of the page"),
        }
    }
    Screen::new().bytes(page)
}

fn write_all(pages: &[Page], folder: &Path) -> Result<(), Failure> {
    let fail = |path: &Path, error| Failure::stream(&path.display().to_string(), &error);
    fs::create_dir_all(folder).map_err(|error| fail(folder, error))?;
    for (name, page) in pages {
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, page).map_err(|error| fail(&path, error))?;
    }
    Ok(())
}

/// The pages that are not generated, with their sections.
const OTHER_PAGES: [(&str, u8); 3] =
    [("sockbroker-policy", 5), ("sockbrokerd.toml", 5), ("sockbrokerd", 8)];

/// A manual page: its name and its content.
type Page = (String, Vec<u8>);

/// Returns the page of the program and the pages of the visible subcommands.
fn pages() -> Result<Vec<Page>, Failure> {
    let mut command = args::command().disable_help_subcommand(true);
    // Gives subcommands their full names, for the titles of their pages.
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, "sockbroker", &mut pages)?;
    add_pages(&extcap::command(), extcap::NAME, &mut pages)?;
    let mut names: Vec<_> = pages.iter().map(|(name, _)| name.clone()).collect();
    names.sort_unstable();
    for (name, text) in &mut pages {
        text.extend(see_also(name, &names).into_bytes());
    }
    Ok(pages)
}

/// The section SEE ALSO, which lists the other pages.
fn see_also(name: &str, names: &[String]) -> String {
    let own = names.iter().filter(|other| *other != name);
    let own = own.map(|other| format!("\\fB{}\\fR(1)", other.replace('-', "\\-")));
    let others = OTHER_PAGES
        .iter()
        .map(|(other, section)| format!("\\fB{}\\fR({section})", other.replace('-', "\\-")));
    let all: Vec<_> = own.chain(others).collect();
    format!(".SH SEE ALSO\n{}\n", all.join(",\n"))
}

/// Adds the page of a command and, recursively, the pages of its subcommands.
fn add_pages(command: &clap::Command, name: &str, pages: &mut Vec<Page>) -> Result<(), Failure> {
    pages.push(page(command.clone(), name)?);
    let shown = |found: &&clap::Command| !found.is_hide_set() && found.get_name() != "help";
    command.get_subcommands().filter(shown).try_for_each(|subcommand| {
        add_pages(subcommand, &format!("{name}-{}", subcommand.get_name()), pages)
    })
}

fn page(command: clap::Command, name: &str) -> Result<Page, Failure> {
    let mut text = Vec::new();
    let more = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    // The name of the page, in place of the command with a blank.
    let command = command.name(name.to_owned()).after_long_help(Resettable::Reset);
    let synopsis = synopsis::section(&command);
    let manual = Man::new(command).manual("sockbroker").date("");
    manual
        .render(&mut text)
        .map_err(|error| Failure::stream("cannot write a manual page", &error))?;
    let mut text = with_synopsis(&String::from_utf8_lossy(&text), &synopsis).into_bytes();
    text.extend(sections(&more).into_bytes());
    Ok((name.to_owned(), text))
}

/// Replaces the section SYNOPSIS of a page, which omits the values of options.
fn with_synopsis(page: &str, synopsis: &str) -> String {
    let Some((before, rest)) = page.split_once(".SH SYNOPSIS\n") else { return page.to_owned() };
    let after = rest.find("\n.SH ").and_then(|end| rest.get(end + 1..)).unwrap_or_default();
    format!("{before}{synopsis}{after}")
}

/// Formats the text after the options of `--help` as sections of the page. A line without indentation
/// that ends in a colon is a heading; other lines keep their line breaks.
fn sections(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(heading) = line.strip_suffix(':').filter(|heading| !heading.starts_with(' ')) {
            if !lines.is_empty() {
                lines.push(".fi".to_owned());
            }
            lines.push(format!(".SH {}\n.nf", heading.to_uppercase()));
        } else {
            // `\&` prevents a leading dot or quote from being a roff request.
            let line = line.trim_start().replace('\\', "\\e").replace('-', "\\-");
            lines.push(format!("\\&{line}"));
        }
    }
    if lines.is_empty() { String::new() } else { lines.join("\n") + "\n.fi\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_after_the_options_becomes_sections() {
        let text = "Exit codes:\n  0  done\n\nExamples:\n  a --b \\\n  .c";
        let expected = ".SH EXIT CODES\n.nf\n\\&0  done\n.fi\n\
            .SH EXAMPLES\n.nf\n\\&a \\-\\-b \\e\n\\&.c\n.fi\n";
        assert_eq!(sections(text), expected);
        assert_eq!(sections(""), "");
    }
}
