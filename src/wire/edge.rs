//! The requests of the edge network and their answers: devices join, upload files of samples, have
//! them computed, and delete them. PROTOCOL.md, "The edge network".

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Name, Refusal,
    check::{self, Borrowed},
    error::ErrorCode::*,
    event::Object,
};
use crate::limits::REQUEST_ID_MAX_BYTES;

/// A request of a device. The device is the session's user; its files are its own.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "op")]
pub enum EdgeCall {
    /// It becomes one of the active devices, or tells another port.
    #[serde(rename = "edge.join")]
    Join {
        /// Where it takes files from other devices; 0: nowhere.
        udp_port: u16,
    },
    /// A file of samples.
    #[serde(rename = "edge.upload")]
    Upload {
        /// Its number, over an older file of that number.
        file_id: u32,
        /// A repeat with the same id is answered again and not stored again.
        #[serde(rename = "request_id", default, skip_serializing_if = "Option::is_none")]
        request: Option<RequestId>,
        /// What its bytes must hash to (BLAKE3), where the client says so.
        #[serde(default, with = "hexadecimal", skip_serializing_if = "Option::is_none")]
        hash: Option<[u8; 32]>,
        /// The samples themselves; else the file follows as input of the operation.
        #[serde(
            default,
            deserialize_with = "read_samples",
            skip_serializing_if = "Option::is_none"
        )]
        samples: Option<Vec<i64>>,
    },
    /// Something about an uploaded file.
    #[serde(rename = "edge.compute")]
    Compute {
        /// Its number.
        file_id: u32,
        /// What.
        operation: Statistic,
    },
    /// Removes an uploaded file.
    #[serde(rename = "edge.delete")]
    Delete {
        /// Its number.
        file_id: u32,
        /// As of an upload.
        #[serde(rename = "request_id", default, skip_serializing_if = "Option::is_none")]
        request: Option<RequestId>,
    },
    /// The other active devices.
    #[serde(rename = "edge.list")]
    List,
    /// It is no active device any more.
    #[serde(rename = "edge.leave")]
    Leave,
}

impl EdgeCall {
    /// Whether input follows.
    pub fn takes_input(&self) -> bool {
        matches!(self, EdgeCall::Upload { samples: None, .. })
    }
}

/// What names a request for its repeats: 1 to 64 of `A-Z a-z 0-9 _ . -`.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(Box<str>);

/// Why a text is no request id.
pub const REQUEST_ID_RULE: &str = "a request_id is 1 to 64 of A-Z a-z 0-9 _ . -";

impl RequestId {
    /// `None` where the text breaks [`REQUEST_ID_RULE`].
    pub fn parse(text: &str) -> Option<RequestId> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let fits = (1..=REQUEST_ID_MAX_BYTES).contains(&text.len());
        // A bare hyphen stands for none in the server's journal.
        (fits && text != "-" && text.bytes().all(is_good)).then(|| RequestId(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RequestId, D::Error> {
        let Borrowed(text) = Borrowed::deserialize(deserializer)?;
        RequestId::parse(&text).ok_or_else(|| check::carried(bad(REQUEST_ID_RULE)))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

/// What can be computed over a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Statistic {
    /// All samples added, exactly.
    Sum,
    /// The sum over their number, with 6 decimals.
    Average,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl Statistic {
    /// All of them, as one types them.
    pub const ALL: [(Statistic, &'static str); 4] = [
        (Statistic::Sum, "SUM"),
        (Statistic::Average, "AVERAGE"),
        (Statistic::Max, "MAX"),
        (Statistic::Min, "MIN"),
    ];

    /// The one of that name, upper case.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(text: &str) -> Result<Statistic, Refusal> {
        let found = Statistic::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(operation, _)| *operation).ok_or_else(|| {
            let text = "the operation is unknown; it is SUM, AVERAGE, MAX or MIN";
            Refusal::new(0, UnknownOperation, text)
        })
    }

    /// As one types it.
    pub fn as_str(self) -> &'static str {
        Statistic::ALL[self as usize].1
    }
}

impl<'de> Deserialize<'de> for Statistic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Statistic, D::Error> {
        let Borrowed(text) = Borrowed::deserialize(deserializer)?;
        Statistic::parse(&text).map_err(check::carried)
    }
}

/// The answer to a request of a device, as its object tells it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "edge", rename_all = "kebab-case")]
pub enum EdgeAnswer {
    /// It is one of the active devices.
    Joined {
        /// Its name.
        device: Name,
        /// Its port.
        udp_port: u16,
        /// Since when, in the server's local time.
        since: String,
    },
    /// The file is stored and logged.
    Uploaded {
        /// Its number.
        file_id: u32,
        /// Samples in it.
        samples: u64,
        /// BLAKE3 of its bytes, 64 hexadecimal digits.
        hash: String,
        /// As the log has it.
        time: String,
        /// Whether it was done before, at that time, by a request with the same id.
        repeated: bool,
    },
    /// A result.
    Computed {
        /// The number of the file.
        file_id: u32,
        /// What was computed.
        operation: Statistic,
        /// A decimal number, as text: it may be beyond what JSON readers take.
        result: String,
        /// Samples in the file.
        samples: u64,
    },
    /// The file is gone, and that is logged.
    Deleted {
        /// Its number.
        file_id: u32,
        /// Samples that were in it.
        samples: u64,
        /// As the log has it.
        time: String,
        /// As of an upload.
        repeated: bool,
    },
    /// Some of the other active devices, in the order of the log.
    Devices {
        /// None where there is none.
        devices: Vec<Device>,
    },
    /// It is no active device any more.
    Left {
        /// Its name.
        device: Name,
    },
}

/// An active device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Device {
    /// Its name.
    pub device: Name,
    /// Since when, in the server's local time.
    pub since: String,
    /// Where it connected from, of either family.
    pub ip: String,
    /// Its port.
    pub udp_port: u16,
}

/// What is said where no other device is active.
pub const NO_DEVICES: &str = "no other active edge devices";

/// What is said of a file that is not there.
pub const NO_SUCH_DATA: &str = "the file does not exist at the server side";

/// What is said of a number of a file that is none.
pub const BAD_FILE_ID: &str = "fileID is missing or fileID should be an integer";

impl EdgeAnswer {
    /// As the members of an object.
    pub fn to_object(&self) -> Object {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(object)) => object,
            other => unreachable!("an answer is an object, and this is {other:?}"),
        }
    }

    /// The answer that an object tells, if it is one.
    pub fn of_object(object: &Object) -> Option<EdgeAnswer> {
        EdgeAnswer::deserialize(serde_json::Value::Object(object.clone())).ok()
    }

    /// For people, in one line or several, the last without its end.
    pub fn text(&self) -> String {
        let again = |repeated: &bool| if *repeated { " (it was before)" } else { "" };
        match self {
            EdgeAnswer::Joined { device, udp_port, since } => {
                format!("{device} is active since {since}, with UDP port {udp_port}")
            }
            EdgeAnswer::Uploaded { file_id, samples, repeated, .. } => {
                let again = again(repeated);
                let word = if *samples == 1 { "sample" } else { "samples" };
                format!(
                    "data file with ID of {file_id} has been uploaded to the central server, \
                     {samples} {word}{again}"
                )
            }
            EdgeAnswer::Computed { file_id, operation, result, .. } => {
                let name = operation.as_str();
                format!("computation ({name}) result on the file (ID:{file_id}) is: {result}")
            }
            EdgeAnswer::Deleted { file_id, .. } => format!(
                "file with ID of {file_id} has been successfully removed from the central server"
            ),
            EdgeAnswer::Devices { devices } if devices.is_empty() => NO_DEVICES.to_owned(),
            EdgeAnswer::Devices { devices } => {
                devices.iter().map(Device::line).collect::<Vec<_>>().join("\n")
            }
            EdgeAnswer::Left { device } => format!("goodbye, {device}"),
        }
    }
}

impl Device {
    fn line(&self) -> String {
        let Device { device, since, ip, udp_port } = self;
        format!("{device}, active since {since}, IP address {ip}, UDP port {udp_port}")
    }
}

/// A number of a file, or of samples, as people write it: decimal digits and nothing else.
pub fn parse_integer(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn bad(text: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(0, BadArguments, text)
}

/// Samples that are there are at least one.
pub(super) fn check_samples(samples: Vec<i64>) -> Result<Vec<i64>, Refusal> {
    match samples.is_empty() {
        true => Err(Refusal::new(0, BadSamples, "there are no samples; name at least one")),
        false => Ok(samples),
    }
}

fn read_samples<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<i64>>, D::Error> {
    let samples = Option::<Vec<i64>>::deserialize(deserializer)?;
    samples.map(check_samples).transpose().map_err(check::carried)
}

/// A hash as 64 hexadecimal digits.
mod hexadecimal {
    use super::{Borrowed, Deserialize, Deserializer, Serialize, Serializer, bad, check};

    pub fn serialize<S: Serializer>(
        hash: &Option<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        hash.map(|hash| blake3::Hash::from(hash).to_string()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        let text = Option::<Borrowed<'_>>::deserialize(deserializer)?;
        let hash = text.map(|Borrowed(text)| blake3::Hash::from_hex(text.as_bytes())).transpose();
        let wrong = |_| check::carried(bad("the hash is not 64 hexadecimal digits (BLAKE3)"));
        Ok(hash.map_err(wrong)?.map(|hash| *hash.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_files_are_plain_decimals_of_32_bits() {
        for (text, number) in [("0", 0), ("1", 1), ("007", 7), ("4294967295", u32::MAX)] {
            assert_eq!(parse_integer(text), Some(number));
        }
        let bad = ["", "-1", "+1", "1e3", "1.0", " 1", "4294967296", "18446744073709551616"];
        for bad in bad.into_iter().chain(["../1", "0x1", "\u{661}"]) {
            assert_eq!(parse_integer(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn request_ids_are_names_without_surprises() {
        for good in ["a", "7", "2f1e-4b.c_", &"x".repeat(64)] {
            assert_eq!(RequestId::parse(good).expect(good).as_str(), good);
        }
        for bad in ["", "-", "a b", "a\n", "\u{fc}", "a/b", &"x".repeat(65)] {
            assert_eq!(RequestId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_answer_comes_back_from_its_object() {
        let name = |text| Name::parse(text).expect("a name");
        let device = Device {
            device: name("watch"),
            since: "30 September 2022 10:31:13".into(),
            ip: "::1".into(),
            udp_port: 5432,
        };
        for answer in [
            EdgeAnswer::Joined { device: name("a"), udp_port: 1, since: "now".into() },
            EdgeAnswer::Computed {
                file_id: 1,
                operation: Statistic::Average,
                result: "-0.500000".into(),
                samples: 2,
            },
            EdgeAnswer::Devices { devices: vec![device.clone()] },
            EdgeAnswer::Devices { devices: vec![] },
            EdgeAnswer::Left { device: name("a") },
        ] {
            assert_eq!(EdgeAnswer::of_object(&answer.to_object()), Some(answer));
        }
        assert_eq!(EdgeAnswer::Devices { devices: vec![] }.text(), NO_DEVICES);
        assert_eq!(
            EdgeAnswer::Devices { devices: vec![device.clone(), device] }.text(),
            "watch, active since 30 September 2022 10:31:13, IP address ::1, UDP port 5432\n\
             watch, active since 30 September 2022 10:31:13, IP address ::1, UDP port 5432"
        );
    }

    #[test]
    fn every_operation_has_its_name_on_the_wire() {
        for (operation, name) in Statistic::ALL {
            assert_eq!(Statistic::parse(name), Ok(operation));
            assert_eq!(operation.as_str(), name);
            assert_eq!(serde_json::to_value(operation).expect("a string"), name);
        }
        for bad in ["sum", "SUM ", "", "MEDIAN"] {
            assert_eq!(Statistic::parse(bad).expect_err(bad).code, UnknownOperation);
        }
    }
}
