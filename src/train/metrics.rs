//! A line of `metrics.jsonl`: flat, so that tables of any program take it.

use super::trainer::StepReport;
use serde_json::{Map, Value, json};

/// Layers and experts of which each has numbers of its own.
const MOST_LAYERS: usize = 16;
const MOST_EXPERTS: usize = 64;

/// The step as one JSON object. Loads are those before any assignment is dropped: `max_violation` is the largest over the mean, less one; `entropy`
/// that of the shares over its largest value; `dead` the experts without a token.
pub fn metrics_line(report: &StepReport) -> Value {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
    put("step", json!(report.step));
    put("tokens", json!(report.tokens));
    put("loss", json!(report.report.loss));
    put("cross_entropy", json!(report.report.cross_entropy));
    put("lr", json!(report.lr));
    put("grad_norm", json!(report.grad_norm));
    put("skipped", json!(report.skipped));
    put("tokens_per_s", json!(report.tokens_per_s));
    let layers = &report.report.layers;
    put("losses/load_balancing_loss", json!(layers.iter().map(|layer| layer.load_balancing).sum::<f64>()));
    put("losses/router_z_loss", json!(layers.iter().map(|layer| layer.router_z).sum::<f64>()));
    let mut violations: Vec<f64> = layers.iter().map(|layer| max_violation(&layer.counts)).collect();
    for (index, layer) in layers.iter().enumerate().take(MOST_LAYERS) {
        let assignments = f64::from(layer.counts.iter().sum::<u32>()).max(1.0);
        if layer.counts.len() <= MOST_EXPERTS {
            put(&format!("layers/{index}/counts"), json!(layer.counts));
        }
        put(&format!("layers/{index}/max_violation"), json!(violations[index]));
        put(&format!("layers/{index}/entropy"), json!(entropy(&layer.counts)));
        put(&format!("layers/{index}/dead"), json!(layer.counts.iter().filter(|count| **count == 0).count()));
        put(&format!("layers/{index}/drop_rate"), json!(f64::from(layer.dropped) / assignments));
        put(&format!("layers/{index}/lse2"), json!(layer.router_z));
    }
    violations.sort_by(f64::total_cmp);
    if let Some(median) = violations.get(violations.len() / 2) {
        put("max_violation/p50", json!(median));
    }
    if let Some(loss) = report.validation_loss {
        put("validation_loss", json!(loss));
    }
    Value::Object(line)
}

/// By how much the largest load is above the mean, as a share of that.
pub(super) fn max_violation(counts: &[u32]) -> f64 {
    let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    let max = counts.iter().copied().max().unwrap_or(0);
    if mean > 0.0 { f64::from(max) / mean - 1.0 } else { 0.0 }
}

/// Of the shares of all experts, 1 where they are equal.
fn entropy(counts: &[u32]) -> f64 {
    let total = f64::from(counts.iter().sum::<u32>());
    let share = |count: &&u32| **count > 0;
    let sum: f64 = counts.iter().filter(share).map(|count| f64::from(*count) / total).map(|share| -share * share.ln()).sum();
    if counts.len() > 1 { sum / (counts.len() as f64).ln() } else { 1.0 }
}
