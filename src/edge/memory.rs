//! What was done for requests with an id, so that a repeat is answered and not done again.
//!
//! It is kept in the journal and outlives the server. Bounded: of each device the last 256, of all
//! together the last 65,536; what is older is forgotten, and a repeat of it would be done again.

use std::collections::{HashMap, VecDeque};

use super::journal::{Deed, Record};
use crate::{
    limits::{REQUESTS_REMEMBERED, REQUESTS_REMEMBERED_PER_DEVICE},
    wire::{EdgeAnswer, ErrorCode, Name, Refusal, edge::RequestId},
};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Memory {
    records: HashMap<Name, VecDeque<(u64, Record)>>,
    /// Whose record is the oldest, the next ... with its number.
    order: VecDeque<(u64, Name)>,
    count: usize,
    serial: u64,
}

impl Memory {
    /// Notes an act, where its request has an id.
    pub fn note(&mut self, record: Record) {
        if record.request.is_none() {
            return;
        }
        self.serial += 1;
        self.count += 1;
        self.order.push_back((self.serial, record.device));
        let own = self.records.entry(record.device).or_default();
        own.push_back((self.serial, record));
        if own.len() > REQUESTS_REMEMBERED_PER_DEVICE {
            own.pop_front();
            self.count -= 1;
        }
        while self.count > REQUESTS_REMEMBERED {
            self.forget_oldest();
        }
        // Those that their own device has pushed out stand in the order still.
        if self.order.len() > 2 * REQUESTS_REMEMBERED {
            let records = &self.records;
            self.order.retain(|(serial, device)| {
                let first = records.get(device).and_then(|own| own.front());
                first.is_some_and(|(oldest, _)| serial >= oldest)
            });
        }
    }

    fn forget_oldest(&mut self) {
        let Some((serial, device)) = self.order.pop_front() else { return };
        let Some(own) = self.records.get_mut(&device) else { return };
        if own.front().is_some_and(|(oldest, _)| *oldest == serial) {
            own.pop_front();
            self.count -= 1;
        }
        if own.is_empty() {
            self.records.remove(&device);
        }
    }

    /// The answer to a repeat; `None` for a request that is new.
    ///
    /// # Errors
    /// The id belongs to a request for something else.
    pub fn answer(
        &self,
        device: &Name,
        request: &RequestId,
        file_id: u32,
        hash: Option<&str>,
    ) -> Result<Option<EdgeAnswer>, Refusal> {
        let own = self.records.get(device).into_iter().flatten();
        let mut found = own.map(|(_, it)| it).filter(|it| it.request.as_ref() == Some(request));
        let Some(record) = found.next() else { return Ok(None) };
        let same_deed = match (&record.deed, hash) {
            (Deed::Upload { hash: before, .. }, Some(now)) => before == now,
            (Deed::Delete, None) => true,
            _ => false,
        };
        if !same_deed || record.file_id != file_id {
            let text = "the request_id belongs to an earlier request for something else; \
                        take a new one";
            return Err(Refusal::new(0, ErrorCode::IdInUse, text));
        }
        Ok(Some(answer_of(record, true)))
    }

    /// All that is remembered, in the order in which it was done.
    pub fn records(&self) -> Vec<&Record> {
        let mut records: Vec<_> = self.records.values().flatten().collect();
        records.sort_unstable_by_key(|(serial, _)| *serial);
        records.into_iter().map(|(_, record)| record).collect()
    }
}

/// What is told of an act that is done.
pub fn answer_of(record: &Record, repeated: bool) -> EdgeAnswer {
    let Record { file_id, samples, .. } = *record;
    let time = record.time.clone();
    match &record.deed {
        Deed::Upload { hash, .. } => {
            EdgeAnswer::Uploaded { file_id, samples, hash: hash.clone(), time, repeated }
        }
        Deed::Delete => EdgeAnswer::Deleted { file_id, samples, time, repeated },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(device: &str, request: &str) -> Record {
        Record {
            batch: 0,
            device: Name::parse(device).expect("a name"),
            file_id: 1,
            samples: 1,
            request: RequestId::parse(request),
            offset: 0,
            time: "1 May 2026 00:00:00".into(),
            deed: Deed::Delete,
        }
    }

    fn knows(memory: &Memory, device: &str, request: &str) -> bool {
        let record = record(device, request);
        let request = record.request.as_ref().expect("an id");
        memory.answer(&record.device, request, 1, None).expect("the same").is_some()
    }

    #[test]
    fn each_device_and_all_together_are_bounded() {
        let mut memory = Memory::default();
        let devices = REQUESTS_REMEMBERED / REQUESTS_REMEMBERED_PER_DEVICE + 1;
        for device in 0..devices {
            for request in 0..REQUESTS_REMEMBERED_PER_DEVICE + 3 {
                memory.note(record(&format!("d{device}"), &request.to_string()));
            }
        }
        assert_eq!(memory.count, REQUESTS_REMEMBERED);
        assert!(memory.order.len() <= 2 * REQUESTS_REMEMBERED + 1);
        let last = (REQUESTS_REMEMBERED_PER_DEVICE + 2).to_string();
        let newest = format!("d{}", devices - 1);
        assert!(knows(&memory, &newest, &last) && knows(&memory, &newest, "3"));
        assert!(!knows(&memory, &newest, "2"), "its own newer ones have pushed it out");
        assert!(!knows(&memory, "d0", &last), "those of others have");
        assert_eq!(memory.records().len(), REQUESTS_REMEMBERED);
        assert_eq!(
            memory.records().last().map(|it| it.line()),
            Some(record(&newest, &last).line())
        );
    }

    #[test]
    fn an_id_belongs_to_one_request() {
        let mut memory = Memory::default();
        memory.note(record("a", "1"));
        let (device, id) = (record("a", "1").device, RequestId::parse("1").expect("an id"));
        assert!(memory.answer(&device, &id, 1, None).expect("the same").is_some());
        assert!(memory.answer(&device, &id, 2, None).is_err());
        assert!(memory.answer(&device, &id, 1, Some("00")).is_err());
        assert!(!knows(&memory, "b", "1"), "of another device");
    }
}
