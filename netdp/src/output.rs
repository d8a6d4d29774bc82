//! What commands print: lines, tables and JSON documents on standard output.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::Error;

/// Prints one line.
pub fn line(text: impl Display) -> Result<(), Error> {
    write(&format!("{text}\n"))
}

/// Prints lines, all at once.
pub fn lines(lines: impl IntoIterator<Item = impl Display>) -> Result<(), Error> {
    let text: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    if text.is_empty() { Ok(()) } else { write(&text) }
}

/// Says on standard error what went wrong without failing the command.
pub fn warning(text: impl Display) -> Result<(), Error> {
    let text = text.to_string().replace('\n', "; ");
    writeln!(io::stderr(), "warning: {text}").map_err(Error::system("writing to standard error"))
}

/// Prints one JSON document.
pub fn json<T: Serialize + ?Sized>(document: &T) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Error::system("writing JSON")(io::Error::from(error)))?;
    line(text)
}

/// Prints a table; nothing but its head, if it has no rows.
pub fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> Result<(), Error> {
    rows_of_any_length(&head.map(ToOwned::to_owned), rows)
}

/// The same where the number of columns is not known before.
pub fn rows(head: &[String], rows: Vec<Vec<String>>) -> Result<(), Error> {
    rows_of_any_length(head, rows)
}

fn rows_of_any_length<R: Into<comfy_table::Row>>(head: &[String], rows: Vec<R>) -> Result<(), Error> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
    table.add_rows(rows);
    let text = table.to_string();
    let trimmed: Vec<&str> =
        text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    line(trimmed.join("\n"))
}

/// Names joined for a table's cell or a message; a dash for none.
pub fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".into() } else { items.join(", ") }
}

fn write(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::system("writing to standard output")),
    }
}
