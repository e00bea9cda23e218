//! Standard output for data, standard error for messages.

use std::{
    fmt,
    io::{self, ErrorKind, Write as _},
};

/// Writes data to standard output.
pub(super) fn data(text: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes a message to standard error; where that is closed there is nobody to tell.
pub(super) fn message(text: impl fmt::Display) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Whether the reader of standard output has gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
