//! `ringlog completions` and `ringlog man`: what shells and manuals want, made from the arguments
//! themselves.

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::output::{self, Exit, Failure};

/// Write the completions for a shell to stdout.
///
/// For bash: `ringlog completions bash > ~/.local/share/bash-completion/completions/ringlog`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Write the manual page of the tool, or of one of its commands, to stdout, as roff.
///
/// To read it: `ringlog man tail | man -l -`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The command, such as `read` or `index rebuild` [default: the tool].
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs `completions` for the tool's command line.
pub(crate) fn completions(args: &CompletionsArgs, mut tool: Command) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    let name = tool.get_name().to_owned();
    clap_complete::generate(args.shell, &mut tool, name, &mut text);
    output::print_bytes(&text)?;
    Ok(Exit::Done)
}

/// Runs `man` for the tool's command line.
pub(crate) fn man(args: &ManArgs, mut tool: Command) -> Result<Exit, Failure> {
    // A page for `help` would say nothing that the others do not say.
    tool = tool.disable_help_subcommand(true);
    // Names of commands in full, and the global arguments in each of them.
    tool.build();
    let mut command = &tool;
    for name in &args.command {
        let Some(inner) = command.find_subcommand(name) else {
            return Err(Failure::CouldNotRun(format!("{name:?} is no command")));
        };
        command = inner;
    }
    let source = format!("{} {}", tool.get_name(), tool.get_version().unwrap_or_default());
    let page = Man::new(command.clone()).source(source);
    let mut text = Vec::new();
    page.render(&mut text).map_err(|error| Failure::Failed(format!("the page: {error}")))?;
    output::print_bytes(&text)?;
    Ok(Exit::Done)
}
