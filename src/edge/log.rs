//! The three logs, in the form that others read as well: fields with `; ` between them.
//!
//! ```text
//!   edge-device-log.txt   1; 30 September 2022 10:31:13; supersmartwatch; 129.64.31.13; 5432
//!   upload-log.txt        supersmartwatch; 30 September 2022 10:31:13; 1; 10
//!   deletion-log.txt      the same
//! ```

use std::net::IpAddr;

use crate::wire::{Name, edge::parse_integer};

/// Who is active; written anew with every change.
pub const DEVICE_LOG: &str = "edge-device-log.txt";
/// Every file that was stored, a line each.
pub const UPLOAD_LOG: &str = "upload-log.txt";
/// Every file that was deleted, a line each.
pub const DELETION_LOG: &str = "deletion-log.txt";

/// The three of them.
pub const LOGS: [&str; 3] = [DEVICE_LOG, UPLOAD_LOG, DELETION_LOG];

/// A line of one of the two logs that only grow, with its LF.
pub fn data_line(device: &Name, time: &str, file_id: u32, samples: u64) -> String {
    format!("{device}; {time}; {file_id}; {samples}\n")
}

/// The time in such a line, without its LF; `None` where it is none.
pub fn time_of(line: &str) -> Option<&str> {
    let mut fields = line.split("; ");
    let is_name = fields.next().and_then(Name::parse).is_some();
    let time = fields.next().filter(|time| is_name && is_time(time))?;
    let is_number = |field: Option<&str>| {
        field.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let has_file = fields.next().and_then(parse_integer).is_some();
    (has_file && is_number(fields.next()) && fields.next().is_none()).then_some(time)
}

/// A line of the log of devices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceLine {
    /// Its place, from 1.
    pub sequence: usize,
    /// Since when it is active.
    pub since: String,
    /// Its name.
    pub device: Name,
    /// Where it connected from.
    pub ip: IpAddr,
    /// Its port.
    pub udp_port: u16,
}

impl DeviceLine {
    /// The line, with its LF.
    pub fn write(&self) -> String {
        let DeviceLine { sequence, since, device, ip, udp_port } = self;
        format!("{sequence}; {since}; {device}; {ip}; {udp_port}\n")
    }

    /// Reads a line without its LF; `None` where it is none.
    pub fn parse(line: &str) -> Option<DeviceLine> {
        let mut fields = line.split("; ");
        let sequence = parse_integer(fields.next()?)? as usize;
        let since = fields.next().filter(|time| is_time(time))?.to_owned();
        let device = Name::parse(fields.next()?)?;
        let ip = fields.next()?.parse().ok()?;
        let udp_port = u16::try_from(parse_integer(fields.next()?)?).ok()?;
        let line = DeviceLine { sequence, since, device, ip, udp_port };
        fields.next().is_none().then_some(line)
    }
}

/// `30 September 2022 10:31:13`, as far as its form goes.
fn is_time(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split(' ').collect::<Vec<_>>()[..] {
        [day, month, year, time] => {
            let is_clock = time.len() == 8 && time.split(':').all(digits);
            digits(day)
                && digits(year)
                && is_clock
                && month.bytes().all(|it| it.is_ascii_alphabetic())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "30 September 2022 10:31:13";

    fn watch() -> Name {
        Name::parse("supersmartwatch").expect("a name")
    }

    #[test]
    fn lines_have_the_form_that_others_read() {
        let line = data_line(&watch(), TIME, 1, 10);
        assert_eq!(line, "supersmartwatch; 30 September 2022 10:31:13; 1; 10\n");
        assert_eq!(time_of(line.trim_end()), Some(TIME));
        let ip = "129.64.31.13".parse().expect("an address");
        let line =
            DeviceLine { sequence: 1, since: TIME.into(), device: watch(), ip, udp_port: 5432 };
        let text = "1; 30 September 2022 10:31:13; supersmartwatch; 129.64.31.13; 5432\n";
        assert_eq!(line.write(), text);
        assert_eq!(DeviceLine::parse(text.trim_end()), Some(line));
        let six = DeviceLine::parse("12; 1 May 2026 00:00:00; a; 2001:db8::1; 0").expect("a line");
        assert_eq!(six.write(), "12; 1 May 2026 00:00:00; a; 2001:db8::1; 0\n");
    }

    #[test]
    fn what_is_cut_off_is_no_line() {
        let line = data_line(&watch(), TIME, 1, 10);
        // The number of samples may lack digits, and nobody can tell.
        let whole = line.trim_end().len() - 1;
        for end in 0..whole {
            assert_eq!(time_of(&line[..end]), None, "{}", &line[..end]);
        }
        assert!(time_of(&line[..whole]).is_some());
        assert_eq!(time_of(line.trim_end()).map(str::len), Some(TIME.len()));
        for bad in
            ["a; b; 1; 2", "a; 1 May 2026 00:00:00; -1; 2", "a; 1 May 2026 00:00:00; 1; 2; 3"]
        {
            assert_eq!(time_of(bad), None, "{bad}");
        }
        assert_eq!(DeviceLine::parse("1; 1 May 2026 00:00:00; a; ::1"), None);
        assert_eq!(DeviceLine::parse("1; 1 May 2026 00:00:00; a; ::1; 65536"), None);
    }
}
