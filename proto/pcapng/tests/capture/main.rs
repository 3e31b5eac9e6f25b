//! The reader against files of every kind, and the writer against other programs.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod builder;
mod foreign;
mod hostile;
mod random;
mod tools;

use sockbroker_pcapng::{Block, Reader};

/// Reads a whole capture. Stops at the first error.
fn read_each(file: &[u8], mut each: impl FnMut(&Block<'_>)) -> Result<(), String> {
    let mut reader = Reader::new(file);
    while let Some(block) = reader.next_block().map_err(|error| error.to_string())? {
        each(&block);
    }
    Ok(())
}
