//! The file of a tour: written, and compared with its copy.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

/// The file's size, and where its pseudo-random bytes begin.
pub(super) const FILE_BYTES: usize = 256 * 1024 * 1024;
pub(super) const FILE_SEED: u64 = 64;
/// Files are made and compared in pieces of this size.
const PIECE_BYTES: usize = 1024 * 1024;

/// Writes a file that no compression and no cache of a file system can shorten: SplitMix64.
pub(super) fn write_random(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = FILE_SEED;
    let mut piece = vec![0; PIECE_BYTES];
    for _ in 0..FILE_BYTES / PIECE_BYTES {
        for word in piece.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        file.write_all(&piece)?;
    }
    Ok(())
}

/// An error that says at which byte two files part.
pub(super) fn first_difference(ours: &Path, theirs: &Path) -> Result<(), String> {
    let open = |path: &Path| File::open(path).map_err(|error| format!("{path:?}: {error}"));
    let (mut ours, mut theirs) = (open(ours)?, open(theirs)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        for (file, piece) in [(&mut ours, &mut left), (&mut theirs, &mut right)] {
            piece.clear();
            let limited = file.take(PIECE_BYTES as u64).read_to_end(piece);
            limited.map_err(|error| format!("it cannot be read: {error}"))?;
        }
        if left != right {
            let same = left.iter().zip(&right).take_while(|(ours, theirs)| ours == theirs).count();
            return Err(format!("they differ from byte {} on", at + same));
        }
        if left.is_empty() {
            let whole = at == FILE_BYTES;
            return if whole { Ok(()) } else { Err(format!("both have {at} bytes only")) };
        }
        at += left.len();
    }
}
