//! Curves as an SVG image.

use std::fmt::Write;

/// Points in the order of `x`.
#[derive(Debug, Clone)]
pub struct Curve {
    pub title: String,
    /// What `x` counts, such as `tokens in the KV cache`.
    pub x_label: String,
    pub y_label: String,
    /// `(x, y, deviation of y)`, `x` at least 1.
    pub points: Vec<(f64, f64, f64)>,
}

const WIDTH: f64 = 640.0;
const PANEL_HEIGHT: f64 = 320.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 56.0;

/// An SVG image with one panel per curve, one above the other: `x` on a scale of powers of two, `y` from 0 on.
pub fn svg(curves: &[Curve]) -> String {
    let height = PANEL_HEIGHT * curves.len() as f64;
    let mut image = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, curve) in curves.iter().enumerate() {
        let panel = Panel::new(curve, PANEL_HEIGHT * index as f64);
        panel.draw(&mut image);
    }
    image.push_str("</svg>\n");
    image
}

struct Panel<'a> {
    curve: &'a Curve,
    y_offset: f64,
    /// Logarithms to base 2.
    x_range: (f64, f64),
    y_max: f64,
    y_step: f64,
}

impl<'a> Panel<'a> {
    fn new(curve: &'a Curve, y_offset: f64) -> Self {
        let logs = || curve.points.iter().map(|(x, ..)| x.max(1.0).log2());
        let (first, last) = (logs().fold(f64::INFINITY, f64::min), logs().fold(0.0, f64::max));
        let first = if first.is_finite() { first } else { 0.0 };
        let highest = curve.points.iter().map(|(_, y, deviation)| y + deviation).fold(0.0, f64::max).max(1e-9);
        let y_step = nice_step(highest / 5.0);
        let x_range = if last > first { (first, last) } else { (first - 1.0, first + 1.0) };
        Panel { curve, y_offset, x_range, y_max: (highest / y_step).ceil() * y_step, y_step }
    }

    fn x(&self, value: f64) -> f64 {
        let (first, last) = self.x_range;
        LEFT + (value.max(1.0).log2() - first) / (last - first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.y_offset + PANEL_HEIGHT - BOTTOM - value / self.y_max * (PANEL_HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, image: &mut String) {
        let (middle, base) = ((LEFT + WIDTH - RIGHT) / 2.0, self.y_offset + PANEL_HEIGHT);
        let Curve { title, x_label, y_label, points } = self.curve;
        text(image, (middle, self.y_offset + 24.0), "middle", title);
        let mut line = String::new();
        for step in 0..=(self.y_max / self.y_step).round() as usize {
            let value = step as f64 * self.y_step;
            let y = self.y(value);
            let _ = writeln!(image, "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - RIGHT);
            text(image, (LEFT - 8.0, y + 4.0), "end", &shown(value));
        }
        for (index, &(x_value, value, deviation)) in points.iter().enumerate() {
            let (x, y) = (self.x(x_value), self.y(value));
            let _ = write!(line, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
            let (low, high) = (self.y((value - deviation).max(0.0)), self.y(value + deviation));
            let _ = writeln!(image, "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"#1f5fa8\"/>");
            let _ = writeln!(image, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1f5fa8\"/>");
            text(image, (x, base - BOTTOM + 18.0), "middle", &shown(x_value));
        }
        let _ = writeln!(image, "<path d=\"{line}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\"/>");
        text(image, (middle, base - 16.0), "middle", x_label);
        text(image, (LEFT, self.y_offset + TOP - 12.0), "end", y_label);
    }
}

/// `anchor` as SVG's `text-anchor`.
fn text(image: &mut String, (x, y): (f64, f64), anchor: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(image, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>");
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let magnitude = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * magnitude).find(|step| *step >= least).unwrap_or(10.0 * magnitude)
}

/// Three digits, or all of those before the point.
fn shown(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}
