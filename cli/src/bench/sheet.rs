//! A self-contained page of plots and tables, in one HTML file that needs nothing from anywhere.

use std::path::Path;

use anyhow::Context as _;

use super::page::{STYLE, escape};
use super::plot::Plot;

/// What a page shows.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) title: String,
    /// What was done, in a few sentences.
    pub(crate) story: String,
    pub(crate) passed: bool,
    pub(crate) sections: Vec<Section>,
}

/// A plot, and the figures in it.
#[derive(Debug, Default)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) plots: Vec<Plot>,
    /// The first row names the columns.
    pub(crate) table: Vec<Vec<String>>,
}

impl Sheet {
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, self.render()?).with_context(|| format!("can't write {}", path.display()))
    }

    fn render(&self) -> anyhow::Result<String> {
        let (class, word) = if self.passed {
            (
                "good",
                "verified: all that was sent came out, once, in order and as it is recorded",
            )
        } else {
            ("bad", "FAILED: not all runs were as they should be")
        };
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\
             <h1>{title}</h1><p>{story}</p><p class=\"{class}\">{word}</p>",
            title = escape(&self.title),
            story = escape(&self.story),
        );
        for section in &self.sections {
            page.push_str(&format!("<h2>{}</h2>", escape(&section.title)));
            for plot in &section.plots {
                page.push_str(&plot.draw()?);
            }
            page.push_str("<table>");
            for (index, row) in section.table.iter().enumerate() {
                let cell = if index == 0 { "th" } else { "td" };
                let cells: String = row
                    .iter()
                    .map(|text| format!("<{cell}>{}</{cell}>", escape(text)))
                    .collect();
                page.push_str(&format!("<tr>{cells}</tr>"));
            }
            page.push_str("</table>");
        }
        page.push_str("</body></html>\n");
        Ok(page)
    }
}

impl Section {
    /// The table for people who read a terminal.
    pub(crate) fn to_text(&self) -> String {
        let columns = self.table.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.table.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = format!("  {}\n", self.title);
        for row in &self.table {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:>width$}"))
                .collect();
            text.push_str(&format!("    {}\n", cells.join("  ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_a_table() {
        let section = Section {
            title: "services".to_owned(),
            plots: Vec::new(),
            table: vec![
                vec!["n".to_owned(), "messages/s".to_owned()],
                vec!["16".to_owned(), "5".to_owned()],
            ],
        };
        assert_eq!(
            section.to_text(),
            "  services\n     n  messages/s\n    16           5\n"
        );
    }
}
