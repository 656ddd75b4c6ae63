//! `resurgam completion`: for shells by clap's scripts, for `kubectl resurgam` by kubectl's own way.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, PLUGIN};

const AFTER_HELP: &str = "\
For this shell, and for all that come after:
  source <(resurgam completion bash)
  resurgam completion bash > ~/.local/share/bash-completion/completions/resurgam
  resurgam completion fish > ~/.config/fish/completions/resurgam.fish

As a plugin of kubectl, into a folder that is in PATH:
  resurgam completion --install ~/.local/bin
writes kubectl-resurgam, a link to this binary that `kubectl resurgam …` runs, and
kubectl_complete-resurgam, which completes it.";

/// What kubectl's completion runs. It is given the words after `kubectl resurgam`.
const SCRIPT: &str = "\
#!/bin/sh
# Completes `kubectl resurgam`: kubectl runs this with the words that follow.
exec kubectl-resurgam completion --words -- \"$@\"
";
const SCRIPT_NAME: &str = "kubectl_complete-resurgam";

/// Arguments of `resurgam completion`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// Of which shell.
    #[arg(required_unless_present_any = ["install", "words"])]
    shell: Option<Shell>,

    /// Write what makes this binary a plugin of kubectl into a folder.
    #[arg(long, value_name = "DIR", conflicts_with = "shell")]
    install: Option<PathBuf>,

    /// What may follow these words, the last of which is being typed: for kubectl.
    #[arg(long, hide = true, conflicts_with_all = ["shell", "install"])]
    words: bool,

    /// The words.
    #[arg(hide = true, last = true, requires = "words", allow_hyphen_values = true)]
    typed: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if args.words {
        anstream::print!("{}", candidates(&args.typed));
    } else if let Some(folder) = &args.install {
        install(folder)?;
    } else if let Some(shell) = args.shell {
        clap_complete::generate(shell, &mut Cli::command(), "resurgam", &mut anstream::stdout());
    }
    Ok(ExitCode::SUCCESS)
}

fn install(folder: &Path) -> Result<()> {
    let binary = std::env::current_exe().context("where this binary is, is not known")?;
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let plugin = folder.join(PLUGIN);
    link(&binary, &plugin).with_context(|| format!("write {}", plugin.display()))?;
    let script = folder.join(SCRIPT_NAME);
    executable(&script).with_context(|| format!("write {}", script.display()))?;
    anstream::println!("{}\n{}", plugin.display(), script.display());
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|entry| entry == folder) {
        anstream::eprintln!("{} is not in PATH: kubectl finds no plugin there until it is", folder.display());
    }
    Ok(())
}

/// Creates a symbolic link, replacing an existing one.
#[cfg(unix)]
fn link(binary: &Path, plugin: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(plugin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(binary, plugin)
}

#[cfg(not(unix))]
fn link(binary: &Path, plugin: &Path) -> std::io::Result<()> {
    std::fs::copy(binary, plugin.with_extension("exe")).map(drop)
}

fn executable(script: &Path) -> std::io::Result<()> {
    std::fs::write(script, SCRIPT)?;
    #[cfg(unix)]
    std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// What may follow, a line each, as kubectl reads it: a word, a tab, what it means; and, at last, what else the shell may offer:
/// nothing (4), or files (0).
fn candidates(typed: &[String]) -> String {
    let mut root = Cli::command();
    root.build();
    let (typing, before) = match typed.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", typed),
    };
    let mut at: &Command = &root;
    let mut last_option = None;
    for word in before {
        last_option = word.strip_prefix("--");
        if let Some(inner) = at.find_subcommand(word) {
            at = inner;
        }
    }
    let takes_value = |name: &str| {
        let option = at.get_arguments().find(|argument| argument.get_long() == Some(name))?;
        option.get_action().takes_values().then_some(option)
    };
    let (mut found, mut files) = (Vec::new(), false);
    if let Some(option) = last_option.and_then(takes_value) {
        found.extend(values(option));
        files = found.is_empty();
    } else if typing.starts_with('-') {
        let options = at.get_arguments().filter(|argument| !argument.is_hide_set());
        found.extend(
            options
                .filter_map(|option| Some((format!("--{}", option.get_long()?), about(option.get_help())))),
        );
    } else {
        let commands = at.get_subcommands().filter(|command| !command.is_hide_set());
        found.extend(commands.map(|command| (command.get_name().to_owned(), about(command.get_about()))));
        found.extend(at.get_positionals().flat_map(values));
        files = found.is_empty();
    }
    found.retain(|(word, _)| word.starts_with(typing));
    let mut lines: Vec<String> = found.into_iter().map(|(word, help)| format!("{word}\t{help}")).collect();
    lines.push(format!(":{}", if files { 0 } else { 4 }));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn values(argument: &clap::Arg) -> Vec<(String, String)> {
    let values = argument.get_possible_values();
    let shown = values.iter().filter(|value| !value.is_hide_set());
    shown.map(|value| (value.get_name().to_owned(), about(value.get_help()))).collect()
}

/// Its first line.
fn about(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(|help| help.to_string().lines().next().unwrap_or_default().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(typed: &[&str]) -> Vec<String> {
        let typed: Vec<String> = typed.iter().map(|word| (*word).to_owned()).collect();
        let told = candidates(&typed);
        told.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn kubectl_gets_completion_candidates() {
        assert_eq!(words(&["che"]), ["check", ":4"]);
        assert!(words(&[""]).iter().all(|word| word != "probe"), "what is hidden is not offered");
        assert_eq!(words(&["check", "--o"]), ["--output", ":4"]);
        assert_eq!(words(&["check", "--output", ""]), ["text", "json", ":4"]);
        assert_eq!(words(&["completion", "z"]), ["zsh", ":4"]);
        assert_eq!(words(&["simulate", ""]), [":0"], "a file");
    }
}
