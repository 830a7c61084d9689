//! Shares over shares as lines.

use super::svg::{escape, label, open};
use std::fmt::Write;

const WIDTH: usize = 640;
const HEIGHT: usize = 340;
/// Room for the marks on the left and below, and for names on the right.
const LEFT: usize = 56;
const BOTTOM: usize = 44;
const TOP: usize = 12;
const RIGHT: usize = 90;
/// Styles of lines; see the style of the page.
const STYLES: usize = 5;
/// Names of lines that end near each other stand so far apart.
const NAME_HEIGHT: usize = 14;
/// Marks on both axes, in percent.
const MARKS: [usize; 5] = [0, 25, 50, 75, 100];

/// A picture of lines between points from (0, 0) to (1, 1).
pub(super) struct Curves<'a> {
    /// What it shows, for those who do not see it.
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    pub(super) lines: Vec<Line>,
}

pub(super) struct Line {
    pub(super) name: String,
    /// In the order of `x`, each with what a pointer over it shows.
    pub(super) points: Vec<Point>,
}

pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) hint: String,
}

fn x_of(share: f64) -> usize {
    LEFT + (share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT) as f64).round() as usize
}

fn y_of(share: f64) -> usize {
    TOP + ((1.0 - share.clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM) as f64).round() as usize
}

impl Curves<'_> {
    pub(super) fn render(&self) -> String {
        let mut svg = open(self.title, WIDTH, HEIGHT);
        for mark in MARKS {
            let share = mark as f64 / 100.0;
            let (x, y, right) = (x_of(share), y_of(share), x_of(1.0));
            let _ = write!(svg, "<path class=\"a\" d=\"M{LEFT} {y}H{right}\"/>");
            label(&mut svg, "r", LEFT - 8, y + 4, &format!("{mark} %"));
            label(&mut svg, "c", x, HEIGHT - BOTTOM + 18, &format!("{mark} %"));
        }
        label(&mut svg, "c", (x_of(0.0) + x_of(1.0)) / 2, HEIGHT - 6, self.x_label);
        label(&mut svg, "", LEFT + 6, TOP + 12, self.y_label);
        for (index, line) in self.lines.iter().enumerate() {
            line.draw(&mut svg, index % STYLES);
        }
        self.draw_names(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// Beside the ends of the lines, from top to bottom, none over another.
    fn draw_names(&self, svg: &mut String) {
        let ends = self.lines.iter().enumerate().filter_map(|(index, line)| Some((index, line, line.points.last()?)));
        let mut ends: Vec<_> = ends.map(|(index, line, end)| (y_of(end.y), index, line)).collect();
        ends.sort_by_key(|(y, index, _)| (*y, *index));
        let mut free = 0;
        for (y, index, line) in ends {
            let y = y.max(free);
            free = y + NAME_HEIGHT;
            let x = x_of(1.0) + 8;
            let _ = write!(svg, "<path class=\"k k{}\" d=\"M{x} {y}h22\"/>", index % STYLES);
            label(svg, "", x + 26, y + 4, &line.name);
        }
    }
}

impl Line {
    fn draw(&self, svg: &mut String, style: usize) {
        let mut path = String::new();
        for point in &self.points {
            let command = if path.is_empty() { "M" } else { "L" };
            let _ = write!(path, "{command}{} {}", x_of(point.x), y_of(point.y));
        }
        if !path.is_empty() {
            let _ = write!(svg, "<path class=\"k k{style}\" d=\"{path}\"/>");
        }
        for point in &self.points {
            let (x, y) = (x_of(point.x) - 3, y_of(point.y) - 3);
            let hint = escape(&point.hint);
            let _ = write!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"6\" height=\"6\"><title>{hint}</title></rect>");
        }
    }
}
