//! The whole forward pass on the CPU against what transformers computed.

use crate::common::{Golden, demo_model, ids, max_difference, open, spec_of};
use moebius::batch::{CacheShape, Row};
use moebius::checkpoint::{Checkpoint, WeightStore};
use moebius::model::{ReferenceDecoder, ReferenceForward, ReferencePass};
use moebius::quant::{CacheFormat, QuantChoice};
use moebius::spec::{LayerSpec, ModelSpec, Parameters, RopeScaling, Rule, WeightKey};
use serde_json::Value;

fn load(spec: &ModelSpec, checkpoint: &Checkpoint, context: usize) -> ReferencePass {
    let read = |key: WeightKey| pollster::block_on(checkpoint.read(key, 0..key.shape(spec).0)).unwrap().values;
    let cache = CacheShape { context, format: CacheFormat::F32 };
    ReferencePass::new(spec, WeightKey::all(spec).map(|key| (key, read(key))).collect(), cache)
}

fn load_golden(golden: &Golden) -> ReferencePass {
    load(&golden.spec, &open(&golden.directory, &golden.spec).unwrap(), golden.context())
}

/// `tokens` of one sequence, from `position` on.
fn rows(tokens: &[u32], position: usize, sequence: u32) -> Vec<Row> {
    tokens.iter().zip(position..).map(|(&token, position)| Row::new(token, position as u32, sequence)).collect()
}

fn best(logits: &[f32]) -> u32 {
    let top = logits.iter().copied().fold(f32::MIN, f32::max);
    logits.iter().position(|logit| *logit == top).unwrap() as u32
}

/// `len` tokens after a prompt, each the best one.
fn continuation(decoder: &mut ReferencePass, spec: &ModelSpec, prompt: &[u32], len: usize) -> Vec<u32> {
    let mut hidden = decoder.forward(&rows(prompt, 0, 0)).unwrap().hidden;
    let mut tokens = Vec::new();
    for position in prompt.len()..prompt.len() + len {
        tokens.push(best(&decoder.logits(&hidden[hidden.len() - spec.hidden_size..])));
        hidden = decoder.forward(&rows(&tokens[tokens.len() - 1..], position, 0)).unwrap().hidden;
    }
    tokens
}

#[test]
fn reference_gives_the_logits_and_experts_of_transformers() {
    for golden in Golden::all() {
        let mut decoder = load_golden(&golden);
        for (index, prompt) in golden.prompts.iter().enumerate() {
            let ReferenceForward { hidden, layers, choices, fault } = decoder.forward(&rows(prompt, 0, 0)).unwrap();
            let worst = golden.assert_logits(index, &decoder.logits(&hidden));
            golden.assert_routing(index, &layers);
            golden.assert_choices(index, &choices);
            assert_eq!(fault, None, "{} prompt {index}", golden.name);
            println!("{} prompt {index}: max |difference| {worst:.1e}", golden.name);
            // The reference sums in f64, so it has no excuse for using the whole of the allowance. transformers runs delta rules in f32, in
            // chunks with an inverse, and is that far from a forward pass in f64 itself.
            let is_delta = |layer: &LayerSpec| layer.recurrent().is_some_and(|recurrent| recurrent.rule == Rule::Delta);
            let within = if golden.spec.layers.iter().any(is_delta) { 6e-4 } else { 1e-4 };
            assert!(worst < within, "{} prompt {index}: {worst}", golden.name);
        }
    }
}

#[test]
fn reference_continues_the_fixtures_token_for_token() {
    for golden in Golden::all() {
        let mut decoder = load_golden(&golden);
        for (prompt, expected) in &golden.greedy {
            let tokens = continuation(&mut decoder, &golden.spec, &golden.prompts[*prompt], expected.len());
            assert_eq!(&tokens, expected, "{} prompt {prompt}", golden.name);
        }
    }
}

#[test]
fn reference_continues_the_demo_prompts_token_for_token() {
    let directory = demo_model();
    let spec = spec_of(&directory);
    let mut decoder = load(&spec, &open(&directory, &spec).unwrap(), 128);
    let text = std::fs::read_to_string(directory.join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 3);
    for case in cases {
        let expected = ids(&case["greedy"]);
        assert_eq!(continuation(&mut decoder, &spec, &ids(&case["ids"]), expected.len()), expected, "{}", case["prompt"]);
    }
}

#[test]
fn one_token_at_a_time_gives_the_same_as_the_whole_prompt() {
    for golden in Golden::all() {
        let prompt = golden.prompts.last().unwrap();
        let whole = load_golden(&golden).forward(&rows(prompt, 0, 0)).unwrap();
        let mut decoder = load_golden(&golden);
        // With longrope, a short text is not the beginning of a long one.
        let first = match golden.spec.layers.iter().find_map(LayerSpec::rope).map(|rope| &rope.scaling) {
            Some(RopeScaling::Long { original_positions, .. }) if *original_positions < prompt.len() => *original_positions,
            _ => 0,
        };
        for (position, token) in prompt.iter().enumerate() {
            let step = decoder.forward(&rows(&[*token], position, 0)).unwrap();
            if position < first {
                continue;
            }
            for (step, whole) in step.layers.iter().zip(&whole.layers) {
                let top_k = step.expert_ids.len();
                assert_eq!(step.expert_ids, whole.expert_ids[position * top_k..][..top_k], "{} {position}", golden.name);
            }
            let hidden_size = golden.spec.hidden_size;
            assert_eq!(step.hidden, whole.hidden[position * hidden_size..][..hidden_size], "{} {position}", golden.name);
        }
    }
}

#[test]
fn interleaved_sequences_give_the_same_as_each_alone() {
    for name in ["mixtral_swa", "gpt_oss", "llama4_text", "bailing_moe_v2", "deepseek_v3", "jetmoe", "yuan"] {
        let golden = Golden::load(name);
        let (a, b) = (rows(&golden.prompts[1], 0, 0), rows(&golden.prompts[2][..30], 0, 1));
        let alone = [load_golden(&golden).forward(&a).unwrap().hidden, load_golden(&golden).forward(&b).unwrap().hidden];

        let mut mixed: Vec<Row> = Vec::new();
        for index in 0..a.len().max(b.len()) {
            mixed.extend(b.get(index));
            mixed.extend(a.get(index));
        }
        let hidden = load_golden(&golden).forward(&mixed).unwrap().hidden;
        let mut apart = [Vec::new(), Vec::new()];
        for (row, hidden) in mixed.iter().zip(hidden.chunks_exact(golden.spec.hidden_size)) {
            apart[row.sequence as usize].extend_from_slice(hidden);
        }
        assert_eq!(apart, alone, "{}", golden.name);
        // And the two prompts are not the same to begin with.
        assert!(max_difference(&apart[0], &apart[1][..apart[0].len()]) > 0.1);
    }
}

#[test]
fn an_empty_batch_gives_nothing() {
    for name in ["mixtral", "deepseek_v2"] {
        assert!(load_golden(&Golden::load(name)).forward(&[]).unwrap().hidden.is_empty(), "{name}");
    }
}

#[test]
fn loading_reports_every_byte_once() {
    let golden = &Golden::load("mixtral");
    let checkpoint = open(&golden.directory, &golden.spec).unwrap();
    let mut reports = Vec::new();
    let (source, quant) = (WeightStore::Checkpoint(checkpoint), QuantChoice::default());
    let cache = CacheShape { context: 8, format: CacheFormat::F32 };
    let mut report = |bytes| reports.push(bytes);
    pollster::block_on(ReferenceDecoder::load(&golden.spec, (&source, quant), cache, &mut report)).unwrap();
    assert!(reports.is_sorted());
    assert_eq!(*reports.last().unwrap(), 4 * Parameters::of(&golden.spec).total());
}

#[test]
fn a_tied_head_is_the_embedding() {
    let mut spec = crate::common::tiny_spec();
    spec.tied_embeddings = true;
    let directory = crate::common::TinyCheckpoint::whole(&spec).write();
    let decoder = load(&spec, &open(directory.path(), &spec).unwrap(), 4);
    let mut one_hot = vec![0.0; spec.hidden_size];
    one_hot[2] = 1.0;
    // Tensor 0 is the embedding: element i is i.
    let column: Vec<f32> = (0..spec.vocab_size).map(|row| (row * spec.hidden_size + 2) as f32).collect();
    assert_eq!(decoder.logits(&one_hot), column);
}
