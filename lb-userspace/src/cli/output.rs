//! Standard output for data, standard error for messages.

use std::{
    fmt,
    io::{self, ErrorKind, Write as _},
};

use serde::Serialize;

use super::status::Form;

/// Writes data to standard output.
pub(super) fn data(text: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes a listing in the form that was asked for.
pub(super) fn listing(
    form: Form,
    value: &(impl Serialize + ?Sized),
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match form {
        Form::Table => data(table())?,
        Form::Json => data(format_args!("{}\n", serde_json::to_string_pretty(value)?))?,
    }
    Ok(())
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
