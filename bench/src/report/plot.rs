//! Percentile plots as inline SVG: latency over percentile, both on logarithmic axes.
//!
//! The page has one per case. Invariant: everything drawn lies inside the view box; nothing is
//! loaded from elsewhere.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::table::escape;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;
/// The x axis ends at this many nines.
const NINES_MAX: f64 = 5.0;
/// Points of a curve.
const POINTS: usize = 120;
/// Told apart with colour-blind eyes, on light and on dark.
const COLOURS: [&str; 12] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#882255",
    "#44aa99", "#aa4499", "#777777", "#117733",
];

/// The plot of one case: a named curve per contender.
pub(super) fn render(curves: &[(String, Histogram<u64>)]) -> String {
    let values = curves.iter().flat_map(|(_, curve)| {
        [curve.value_at_quantile(0.0), curve.value_at_quantile(quantile(NINES_MAX))]
    });
    let micros: Vec<f64> = values.map(|nanos| (nanos.max(1) as f64 / 1000.0).log10()).collect();
    let low = micros.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let high = micros.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil().max(low + 1.0);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    if curves.is_empty() {
        svg.push_str("</svg>\n");
        return svg;
    }
    let scale = Scale { low, high };
    scale.draw_axes(&mut svg);
    for (index, (name, curve)) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = (0..=POINTS)
            .map(|point| {
                let nines = NINES_MAX * point as f64 / POINTS as f64;
                let nanos = curve.value_at_quantile(quantile(nines)).max(1);
                let (x, y) = (Scale::x(nines), scale.y((nanos as f64 / 1000.0).log10()));
                format!("{x:.1},{y:.1}")
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>",
            points.join(" ")
        );
        let y = TOP + 12.0 + index as f64 * 17.0;
        let x = WIDTH - RIGHT + 12.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{y}\">{}</text>",
            y - 6.0,
            x + 18.0,
            escape(name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The quantile with so many nines: 0 is none, 1 is 90 %, 2 is 99 %.
fn quantile(nines: f64) -> f64 {
    1.0 - 10f64.powf(-nines)
}

/// The y axis in powers of ten of microseconds.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn x(nines: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nines / NINES_MAX
    }

    fn y(&self, log_micros: f64) -> f64 {
        let part = ((log_micros - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part
    }

    fn draw_axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut power = self.low;
        while power <= self.high {
            let y = self.y(power);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                micros_label(power)
            );
            power += 1.0;
        }
        let ticks = [(0.0, "0"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
        for (nines, label) in ticks.into_iter().chain([(0.301, "50 %"), (5.0, "99.999 %")]) {
            let x = Self::x(nines);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                bottom + 18.0
            );
        }
    }
}

/// A power of ten of microseconds in its usual unit.
fn micros_label(power: f64) -> String {
    match power {
        power if power >= 6.0 => format!("{} s", 10f64.powf(power - 6.0)),
        power if power >= 3.0 => format!("{} ms", 10f64.powf(power - 3.0)),
        power => format!("{} µs", 10f64.powf(power)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tally;

    #[test]
    fn nines_are_quantiles() {
        assert!(quantile(0.0).abs() < 1e-12);
        assert!((quantile(2.0) - 0.99).abs() < 1e-12);
    }

    #[test]
    fn every_curve_stays_in_the_view_box() {
        let mut curve = tally::histogram();
        for value in [1, 500, 1_000, 70_000, 90_000_000_000] {
            curve.saturating_record(value);
        }
        let svg = render(&[("a<b".into(), curve)]);
        assert!(svg.contains("a&lt;b"));
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        for point in points.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{point}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{point}");
        }
    }

    #[test]
    fn labels_use_the_usual_units() {
        assert_eq!(micros_label(0.0), "1 µs");
        assert_eq!(micros_label(2.0), "100 µs");
        assert_eq!(micros_label(4.0), "10 ms");
        assert_eq!(micros_label(6.0), "1 s");
    }
}
