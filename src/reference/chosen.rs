//! Attention whose projections depend on the token: chosen by a router, or made of a local filter.

use super::LayerRouting;
use super::attention::{self, attention};
use super::causal_pair::causal_pair;
use super::expert_combine::expert_combine;
use super::expert_down::expert_down;
use super::layer::{Batch, Layer, Weights};
use super::matmul::{add_bias, matmul};
use super::norm::norm;
use super::qk_rope::{self, qk_rope};
use super::regroup::{Regroup, Strides, regroup};
use super::router_topk::{Routing, router_topk};
use crate::checkpoint::WeightKey;
use crate::gating::RouterSpec;
use crate::spec::{AttentionSpec, FilterSpec, NormSpec};

impl Layer {
    /// `[n, hidden]`: attention with its output projection, where `router` chooses the projections of query and output, and what it chose.
    pub(super) fn attend_by_choice(
        &mut self,
        spec: &AttentionSpec,
        router: &RouterSpec,
        weights: &Weights,
        batch: &Batch,
    ) -> (Vec<f32>, LayerRouting) {
        let (layer, Batch { context, rows, x }) = (self.index, *batch);
        let (num_tokens, hidden_size) = (rows.len(), self.hidden_size);
        let top_k = router.num_experts_per_tok;
        let logits = matmul(x, weights.get(WeightKey::ChoiceRouter { layer }), hidden_size);
        let slot_table: Vec<u32> = (0..router.num_experts as u32).collect();
        let mut loads = vec![0; router.num_experts];
        let Routing { expert_ids, slots, routing_weights } = router_topk(router, &logits, [None, None], &slot_table, &mut loads);
        let experts = |key: &dyn Fn(usize) -> WeightKey| -> Vec<&[f32]> {
            (0..router.num_experts).map(|expert| weights.get(key(expert))).collect()
        };

        // Every choice reads the same row.
        let repeated: Vec<f32> = x.chunks_exact(hidden_size).flat_map(|x| x.repeat(top_k)).collect();
        let chosen =
            expert_down(&repeated, &slots, &experts(&|expert| WeightKey::ChoiceQuery { layer, expert }), &[], hidden_size);
        let kv = matmul(x, weights.get(WeightKey::Qkv { layer }), hidden_size);
        let (rows_wide, kv_wide) = (spec.qkv_rows(), spec.projected_rows());
        let mut raw = vec![0.0; num_tokens * rows_wide];
        regroup(&heads_in_turns(spec, spec.choice_width(), rows_wide), num_tokens, &chosen, &mut raw);
        for (raw, kv) in raw.chunks_exact_mut(rows_wide).zip(kv.chunks_exact(kv_wide)) {
            raw[rows_wide - kv_wide..].copy_from_slice(kv);
        }
        let inputs = qk_rope::Inputs { spec, context, rows, qkv: &raw, query_norm: None, key_norm: None, rope: &self.rope };
        let q = qk_rope(&inputs, &mut self.cache);
        let inputs = attention::Inputs { spec, context, rows, q: &q, cache: &self.cache, sinks: None, value_dim: None };
        let mixed = attention(&inputs);

        let mut grouped = vec![0.0; mixed.len()];
        let Regroup { x, y, .. } = heads_in_turns(spec, spec.choice_width(), spec.query_width());
        let back = Regroup { x: y, y: x, ..heads_in_turns(spec, spec.choice_width(), spec.query_width()) };
        regroup(&back, num_tokens, &mixed, &mut grouped);
        let output = experts(&|expert| WeightKey::ChoiceOutput { layer, expert });
        let y = expert_down(&grouped, &slots, &output, &[], spec.choice_width());
        let mut sum = vec![0.0; num_tokens * hidden_size];
        expert_combine(&y, &routing_weights, top_k, &mut sum);
        (sum, LayerRouting { layer, router_logits: logits, expert_ids, routing_weights })
    }

    /// `[n, qkv_rows]`: query and key of the filtered input, value of the input.
    pub(super) fn project_filtered(
        &mut self,
        spec: &AttentionSpec,
        filter: &FilterSpec,
        weights: &Weights,
        batch: &Batch,
    ) -> Vec<f32> {
        let (layer, Batch { context, rows, x }) = (self.index, *batch);
        let [inputs, middles] = &mut self.filter;
        let pair = causal_pair(rows, context, self.hidden_size, x, inputs);
        let mut middle = matmul(&pair, weights.get(WeightKey::FilterFirst { layer }), 2 * self.hidden_size);
        add_bias(&mut middle, weights.get(WeightKey::FilterFirstBias { layer }));
        let pair = causal_pair(rows, context, filter.middle, &middle, middles);
        let mut filtered = matmul(&pair, weights.get(WeightKey::FilterSecond { layer }), 2 * filter.middle);
        add_bias(&mut filtered, weights.get(WeightKey::FilterSecondBias { layer }));
        filtered.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        let normed = norm(&NormSpec::rms(filter.norm_eps), &filtered, weights.get(WeightKey::FilterNorm { layer }));

        let mut qk = matmul(&normed, weights.get(WeightKey::Qkv { layer }), self.hidden_size);
        if let Some(bias) = weights.find(WeightKey::QkvBias { layer }) {
            add_bias(&mut qk, bias);
        }
        let values = matmul(x, weights.get(WeightKey::Value { layer }), self.hidden_size);
        let (qk_wide, values_wide) = (spec.projected_rows(), spec.num_kv_heads * spec.value_dim);
        let rows = qk.chunks_exact(qk_wide).zip(values.chunks_exact(values_wide));
        rows.flat_map(|(qk, values)| qk.iter().chain(values)).copied().collect()
    }
}

/// From the queries of each choice, `group_stride` values apart, to rows of `row_stride` in which the heads that share a key are neighbours.
pub fn heads_in_turns(spec: &AttentionSpec, group_stride: usize, row_stride: usize) -> Regroup {
    let AttentionSpec { num_heads, num_kv_heads, head_dim, .. } = *spec;
    let choices = num_heads / num_kv_heads;
    Regroup {
        outer: choices,
        inner: num_kv_heads,
        len: head_dim,
        x: Strides { first: 0, token: choices * group_stride, outer: group_stride, inner: head_dim },
        y: Strides { first: 0, token: row_stride, outer: head_dim, inner: choices * head_dim },
        add: None,
    }
}
