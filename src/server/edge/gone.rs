//! A data folder that was removed while the server runs.

use super::{Edge, FolderState, Step};
use crate::{
    edge::DataFolder,
    wire::{ErrorCode, Refusal},
};

impl Edge {
    /// A folder that somebody has removed is opened anew, if it is there again; what was just being
    /// received for it is lost.
    pub(super) fn leave_if_gone(&mut self) {
        let is_gone = self.disk.as_ref().is_some_and(DataFolder::is_gone);
        if !is_gone || !matches!(self.folder, FolderState::Idle(_)) {
            return;
        }
        let FolderState::Idle(former) = std::mem::replace(&mut self.folder, FolderState::Closed)
        else {
            return;
        };
        log::warn!("the data folder was removed; it is opened again where it is made anew");
        (self.former, self.disk) = (Some(former), None);
        let receiving = self.running.iter();
        let receiving = receiving.filter(|(_, task)| matches!(task.step, Step::Receiving(_)));
        let receiving: Vec<_> = receiving.map(|(id, _)| *id).collect();
        for id in receiving {
            let text = "the server's data folder was removed meanwhile; send it again";
            self.answer(id, Err(Refusal::new(0, ErrorCode::SystemError, text)));
        }
    }
}
