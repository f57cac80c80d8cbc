//! Doing what the hub wants done: starting, feeding, pulling and ending operations.

use std::{io, os::unix::fs::FileExt as _};

use super::{Server, commands, transfers};
use crate::{
    hub::{Chunk, Effect, FilePiece, Input, OperationId, SessionId, Work},
    sys::transport::Transport,
    wire::{ErrorCode, Outcome, Refusal, Stream},
};

/// An error of the disk (errno(3)).
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

/// What fills the place of bytes that a file has lost while it was sent: the frame was announced.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl Server {
    /// Does all that there is to do, but for commands beyond the number that may start in one
    /// turn: those, and what comes after them, wait for the next. It ends: whoever produces
    /// output waits for it to be written, and that happens elsewhere.
    pub(super) fn do_work(&mut self) {
        while self.starts_left > 0
            && let Some(effect) = self.todo.pop_front()
        {
            match effect {
                Effect::Start { operation, session, work } => self.start(operation, session, work),
                Effect::Pull { operation } => self.produce(operation),
                Effect::Feed { operation } => self.feed(operation),
                Effect::Terminate { operation } => self.terminate(operation),
                Effect::Stop { operation } | Effect::Release { operation } => {
                    self.transfers.drop_transfer(operation);
                    self.commands.drop_command(operation);
                }
                Effect::Flush { .. } | Effect::Resume { .. } | Effect::Close { .. } => {
                    unreachable!("these have lists of their own")
                }
            }
        }
    }

    fn start(&mut self, id: OperationId, session: SessionId, work: Work) {
        let started = match work {
            Work::Download { path, verified } => self.transfers.start_download(id, path, verified),
            Work::List { path } => self.transfers.start_listing(id, path),
            Work::Run { command, stdin } => {
                self.starts_left -= 1;
                self.commands.start(id, session, &command, stdin, self.poll.registry())
            }
        };
        if let Err(refusal) = started {
            self.end(id, Outcome::Failed(refusal));
        }
    }

    fn end(&mut self, operation: OperationId, outcome: Outcome) {
        self.input(Input::Ended { operation, outcome });
    }

    fn terminate(&mut self, id: OperationId) {
        if self.transfers.has(id) {
            let text = "cancelled by the client";
            let refusal = Refusal::new(0, ErrorCode::Cancelled, text);
            self.end(id, Outcome::Failed(refusal));
        } else {
            self.commands.terminate(id);
        }
    }

    /// Hands in one chunk of an operation's output, if there is room for it. The next one comes
    /// after the others that have something to do, so that the operations of a session share it.
    /// The end needs no room.
    pub(super) fn produce(&mut self, operation: OperationId) {
        let room = self.hub.room(operation);
        let goes_on = match self.transfers.has(operation) {
            true => self.produce_transfer(operation, room),
            false => self.produce_command(operation, room),
        };
        if goes_on {
            self.todo.push_back(Effect::Pull { operation });
        }
    }

    fn produce_transfer(&mut self, operation: OperationId, room: usize) -> bool {
        let now = crate::hub::Time(self.now);
        let chunk = match self.transfers.produce(operation, room) {
            transfers::Produced::Nothing => return false,
            transfers::Produced::Over(outcome) => {
                self.end(operation, outcome);
                return false;
            }
            transfers::Produced::Piece { offset, length } => {
                if self.hub.wants_content(operation) {
                    return self.produce_content(operation, offset, length);
                }
                Chunk::File { offset, length }
            }
            transfers::Produced::Entries(entries) => Chunk::Entries(entries),
        };
        self.hub.handle(now, Input::Chunk { operation, chunk });
        self.take_effects();
        true
    }

    /// Hands in a part of a file as bytes, for who cannot take it as it is.
    fn produce_content(&mut self, operation: OperationId, offset: u64, length: usize) -> bool {
        let file = self.transfers.file(operation).cloned();
        let bytes = &mut self.buffer[..length];
        if file.is_none_or(|file| file.read_exact_at(bytes, offset).is_err()) {
            self.on_shrunk(operation);
            return false;
        }
        let chunk = Chunk::Output { stream: Stream::Stdout, bytes: &self.buffer[..length] };
        self.hub.handle(crate::hub::Time(self.now), Input::Chunk { operation, chunk });
        self.take_effects();
        true
    }

    fn produce_command(&mut self, operation: OperationId, room: usize) -> bool {
        match self.commands.produce(operation, &mut self.buffer, room) {
            commands::Produced::Nothing => false,
            commands::Produced::Over(outcome) => {
                self.end(operation, outcome);
                false
            }
            commands::Produced::Bytes(stream, count) => {
                let chunk = Chunk::Output { stream, bytes: &self.buffer[..count] };
                let now = crate::hub::Time(self.now);
                self.hub.handle(now, Input::Chunk { operation, chunk });
                self.take_effects();
                true
            }
        }
    }

    fn feed(&mut self, operation: OperationId) {
        let Some((bytes, ended)) = self.hub.standard_input(operation) else { return };
        let left = bytes.len();
        match self.commands.feed(operation, bytes, ended) {
            Some(count) if count > 0 => self.input(Input::InputTaken { operation, count }),
            None if left > 0 => self.input(Input::InputClosed { operation }),
            _ => {}
        }
    }

    /// Takes in what the workers have done.
    pub(super) fn take_results(&mut self) {
        while let Some(done) = self.transfers.try_recv() {
            match done {
                transfers::Done::Opened(id, opened) => match self.transfers.on_opened(id, opened) {
                    None => {}
                    Some(Err(refusal)) => self.end(id, Outcome::Failed(refusal)),
                    Some(Ok(transfers::Announcement { name, size, modified })) => {
                        let name = &name;
                        self.input(Input::Opened { operation: id, name, size, modified });
                        self.produce(id);
                    }
                },
                transfers::Done::Listed(id, listed) => match self.transfers.on_listed(id, listed) {
                    None => {}
                    Some(Err(refusal)) => self.end(id, Outcome::Failed(refusal)),
                    Some(Ok(())) => self.produce(id),
                },
                transfers::Done::Hashed(id, hashed) => {
                    if self.transfers.on_hashed(id, hashed) {
                        self.produce(id);
                    }
                }
            }
        }
    }

    /// A file is shorter than it was when it was announced.
    pub(super) fn on_shrunk(&mut self, operation: OperationId) {
        self.transfers.note_shrunk(operation);
        let text = "the file became shorter, or could not be read, while it was sent; try again";
        let refusal = Refusal::new(0, ErrorCode::FileChanged, text);
        self.end(operation, Outcome::Failed(refusal));
    }
}

impl transfers::Transfers {
    /// Sends up to `most` bytes of a piece of a file; 0 means that the file has lost them.
    pub(super) fn send(
        &self,
        piece: FilePiece,
        transport: &mut Transport,
        most: usize,
    ) -> io::Result<usize> {
        let length = piece.length.min(most);
        match self.file(piece.operation) {
            Some(file) => match transport.send_file(file, &mut { piece.offset }, length) {
                // The disk failed, not the connection.
                Err(error) if error.raw_os_error() == Some(EIO) => Ok(0),
                sent => sent,
            },
            None => transport.write(&ZEROS[..length.min(ZEROS.len())], false),
        }
    }
}
