//! Files on their way to a pipe.

use std::io::{self, Write};

use crate::{
    transfer::{
        Entry, EntryKind, Fault,
        receiver::{Found, Sink, Stored},
    },
    wire::ErrorCode,
};

/// One file after the other into a pipe: nothing is found, nothing can be taken back.
#[derive(Debug)]
pub struct PipeSink<W> {
    pipe: W,
    stored: Vec<Stored>,
    files: usize,
}

impl<W: Write> PipeSink<W> {
    /// A sink into `pipe`.
    pub fn new(pipe: W) -> PipeSink<W> {
        PipeSink { pipe, stored: Vec::new(), files: 0 }
    }
}

fn no_folder() -> Fault {
    Fault::new(ErrorCode::NotAFile, "a folder does not go to standard output; name a file")
}

impl<W: Write> Sink for PipeSink<W> {
    type Stage = ();

    fn folder(&mut self, _: &Entry) -> Result<(), Fault> {
        Err(no_folder())
    }

    fn find(&mut self, entry: &Entry) -> Result<Found<()>, Fault> {
        if entry.path.contains(&b'/') {
            return Err(no_folder());
        }
        if entry.kind == EntryKind::File && self.files > 0 {
            let text = "only one file goes to standard output";
            return Err(Fault::new(ErrorCode::BadArguments, text));
        }
        self.files += 1;
        Ok(Found { name: b"-".to_vec(), part: None })
    }

    fn begin(&mut self, _: &Entry, _: Option<()>, _: u64) -> Result<(), Fault> {
        Ok(())
    }

    fn read_at(&mut self, _: &(), _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> Result<(), Fault> {
        Ok(self.pipe.write_all(bytes)?)
    }

    fn finish(&mut self, number: u32, (): (), _: &Entry) {
        let flushed = self.pipe.flush().map_err(Fault::from);
        self.stored.push((number, flushed));
    }

    fn discard(&mut self, (): ()) {}

    fn settle(&mut self) -> Vec<Stored> {
        std::mem::take(&mut self.stored)
    }
}
