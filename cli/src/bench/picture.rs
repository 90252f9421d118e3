//! Pictures: positions over time, as SVG.

use anyhow::anyhow;
use conga::core::message::Output;
use conga::core::time::Micros;
use plotters::prelude::*;

/// Something that happened, to be marked.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) at: Micros,
    pub(crate) what: String,
}

const SIZE: (u32, u32) = (1_000, 560);
const PROCESSED: RGBColor = RGBColor(230, 126, 34);
const DELIVERED: RGBColor = RGBColor(31, 97, 141);
const MARK: RGBColor = RGBColor(192, 57, 43);
/// More dots than this make a picture no clearer, only larger.
const DOTS: usize = 4_000;

/// Each message twice: when it was processed, and when it was delivered. Times count from the first `created`.
pub(crate) fn positions_over_time(outputs: &[Output], marks: &[Mark]) -> anyhow::Result<String> {
    let start = outputs
        .iter()
        .map(|output| output.record.created)
        .min()
        .unwrap_or_default();
    let seconds = |at: Micros| seconds(at.since(start));
    let step = outputs.len().div_ceil(DOTS).max(1);
    let dots: Vec<(f64, f64, f64)> = outputs
        .iter()
        .step_by(step)
        .filter_map(|output| {
            let delivered = output.sequenced?;
            Some((
                seconds(output.processed),
                seconds(delivered),
                number(output.record.position.0),
            ))
        })
        .collect();
    let longest = dots
        .iter()
        .map(|dot| dot.1)
        .chain(marks.iter().map(|mark| seconds(mark.at)))
        .fold(0.1, f64::max);
    let highest = dots.iter().map(|dot| dot.2).fold(1.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = |error: String| anyhow!("can't draw: {error}");
        area.fill(&WHITE).map_err(|error| drawn(error.to_string()))?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..longest * 1.02, 0.0..highest * 1.08)
            .map_err(|error| drawn(error.to_string()))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("seconds since the first message was sent")
            .y_desc("position")
            .y_label_formatter(&|position| format!("{position:.0}"))
            .draw()
            .map_err(|error| drawn(error.to_string()))?;
        for mark in marks {
            let at = seconds(mark.at);
            chart
                .draw_series(LineSeries::new([(at, 0.0), (at, highest * 1.03)], MARK.stroke_width(2)))
                .map_err(|error| drawn(error.to_string()))?;
            chart
                .draw_series([Text::new(
                    mark.what.clone(),
                    (at, highest * 1.07),
                    ("sans-serif", 14).into_font().color(&MARK),
                )])
                .map_err(|error| drawn(error.to_string()))?;
        }
        chart
            .draw_series(
                dots.iter()
                    .map(|dot| Circle::new((dot.0, dot.2), 2, PROCESSED.mix(0.7).filled())),
            )
            .map_err(|error| drawn(error.to_string()))?
            .label("processed: in any order")
            .legend(|at| Circle::new(at, 4, PROCESSED.filled()));
        chart
            .draw_series(LineSeries::new(
                dots.iter().map(|dot| (dot.1, dot.2)),
                DELIVERED.stroke_width(2),
            ))
            .map_err(|error| drawn(error.to_string()))?
            .label("delivered: in order")
            .legend(|at| Circle::new(at, 4, DELIVERED.filled()));
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.2))
            .draw()
            .map_err(|error| drawn(error.to_string()))?;
        area.present().map_err(|error| drawn(error.to_string()))?;
    }
    Ok(svg)
}

#[allow(clippy::cast_precision_loss, reason = "a place in a picture")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "a place in a picture")]
fn number(position: u64) -> f64 {
    position as f64
}
