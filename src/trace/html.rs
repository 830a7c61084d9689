//! The report as one page of HTML that needs nothing else: no script, no request.

use super::page::{Section, page, table};
use super::sample::sample;
use super::statistics::{LayerStatistics, Statistics, shares};
use super::svg::{Cell, Heatmap, escape, scale, visible};
use super::{ExpertToken, Source, Trace};
use std::fmt::Write;

/// Layers with more experts than this show their strongest pairs in words instead of a matrix.
const MAX_MATRIX: usize = 16;
const STRONGEST_PAIRS: usize = 5;
/// Tokens that are named for each of so many experts.
const TOKENS_OF_MANY: usize = 3;
/// A report with more layers folds all but the last.
const MAX_OPEN: usize = 8;

/// The whole report.
pub fn html(trace: &Trace, statistics: &Statistics) -> String {
    let Source { model, device, routing } = &trace.source;
    let intro = format!(
        "{} tokens of {} texts, in {} layers; on {device}; routing {routing}.",
        statistics.tokens,
        statistics.domains.len(),
        statistics.layers.len(),
    );
    let several = statistics.domains.len() > 1;
    let sections = [
        Some(Section { name: "load", title: "Load", hint: LOAD, content: load(statistics) }),
        Some(Section { name: "sample", title: "The texts", hint: SAMPLE, content: sample(trace) }),
        several.then(|| Section {
            name: "departs",
            title: "How far each text departs",
            hint: DIVERGENCE,
            content: divergences(statistics),
        }),
        several.then(|| Section { name: "domains", title: "Text by expert", hint: DOMAINS, content: domains(statistics) }),
        Some(Section { name: "overlap", title: "From token to token", hint: OVERLAP, content: overlaps(statistics) }),
        Some(Section {
            name: "together",
            title: "Experts that work together",
            hint: COACTIVATION,
            content: coactivation(statistics),
        }),
        Some(Section {
            name: "tokens",
            title: "Where the frequent tokens go",
            hint: PREFERENCES,
            content: preferences(statistics),
        }),
        Some(Section {
            name: "experts",
            title: "What each expert gets",
            hint: EXPERT_TOKENS,
            content: expert_tokens(statistics),
        }),
    ];
    let sections: Vec<Section> = sections.into_iter().flatten().collect();
    page(&format!("Routing of {model}"), &intro, &sections)
}

const LOAD: &str = "Share of each layer's assignments in percent, or in thousandths where there are more than 16 experts, and how even they are. \
                    Max/min: busiest over idlest expert. CV: standard deviation over mean. Entropy: 1 for equal loads, 0 for a single expert. \
                    Dead: experts that got nothing.";
const SAMPLE: &str = "Their beginnings; each token has the colour of its first expert in the last layer.";
const DIVERGENCE: &str = "Jensen-Shannon divergence of a text's load from the load of all texts together, in thousandths of a bit: 0 is the same, 1000 \
                          is nothing in common.";
const DOMAINS: &str = "Share of each text's assignments, in every layer; stronger than in the row of all texts means that the text prefers the expert.";
const OVERLAP: &str =
    "How many of a token's experts the token before it had too, and how many it would be if experts were drawn by load alone.";
const COACTIVATION: &str = "Of the tokens that had the expert of the row, the share that had the expert of the column too.";
const PREFERENCES: &str = "The expert that most occurrences of a token go to, by layer, with the share of them in percent.";
const EXPERT_TOKENS: &str = "The tokens that an expert got most beyond its share: how often of how many times.";

/// One layer's part of a section: folded where there are many.
fn of_layer(statistics: &Statistics, layer: &LayerStatistics, content: &str) -> String {
    let last = statistics.layers.last().map(|last| last.layer);
    let open = if statistics.layers.len() <= MAX_OPEN || Some(layer.layer) == last { " open" } else { "" };
    format!("<details{open}><summary>Layer {}</summary>{content}</details>\n", layer.layer)
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn most_experts(statistics: &Statistics) -> usize {
    statistics.layers.iter().map(|layer| layer.loads.len()).max().unwrap_or(0)
}

/// One row of shares, its colours relative to `strongest`.
fn share_row(what: &str, loads: &[u64], strongest: f64) -> Vec<Cell> {
    let cell = |(expert, share): (usize, f64)| Cell {
        fill: if strongest > 0.0 { share / strongest } else { 0.0 },
        text: format!("{:.0}", share * if loads.len() > MAX_MATRIX { 1000.0 } else { 100.0 }),
        hint: format!("{what}, expert {expert}: {} assignments, {:.1} %", loads[expert], share * 100.0),
    };
    shares(loads).into_iter().enumerate().map(cell).collect()
}

fn strongest<'a>(loads: impl Iterator<Item = &'a Vec<u64>>) -> f64 {
    loads.flat_map(|loads| shares(loads)).fold(0.0, f64::max)
}

fn load(statistics: &Statistics) -> String {
    let top = strongest(statistics.layers.iter().map(|layer| &layer.loads));
    let picture = Heatmap {
        title: "Load of every expert of every layer",
        axis: "expert",
        rows: statistics.layers.iter().map(|layer| format!("layer {}", layer.layer)).collect(),
        columns: numbers(most_experts(statistics)),
        cells: statistics.layers.iter().map(|layer| share_row(&format!("layer {}", layer.layer), &layer.loads, top)).collect(),
    }
    .render();
    let row = |layer: &LayerStatistics| {
        let balance = layer.balance;
        let ratio = balance.ratio.map_or_else(|| "∞".to_owned(), |ratio| format!("{ratio:.1}"));
        let cells = [ratio, format!("{:.2}", balance.variation), format!("{:.3}", balance.entropy), balance.dead.to_string()];
        (layer.layer.to_string(), cells.to_vec())
    };
    let figures = table(&["layer", "max/min", "CV", "entropy", "dead"], statistics.layers.iter().map(row));
    let scale = scale(&format!("{:.1} %", top * 100.0));
    format!("{scale}<div class=\"beside\"><div>{picture}</div>{figures}</div>")
}

fn divergences(statistics: &Statistics) -> String {
    let all = statistics.layers.iter().flat_map(|layer| &layer.domains);
    let top = all.map(|domain| domain.divergence).fold(0.0, f64::max);
    let cell = |layer: &LayerStatistics, domain: usize| {
        let divergence = layer.domains[domain].divergence;
        Cell {
            fill: if top > 0.0 { divergence / top } else { 0.0 },
            text: format!("{:.0}", divergence * 1000.0),
            hint: format!("{}, layer {}: {divergence:.4} bits", statistics.domains[domain].0, layer.layer),
        }
    };
    let cells = |domain: usize| statistics.layers.iter().map(|layer| cell(layer, domain)).collect();
    Heatmap {
        title: "Divergence of every text from all of them, by layer",
        axis: "layer",
        rows: statistics.domains.iter().map(|(name, _)| name.clone()).collect(),
        columns: statistics.layers.iter().map(|layer| layer.layer.to_string()).collect(),
        cells: (0..statistics.domains.len()).map(cells).collect(),
    }
    .render()
}

fn domains(statistics: &Statistics) -> String {
    let mut text = String::from("<div class=\"grid\">");
    for layer in &statistics.layers {
        let top = strongest(layer.domains.iter().map(|domain| &domain.loads).chain([&layer.loads]));
        let names = statistics.domains.iter().map(|(name, _)| name.clone());
        let rows = layer.domains.iter().zip(&statistics.domains).map(|(domain, (name, _))| share_row(name, &domain.loads, top));
        let picture = Heatmap {
            title: "Load of every expert by text",
            axis: "expert",
            rows: names.chain(["all texts".to_owned()]).collect(),
            columns: numbers(layer.loads.len()),
            cells: rows.chain([share_row("all texts", &layer.loads, top)]).collect(),
        };
        text.push_str(&of_layer(statistics, layer, &picture.render()));
    }
    text.push_str("</div>");
    text
}

fn overlaps(statistics: &Statistics) -> String {
    let row = |layer: &LayerStatistics| {
        let overlap =
            layer.overlap.map_or_else(|| "no consecutive tokens".to_owned(), |overlap| format!("{:.1} %", overlap * 100.0));
        (layer.layer.to_string(), vec![overlap, format!("{:.1} %", layer.chance_overlap * 100.0)])
    };
    table(&["layer", "shared", "by chance"], statistics.layers.iter().map(row))
}

fn coactivation(statistics: &Statistics) -> String {
    let mut text = String::from("<div class=\"grid\">");
    for layer in statistics.layers.iter().filter(|layer| layer.experts_per_token > 1) {
        let share = |expert: usize, other: usize| layer.coactivation[expert][other] as f64 / layer.loads[expert].max(1) as f64;
        let experts = layer.loads.len();
        let content = if experts <= MAX_MATRIX {
            let others = |expert: usize| (0..experts).filter(move |&other| other != expert);
            let top = (0..experts).flat_map(|expert| others(expert).map(move |other| share(expert, other))).fold(0.0, f64::max);
            let cell = |expert: usize, other: usize| Cell {
                fill: if expert == other || top == 0.0 { 0.0 } else { share(expert, other) / top },
                text: if expert == other { "·".to_owned() } else { format!("{:.0}", share(expert, other) * 100.0) },
                hint: format!("of expert {expert}'s tokens {:.1} % had expert {other} too", share(expert, other) * 100.0),
            };
            let cells = (0..experts).map(|expert| (0..experts).map(|other| cell(expert, other)).collect()).collect();
            let rows = (0..experts).map(|expert| format!("expert {expert}")).collect();
            Heatmap { title: "Experts of the same token", axis: "", rows, columns: numbers(experts), cells }.render()
        } else {
            let mut pairs: Vec<(usize, usize)> = (0..experts).flat_map(|a| (a + 1..experts).map(move |b| (a, b))).collect();
            pairs.sort_by_key(|&(a, b)| std::cmp::Reverse(layer.coactivation[a][b]));
            let lines = pairs.into_iter().take(STRONGEST_PAIRS).map(|(a, b)| {
                let of = |expert: usize, other: usize| format!("{:.0} %", share(expert, other) * 100.0);
                let (tokens, first, second) = (layer.coactivation[a][b], of(a, b), of(b, a));
                format!("{a} and {b}: {tokens} tokens, {first} of {a}'s, {second} of {b}'s")
            });
            format!("<pre>{}</pre>", lines.collect::<Vec<_>>().join("\n"))
        };
        text.push_str(&of_layer(statistics, layer, &content));
    }
    text.push_str("</div>");
    text
}

fn preferences(statistics: &Statistics) -> String {
    let cell = |layer: &LayerStatistics, (expert, share): (usize, f64)| Cell {
        fill: share,
        text: format!("{expert} · {:.0}", share * 100.0),
        hint: format!("layer {}: expert {expert} for {:.1} % of them", layer.layer, share * 100.0),
    };
    let row = |token: &super::TokenPreference| {
        statistics.layers.iter().zip(&token.favourites).map(|(layer, &favourite)| cell(layer, favourite)).collect()
    };
    Heatmap {
        title: "The favourite expert of frequent tokens, by layer",
        axis: "layer",
        rows: statistics.preferences.iter().map(|token| format!("{} ×{}", visible(&token.text), token.count)).collect(),
        columns: statistics.layers.iter().map(|layer| layer.layer.to_string()).collect(),
        cells: statistics.preferences.iter().map(row).collect(),
    }
    .render()
}

fn expert_tokens(statistics: &Statistics) -> String {
    let mut text = String::from("<div class=\"grid\">");
    for layer in &statistics.layers {
        let some = layer.expert_tokens.iter().enumerate().filter(|(_, tokens)| !tokens.is_empty());
        let content = if layer.loads.len() > MAX_MATRIX { lines_of_tokens(some) } else { table_of_tokens(some) };
        text.push_str(&of_layer(statistics, layer, &content));
    }
    text.push_str("</div>");
    text
}

fn table_of_tokens<'a>(experts: impl Iterator<Item = (usize, &'a Vec<ExpertToken>)>) -> String {
    let mut text = String::from("<table><tr><th>expert</th><th>tokens</th></tr>");
    for (expert, tokens) in experts {
        let shown: Vec<String> = tokens
            .iter()
            .map(|token| format!("<code>{}</code> {}/{}", escape(&visible(&token.text)), token.count, token.total))
            .collect();
        let _ = write!(text, "<tr><td class=\"n\">{expert}</td><td>{}</td></tr>", shown.join(", "));
    }
    text.push_str("</table>");
    text
}

/// A line for each of many experts.
fn lines_of_tokens<'a>(experts: impl Iterator<Item = (usize, &'a Vec<ExpertToken>)>) -> String {
    let line = |(expert, tokens): (usize, &Vec<ExpertToken>)| {
        let shown = tokens.iter().take(TOKENS_OF_MANY);
        let shown: Vec<String> = shown.map(|token| format!("{} {}/{}", visible(&token.text), token.count, token.total)).collect();
        format!("{expert:>4}  {}", shown.join(",  "))
    };
    format!("<pre>{}</pre>", escape(&experts.map(line).collect::<Vec<_>>().join("\n")))
}
