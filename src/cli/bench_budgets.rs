//! `moebius bench --expert-memory LIST`: the same tests with as much room for experts as each entry of the list says.

use super::bench::{BenchArgs, Output};
use super::{Global, model, stats, subject, table};
use anyhow::Result;
use moebius::bench::{self, Bench, Subject, Test, TestReport};
use moebius::error::human_bytes;
use moebius::paging::{ExpertMemory, PagingCounts, PagingStats};
use serde_json::Value;

/// What was measured with one budget.
struct Row {
    budget: ExpertMemory,
    tests: Vec<TestReport>,
    /// `None` where all experts were on the device.
    paging: Option<PagingStats>,
    json: Value,
}

/// Measures every budget, one after the other, and gives what is to be printed.
pub async fn measure(args: &BenchArgs, global: &Global, subject: &Subject, tests: &[Test]) -> Result<String> {
    let mut rows: Vec<Row> = Vec::with_capacity(global.expert_memories.len());
    for &budget in &global.expert_memories {
        let (device, _) = bench::open_device(&model::device_options(global)).await?;
        let global = Global { expert_memory: budget, ..global.clone() };
        let mut bench: Bench = subject::load(device, subject, tests, &global, args.roof_bytes()).await?;
        let figures = args.measure(&mut bench, tests).await?;
        let json = bench::bench_json(subject, &bench, &figures.tests, &figures.kernels);
        rows.push(Row { budget, tests: figures.tests, paging: bench.paging().cloned(), json });
    }
    let (header, cells) = cells(tests, &rows);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    Ok(match args.output() {
        Output::Json => format!("{}\n", Value::Array(rows.into_iter().map(|row| row.json).collect())),
        Output::Table => table::aligned(&header, &cells),
        Output::Md => table::markdown(&header, &cells),
        Output::Csv => table::csv(&header, &cells),
    })
}

fn cells(tests: &[Test], rows: &[Row]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut header = vec!["budget".to_owned(), "slots".to_owned()];
    header.extend(tests.iter().map(Test::name));
    header.extend(["hits", "loads/token", "read/token", "stops/token", "waited/token", "layers for nothing"].map(str::to_owned));
    let of_row = |row: &Row| {
        let mut cells = vec![row.budget.to_string(), row.paging.as_ref().map_or_else(|| "all".to_owned(), stats::kinds_of_slots)];
        cells.extend(row.tests.iter().map(|test| format!("{:.2}", test.tokens_per_second())));
        cells.extend(row.paging.as_ref().map_or_else(|| vec![String::new(); 6], counts));
        cells
    };
    (header, rows.iter().map(of_row).collect())
}

/// What single tokens cost.
fn counts(paging: &PagingStats) -> Vec<String> {
    let PagingCounts { tokens, loads, loaded_bytes, stops, seconds, .. } = paging.decode;
    let tokens = tokens.max(1);
    let per_token = |count: u64| format!("{:.2}", count as f64 / tokens as f64);
    vec![
        format!("{:.1} %", paging.decode.hit_rate() * 100.0),
        per_token(loads),
        human_bytes(loaded_bytes / tokens),
        per_token(stops),
        format!("{:.2} ms", 1e3 * seconds / tokens as f64),
        per_token(paging.wasted_layers),
    ]
}
