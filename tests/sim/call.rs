//! What a peer has asked for, and whether the answer is right.

use sixfour::wire::{ErrorCode, Form, control::OutcomeBody, event::Ended};

use crate::{
    LIMITS,
    jobs::{What, exit_of, file_byte, input_byte, output_byte, output_stream},
    parcels::{self, Depot, Parcel},
};

/// Something with an answer.
#[derive(Debug)]
pub struct Call {
    pub tag: u32,
    pub asked: Asked,
    /// Bytes, entries or names of the answer so far.
    pub got: usize,
    pub announced: bool,
    pub cancelled: bool,
    pub timeout_ms: u64,
    pub withheld: usize,
    pub input_sent: usize,
    pub input_room: usize,
    /// Input that may ever be on its way.
    pub window: usize,
    pub input_ended: bool,
    /// It gets a file, and has ended its input nevertheless.
    pub has_given_up: bool,
    pub wrong_bytes: bool,
    /// Another peer takes part, and what comes from it has ended.
    pub joined: Option<Form>,
    pub data_ended: bool,
}

/// What was asked for.
#[derive(Debug, PartialEq)]
pub enum Asked {
    Work(What),
    Who,
    Echo(String),
    Help,
    /// Offer something to another peer; take or refuse what another has offered.
    Send(Parcel),
    Take(Parcel),
    Refuse(Parcel),
    Clear,
    /// What ends its own session too.
    Disconnect,
    Reset,
    Kill,
}

/// What clears a screen.
pub const CLEAR: &[u8] = b"\x1b[H\x1b[2J\x1b[3J\n";

impl Call {
    pub fn new(tag: u32, asked: Asked, timeout_ms: u64) -> Call {
        let takes_more = matches!(asked, Asked::Work(What::Talk));
        // All know of the smaller window; the rest of a larger one is granted.
        let window = if takes_more { LIMITS.store_window_bytes as usize } else { parcels::WINDOW };
        Call {
            tag,
            asked,
            window,
            got: 0,
            announced: false,
            cancelled: false,
            timeout_ms,
            withheld: 0,
            input_sent: 0,
            input_room: parcels::WINDOW,
            input_ended: false,
            has_given_up: false,
            wrong_bytes: false,
            joined: None,
            data_ended: false,
        }
    }

    /// Judges bytes of the answer; both outputs of a command are told apart where the dialect can.
    pub fn take_data(&mut self, bytes: &[u8], stream: Option<sixfour::wire::Stream>) {
        for byte in bytes {
            let at = self.got;
            self.got += 1;
            let wanted = match self.asked {
                Asked::Work(What::File { size, shrinks }) => {
                    assert!(self.announced && at < size, "more than was announced");
                    if shrinks && *byte == 0 {
                        self.wrong_bytes = true;
                        continue;
                    }
                    file_byte(size, at)
                }
                Asked::Work(What::Output { seed, .. }) => {
                    assert!(stream.is_none_or(|stream| stream == output_stream(at)));
                    output_byte(seed, at)
                }
                Asked::Work(What::Repeat | What::Talk) => input_byte(at),
                Asked::Work(What::Fetch { size }) => {
                    assert!(at < size, "more than there is");
                    file_byte(size, at)
                }
                Asked::Send(parcel) | Asked::Take(parcel) => {
                    assert!(!self.data_ended, "more after the end");
                    parcels::byte_of(&parcel, self.joined, self.announced, at)
                }
                Asked::Clear => CLEAR[at],
                _ => panic!("{self:?} has no bytes"),
            };
            assert_eq!(*byte, wanted, "byte {at} of {:?} is another", self.asked);
        }
    }

    /// Judges how the operation has ended.
    pub fn judge_end(&self, outcome: &OutcomeBody<'_>, depot: &mut Depot) {
        match (&self.asked, outcome) {
            (Asked::Send(_) | Asked::Take(_), _) => parcels::judge_end(self, outcome, depot),
            (Asked::Refuse(_), OutcomeBody::Done) => {}
            (Asked::Refuse(_), OutcomeBody::Failed { code: ErrorCode::NoSuchOffer, .. }) => {}
            (Asked::Work(What::Failure), OutcomeBody::Failed { .. }) => {}
            // Too many, or the server stops.
            (
                Asked::Work(_),
                OutcomeBody::Failed {
                    code: ErrorCode::TooMany | ErrorCode::Busy | ErrorCode::ShuttingDown,
                    ..
                },
            ) => assert_eq!(self.got, 0),
            (Asked::Work(_), OutcomeBody::Failed { code: ErrorCode::Cancelled, .. }) => {
                assert!(self.cancelled);
            }
            (Asked::Work(What::File { size, shrinks }), OutcomeBody::Sent { .. }) => {
                // The hash of a file that shrank in the end does not fit; the client sees that.
                assert_eq!(self.got, *size);
                assert!(*shrinks || !self.wrong_bytes);
            }
            (Asked::Work(What::File { shrinks, .. }), OutcomeBody::Failed { .. }) => {
                assert!(*shrinks);
            }
            (Asked::Work(What::Folder { entries }), OutcomeBody::Counted { count }) => {
                assert_eq!((*count as usize, self.got), (*entries, *entries));
            }
            (Asked::Work(What::Output { total, seed }), OutcomeBody::Exit { code, .. }) => {
                assert_eq!((self.got, Ok(*code)), (*total, exit_of(*seed)));
            }
            (
                Asked::Work(What::Output { total, seed }),
                OutcomeBody::Signal { number, because },
            ) => match because {
                None => assert_eq!((self.got, Err(*number)), (*total, exit_of(*seed))),
                Some(_) => assert!(self.cancelled),
            },
            (Asked::Work(What::Talk), OutcomeBody::Done) => {
                assert!(self.input_ended);
                assert_eq!(self.got, self.input_sent);
            }
            (Asked::Work(What::Keep), OutcomeBody::Done) => assert!(self.input_ended),
            // Nothing has come for it, and others needed its place.
            (Asked::Work(What::Talk | What::Keep), OutcomeBody::Failed { code, .. }) => {
                assert_eq!(*code, ErrorCode::TimedOut);
            }
            (Asked::Work(What::Fetch { size }), OutcomeBody::Done) => assert_eq!(self.got, *size),
            (Asked::Work(What::Repeat), OutcomeBody::Exit { code: 0, .. }) => {
                assert!(self.input_ended);
                assert_eq!(self.got, self.input_sent);
            }
            // It has had enough before the end.
            (Asked::Work(What::Repeat), OutcomeBody::Exit { code: 1, .. }) => {
                assert!(self.got <= self.input_sent);
            }
            (Asked::Work(_), OutcomeBody::Signal { because: Some(Ended::Cancelled), .. }) => {
                assert!(self.cancelled);
            }
            (Asked::Work(_), OutcomeBody::Signal { because: Some(Ended::TimedOut), .. }) => {
                assert!(self.timeout_ms > 0);
            }
            (Asked::Who, OutcomeBody::Counted { count }) => assert_eq!(*count as usize, self.got),
            (Asked::Work(What::Question { pieces }), OutcomeBody::Done) => {
                assert_eq!(self.got, *pieces);
            }
            (Asked::Clear, OutcomeBody::Done) => assert_eq!(self.got, CLEAR.len()),
            (Asked::Reset, OutcomeBody::Failed { code: ErrorCode::ShuttingDown, .. }) => {}
            (
                Asked::Echo(_) | Asked::Help | Asked::Disconnect | Asked::Reset | Asked::Kill,
                OutcomeBody::Done,
            ) => {}
            (asked, outcome) => panic!("{asked:?} has ended with {outcome:?}"),
        }
    }
}
