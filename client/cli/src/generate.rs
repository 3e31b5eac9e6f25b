//! Completions and manual pages, made from the words of the command line.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::failure::{Exit, Failure};
use crate::screen::Screen;

/// `sockbroker completions SHELL`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sockbroker", &mut script);
    Screen::new().bytes(&script)?;
    Ok(Exit::Done)
}

/// `sockbroker man`.
pub(crate) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let pages = pages()?;
    if let Some(folder) = &args.folder {
        write_all(&pages, folder)?;
        return Ok(Exit::Done);
    }
    let name =
        args.page.as_ref().map_or("sockbroker".to_owned(), |page| format!("sockbroker-{page}"));
    let Some((_, page)) = pages.iter().find(|(found, _)| *found == name) else {
        let names: Vec<_> =
            pages.iter().filter_map(|(name, _)| name.strip_prefix("sockbroker-")).collect();
        return Err(Failure::usage(format!("no page {name}: there are {}", names.join(", "))));
    };
    Screen::new().bytes(page)?;
    Ok(Exit::Done)
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

/// A page of the manual: its name and what is in it.
type Page = (String, Vec<u8>);

/// The page of the program and those of the subcommands that are shown, by name.
fn pages() -> Result<Vec<Page>, Failure> {
    let mut command = Cli::command();
    // Names of subcommands become those of the whole command, as in their pages' titles.
    command.build();
    let mut pages = vec![page(command.clone(), "sockbroker")?];
    for subcommand in command.get_subcommands().filter(|found| !found.is_hide_set()) {
        let name = format!("sockbroker-{}", subcommand.get_name());
        if name != "sockbroker-help" {
            pages.push(page(subcommand.clone(), &name)?);
        }
    }
    Ok(pages)
}

fn page(command: clap::Command, name: &str) -> Result<Page, Failure> {
    let mut text = Vec::new();
    // Not the name that the user typed, which has a blank.
    let command = command.name(name.to_owned()).disable_help_subcommand(true);
    let manual = Man::new(command).manual("sockbroker").date("");
    manual.render(&mut text).map_err(|error| Failure::stream("a manual page", &error))?;
    Ok((name.to_owned(), text))
}
