//! A self-contained page: figures and a picture in one HTML file that needs nothing from anywhere.

use std::path::Path;

use anyhow::Context as _;

use super::judge::Verdict;
use super::stages::Stages;

/// What a page shows.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    /// What was done, in a few sentences.
    pub(crate) story: &'a str,
    /// Names and values, in the order in which they are shown.
    pub(crate) figures: &'a [(&'static str, String)],
    pub(crate) verdict: &'a Verdict,
    pub(crate) stages: &'a Stages,
    /// SVG.
    pub(crate) picture: &'a str,
}

pub(super) const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:1040px;margin:2rem auto;padding:0 1rem;color:#222}\
    h1{font-size:1.6rem;margin-bottom:.2rem}table{border-collapse:collapse;margin:1rem 0}\
    td,th{padding:.25rem .9rem .25rem 0;text-align:left;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}\
    .good{color:#1e7d43;font-weight:600}.bad{color:#c0392b;font-weight:600}svg{width:100%;height:auto}";

impl Page<'_> {
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, self.render()).with_context(|| format!("can't write {}", path.display()))
    }

    fn render(&self) -> String {
        let row = |cells: &[String]| format!("<tr><td>{}</td></tr>", cells.join("</td><td>"));
        let figures: String = self
            .figures
            .iter()
            .map(|(name, value)| row(&[escape(name), escape(value)]))
            .collect();
        let stages: String = self
            .stages
            .named()
            .map(|(name, spread)| {
                let times = [
                    spread.p50_ms,
                    spread.p90_ms,
                    spread.p99_ms,
                    spread.p999_ms,
                    spread.max_ms,
                ];
                let cells: Vec<String> = std::iter::once(name.to_owned())
                    .chain(times.iter().map(|time| format!("{time:.2}")))
                    .collect();
                row(&cells)
            })
            .collect();
        let violations: String = self
            .verdict
            .violations
            .iter()
            .map(|violation| format!("<li>{}</li>", escape(violation)))
            .collect();
        let (class, word) = if self.verdict.passed() {
            ("good", "verified")
        } else {
            ("bad", "failed")
        };
        let Verdict {
            sent,
            delivered,
            lost,
            duplicated,
            reordered,
            ..
        } = self.verdict;
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\
             <h1>{title}</h1><p>{story}</p>\
             <p class=\"{class}\">{word}: sent {sent}, delivered {delivered}, lost {lost}, duplicated {duplicated}, \
             reordered {reordered}</p><ul>{violations}</ul>{picture}\
             <table>{figures}</table>\
             <table><tr><th>stage, ms</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>{stages}</table>\
             </body></html>\n",
            title = escape(self.title),
            story = escape(self.story),
            picture = self.picture,
        )
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
