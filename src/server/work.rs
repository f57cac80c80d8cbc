//! Doing what the hub wants done: starting, feeding, pulling and ending operations.

use std::{io, os::unix::fs::FileExt as _};

use super::{
    Server,
    budget::Holder,
    commands, exchanges,
    questions::{self, Busy, Piece},
    transfers,
};
use crate::{
    hub::{Chunk, Effect, FilePiece, Input, OperationId, SessionId, Work},
    sys::transport::Transport,
    wire::{ErrorCode, Outcome, Refusal, Stream},
};

/// An error of the disk (errno(3)).
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

/// So much of an upload is worth a worker, though more of it is at hand.
const GATHER_BYTES: usize = 256 * 1024;

/// What fills the place of bytes that a file has lost while it was sent: the frame was announced.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl Server {
    /// Does all that there is to do, but for commands and chunks of output beyond the numbers that
    /// one turn has for them: those, and what comes after them, wait for the next.
    pub(super) fn do_work(&mut self) {
        while self.starts_left > 0
            && self.pulls_left > 0
            && let Some(effect) = self.todo.pop_front()
        {
            match effect {
                Effect::Start { operation, session, work } => self.start(operation, session, work),
                Effect::Verify { session, name, password } => {
                    if let Err(verdict) = self.identity.verify(session, name, password) {
                        self.input(Input::Verified { session, verdict });
                    }
                }
                Effect::Pull { operation } => {
                    self.pulls_left -= 1;
                    self.produce(operation);
                }
                Effect::Feed { operation } => self.feed(operation),
                Effect::Terminate { operation } => self.terminate(operation),
                Effect::ListenAgain => self.listen_again(),
                Effect::Quit => self.quit(),
                Effect::Stop { operation } | Effect::Release { operation } => {
                    self.transfers.drop_transfer(operation);
                    self.questions.drop_question(operation);
                    self.exchanges.drop_exchange(operation);
                    self.commands.drop_command(operation);
                    self.edge.drop_operation(operation);
                }
                Effect::Watch { session, holds } => self.watch(session, holds),
                Effect::Flush { .. } | Effect::Resume { .. } | Effect::Close { .. } => {
                    unreachable!("these have lists of their own")
                }
            }
        }
    }

    fn start(&mut self, id: OperationId, session: SessionId, work: Work) {
        let holder = Holder { session, source: self.hub.source(session) };
        let started = match work {
            Work::Download { path, verified } => {
                self.transfers.start_download(id, session, path, verified)
            }
            Work::List { path } => self.transfers.start_listing(id, holder, path),
            Work::Edge { device, call, plain } => self.start_edge(id, session, device, call, plain),
            Work::Fetch { paths } => self.exchanges.start_fetch(id, holder, &paths),
            Work::Store { into } => self.exchanges.start_store(id, holder, into.as_ref()),
            Work::Upload { path, size } => self.exchanges.start_upload(id, holder, path, size),
            Work::Run { command, stdin } => {
                self.starts_left -= 1;
                self.commands.start(id, session, &command, stdin, self.poll.registry())
            }
            Work::Program { program, stdin } => {
                self.starts_left -= 1;
                self.commands.start_program(id, session, &program, stdin, self.poll.registry())
            }
            Work::Ask(question) => {
                let busy = self.busy();
                let started = self.questions.start(id, session, question, &busy);
                // Some are answered at once.
                self.todo.push_back(Effect::Pull { operation: id });
                started
            }
        };
        if let Err(refusal) = started {
            self.end(id, Outcome::Failed(refusal));
        }
    }

    /// What the server has to do at the moment.
    fn busy(&self) -> Busy {
        Busy {
            now: self.now,
            counts: self.hub.counts(),
            transfers: self.transfers.count(),
            commands: self.commands.count(),
        }
    }

    pub(super) fn end(&mut self, operation: OperationId, outcome: Outcome) {
        self.input(Input::Ended { operation, outcome });
    }

    fn terminate(&mut self, id: OperationId) {
        if self.edge.has(id) && !self.edge.terminate(id) {
            return;
        }
        let (transfers, edge) = (self.transfers.has(id), self.edge.has(id));
        let answers = [transfers, self.exchanges.has(id), self.questions.has(id), edge];
        if answers.contains(&true) {
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
        let goes_on = if self.transfers.has(operation) {
            self.produce_transfer(operation, room)
        } else if self.edge.has(operation) {
            self.produce_edge(operation, room)
        } else if self.questions.has(operation) {
            self.produce_answer(operation, room)
        } else if self.exchanges.has(operation) {
            self.produce_exchange(operation, room)
        } else {
            self.produce_command(operation, room)
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
                Chunk::File { file: 0, offset, length }
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

    fn produce_answer(&mut self, operation: OperationId, room: usize) -> bool {
        let piece = match self.questions.produce(operation, room) {
            questions::Produced::Nothing => return false,
            questions::Produced::Over(outcome) => {
                self.end(operation, outcome);
                return false;
            }
            questions::Produced::Piece(piece) => piece,
        };
        let chunk = match &piece {
            Piece::Text(text) => Chunk::Text(text),
            Piece::Object(object) => Chunk::Object(object),
        };
        self.input(Input::Chunk { operation, chunk });
        true
    }

    fn produce_exchange(&mut self, operation: OperationId, room: usize) -> bool {
        let now = crate::hub::Time(self.now);
        let produced = self.exchanges.produce(operation, room);
        let chunk = match &produced {
            exchanges::Produced::Nothing => return false,
            exchanges::Produced::Over(outcome) => {
                self.end(operation, outcome.clone());
                return false;
            }
            exchanges::Produced::Text(text) => Chunk::Text(text),
            exchanges::Produced::Bytes(bytes) => Chunk::Output { stream: Stream::Stdout, bytes },
            exchanges::Produced::Piece { file, offset, length } => {
                Chunk::File { file: *file, offset: *offset, length: *length }
            }
        };
        self.hub.handle(now, Input::Chunk { operation, chunk });
        self.take_effects();
        if self.exchanges.wants_to_go_on(operation) {
            self.move_exchange(operation);
        }
        true
    }

    /// Sends the party of a conversation to a worker, with what has come for it.
    fn move_exchange(&mut self, operation: OperationId) {
        let spare = self.exchanges.take_spare(operation);
        if let Some((bytes, ended)) = self.hub.take_input(operation, spare)
            && let Err(refusal) = self.exchanges.go_on(operation, bytes, ended)
        {
            self.exchanges.drop_exchange(operation);
            self.end(operation, Outcome::Failed(refusal));
        }
    }

    fn note_fed(&mut self, operation: OperationId) {
        if !self.fed.contains(&operation) {
            self.fed.push(operation);
        }
    }

    /// Sends those to a worker for whom something has come. While more is at hand for one it
    /// gathers: a worker that is woken for every read costs more than what it does.
    pub(super) fn move_fed(&mut self) {
        for operation in std::mem::take(&mut self.fed) {
            // Who is away looks for more when it comes home.
            if !self.exchanges.is_at_home(operation) {
                continue;
            }
            let gathered = match self.hub.standard_input(operation) {
                Some((bytes, false)) => bytes.len(),
                _ => usize::MAX,
            };
            let session = self.exchanges.session(operation);
            let connection = session.and_then(|id| self.connections.get(id));
            if gathered < GATHER_BYTES && connection.is_some_and(|it| it.listed_to_read) {
                self.fed.push(operation);
            } else {
                self.move_exchange(operation);
            }
        }
    }

    /// Takes in what workers have done for conversations.
    fn take_exchange_results(&mut self) {
        while let Some((operation, count)) = self.exchanges.try_recv() {
            if count > 0 {
                self.input(Input::InputDone { operation, count });
            }
            let has_input = |(bytes, ended): (&[u8], bool)| !bytes.is_empty() || ended;
            let is_fed = self.hub.standard_input(operation).is_some_and(has_input);
            let is_home = self.exchanges.is_at_home(operation);
            if is_home && is_fed {
                self.note_fed(operation);
            } else if self.exchanges.wants_to_go_on(operation) {
                self.move_exchange(operation);
            }
            if self.exchanges.has(operation) {
                self.produce(operation);
            }
        }
    }

    fn produce_command(&mut self, operation: OperationId, room: usize) -> bool {
        match self.commands.produce(operation, &mut self.buffer, room) {
            commands::Produced::Nothing => false,
            commands::Produced::Over(outcome) => {
                self.keep_leftovers();
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

    pub(super) fn feed(&mut self, operation: OperationId) {
        if self.exchanges.has(operation) {
            return self.note_fed(operation);
        }
        let Some((bytes, ended)) = self.hub.standard_input(operation) else { return };
        if self.edge.has(operation) {
            self.edge.feed(operation, bytes, ended);
            return self.tell_edge_news();
        }
        let left = bytes.len();
        match self.commands.feed(operation, bytes, ended) {
            Some(count) if count > 0 => self.input(Input::InputTaken { operation, count }),
            None if left > 0 => self.input(Input::InputClosed { operation }),
            _ => {}
        }
    }

    /// Takes in what the workers have done.
    pub(super) fn take_results(&mut self) {
        self.tell_edge_news();
        self.take_exchange_results();
        self.take_identities();
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
                transfers::Done::Read(id) => {
                    self.transfers.on_read(id);
                    self.produce(id);
                }
                transfers::Done::Hashed(id, hashed) => {
                    if self.transfers.on_hashed(id, hashed) {
                        self.produce(id);
                    }
                }
            }
        }
    }

    /// Takes in what has been found out about the host, and what is due of it.
    pub(super) fn take_answers(&mut self) {
        while let Some(done) = self.questions.try_recv() {
            let busy = self.busy();
            for id in self.questions.on_done(done, &busy) {
                self.produce(id);
            }
        }
        for id in self.questions.tick(self.now) {
            self.produce(id);
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
