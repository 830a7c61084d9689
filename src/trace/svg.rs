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
        let columns = self.columns.len().max(1);
        let cell = ((MAX_WIDTH - LABEL_WIDTH) / columns).clamp(4, 60);
        let named = cell >= WIDE_CELL;
        let (width, height) = (LABEL_WIDTH + cell * columns, HEADER_HEIGHT + CELL_HEIGHT * self.rows.len());
        let mut svg = open(self.title, width, height);
        label(&mut svg, "r", LABEL_WIDTH - 8, HEADER_HEIGHT - 6, self.axis);
        for (column, name) in self.columns.iter().enumerate() {
            // Of many narrow columns every tenth has room for its name.
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
}

fn open(title: &str, width: usize, height: usize) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\
         <title>{}</title>\n",
        escape(title)
    )
}

fn label(svg: &mut String, class: &str, x: usize, y: usize, text: &str) {
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
