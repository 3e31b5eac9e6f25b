//! A table with aligned columns.

use crate::failure::Failure;
use crate::screen::{Screen, Style};

/// Rows of cells under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    lines: Vec<Vec<String>>,
}

impl Table {
    /// Creates an empty table. A column is aligned to the right if its heading ends in `#`, which is not printed.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), lines: Vec::new() }
    }

    /// Adds a row with a cell for each heading.
    pub(crate) fn line(&mut self, cells: Vec<String>) {
        self.lines.push(cells);
    }

    pub(crate) fn print(&self, screen: &mut Screen) -> Result<(), Failure> {
        let widths = self.widths();
        let headings: Vec<_> =
            self.headings.iter().map(|name| name.trim_end_matches('#').to_owned()).collect();
        let line = self.aligned(&headings, &widths);
        let line = screen.look(Style::Bold, &line);
        screen.line(line)?;
        self.lines.iter().try_for_each(|cells| screen.line(self.aligned(cells, &widths)))
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |(column, heading): (usize, &&str)| {
            let cells = self.lines.iter().filter_map(|line| line.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(heading.trim_end_matches('#').len())
        };
        self.headings.iter().enumerate().map(widest).collect()
    }

    fn aligned(&self, cells: &[String], widths: &[usize]) -> String {
        let cell = |((cell, width), heading): ((&String, &usize), &&str)| {
            if heading.ends_with('#') {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        };
        let cells: Vec<_> = cells.iter().zip(widths).zip(&self.headings).map(cell).collect();
        cells.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["name", "n#", "rest"]);
        table.line(vec!["é".to_owned(), "7".to_owned(), "x".to_owned()]);
        table.line(vec!["longer".to_owned(), "123".to_owned(), String::new()]);
        let widths = table.widths();
        assert_eq!(widths, [6, 3, 4]);
        assert_eq!(table.aligned(&table.lines[0], &widths), "é         7  x");
        assert_eq!(table.aligned(&table.lines[1], &widths), "longer  123");
    }
}
