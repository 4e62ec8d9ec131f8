//! Printing: everything for the user goes through here, so that a closed pipe ends the program quietly.

use crate::error::{Error, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, StdoutLock, Write};

const STDOUT: &str = "standard output";

/// Prints a text as it is.
///
/// # Errors
/// [`Error::Io`] where standard output is closed.
pub fn text(text: &str) -> Result<()> {
    write(|out| out.write_all(text.as_bytes()))
}

/// Lets `print` write to standard output.
///
/// # Errors
/// As [`text`].
pub fn write(print: impl FnOnce(&mut StdoutLock<'_>) -> std::io::Result<()>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    print(&mut out).and_then(|()| out.flush()).map_err(Error::io(STDOUT, "write"))
}

/// Prints a value as JSON.
///
/// # Errors
/// As [`text`].
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut line =
        serde_json::to_string_pretty(value).map_err(|e| Error::Numeric(format!("not writable as JSON: {e}")))?;
    line.push('\n');
    text(&line)
}

/// Whether an error only says that nobody reads our output any more.
#[must_use]
pub fn is_broken_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { path, source, .. } if source.kind() == ErrorKind::BrokenPipe && path.as_os_str() == STDOUT)
}

/// Rows as aligned columns under a header; on a terminal, long texts are wrapped to its width.
#[must_use]
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
