//! What a shell and man(1) want to know of a program, from the same definitions as its `--help`.

use clap::{Command, Subcommand};
use clap_complete::Shell;

/// The verbs that ask for it.
#[derive(Clone, Debug, Subcommand)]
pub enum Manual {
    /// Print what a shell needs to complete words, as in `source <(client completions bash)`.
    Completions {
        /// Which shell.
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print the manual page of the program, or of one of its verbs, as in
    /// `client man send | man -l -`.
    Man {
        /// The verb.
        #[arg(value_name = "VERB")]
        verb: Option<String>,
    },
}

impl Manual {
    /// The text for standard output.
    ///
    /// # Errors
    /// A sentence: there is no such verb.
    pub fn print(&self, mut command: Command) -> Result<String, String> {
        let name = command.get_name().to_owned();
        let mut out = Vec::new();
        match self {
            Manual::Completions { shell } => {
                clap_complete::generate(*shell, &mut command, name, &mut out);
            }
            Manual::Man { verb } => {
                // Options that all verbs have are in their pages too.
                command.build();
                let page = match verb {
                    None => command,
                    Some(verb) => {
                        let found = command.find_subcommand(verb).cloned();
                        let found = found.ok_or_else(|| {
                            format!("there is no verb `{verb}`; `{name} --help` lists them")
                        })?;
                        found.name(format!("{name}-{verb}"))
                    }
                };
                let rendered = clap_mangen::Man::new(page).render(&mut out);
                rendered.map_err(|error| format!("the page cannot be made: {error}"))?;
            }
        }
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn program() -> Command {
        let verb = Command::new("send").about("Sends.").arg(clap::Arg::new("FILE"));
        Command::new("client").about("Talks.").subcommand(verb).arg(clap::arg!(--port <PORT>))
    }

    #[test]
    fn every_shell_gets_completions_that_know_verbs_and_options() {
        for shell in Shell::value_variants() {
            let text = Manual::Completions { shell: *shell }.print(program()).expect("a text");
            assert!(text.contains("send") && text.contains("port"), "{shell}: {text}");
        }
    }

    #[test]
    fn the_program_and_each_verb_have_a_page() {
        let page =
            |verb: Option<&str>| Manual::Man { verb: verb.map(str::to_owned) }.print(program());
        assert!(page(None).expect("a page").contains(".TH client 1"));
        let of_verb = page(Some("send")).expect("a page");
        assert!(of_verb.contains("client-send") && of_verb.contains("FILE"), "{of_verb}");
        assert!(page(Some("sned")).expect_err("no verb").contains("no verb `sned`"));
    }
}
