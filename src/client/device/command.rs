//! What is typed at the device's prompt: upper case, one space between arguments.

use std::borrow::Cow;

use crate::{
    limits::SAMPLES_GENERATED_MAX,
    wire::{
        Name,
        edge::{BAD_FILE_ID, Statistic, parse_integer},
        name::NAME_RULE,
    },
};

/// One command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// `EDG`: writes a file of samples here.
    Generate {
        /// Its number.
        file_id: u32,
        /// How many samples.
        amount: u32,
    },
    /// `UED`: uploads it.
    Upload {
        /// Its number.
        file_id: u32,
    },
    /// `SCS`: computes over it at the server.
    Compute {
        /// Its number.
        file_id: u32,
        /// What.
        operation: Statistic,
    },
    /// `DTE`: deletes it at the server.
    Delete {
        /// Its number.
        file_id: u32,
    },
    /// `AED`: the other active devices.
    List,
    /// `UVF`: sends a file to another device.
    Send {
        /// To whom.
        device: Name,
        /// Which: the name of a file here.
        file: String,
    },
    /// `OUT`: leaves.
    Leave,
}

/// The prompt before every command.
pub const PROMPT: &str =
    "Enter one of the following commands (EDG, UED, SCS, DTE, AED, UVF, OUT): ";

/// The answer to what is no command at all.
pub const INVALID: &str = "Error. Invalid command!";

const GENERATE_USAGE: &str = "EDG command requires fileID and dataAmount as arguments.";
const GENERATE_INTEGERS: &str = "the fileID or dataAmount are not integers, you need to specify \
                                 the parameter as integers";
const UPLOAD_USAGE: &str = "fileID is needed to upload the data";

type Wrong = Cow<'static, str>;

/// Reads a line, without its end.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn parse(line: &str) -> Result<Command, Wrong> {
    let mut words = line.split(' ');
    let verb = words.next().unwrap_or_default();
    let arguments: Vec<&str> = words.collect();
    // Two spaces in a row, or one at the end, part nothing.
    if arguments.iter().any(|argument| argument.is_empty()) {
        return Err(INVALID.into());
    }
    match (verb, &arguments[..]) {
        ("EDG", [file_id, amount]) => generate(file_id, amount),
        ("EDG", _) => Err(GENERATE_USAGE.into()),
        ("UED", [file_id]) => {
            Ok(Command::Upload { file_id: number(file_id, "the fileID should be an integer")? })
        }
        ("UED", []) => Err(UPLOAD_USAGE.into()),
        ("UED", _) => Err("UED command takes the fileID alone".into()),
        ("SCS", [file_id, operation]) => Ok(Command::Compute {
            file_id: number(file_id, BAD_FILE_ID)?,
            operation: Statistic::parse(operation).map_err(|refusal| refusal.text)?,
        }),
        ("SCS", [file_id]) => {
            // An operation in its place says that the number is missing.
            number(file_id, BAD_FILE_ID)?;
            Err("the operation is missing; it is SUM, AVERAGE, MAX or MIN".into())
        }
        ("SCS", []) => Err(BAD_FILE_ID.into()),
        ("SCS", _) => Err("SCS command requires fileID and operation as arguments.".into()),
        ("DTE", [file_id]) => Ok(Command::Delete { file_id: number(file_id, BAD_FILE_ID)? }),
        ("DTE", []) => Err(BAD_FILE_ID.into()),
        ("DTE", _) => Err("DTE command takes the fileID alone".into()),
        ("AED", []) => Ok(Command::List),
        ("AED", _) => Err("AED command takes no arguments".into()),
        // The name of a file may hold spaces, one after the other.
        ("UVF", [device, _, ..]) => send(device, &line["UVF ".len() + device.len() + 1..]),
        ("UVF", _) => Err("UVF command requires the device and the filename as arguments.".into()),
        ("OUT", []) => Ok(Command::Leave),
        ("OUT", _) => Err("OUT command takes no arguments".into()),
        _ => Err(INVALID.into()),
    }
}

fn generate(file_id: &str, amount: &str) -> Result<Command, Wrong> {
    let file_id = number(file_id, GENERATE_INTEGERS)?;
    let amount = number(amount, GENERATE_INTEGERS)?;
    if amount == 0 {
        return Err("the dataAmount has to be at least 1".into());
    }
    if u64::from(amount) > SAMPLES_GENERATED_MAX {
        return Err(format!("the dataAmount may be at most {SAMPLES_GENERATED_MAX}").into());
    }
    Ok(Command::Generate { file_id, amount })
}

/// A decimal integer; of one that is too large its own message tells.
fn number(text: &str, wrong: &'static str) -> Result<u32, Wrong> {
    parse_integer(text).ok_or_else(|| {
        let is_large = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match is_large {
            true => format!("an integer here is at most {}", u32::MAX).into(),
            false => wrong.into(),
        }
    })
}

fn send(device: &str, file: &str) -> Result<Command, Wrong> {
    let device = Name::parse(device).ok_or(NAME_RULE)?;
    Ok(Command::Send { device, file: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(line: &str) -> String {
        parse(line).expect_err(line).into_owned()
    }

    #[test]
    fn commands_are_read_as_they_are_written() {
        let device = Name::parse("watch").expect("a name");
        for (line, command) in [
            ("EDG 1 10", Command::Generate { file_id: 1, amount: 10 }),
            ("UED 1", Command::Upload { file_id: 1 }),
            ("SCS 7 AVERAGE", Command::Compute { file_id: 7, operation: Statistic::Average }),
            ("DTE 0", Command::Delete { file_id: 0 }),
            ("AED", Command::List),
            ("UVF watch my clip.mp4", Command::Send { device, file: "my clip.mp4".into() }),
            ("OUT", Command::Leave),
        ] {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_no_command_is_invalid() {
        for line in [
            "",
            " ",
            "edg 1 10",
            "EDG  1 10",
            " EDG 1 10",
            "EDG 1 10 ",
            "AED ",
            "HELP",
            "EDG\t1 10",
        ] {
            assert_eq!(wrong(line), INVALID, "{line:?}");
        }
    }

    #[test]
    fn every_wrong_form_has_its_own_message() {
        for (line, message) in [
            ("EDG", "EDG command requires fileID and dataAmount as arguments."),
            ("EDG 1", "EDG command requires fileID and dataAmount as arguments."),
            ("EDG 1 2 3", "EDG command requires fileID and dataAmount as arguments."),
            ("UED", "fileID is needed to upload the data"),
            ("SCS", "fileID is missing or fileID should be an integer"),
            ("SCS SUM", "fileID is missing or fileID should be an integer"),
            ("SCS x SUM", "fileID is missing or fileID should be an integer"),
            ("SCS -1 SUM", "fileID is missing or fileID should be an integer"),
            ("DTE x", "fileID is missing or fileID should be an integer"),
            ("EDG 1 0", "the dataAmount has to be at least 1"),
            ("EDG 4294967296 1", "an integer here is at most 4294967295"),
            ("AED now", "AED command takes no arguments"),
            ("OUT now", "OUT command takes no arguments"),
            ("UVF", "UVF command requires the device and the filename as arguments."),
            ("UVF watch", "UVF command requires the device and the filename as arguments."),
        ] {
            assert_eq!(wrong(line), message, "{line}");
        }
        for line in ["EDG a 1", "EDG 1 a", "EDG 1.5 1", "EDG 1 1e3", "EDG -1 1", "EDG 1 +1"] {
            let message = "the fileID or dataAmount are not integers, you need to specify the \
                           parameter as integers";
            assert_eq!(wrong(line), message, "{line}");
        }
        assert!(wrong("SCS 1 MEDIAN").contains("the operation is unknown"));
        assert!(wrong("SCS 1").contains("the operation is missing"));
        assert!(wrong("EDG 1 100000001").contains("at most 100000000"));
        assert!(wrong("UVF a/b c").contains("a name is"));
    }
}
