//! Frames: data that has begun, and messages that are to be acknowledged.

use super::{
    super::{
        Hub, SessionId,
        inbound::Passed,
        receipts::{Receipt, ReceiptQueue},
    },
    Voice,
};
use crate::{
    limits::Limits,
    wire::{
        ErrorCode::{self, PeerBusy},
        Tag, frame,
    },
};

/// What only a peer needs that speaks frames.
#[derive(Debug, Default)]
pub(in crate::hub) struct FrameVoice {
    /// The data frame that has begun, and how many bytes of it are still to come. They are passed
    /// on as they come, and never put together.
    data: Option<(Tag, usize)>,
    /// Messages whose acknowledgement somebody waits for; `None` before the first one, as an idle
    /// session is small.
    awaiting: Option<Box<Awaiting>>,
}

/// Messages whose acknowledgement somebody waits for.
#[derive(Debug, Default)]
struct Awaiting {
    /// By their numbers.
    receipts: ReceiptQueue,
    /// Of the message sent last; never 0.
    serial: u32,
}

impl FrameVoice {
    pub(super) fn has_data_begun(&self) -> bool {
        self.data.is_some()
    }

    /// Notes that a sender wants to hear of the acknowledgement of a message; returns its number.
    pub(in crate::hub) fn promise(
        &mut self,
        receipt: Receipt,
        limits: &Limits,
    ) -> Result<u32, ErrorCode> {
        let awaiting = self.awaiting.get_or_insert_default();
        if awaiting.receipts.len() >= limits.receipts_max {
            return Err(PeerBusy);
        }
        awaiting.serial = awaiting.serial.checked_add(1).unwrap_or(1);
        awaiting.receipts.push(u64::from(awaiting.serial), receipt);
        Ok(awaiting.serial)
    }

    /// The promise of the message with this number, which is acknowledged.
    pub(in crate::hub) fn take_promise(&mut self, serial: u32) -> Option<Receipt> {
        self.awaiting.as_mut()?.receipts.take(u64::from(serial))
    }

    /// Those that are still to be acknowledged, with their numbers.
    pub(in crate::hub) fn promises(&self) -> impl Iterator<Item = (u64, Receipt)> {
        self.awaiting.iter().flat_map(|awaiting| awaiting.receipts.iter())
    }
}

impl Hub {
    /// Passes data on, as it comes.
    pub(in crate::hub) fn pass_data_on(&mut self, id: SessionId, rest: &[u8]) -> Passed {
        let session = self.session_mut(id);
        let Some(Voice::Frame(voice)) =
            session.and_then(|session| session.connection.voice.as_mut())
        else {
            return Passed::Request;
        };
        let Some((tag, left)) = voice.data else {
            voice.data = frame::begun_data(rest);
            return match voice.data {
                Some(_) => Passed::Some(frame::HEADER_BYTES),
                None => Passed::Request,
            };
        };
        let part = &rest[..rest.len().min(left)];
        voice.data = (part.len() < left).then_some((tag, left - part.len()));
        if part.is_empty() {
            return Passed::Wait;
        }
        self.on_input(id, tag, part);
        Passed::Some(part.len())
    }
}
