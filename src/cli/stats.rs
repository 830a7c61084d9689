//! `--stats`: memory, and the kernels that were chosen.

use super::table;
use super::talk;
use super::talk::talk;
use moebius::Engine;
use moebius::bench;
use moebius::error::human_bytes;
use moebius::gpu::{Device, DeviceKind};
use moebius::model::LoadStats;
use moebius::paging::{PagingCounts, PagingStats};
use moebius::quant::CacheFormat;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Writes them to stderr.
pub fn print(engine: &Engine) {
    let Some(device) = engine.gpu() else {
        let LoadStats { weight_bytes, kv_cache_format, peak_host_bytes, .. } = *engine.load_stats();
        let cache = if kv_cache_format == CacheFormat::F16 { ", KV cache rounded to f16" } else { "" };
        let loading = peak_host_bytes.map_or(String::new(), |peak| format!("; loading took {}", human_bytes(peak)));
        talk!("memory   weights {} in host memory{cache}{loading}", human_bytes(weight_bytes));
        return;
    };
    talk!("memory   {}", memory(engine.load_stats(), device));
    if let Some(paging) = engine.paging() {
        talk!("experts  {}", self::paging(paging));
    }
    let pipelines = device.pipelines();
    talk!("profile  {}: {} kernels in {} pipelines", device.caps().profile.name(), num_kernels(device), pipelines.len());
    say_tuning(device);
    let rows: Vec<Vec<String>> =
        pipelines.iter().map(|(kernel, variant)| vec![(*kernel).to_owned(), variant.describe()]).collect();
    talk::text(&table::aligned(&["kernel", "variant"], &rows));
}

/// What `moebius tune` chose, if anything.
pub fn say_tuning(device: &Device) {
    if !device.caps().tuning.is_empty() {
        talk!("tuned    {}", device.caps().tuning);
    }
}

/// One line about the memory of a loaded model.
pub fn memory(stats: &LoadStats, device: &Device) -> String {
    let LoadStats { weight_bytes, kv_cache_bytes, kv_cache_format, state_bytes, activation_bytes, peak_host_bytes } = *stats;
    let state = if state_bytes > 0 { format!(", state {}", human_bytes(state_bytes)) } else { String::new() };
    let format = kv_cache_format.name();
    let [weights, kv_cache, activations] = [weight_bytes, kv_cache_bytes, activation_bytes].map(human_bytes);
    let host = match peak_host_bytes {
        None => "what the host needed is not known on this system".to_owned(),
        Some(peak) => {
            let own = if device.caps().kind == DeviceKind::Software { ", where this device keeps them" } else { "" };
            let share = peak as f64 / weight_bytes as f64;
            format!("loading took {} of the host, {share:.2} times the weights{own}", human_bytes(peak))
        }
    };
    format!("weights {weights}, KV cache {kv_cache} in {format}{state}, activations {activations} on the device; {host}")
}

/// `1.2 GiB, 50 of 128 slots per layer`
pub fn slots(paging: &PagingStats) -> String {
    let mut kinds: Vec<String> =
        paging.slots.iter().zip(&paging.experts).map(|(slots, experts)| format!("{slots} of {experts}")).collect();
    kinds.sort();
    kinds.dedup();
    format!("{} on the device, {} experts of each layer", human_bytes(paging.slot_bytes), kinds.join(" or "))
}

/// One line about experts that had to be loaded.
pub fn paging(paging: &PagingStats) -> String {
    format!("{}; {}", slots(paging), loads(paging))
}

/// `decode 91.2 % hits, 33.8 loads and 85 MiB per token, waited 9.1 s; prompt 300 loads, 1.1 GiB, waited 2.0 s`
fn loads(PagingStats { decode, prefill, .. }: &PagingStats) -> String {
    let hits = |counts: &PagingCounts| format!("{:.1} % hits", counts.hit_rate() * 100.0);
    let tokens = decode.tokens.max(1);
    let per_token = decode.loads as f64 / tokens as f64;
    let decoding = format!(
        "decode {}, {per_token:.1} loads and {} per token, {:.2} s of waiting",
        hits(decode),
        human_bytes(decode.loaded_bytes / tokens),
        decode.seconds
    );
    let bytes = human_bytes(prefill.loaded_bytes);
    format!("{decoding}; prompt {}, {} loads and {bytes}, {:.2} s of waiting", hits(prefill), prefill.loads, prefill.seconds)
}

/// Fields of `run --stats --json`.
pub fn json(engine: &Engine) -> Value {
    let pipelines = |device: &Device| {
        let pipelines = device.pipelines();
        let variant =
            |(kernel, variant): &(&str, moebius::gpu::Variant)| json!({ "kernel": kernel, "variant": variant.describe() });
        json!({
            "profile": device.caps().profile.name(),
            "tuning": device.caps().tuning,
            "kernels": num_kernels(device),
            "pipelines": pipelines.iter().map(variant).collect::<Vec<_>>(),
        })
    };
    json!({
        "memory": bench::memory_json(engine.load_stats()),
        "paging": engine.paging().map(bench::paging_json),
        "compute": engine.gpu().map(pipelines),
    })
}

fn num_kernels(device: &Device) -> usize {
    device.pipelines().iter().map(|(kernel, _)| *kernel).collect::<BTreeSet<_>>().len()
}
