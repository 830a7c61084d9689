//! `--stats`: memory, and the kernels that were chosen.

use super::table;
use super::talk;
use super::talk::talk;
use moebius::Engine;
use moebius::bench;
use moebius::error::human_bytes;
use moebius::gpu::{Device, DeviceKind};
use moebius::model::LoadStats;
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
    let LoadStats { weight_bytes, kv_cache_bytes, kv_cache_format, activation_bytes, peak_host_bytes } = *stats;
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
    format!("weights {weights}, KV cache {kv_cache} in {format}, activations {activations} on the device; {host}")
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
    json!({ "memory": bench::memory_json(engine.load_stats()), "compute": engine.gpu().map(pipelines) })
}

fn num_kernels(device: &Device) -> usize {
    device.pipelines().iter().map(|(kernel, _)| *kernel).collect::<BTreeSet<_>>().len()
}
