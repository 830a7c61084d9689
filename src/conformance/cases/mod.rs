//! The table, one file per kernel.

mod attention;
mod attention_merge;
mod attention_raw;
mod causal_pair;
mod embed;
mod expert_capacity;
mod expert_combine;
mod expert_identity;
mod expert_sort;
mod experts;
mod gate_rule;
mod gated_norm;
mod gates;
mod grad_attention;
mod grad_hidden;
mod grad_matrices;
mod grad_rows;
mod head_matmul;
mod latent;
mod matmul;
mod norm;
mod optimiser;
mod qk_rope;
mod qkv;
mod regroup;
mod router;
mod router_attention;
mod router_halts;
mod router_topk;
mod sample;
mod scan;
mod short_conv;

use super::{Case, Tolerance};
use crate::batch::Row;
use crate::gating::WeightOn;
use crate::kernels::norm::Fused;
use crate::quant::{BF16, CacheFormat, F16, F32, FP8, I8M, I8S, MXFP4, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0, Quant};
use crate::reference::{self};
use crate::spec::NormSpec;

/// Every case, in the order of a token's way through the model.
pub fn cases() -> Vec<Case> {
    let mut cases = embed::cases();
    cases.extend(norm::cases());
    cases.extend(causal_pair::cases());
    cases.extend(short_conv::cases());
    cases.extend(scan::cases());
    cases.extend(gated_norm::cases());
    cases.extend(qkv::cases());
    cases.extend(qk_rope::cases());
    cases.extend(latent::cases());
    cases.extend(head_matmul::cases());
    cases.extend(attention::cases());
    cases.extend(attention_merge::cases());
    cases.extend(matmul::cases());
    cases.extend(regroup::cases());
    cases.extend(router_attention::cases());
    cases.extend(router_topk::cases());
    cases.extend(router::cases());
    cases.extend(router_halts::cases());
    cases.extend(expert_capacity::cases());
    cases.extend(expert_sort::cases());
    cases.extend(experts::gate_up_cases());
    cases.extend(experts::down_cases());
    cases.extend(expert_combine::cases());
    cases.extend(expert_identity::cases());
    cases.extend(sample::cases());
    cases.extend(training_cases());
    cases
}

/// Those of the kernels that only training runs, in the order of a step.
fn training_cases() -> Vec<Case> {
    let mut cases = gates::gate_cases();
    cases.extend(gates::stats_cases());
    cases.extend(grad_hidden::keep_cases());
    cases.extend(grad_rows::entropy_cases());
    cases.extend(grad_matrices::input_cases());
    cases.extend(grad_matrices::weight_cases());
    cases.extend(grad_rows::norm_cases());
    cases.extend(grad_rows::norm_weight_cases());
    cases.extend(grad_hidden::back_cases());
    cases.extend(gates::gradient_cases());
    cases.extend(grad_attention::query_cases());
    cases.extend(grad_attention::key_value_cases());
    cases.extend(grad_rows::embed_cases());
    cases.extend(optimiser::squares_cases());
    cases.extend(optimiser::clip_cases());
    cases.extend(optimiser::adamw_cases());
    cases.extend(gate_rule::cases());
    cases.extend(gate_rule::gradient_cases());
    cases
}

/// Cases of the expert kernels in sizes that take seconds each and some hundred megabytes: for tests, not for every check.
pub fn large_cases() -> Vec<Case> {
    let mut cases = expert_sort::large_cases();
    cases.extend(experts::large_cases());
    cases.extend(expert_combine::large_cases());
    cases
}

/// For kernels that only move values.
const COPY: Tolerance = Tolerance { max_abs: 0.0, nmse: 0.0, why: "values are copied" };
/// For values up to 60 that are one product.
const PRODUCT: Tolerance = Tolerance { max_abs: 1e-5, nmse: 1e-13, why: "one rounding of an f32" };
/// For results about as large as 1 that are sums of products.
const SUM: Tolerance = Tolerance { max_abs: 1e-5, nmse: 1e-11, why: "f32 sums in another order than the twin's f64" };

/// The formats that kernels try with whatever they can do: words of every width, with scales, offsets and neither.
static THOROUGH: &[Quant] = &[&F32, &F16, &BF16, &Q8_0, &FP8, &Q4_1, &Q4_0, &MXFP4];
/// The others, whose words and scales are read in ways of their own. That is nothing that a kernel does itself, so each tries them once or twice: every
/// variant takes a browser on a software device a while.
static SELDOM: &[Quant] = &[&I8M, &I8S, &Q6_K, &Q5_K, &Q4_K];

/// Whole rows of any sharding in one shard.
const ONE_SHARD: usize = usize::MAX;

/// What multiplies the experts' outputs on their way into the residual stream, all in all.
fn effective_weights(weights: &[f32], weight_on: WeightOn, scale: f32) -> Vec<f32> {
    let of_output = |weight: &f32| if weight_on == WeightOn::Output { *weight } else { 1.0 };
    weights.iter().map(|weight| scale * of_output(weight)).collect()
}

/// What a cache of that format keeps of values.
fn kept(format: CacheFormat, values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|value| format.keep(value)).collect()
}

/// Tokens of two sequences that take turns, at positions with gaps.
fn rows_with_gaps(num_tokens: usize, context: usize) -> Vec<Row> {
    let row = |token: usize| Row::new(0, ((token / 2 * 3 + token % 2 * 5) % context) as u32, (token % 2) as u32);
    (0..num_tokens).map(row).collect()
}

/// For each text, by the position of its first row and their number, its rows: one sequence each, one after the other.
fn consecutive_rows(texts: &[[usize; 2]]) -> Vec<Row> {
    let rows = |(sequence, [first, count]): (usize, &[usize; 2])| {
        (*first..first + count).map(move |position| Row::new(0, position as u32, sequence as u32)).collect::<Vec<_>>()
    };
    texts.iter().enumerate().flat_map(rows).collect()
}

const NORM_EPS: f32 = 1e-5;

/// The norm of a case that has one.
fn fused_norm(wanted: bool) -> Option<Fused> {
    wanted.then_some(Fused { eps: NORM_EPS })
}

/// `x` through the norm of [`fused_norm`], if there is a weight.
fn normed(x: &[f32], weight: Option<&[f32]>) -> Vec<f32> {
    match weight {
        Some(weight) => reference::norm::norm(&NormSpec::rms(NORM_EPS), x, weight),
        None => x.to_vec(),
    }
}
