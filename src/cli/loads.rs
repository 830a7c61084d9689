//! How often each expert was chosen, as a table with bars.

use super::{style, table};

/// An expert that was never chosen has no bar at all.
const BARS: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Layers with more experts than this get a line of bars and the busiest experts by number.
const MAX_COLUMNS: usize = 10;
/// Columns of a terminal that the number of a layer takes, and an expert with the space before it.
const LAYER_COLUMNS: usize = 5;
const EXPERT_COLUMNS: usize = 7;
/// Bars are counted more easily in groups, and a narrow terminal breaks the line between two.
const GROUP: usize = 10;

/// One row per MoE layer of `loads` `[layers][experts]`, bars relative to the busiest expert of the layer.
pub fn render(loads: &[Vec<u64>]) -> String {
    render_layers(&loads.iter().cloned().enumerate().collect::<Vec<_>>())
}

/// As [`render`], each layer with its number.
pub fn render_layers(loads: &[(usize, Vec<u64>)]) -> String {
    let num_experts = loads.iter().map(|(_, loads)| loads.len()).max().unwrap_or_default();
    let fits = table::width_of_stdout().is_none_or(|columns| LAYER_COLUMNS + num_experts * EXPERT_COLUMNS <= columns);
    if num_experts <= MAX_COLUMNS && fits { wide(loads, num_experts) } else { narrow(loads) }
}

fn wide(loads: &[(usize, Vec<u64>)], num_experts: usize) -> String {
    let numbers: Vec<String> = (0..num_experts).map(|expert| format!("{expert:>5}")).collect();
    let header: Vec<&str> = ["layer"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let cell = |(height, percent): (usize, f64)| format!("{}{percent:>3.0}%", bar(height));
    let row = |(layer, loads): &(usize, Vec<u64>)| {
        [format!("{layer:>5}")].into_iter().chain(shares(loads).into_iter().map(cell)).collect()
    };
    table::aligned(&header, &loads.iter().map(row).collect::<Vec<_>>())
}

fn narrow(loads: &[(usize, Vec<u64>)]) -> String {
    const BUSIEST: usize = 4;
    let row = |(layer, loads): &(usize, Vec<u64>)| {
        let shares = shares(loads);
        let mut order: Vec<usize> = (0..loads.len()).collect();
        order.sort_by_key(|&expert| std::cmp::Reverse(loads[expert]));
        let busiest: Vec<String> =
            order.iter().take(BUSIEST).map(|&expert| format!("{expert}: {:.0}%", shares[expert].1)).collect();
        let groups: Vec<String> = shares.chunks(GROUP).map(|group| group.iter().map(|share| bar(share.0)).collect()).collect();
        vec![format!("{layer:>5}"), groups.join(" "), busiest.join(", ")]
    };
    table::aligned(&["layer", "experts in order", "busiest"], &loads.iter().map(row).collect::<Vec<_>>())
}

fn bar(height: usize) -> String {
    style::bar(&BARS[height].to_string(), height, BARS.len() - 1)
}

/// The height of the bar of each expert and its share in percent.
fn shares(loads: &[u64]) -> Vec<(usize, f64)> {
    let total = loads.iter().sum::<u64>().max(1);
    let most = loads.iter().copied().max().unwrap_or_default().max(1);
    let share = |&load: &u64| {
        let height = (load as f64 / most as f64 * (BARS.len() - 1) as f64).ceil() as usize;
        (height, load as f64 / total as f64 * 100.0)
    };
    loads.iter().map(share).collect()
}
