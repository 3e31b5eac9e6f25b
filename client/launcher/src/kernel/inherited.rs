//! The descriptors that this process inherited. They belong to the program: a copy in another process would, for
//! example, keep a pipe open.

use std::fs;
use std::io;

use super::at_start;

/// The descriptors above the standard ones that were open when the process started.
#[derive(Debug)]
pub struct Inherited(Vec<i32>);

impl Inherited {
    /// Lists them. Call this before the process opens anything.
    ///
    /// # Errors
    ///
    /// Those of reading `/proc/self/fd`.
    pub fn list() -> io::Result<Self> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.parse::<i32>().ok());
            numbers.extend(number.filter(|number| *number > 2));
        }
        // The descriptor of the list itself, which is closed by now.
        // SAFETY: the call takes no pointer, and fails for a number that is not open.
        numbers.retain(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0);
        Ok(Self(numbers))
    }

    /// Closes them in this process.
    pub(crate) fn close(&self) {
        self.0.iter().copied().for_each(close);
    }
}

/// Closes the standard descriptors that were closed when the process started.
pub(crate) fn close_standard() {
    at_start::closed_descriptors().for_each(close);
}

fn close(number: i32) {
    // SAFETY: no value of this process owns the number: it was open before `main`, or is a standard descriptor, which
    // the library never closes.
    unsafe { libc::close(number) };
}
