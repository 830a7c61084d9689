//! `--stats`: memory, and the kernels that were chosen.

use super::table;
use super::talk;
use super::talk::talk;
use moebius::Engine;
use moebius::bench;
use moebius::error::human_bytes;
use moebius::gpu::{Device, DeviceKind};
use moebius::model::LoadStats;
use moebius::paging::{Packing, PagingCounts, PagingStats};
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

/// `50 of 128`
pub fn kinds_of_slots(paging: &PagingStats) -> String {
    let mut kinds: Vec<String> =
        paging.slots.iter().zip(&paging.experts).map(|(slots, experts)| format!("{slots} of {experts}")).collect();
    kinds.sort();
    kinds.dedup();
    kinds.join(" or ")
}

/// `1.2 GiB on the device, 50 of 128 experts of each layer`
pub fn slots(paging: &PagingStats) -> String {
    format!("{} on the device, {} experts of each layer", human_bytes(paging.slot_bytes), kinds_of_slots(paging))
}

/// What a person should know whose experts have to be packed each time.
pub fn advice(paging: &PagingStats, model: &str) -> Option<String> {
    let Packing { seconds, host_bytes, .. } = paging.packing?;
    let kept = if host_bytes > 0 {
        format!(", of which up to {} are kept in host memory", human_bytes(host_bytes))
    } else {
        String::new()
    };
    Some(format!(
        "loading an expert takes {:.1} ms, because it is quantised each time{kept}; `moebius quantize {model} OUT` once, and OUT is only read",
        seconds * 1e3
    ))
}

/// One line about experts that had to be loaded.
pub fn paging(paging: &PagingStats) -> String {
    let packing = paging
        .packing
        .filter(|packing| packing.host_requests > 0)
        .map(|packing| format!("; {} of {} loads found packed in host memory", packing.host_hits, packing.host_requests));
    format!("{}; {}{}", slots(paging), loads(paging), packing.unwrap_or_default())
}

/// `decode 91.2 % hits, 33.8 loads and 85 MiB per token, 18.4 stops; waited 9.1 s; prompt 300 loads, 1.1 GiB, waited 2.0 s`
fn loads(paging: &PagingStats) -> String {
    let PagingStats { decode, prefill, wasted_layers, .. } = paging;
    let hits = |counts: &PagingCounts| format!("{:.1} % hits", counts.hit_rate() * 100.0);
    let tokens = decode.tokens.max(1);
    let per_token = |count: u64| count as f64 / tokens as f64;
    let decoding = format!(
        "decode {}, {:.1} loads and {} per token in {:.1} stops, {:.1} layers for nothing; {:.2} s of waiting",
        hits(decode),
        per_token(decode.loads),
        human_bytes(decode.loaded_bytes / tokens),
        per_token(decode.stops),
        per_token(*wasted_layers),
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
