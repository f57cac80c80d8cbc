//! The command line as a whole: what its words look like, beside what they mean.

use clap::{Arg, Command, error::ErrorKind};

/// What is known of the words beyond what they mean.
pub(super) struct CommandLine {
    /// As the user would write them again.
    pub(super) again: String,
    /// There is no `--`, behind which nothing is an option.
    pub(super) is_plain: bool,
    /// What the command prints goes to a terminal as it is.
    pub(super) is_raw: bool,
    /// The text of a message is `-`.
    pub(super) text_is_input: bool,
}

impl CommandLine {
    /// Refuses an option of ours among the words of a text: it would be sent, and to a server that
    /// was not meant.
    pub(super) fn check_text(&self, words: &[String], command: &Command) -> Result<(), String> {
        let is_ours = |word: &&String| {
            let name = word.strip_prefix("--").map(|name| name.split('=').next().unwrap_or(name));
            let own = command
                .get_arguments()
                .chain(command.find_subcommand("msg").into_iter().flat_map(Command::get_arguments));
            name.is_some_and(|name| own.filter_map(Arg::get_long).any(|it| it == name))
        };
        match words.iter().find(is_ours).filter(|_| self.is_plain) {
            Some(word) => Err(format!(
                "{} is an option of this client and stands within the text; put it before the \
                 text, or `--` before all that is text",
                crate::wire::escape::escape(word)
            )),
            None => Ok(()),
        }
    }
}

/// What clap says in several lines, in one.
pub(super) fn one_line(error: &clap::Error, command: &Command) -> String {
    let text = error.render().to_string();
    let body = text.split("\n\nUsage:").next().unwrap_or(&text);
    let body = body.split("\n\nFor more information").next().unwrap_or(body);
    let words: Vec<_> = body.split_whitespace().collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let verbs: Vec<_> = command.get_subcommands().map(|verb| verb.get_name()).collect();
            let verbs = verbs.join(", ");
            let line = line.replace(" tip: ", "; ");
            format!("{line}; the verbs are {verbs}; a device is `client SERVER PORT UDP_PORT`")
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument => {
            format!("{line}; `client --help` lists what is valid")
        }
        _ => line.to_owned(),
    }
}
