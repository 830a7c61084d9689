//! Rows of text in aligned columns, as wide as the terminal.

use console::measure_text_width;

/// Between two columns.
const GAP: usize = 2;

/// `rows` with their columns aligned to the left, two spaces apart, the header first. On a terminal that is narrower, cells go on in the next line
/// between two words; where even that is too wide, every row becomes a list.
pub fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    within(width_of_stdout(), header, rows)
}

/// As [`aligned`], on a terminal of `limit` columns; `None`: as wide as it takes.
fn within(limit: Option<usize>, header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths = widths(header, rows);
    if let Some(limit) = limit {
        let least = longest_words(header, rows);
        while total(&widths) > limit {
            // The widest column that has a space to break at.
            let candidates = (0..widths.len()).filter(|&column| widths[column] > least[column]);
            match candidates.max_by_key(|&column| widths[column]) {
                Some(column) => widths[column] -= 1,
                None => return listed(header, rows),
            }
        }
    }
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    for row in [&header].into_iter().chain(rows) {
        push_row(&mut text, row, &widths);
    }
    text
}

fn push_row(text: &mut String, row: &[String], widths: &[usize]) {
    let cells: Vec<Vec<String>> = row.iter().zip(widths).map(|(cell, &width)| wrapped(cell, width)).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(1);
    for line in 0..height {
        let parts = cells.iter().zip(widths).map(|(cell, &width)| {
            let part = cell.get(line).map_or("", String::as_str);
            format!("{part}{}", " ".repeat(width.saturating_sub(measure_text_width(part))))
        });
        let parts: Vec<String> = parts.collect();
        text.push_str(parts.join(&" ".repeat(GAP)).trim_end());
        text.push('\n');
    }
}

/// A block of `name  cell` for every row.
fn listed(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = header.iter().map(|name| measure_text_width(name)).max().unwrap_or_default();
    let block = |row: &Vec<String>| -> String {
        let cells = header.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        cells.map(|(name, cell)| format!("{name:<width$}  {cell}\n")).collect()
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n")
}

/// The same as a table in Markdown.
pub fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", header.join(" | "), "---|".repeat(header.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// The same as comma-separated values: RFC 4180.
pub fn csv(header: &[&str], rows: &[Vec<String>]) -> String {
    let field = |cell: &str| {
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
    };
    let line = |cells: Vec<String>| format!("{}\n", cells.join(","));
    let mut text = line(header.iter().map(|name| field(name)).collect());
    rows.iter().for_each(|row| text.push_str(&line(row.iter().map(|cell| field(cell)).collect())));
    text
}

/// Columns of the terminal that stdout is, or as many as `COLUMNS` says; `None` where it is no terminal.
pub fn width_of_stdout() -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|&columns| columns > 0);
    if said.is_some() {
        return said;
    }
    let (_, columns) = console::Term::stdout().size_checked()?;
    Some(usize::from(columns))
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// The lines of a cell, none longer than `width` unless a word is. Cells that fit stay as they are, spaces included.
fn wrapped(cell: &str, width: usize) -> Vec<String> {
    if measure_text_width(cell) <= width {
        return vec![cell.to_owned()];
    }
    let mut lines: Vec<String> = Vec::new();
    for word in cell.split_whitespace() {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    of_columns(header, rows, &measure_text_width)
}

fn longest_words(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    of_columns(header, rows, &|cell| cell.split_whitespace().map(measure_text_width).max().unwrap_or_default())
}

/// The largest measure of every column.
fn of_columns(header: &[&str], rows: &[Vec<String>], measure: &dyn Fn(&str) -> usize) -> Vec<usize> {
    let of_column = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| measure(cell));
        cells.chain([measure(header[column])]).max().unwrap_or_default()
    };
    (0..header.len()).map(of_column).collect()
}
