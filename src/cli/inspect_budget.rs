//! What `moebius inspect` says about models whose experts do not all fit: budgets, the slots that they make, and what may be expected of them.

use super::table;
use moebius::error::human_bytes;
use moebius::paging::{ExpertMemory, PlaceShape};
use moebius::quant::Quant;
use moebius::spec::{Kind, ModelSpec, Share};
use serde_json::{Value, json};

/// Shares of the experts that have a row.
const PERCENTS: [f64; 5] = [12.5, 25.0, 50.0, 75.0, 100.0];
/// Hits that were published for Qwen3-30B-A3B, of 128 experts of which a token uses 8, over the share that has slots: 45 % of the choices repeat at the
/// next token, and with 40 % in slots 90 to 95 % are there.
const PUBLISHED: [(f64, f64); 4] = [(0.0, 0.0), (0.0625, 0.45), (0.4, 0.925), (1.0, 1.0)];
/// A look of the host in which nothing is read, and what goes to a device, where nothing has been measured: those of a graphics card on PCIe 4 x16.
const STOP_SECONDS: f64 = 0.15e-3;
const UPLOAD_GB_S: f64 = 12.0;

/// The experts of a model in one format.
pub struct Budgets {
    quant: Quant,
    places: Vec<PlaceShape>,
    /// What a token reads, experts and all.
    token_bytes: u64,
    /// 10^9 bytes per second, where they are known.
    read_gb_s: Option<f64>,
}

/// One budget.
struct Row {
    percent: f64,
    bytes: u64,
    slots: Vec<usize>,
    /// Of the requests of a token: without locality, and as published.
    hits: [f64; 2],
    tokens_per_s: Option<[f64; 2]>,
}

impl Budgets {
    /// `None` of a model without experts.
    pub fn new(spec: &ModelSpec, quant: Quant, read_gb_s: Option<f64>) -> Option<Self> {
        let place = |(layer, moe): (usize, &moebius::spec::MoeSpec)| PlaceShape {
            layer,
            experts: moe.router.num_experts,
            weightless: moe.router.identity_experts,
            experts_per_token: moe.router.num_experts_per_tok,
            record_bytes: Some(record_bytes(spec, layer, quant)),
        };
        let places: Vec<PlaceShape> = spec.moe_layers().map(place).collect();
        let token_bytes = spec.active_weight_bytes(quant);
        (!places.is_empty()).then_some(Budgets { quant, places, token_bytes, read_gb_s })
    }

    fn rows(&self) -> Vec<Row> {
        PERCENTS.iter().filter_map(|&percent| self.row(percent)).collect()
    }

    /// `None` where a token would not find room for what it uses.
    fn row(&self, percent: f64) -> Option<Row> {
        let slots = ExpertMemory::Percent(percent).slots(&self.places, None).ok()?;
        let bytes = self.places.iter().zip(&slots).map(|(place, slots)| place.record_bytes.unwrap_or(0) * *slots as u64).sum();
        let share = percent / 100.0;
        let hits = [share, published(share).max(share)];
        let tokens_per_s = self.read_gb_s.map(|gb_s| hits.map(|hits| 1.0 / self.seconds(hits, gb_s)));
        Some(Row { percent, bytes, slots, hits, tokens_per_s })
    }

    /// Of one token, where so many of its requests are hits, as if misses were independent of each other.
    fn seconds(&self, hits: f64, read_gb_s: f64) -> f64 {
        let mut seconds = self.token_bytes as f64 / (read_gb_s * 1e9);
        for place in &self.places {
            let used = place.least_slots();
            let missing = (1.0 - hits) * used as f64 * place.record_bytes.unwrap_or(0) as f64;
            seconds += (1.0 - hits.powi(used as i32)) * STOP_SECONDS + missing / (UPLOAD_GB_S * 1e9);
        }
        seconds
    }

    /// As a person reads it.
    pub fn text(&self) -> String {
        let mut header = vec!["budget", "share", "slots", "hits expected"];
        header.extend(self.read_gb_s.map(|_| "tokens/s expected"));
        let rows: Vec<Vec<String>> = self.rows().iter().map(|row| self.cells(row)).collect();
        let first = self.places[0];
        let sizes = format!(
            "experts in {}: {} layers with up to {} of {}; a token uses {} of each",
            self.quant.name,
            self.places.len(),
            first.experts,
            human_bytes(first.record_bytes.unwrap_or(0)),
            first.experts_per_token
        );
        let about = "hits from routing without locality to what was published for Qwen3-30B-A3B; `moebius cache-sim` knows your own texts";
        let speeds = "tokens/s with 0.15 ms for a look of the host and 12 GB/s to the device, nothing read from a disk";
        let speeds = if self.read_gb_s.is_some() { format!("{speeds}\n") } else { String::new() };
        format!("\n{sizes}\n{}{about}\n{speeds}", table::aligned(&header, &rows))
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let [low, high] = row.hits.map(|hits| 100.0 * hits);
        let mut cells = vec![
            human_bytes(row.bytes),
            format!("{}%", row.percent),
            format!("{} of {}", row.slots[0], self.places[0].weighted()),
            if low >= 100.0 { "100 %".to_owned() } else { format!("{low:.0} .. {high:.0} %") },
        ];
        cells.extend(
            row.tokens_per_s.map(
                |[low, high]| {
                    if high - low < 0.05 { format!("{high:.1}") } else { format!("{low:.1} .. {high:.1}") }
                },
            ),
        );
        cells
    }

    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "percent": row.percent, "bytes": row.bytes, "slots": row.slots,
                "hits": row.hits, "decode_tokens_per_s": row.tokens_per_s,
            })
        };
        json!({ "format": self.quant.name, "rows": self.rows().iter().map(row).collect::<Vec<_>>() })
    }
}

/// Of one expert of a layer: its matrices, and their biases in f32.
fn record_bytes(spec: &ModelSpec, layer: usize, quant: Quant) -> u64 {
    let weights = spec.layer_weights(layer).into_iter().filter(|weight| weight.role.facts().share == Share::Experts);
    let bytes = weights.map(|weight| match weight.role.facts().kind {
        Kind::Slab => weight.rows * quant.row_bytes(weight.cols),
        _ => 4 * weight.rows * weight.cols,
    });
    bytes.sum::<usize>() as u64
}

/// Between the points that were published, a line.
fn published(share: f64) -> f64 {
    let above = PUBLISHED.iter().position(|(at, _)| *at >= share).unwrap_or(PUBLISHED.len() - 1).max(1);
    let ((from, low), (to, high)) = (PUBLISHED[above - 1], PUBLISHED[above]);
    low + (high - low) * (share - from) / (to - from)
}
