//! Between the library's types and the plain objects of `web/package/types.d.ts`, by way of JSON.

use crate::batch::LayerRouting;
use crate::conformance::Report;
use crate::error::Error;
use crate::gating::RouterSpec;
use crate::generate::{Candidate, SamplingOptions, StopReason, Summary, TextStream, Tokenizer};
use crate::gpu::Device;
use crate::paging::{PagingCounts, PagingStats};
use crate::spec::Parameters;
use crate::{Engine, LoadEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

/// What the router of every MoE layer did with one token.
#[derive(Serialize)]
pub(super) struct TokenRouting<'a> {
    /// `[MoE layers][num_experts_per_tok]`, best first.
    experts: Vec<&'a [u32]>,
    weights: Vec<&'a [f32]>,
}

/// The model and what runs it.
pub(super) fn description(engine: &Engine) -> Value {
    let spec = engine.spec();
    let parameters = Parameters::of(spec);
    let of_routers = |value: fn(&RouterSpec) -> usize| spec.moe_layers().map(|(_, moe)| value(&moe.router)).max();
    let suggested = SamplingOptions::suggested(engine.tokenizer().generation_defaults());
    let notes: Vec<&String> = engine.notes().iter().chain(engine.tokenizer().notes()).collect();
    json!({
        "device": device(engine),
        "model": {
            "family": spec.family,
            "layers": spec.layers.len(),
            "moeLayers": spec.moe_layers().map(|(layer, _)| layer).collect::<Vec<_>>(),
            "experts": of_routers(|router| router.num_experts),
            "expertsPerToken": of_routers(|router| router.num_experts_per_tok),
            "hiddenSize": spec.hidden_size,
            "vocabSize": spec.vocab_size,
            "parameters": parameters.total(),
            "activeParameters": parameters.active(),
            "context": engine.context(),
            "chatTemplate": engine.tokenizer().chat_template().is_some(),
        },
        "paging": engine.paging().map(paging),
        "notes": notes,
        "suggested": {
            "temperature": suggested.temperature, "topK": suggested.top_k, "topP": suggested.top_p, "minP": suggested.min_p,
            "repeatPenalty": suggested.repeat_penalty,
        },
    })
}

fn paging(stats: &PagingStats) -> Value {
    let counts = |counts: &PagingCounts| {
        json!({
            "tokens": counts.tokens, "requests": counts.requests, "hits": counts.hits, "stops": counts.stops, "loads": counts.loads,
            "loadedBytes": counts.loaded_bytes, "waitSeconds": counts.seconds,
        })
    };
    json!({
        "slots": stats.slots, "experts": stats.experts, "slotBytes": stats.slot_bytes, "decode": counts(&stats.decode),
        "prefill": counts(&stats.prefill),
    })
}

/// Ids with their texts, which put together are the text. Control tokens are spelled out, as in a trace.
pub(super) fn tokens(tokenizer: &Tokenizer, ids: &[u32]) -> crate::Result<Vec<Value>> {
    let mut stream = TextStream::new(tokenizer, false);
    ids.iter().map(|&id| Ok(json!({ "id": id, "text": stream.push(id)? }))).collect()
}

/// One line per kernel, and every case that failed.
pub(super) fn report(device: &Device, report: &Report) -> Value {
    let kernels: Vec<Value> = report
        .by_kernel()
        .iter()
        .map(|summary| {
            json!({
                "kernel": summary.kernel, "cases": summary.cases, "failed": summary.failed, "maxAbsError": summary.max_abs_error,
                "nmse": summary.nmse,
            })
        })
        .collect();
    let failures: Vec<Value> = report
        .failures()
        .map(|case| json!({ "kernel": case.kernel, "case": case.case, "variant": case.variant, "detail": case.detail }))
        .collect();
    json!({ "passed": report.passed(), "device": device.name(), "kernels": kernels, "failures": failures })
}

pub(super) fn load_event(event: &LoadEvent) -> Value {
    match event {
        LoadEvent::Device(device) => {
            json!({ "type": "device", "name": device.name, "kind": device.kind, "why": device.why })
        }
        LoadEvent::Weights { done_bytes, total_bytes } => {
            json!({ "type": "weights", "doneBytes": done_bytes, "totalBytes": total_bytes })
        }
        LoadEvent::Kernels { done, total } => json!({ "type": "kernels", "done": done, "total": total }),
        // JavaScript fetches the files and reports that itself.
        LoadEvent::Fetching(_) => Value::Null,
    }
}

fn device(engine: &Engine) -> Value {
    let device = engine.device();
    let limits = engine.gpu().map(Device::caps).map(|caps| {
        json!({
            "maxBindingBytes": caps.max_binding_bytes, "maxBufferBytes": caps.max_buffer_bytes,
            "maxWorkgroupBytes": caps.max_workgroup_bytes, "maxInvocations": caps.max_invocations,
            "maxStorageBuffers": caps.max_storage_buffers, "subgroupSize": caps.subgroup_size, "shaderF16": caps.shader_f16,
        })
    });
    let allocated = engine.gpu().map(Device::allocated_bytes);
    json!({
        "name": device.name, "kind": device.kind, "backend": device.backend, "driver": device.driver, "why": device.why,
        "limits": limits, "allocatedBytes": allocated,
    })
}

pub(super) fn summary(summary: &Summary) -> Value {
    let stop = match &summary.stop {
        StopReason::StopString(_) => json!("stop_string"),
        other => json!(other),
    };
    json!({
        "promptIds": summary.prompt_ids, "ids": summary.ids, "text": summary.text, "thinking": summary.thinking,
        "answer": summary.answer, "stop": stop,
        "prefillTokens": summary.prefill_tokens, "prefillSeconds": summary.prefill_seconds, "decodeSeconds": summary.decode_seconds,
        "decodeRate": summary.decode_rate(), "expertLoads": summary.expert_loads,
    })
}

/// `[position][rank]`; a token that is not a whole character has U+FFFD in its text.
pub(super) fn candidates(found: &[Vec<Candidate>], tokenizer: &Tokenizer) -> crate::Result<Vec<Vec<Value>>> {
    let one = |candidate: &Candidate| {
        let text = tokenizer.decode(&[candidate.id], false)?;
        Ok(json!({ "id": candidate.id, "text": text, "probability": candidate.probability }))
    };
    found.iter().map(|position| position.iter().map(one).collect()).collect()
}

/// From one entry per layer to one per token. `num_experts` of each layer.
pub(super) fn by_token<'a>(layers: &'a [LayerRouting], num_experts: &[usize]) -> Vec<TokenRouting<'a>> {
    let (Some(first), Some(&experts)) = (layers.first(), num_experts.first()) else { return Vec::new() };
    let num_tokens = first.router_logits.len() / experts;
    let rows = |token: usize| {
        layers.iter().map(move |layer| {
            let chosen = layer.expert_ids.len() / num_tokens;
            (layer, token * chosen..(token + 1) * chosen)
        })
    };
    (0..num_tokens)
        .map(|token| TokenRouting {
            experts: rows(token).map(|(layer, row)| &layer.expert_ids[row]).collect(),
            weights: rows(token).map(|(layer, row)| &layer.routing_weights[row]).collect(),
        })
        .collect()
}

/// An object of JavaScript as ours, by way of JSON.
pub(super) fn parse<T: DeserializeOwned + Default>(value: Option<&JsValue>) -> Result<T, JsValue> {
    let Some(value) = value.filter(|value| !value.is_undefined() && !value.is_null()) else { return Ok(T::default()) };
    let text = String::from(js_sys::JSON::stringify(value)?);
    serde_json::from_str(&text)
        .map_err(|error| thrown(Error::Argument { what: "options", expected: error.to_string(), found: text }))
}

pub(super) fn to_js(value: &impl Serialize) -> JsValue {
    let text = serde_json::to_string(value).expect("these types have string keys and no state");
    js_sys::JSON::parse(&text).expect("it was just written as JSON")
}

/// An `Error` whose name distinguishes a lost device from everything else, and which carries our hint.
pub(super) fn thrown(error: Error) -> JsValue {
    let name = match error {
        Error::DeviceLost { .. } => "DeviceLostError",
        Error::NoAdapter { .. } => "NoAdapterError",
        _ => "MoebiusError",
    };
    let object = js_sys::Error::new(&error.to_string());
    object.set_name(name);
    if let Some(hint) = error.page_hint() {
        let _ = js_sys::Reflect::set(&object, &"hint".into(), &hint.into());
    }
    object.into()
}
