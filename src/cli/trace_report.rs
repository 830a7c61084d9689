//! `moebius trace-report`: statistics of a trace, as tables and as a page.

use super::files::{self, NewFile};
use super::loads;
use super::table::aligned;
use super::talk::talk;
use anyhow::Result;
use clap::Args;
use moebius::trace::{self, Statistics};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius trace-report texts.jsonl                      tables
  moebius trace-report texts.jsonl --html texts.html    and a page with pictures, which needs nothing else
  moebius trace-report texts.jsonl --json               every figure

max/min is the busiest over the idlest expert, CV the standard deviation over the mean; entropy is 1 for equal loads
and 0 for a single expert; dead experts got nothing. overlap is the share of a token's experts that the token before
it had too, and chance what it would be by load alone. Divergence is Jensen-Shannon, in thousandths of a bit.";

/// Loads, balance, overlap, preferences and the domains' differences in a trace.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct TraceReportArgs {
    /// What `moebius trace` wrote.
    trace: PathBuf,
    /// Write a page with pictures: one file, no script, no request.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl TraceReportArgs {
    pub fn run(&self) -> Result<ExitCode> {
        let page = self.html.as_deref().map(NewFile::prepare).transpose()?;
        if let Some(page) = &page {
            page.keep_apart(&[&self.trace], None)?;
        }
        let trace = trace::read(&files::read_text(&self.trace)?, &self.trace.display().to_string())?;
        let statistics = Statistics::of(&trace);
        if let (Some(page), Some(path)) = (page, &self.html) {
            page.write(trace::html(&trace, &statistics).as_bytes())?;
            talk!("page     {}", path.display());
        }
        let mut stdout = anstream::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", serde_json::to_string(&statistics)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let trace::Source { model, device, routing } = &trace.source;
        writeln!(stdout, "model    {model}, on {device}, routing {routing}")?;
        writeln!(stdout, "tokens   {} of {} texts\n", statistics.tokens, statistics.domains.len())?;
        writeln!(stdout, "load of each expert, as a share of its layer:")?;
        let shown: Vec<(usize, Vec<u64>)> = statistics.layers.iter().map(|layer| (layer.layer, layer.loads.clone())).collect();
        writeln!(stdout, "{}", loads::render_layers(&shown))?;
        writeln!(stdout, "{}", balances(&statistics))?;
        if statistics.domains.len() > 1 {
            writeln!(stdout, "how far each text's load departs from that of all, by layer:")?;
            writeln!(stdout, "{}", divergences(&statistics))?;
        }
        writeln!(stdout, "where the frequent tokens go, by layer (expert: share of them):")?;
        write!(stdout, "{}", preferences(&statistics))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn balances(statistics: &Statistics) -> String {
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let rows: Vec<Vec<String>> = statistics
        .layers
        .iter()
        .map(|layer| {
            let balance = layer.balance;
            vec![
                format!("{:>5}", layer.layer),
                balance.ratio.map_or_else(|| "inf".to_owned(), |ratio| format!("{ratio:.2}")),
                format!("{:.3}", balance.variation),
                format!("{:.3}", balance.entropy),
                balance.dead.to_string(),
                layer.overlap.map_or_else(|| "-".to_owned(), percent),
                percent(layer.chance_overlap),
            ]
        })
        .collect();
    aligned(&["layer", "max/min", "CV", "entropy", "dead", "overlap", "chance"], &rows)
}

fn divergences(statistics: &Statistics) -> String {
    let layers: Vec<String> = statistics.layers.iter().map(|layer| format!("{:>4}", layer.layer)).collect();
    let header: Vec<&str> = ["text", "tokens"].into_iter().chain(layers.iter().map(String::as_str)).collect();
    let row = |(domain, (name, tokens)): (usize, &(String, usize))| {
        let of_layers = statistics.layers.iter().map(|layer| format!("{:>4.0}", layer.domains[domain].divergence * 1000.0));
        [name.clone(), tokens.to_string()].into_iter().chain(of_layers).collect()
    };
    aligned(&header, &statistics.domains.iter().enumerate().map(row).collect::<Vec<_>>())
}

fn preferences(statistics: &Statistics) -> String {
    const SHOWN: usize = 12;
    let layers: Vec<String> = statistics.layers.iter().map(|layer| layer.layer.to_string()).collect();
    let header: Vec<&str> = ["token", "times"].into_iter().chain(layers.iter().map(String::as_str)).collect();
    let row = |token: &trace::TokenPreference| {
        let favourites = token.favourites.iter().map(|(expert, share)| format!("{expert}: {:.0}%", share * 100.0));
        [format!("{:?}", token.text), token.count.to_string()].into_iter().chain(favourites).collect()
    };
    aligned(&header, &statistics.preferences.iter().take(SHOWN).map(row).collect::<Vec<_>>())
}
