//! Text on standard output and error: lines, tables, objects. No colours, and no panic when a pipe is closed.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Prints to standard output.
///
/// # Errors
/// A closed pipe, a full disk.
pub(super) fn say(text: impl fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints to standard error; where even that fails there is nobody left to tell.
pub(super) fn note(text: impl fmt::Display) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Whether a person watches both streams, so that bars may be drawn.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns, for people
    Table,
    /// The API's own objects
    Yaml,
    /// The API's own objects; lists as arrays
    Json,
}

/// `-o`, wherever objects are shown.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Output {
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, default_value = "table", value_name = "FORMAT")]
    pub(super) format: Format,
}

impl Output {
    /// Prints a value for programs, or for people what `table` makes of it.
    pub(super) fn show<T: Serialize>(self, value: &T, table: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Table => table(),
            Format::Yaml => modelyard_core::yaml::to_string(value).map_err(anyhow::Error::msg)?,
            Format::Json => serde_json::to_string_pretty(value)?,
        };
        say(text.trim_end())?;
        Ok(())
    }

    /// Prints a list; for people, says so where it is empty.
    pub(super) fn list<T: Serialize>(
        self,
        what: &str,
        items: &[T],
        table: impl FnOnce(&[T]) -> Table,
    ) -> anyhow::Result<()> {
        if self.format == Format::Table && items.is_empty() {
            note(format_args!("no {what}"));
            return Ok(());
        }
        self.show(&items, || table(items).to_string())
    }
}

/// Left-aligned columns under a header.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A line break in a message would tear the row; an empty cell would shift it for readers like awk.
        let tidy = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell.replace(['\n', '\r'], " ") };
        self.rows.push(cells.map(tidy).to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += &format!("{cell:<width$}   ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `3 problems`, `1 problem`.
pub(super) fn count<N: fmt::Display + PartialEq + From<u8>>(n: N, noun: &str) -> String {
    if n == N::from(1) { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_rows_stay_whole() {
        let mut table = Table::new(["NAME", "VERSION", "MESSAGE"]);
        table.row(["linear".into(), "2".into(), "two\nlines".into()]);
        table.row(["größer-10".into(), String::new(), "x".into()]);
        assert_eq!(
            table.to_string(),
            "NAME        VERSION   MESSAGE\nlinear      2         two lines\ngrößer-10   -         x\n"
        );
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!([0, 1, 2].map(|n: u64| count(n, "problem")).join(", "), "0 problems, 1 problem, 2 problems");
    }
}
