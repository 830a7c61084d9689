//! Pictures of numbers. Text becomes text, whatever characters it has.

use std::fmt::Write;

/// Side of a cell, room for the row names, height of the line of column names; in pixels.
const CELL_HEIGHT: usize = 22;
const LABEL_WIDTH: usize = 92;
const HEADER_HEIGHT: usize = 20;
/// Width that a picture may take.
const MAX_WIDTH: usize = 1000;
/// Cells at least so wide have their number written in them, and their column named.
const WIDE_CELL: usize = 30;
/// Pictures of more cells are drawn as runs of equal steps of colour, and their numbers written below.
const MAX_DETAILED: usize = 400;
/// Height of a row in such a picture, and room that a name needs.
const DENSE_HEIGHT: usize = 9;
const NAME_HEIGHT: usize = 14;
/// Steps of colour in such a picture.
pub const STEPS: usize = 10;
/// Colours so strong need another ink on them.
const STRONG: f64 = 0.8;

/// A table of numbers as colours.
pub struct Heatmap<'a> {
    /// What it shows, for those who do not see it.
    pub title: &'a str,
    /// What the columns are.
    pub axis: &'a str,
    pub rows: Vec<String>,
    pub columns: Vec<String>,
    /// `[rows][columns]`, each with what is written in it.
    pub cells: Vec<Vec<Cell>>,
}

pub struct Cell {
    /// 0 to 1: how strong its colour is.
    pub fill: f64,
    pub text: String,
    /// What a pointer over it shows.
    pub hint: String,
}

impl Heatmap<'_> {
    pub fn render(&self) -> String {
        if self.rows.len() * self.columns.len() > MAX_DETAILED { self.dense() } else { self.detailed() }
    }

    /// Every cell a rectangle with its number and its hint.
    fn detailed(&self) -> String {
        let columns = self.columns.len().max(1);
        let cell = ((MAX_WIDTH - LABEL_WIDTH) / columns).clamp(4, 60);
        let named = cell >= WIDE_CELL;
        let (width, height) = (LABEL_WIDTH + cell * columns, HEADER_HEIGHT + CELL_HEIGHT * self.rows.len());
        let mut svg = open(self.title, width, height);
        label(&mut svg, "r", LABEL_WIDTH - 8, HEADER_HEIGHT - 6, self.axis);
        for (column, name) in self.columns.iter().enumerate() {
            // If the columns are narrow, only every tenth has room for its name.
            if named || column % 10 == 0 {
                label(&mut svg, "c", LABEL_WIDTH + cell * column + cell / 2, HEADER_HEIGHT - 6, name);
            }
        }
        for (row, (name, cells)) in self.rows.iter().zip(&self.cells).enumerate() {
            let y = HEADER_HEIGHT + CELL_HEIGHT * row;
            label(&mut svg, "r", LABEL_WIDTH - 8, y + 15, name);
            for (column, value) in cells.iter().enumerate() {
                let x = LABEL_WIDTH + cell * column;
                let fill = 0.05 + 0.95 * value.fill.clamp(0.0, 1.0);
                let (w, h) = (cell - 1, CELL_HEIGHT - 1);
                let _ = write!(
                    svg,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill-opacity=\"{fill:.2}\"><title>{}</title></rect>",
                    escape(&value.hint)
                );
                if named && !value.text.is_empty() {
                    let class = if value.fill > STRONG { "n s" } else { "n" };
                    label(&mut svg, class, x + cell / 2, y + 15, &value.text);
                }
            }
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// One path for each step of colour, and a table of the numbers that is folded.
    fn dense(&self) -> String {
        let columns = self.columns.len().max(1);
        let cell = ((MAX_WIDTH - LABEL_WIDTH) / columns).clamp(4, 24);
        let row_height = if self.rows.len() > 12 { DENSE_HEIGHT } else { NAME_HEIGHT };
        let (width, height) = (LABEL_WIDTH + cell * columns, HEADER_HEIGHT + row_height * self.rows.len());
        let mut svg = open(self.title, width, height);
        label(&mut svg, "r", LABEL_WIDTH - 8, HEADER_HEIGHT - 6, self.axis);
        let every = if cell >= WIDE_CELL { 1 } else { 64 / cell };
        for (column, name) in self.columns.iter().enumerate().step_by(every) {
            label(&mut svg, "c", LABEL_WIDTH + cell * column + cell / 2, HEADER_HEIGHT - 6, name);
        }
        for (row, name) in self.rows.iter().enumerate().step_by(NAME_HEIGHT.div_ceil(row_height)) {
            label(&mut svg, "r", LABEL_WIDTH - 8, HEADER_HEIGHT + row_height * row + 10, name);
        }
        let (x, y) = (LABEL_WIDTH, HEADER_HEIGHT + row_height / 2);
        let _ = write!(svg, "<g transform=\"translate({x} {y}) scale({cell} {row_height})\">");
        for (step, path) in self.runs().iter().enumerate().filter(|(_, path)| !path.is_empty()) {
            let _ = write!(svg, "<path stroke-opacity=\"{:.2}\" d=\"{path}\"/>", opacity(step));
        }
        let _ = write!(svg, "</g></svg>\n<details><summary>The numbers</summary><pre>{}</pre></details>\n", self.numbers());
        svg
    }

    /// `[step]`: where the cells of that step are, as lines of a path.
    fn runs(&self) -> Vec<String> {
        let mut paths = vec![String::new(); STEPS];
        for (row, cells) in self.cells.iter().enumerate() {
            // Where the last line of each step in this row ends: going on from there takes fewer bytes.
            let mut ends = [None; STEPS];
            let mut column = 0;
            for run in cells.chunk_by(|a, b| step(a.fill) == step(b.fill)) {
                let (step, length) = (step(run[0].fill), run.len());
                let _ = match ends[step] {
                    None => write!(paths[step], "M{column} {row}h{length}"),
                    Some(end) => write!(paths[step], "m{} 0h{length}", column - end),
                };
                column += length;
                ends[step] = Some(column);
            }
        }
        paths
    }

    /// One line for each row, in columns of equal width.
    fn numbers(&self) -> String {
        let widest = |texts: &mut dyn Iterator<Item = &String>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
        let name = widest(&mut self.rows.iter().chain([&self.axis.to_owned()]));
        let number = 1 + widest(&mut self.cells.iter().flatten().map(|cell| &cell.text));
        let line = |first: &str, texts: &mut dyn Iterator<Item = &String>| {
            texts.fold(format!("{first:<name$}"), |line, text| format!("{line}{text:>number$}"))
        };
        let head = match (self.columns.first(), self.columns.last()) {
            // Names wider than the numbers would make every line longer.
            (Some(first), Some(last)) if widest(&mut self.columns.iter()) >= number => {
                format!("{} {first} to {last}, from left to right", self.axis)
            }
            _ => line(self.axis, &mut self.columns.iter()),
        };
        let rows = self.rows.iter().zip(&self.cells).map(|(name, cells)| line(name, &mut cells.iter().map(|cell| &cell.text)));
        escape(&[head].into_iter().chain(rows).collect::<Vec<_>>().join("\n"))
    }
}

fn step(fill: f64) -> usize {
    ((fill.clamp(0.0, 1.0) * STEPS as f64) as usize).min(STEPS - 1)
}

/// How strong the colour of a step is.
fn opacity(step: usize) -> f64 {
    0.05 + 0.95 * (step as f64 + 0.5) / STEPS as f64
}

/// What the colours mean: from nothing to `most`.
pub fn scale(most: &str) -> String {
    let width = 14;
    let mut svg = open(&format!("The scale of colours, from 0 to {most}"), 40 + width * STEPS + 70, 18);
    label(&mut svg, "r", 32, 14, "0");
    for step in 0..STEPS {
        let x = 40 + width * step;
        let _ =
            write!(svg, "<rect x=\"{x}\" y=\"2\" width=\"{}\" height=\"14\" fill-opacity=\"{:.2}\"/>", width - 1, opacity(step));
    }
    label(&mut svg, "", 40 + width * STEPS + 6, 14, most);
    svg.push_str("</svg>\n");
    svg
}

/// The beginning of a picture, in pixels.
pub(super) fn open(title: &str, width: usize, height: usize) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\
         <title>{}</title>\n",
        escape(title)
    )
}

/// A text whose anchor is that of `class`.
pub(super) fn label(svg: &mut String, class: &str, x: usize, y: usize, text: &str) {
    let _ = write!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(text));
}

/// `text` inside of HTML or SVG.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A token as one sees it in a list: white space made visible.
pub fn visible(text: &str) -> String {
    text.replace(' ', "␣").replace('\n', "⏎").replace('\t', "⇥").replace('\r', "␍")
}
