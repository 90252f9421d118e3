//! Plots of figures, as SVG: lines over an axis, either axis by its logarithm where that shows more.

use anyhow::anyhow;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (1_000, 420);
const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 97, 141),
    RGBColor(230, 126, 34),
    RGBColor(30, 125, 67),
    RGBColor(192, 57, 43),
    RGBColor(125, 60, 152),
];

/// A picture of some series.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) log_x: bool,
    pub(crate) log_y: bool,
    pub(crate) series: Vec<Line>,
}

/// One line of it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Plot {
    /// Draws it. An axis without a logarithm begins at zero.
    pub(crate) fn draw(&self) -> anyhow::Result<String> {
        let all = || self.series.iter().flat_map(|line| line.points.iter().copied());
        let span = |values: Vec<f64>| {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            (least.min(most), most.max(1e-9))
        };
        let (x, y) = (
            span(all().map(|point| point.0).collect()),
            span(all().map(|point| point.1).collect()),
        );
        // A logarithm needs something above zero, and room on both sides.
        let log = |(least, most): (f64, f64)| (least.max(1e-3) / 1.3..most.max(2e-3) * 1.3).log_scale();
        let linear = |(_, most): (f64, f64)| 0.0..most * 1.12;
        match (self.log_x, self.log_y) {
            (true, true) => self.draw_on(log(x), log(y)),
            (true, false) => self.draw_on(log(x), linear(y)),
            (false, true) => self.draw_on(linear(x), log(y)),
            (false, false) => self.draw_on(linear(x), linear(y)),
        }
    }

    fn draw_on<X, Y>(&self, x: X, y: Y) -> anyhow::Result<String>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let drawn = |error: String| anyhow!("can't draw: {error}");
            area.fill(&WHITE).map_err(|error| drawn(error.to_string()))?;
            let mut chart = ChartBuilder::on(&area)
                .margin(16)
                .x_label_area_size(40)
                .y_label_area_size(80)
                .build_cartesian_2d(x, y)
                .map_err(|error| drawn(error.to_string()))?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .x_desc(self.x)
                .y_desc(self.y)
                .x_label_formatter(&|value| number(*value))
                .y_label_formatter(&|value| number(*value))
                .draw()
                .map_err(|error| drawn(error.to_string()))?;
            for (line, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
                let at = move |point: (i32, i32)| Circle::new(point, 4, colour.filled());
                chart
                    .draw_series(LineSeries::new(line.points.clone(), colour.stroke_width(2)).point_size(3))
                    .map_err(|error| drawn(error.to_string()))?
                    .label(line.name.clone())
                    .legend(at);
            }
            if self.series.len() > 1 {
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::UpperRight)
                    .background_style(WHITE.mix(0.9))
                    .border_style(BLACK.mix(0.2))
                    .draw()
                    .map_err(|error| drawn(error.to_string()))?;
            }
            area.present().map_err(|error| drawn(error.to_string()))?;
        }
        Ok(svg)
    }
}

/// A figure on an axis: 1,000,000 as 1M.
fn number(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value {
        value if value >= 1e6 => short(value / 1e6, "M"),
        value if value >= 1e3 => short(value / 1e3, "k"),
        value => short(value, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_measured_can_be_drawn() {
        for points in [vec![(1.0, 5.0), (1e6, 70_000.0)], vec![(0.0, 0.0)], Vec::new()] {
            for (log_x, log_y) in [(true, true), (true, false), (false, true), (false, false)] {
                let line = |name: &str| Line {
                    name: name.to_owned(),
                    points: points.clone(),
                };
                let plot = Plot {
                    x: "messages",
                    y: "messages/s",
                    log_x,
                    log_y,
                    series: vec![line("a"), line("b")],
                };
                assert!(plot.draw().unwrap().contains("</svg>"));
            }
        }
    }

    #[test]
    fn figures_on_an_axis_are_short() {
        assert_eq!(
            [0.0, 0.5, 12.0, 1_000.0, 2_500_000.0].map(number),
            ["0", "0.5", "12", "1k", "2.5M"]
        );
    }
}
