//! What requests about devices are refused with, where it is no fault of theirs.

use crate::wire::{ErrorCode, Refusal};

pub(super) fn fault() -> Refusal {
    Refusal::new(0, ErrorCode::SystemError, "a fault of the server; its log says more")
}

pub(super) fn lost() -> Refusal {
    let text = "a fault of the server has closed its data folder; it must be started again";
    Refusal::new(0, ErrorCode::SystemError, text)
}

pub(super) fn changing() -> Refusal {
    let text = "the file is uploaded again and again while it is to be deleted; try again";
    Refusal::new(0, ErrorCode::Busy, text)
}
