//! Simulations of a cache as a page: hits over budget for every policy, and by layer.

use super::cache::Simulation;
use super::curves::{Curves, Line, Point};
use super::page::{Section, page, table};
use super::svg::{Cell, Heatmap, escape, scale};
use super::{Order, Trace};
use crate::error::human_bytes;
use std::fmt::Write;

const CURVES: &str = "Of the experts that a step needs in a layer, the share that had a slot already, over the share of all experts that have one.";
const FIGURES: &str = "A stop is a wait for experts in one layer.";
const LAYERS: &str = "Hits in percent, by layer and budget.";

/// The page of all `simulations` of a trace that were run in one order.
pub fn cache_html(trace: &Trace, order: Order, simulations: &[Simulation]) -> String {
    let order = match order {
        Order::Decode => "one after the other".to_owned(),
        Order::Prefill { chunk } => format!("in chunks of {chunk}"),
    };
    let intro = format!(
        "{} tokens of {} texts through {} layers, {order}; routing {}.",
        trace.tokens.len(),
        trace.domains.len(),
        trace.layers.len(),
        trace.source.routing,
    );
    let sections = [
        Section { name: "hits", title: "Hits over budget", hint: CURVES, content: curves(simulations) },
        Section { name: "figures", title: "Figures", hint: FIGURES, content: figures(simulations) },
        Section { name: "layers", title: "Layer by layer", hint: LAYERS, content: layers(simulations) },
    ];
    page(&format!("A cache for the experts of {}", trace.source.model), &intro, &sections)
}

/// The simulations of each text, in the order in which they come, with its name.
fn by_text(simulations: &[Simulation]) -> impl Iterator<Item = (Option<&str>, &[Simulation])> {
    simulations.chunk_by(|a, b| a.text == b.text).map(|part| (part[0].text.as_deref(), part))
}

/// Those of each policy among the simulations of a text.
fn by_policy(simulations: &[Simulation]) -> Vec<(&'static str, Vec<&Simulation>)> {
    let mut policies: Vec<(&'static str, Vec<&Simulation>)> = Vec::new();
    for simulation in simulations {
        match policies.iter_mut().find(|(name, _)| *name == simulation.policy) {
            Some((_, found)) => found.push(simulation),
            None => policies.push((simulation.policy, vec![simulation])),
        }
    }
    policies.iter_mut().for_each(|(_, found)| found.sort_by(|a, b| a.slot_share.total_cmp(&b.slot_share)));
    policies
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn curves(simulations: &[Simulation]) -> String {
    let point = |simulation: &&Simulation| Point {
        x: simulation.slot_share,
        y: simulation.hit_share(),
        hint: format!("{}, {}: {} hits", simulation.policy, simulation.budget, percent(simulation.hit_share())),
    };
    let line = |(name, simulations): (&str, Vec<&Simulation>)| Line {
        name: name.to_owned(),
        points: simulations.iter().map(point).collect(),
    };
    let mut text = String::from("<div class=\"grid\">");
    for (name, simulations) in by_text(simulations) {
        let title = name.map_or_else(|| "Hits of every policy over the budget".to_owned(), |name| format!("Hits in {name}"));
        let lines = by_policy(simulations).into_iter().map(line).collect();
        let picture = Curves { title: &title, x_label: "experts with a slot", y_label: "hits", lines }.render();
        let heading = name.map_or_else(String::new, |name| format!("<h3>{}</h3>", escape(name)));
        let _ = write!(text, "<div>{heading}{picture}</div>");
    }
    text.push_str("</div>");
    text
}

fn figures(simulations: &[Simulation]) -> String {
    let header = ["policy", "budget", "hits", "loads/token", "loaded/token", "stops/token", "tokens without a stop"];
    let unknown = || "–".to_owned();
    let row = |simulation: &Simulation| {
        let cells = vec![
            simulation.budget.clone(),
            percent(simulation.hit_share()),
            format!("{:.2}", simulation.loads_per_token()),
            simulation.bytes_per_token().map_or_else(unknown, |bytes| human_bytes(bytes.round() as u64)),
            format!("{:.2}", simulation.stops_per_token()),
            simulation.share_without_stop().map_or_else(unknown, percent),
        ];
        (simulation.policy.to_owned(), cells)
    };
    let mut text = String::new();
    for (name, simulations) in by_text(simulations) {
        let heading = name.map_or_else(String::new, |name| format!("<h3>{}</h3>", escape(name)));
        let _ = writeln!(text, "{heading}{}", table(&header, simulations.iter().map(row)));
    }
    text
}

fn layers(simulations: &[Simulation]) -> String {
    let mut text = format!("{}<div class=\"grid\">", scale("100 %"));
    for (name, simulations) in by_text(simulations) {
        for (policy, simulations) in by_policy(simulations) {
            let cell = |simulation: &&Simulation, layer: usize| {
                let layer = &simulation.layers[layer];
                Cell {
                    fill: layer.hit_share(),
                    text: format!("{:.0}", layer.hit_share() * 100.0),
                    hint: format!(
                        "layer {}, {} of {} slots: {}",
                        layer.layer,
                        layer.slots,
                        layer.experts,
                        percent(layer.hit_share())
                    ),
                }
            };
            let rows = simulations.first().map_or(0, |simulation| simulation.layers.len());
            let title = name.map_or_else(|| policy.to_owned(), |name| format!("{policy}, {name}"));
            let picture = Heatmap {
                title: &format!("Hits of {title} by layer and budget"),
                axis: "budget",
                rows: (0..rows).map(|row| format!("layer {}", simulations[0].layers[row].layer)).collect(),
                columns: simulations.iter().map(|simulation| simulation.budget.clone()).collect(),
                cells: (0..rows).map(|row| simulations.iter().map(|simulation| cell(simulation, row)).collect()).collect(),
            };
            let _ = write!(text, "<div><h3>{}</h3>{}</div>", escape(&title), picture.render());
        }
    }
    text.push_str("</div>");
    text
}
