//! Requests of devices between the hub and their workers.

use super::{Asker, News, Produced};
use crate::{
    hub::{Chunk, Input, OperationId, SessionId, Time},
    server::Server,
    wire::{EdgeCall, Name, Refusal},
};

impl Server {
    /// Starts what a device has asked for.
    pub(in crate::server) fn start_edge(
        &mut self,
        id: OperationId,
        session: SessionId,
        device: Option<Name>,
        call: EdgeCall,
        plain: bool,
    ) -> Result<(), Refusal> {
        let connection = self.hub.connection_of(session);
        let connection = connection.and_then(|id| self.connections.get(id));
        let Some(connection) = connection else { return Ok(()) };
        let ip = connection.from;
        self.edge.start(id, Asker { session, ip, device, plain }, call)?;
        self.tell_edge_news();
        Ok(())
    }

    /// Tells the hub what has come of the requests of devices.
    pub(in crate::server) fn tell_edge_news(&mut self) {
        loop {
            let news = self.edge.take_news();
            if news.is_empty() {
                return;
            }
            for news in news {
                match news {
                    News::Ready(id) => self.produce(id),
                    News::Taken(operation, count) => {
                        self.input(Input::InputTaken { operation, count });
                        self.feed(operation);
                    }
                }
            }
        }
    }

    /// Hands in one piece of an answer, or the end; whether more may follow.
    pub(in crate::server) fn produce_edge(&mut self, operation: OperationId, room: usize) -> bool {
        let (text, object);
        let chunk = match self.edge.produce(operation, room) {
            Produced::Nothing => return false,
            Produced::Over(outcome) => {
                self.end(operation, outcome);
                return false;
            }
            Produced::Text(said) => {
                text = said;
                Chunk::Text(&text)
            }
            Produced::Object(said) => {
                object = said;
                Chunk::Object(&object)
            }
        };
        self.hub.handle(Time(self.now), Input::Chunk { operation, chunk });
        self.take_effects();
        true
    }
}
