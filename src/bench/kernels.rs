//! The time of every kernel of a pass, beside the bytes and the operations that it cannot do without.

use super::run::Bench;
use super::test::{Test, Work};
use crate::error::Result;
use crate::gpu::{Bound, DispatchTime};
use crate::spec::{BlockSpec, Mask, ModelSpec, Role, WeightKey};
use std::collections::{BTreeMap, BTreeSet};

/// One kernel in one kind of pass, all its dispatches together.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelReport {
    pub kernel: &'static str,
    /// In one pass: a decode step, or a prompt.
    pub dispatches: f64,
    /// In one pass.
    pub seconds: f64,
    /// As a share of the time of all kernels.
    pub share: f64,
    /// Bytes of weights and of the KV cache that one pass cannot do without reading.
    pub bytes: f64,
    /// Operations with weights and with the KV cache.
    pub flops: f64,
    pub gb_s: f64,
    pub gflop_s: f64,
    /// As a share of the nearer roof: reading, or multiply-adds.
    pub roof_share: f64,
}

impl Bench {
    /// Times every kernel of a test's pass: a decode step at its depth, or its whole prompt. The slowest kernel comes first.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn kernels(&mut self, test: Test, repetitions: usize) -> Result<Vec<KernelReport>> {
        self.check(test, repetitions)?;
        self.fill(test).await?;
        let tokens = match test.work {
            Work::Prefill(tokens) => tokens,
            Work::Decode(_) | Work::Sample(_) => 1,
        };
        self.rewind(test.depth).await?;
        self.work(test, tokens).await?;
        let mut times = Vec::new();
        for _ in 0..repetitions {
            self.rewind(test.depth).await?;
            self.gpu().device().start_profile();
            let outcome = self.work(test, tokens).await;
            times.extend(self.gpu().device().take_profile());
            outcome?;
        }
        Ok(self.reports(&times, (test.depth, tokens), repetitions))
    }

    fn reports(&self, times: &[DispatchTime], (depth, tokens): (usize, usize), passes: usize) -> Vec<KernelReport> {
        let pass = Pass { spec: &self.spec, keys: labels(&self.spec), context: self.context(), depth, tokens };
        let total: f64 = times.iter().map(|time| time.seconds).sum();
        let mut kernels: BTreeMap<&str, Vec<&DispatchTime>> = BTreeMap::new();
        for time in times {
            kernels.entry(time.kernel).or_default().push(time);
        }
        let report = |(kernel, times): (&'static str, Vec<&DispatchTime>)| {
            let seconds: f64 = times.iter().map(|time| time.seconds).sum();
            let bytes = times.iter().map(|time| pass.bytes(time)).sum::<f64>() / passes as f64;
            let flops = pass.flops(kernel, &times);
            let per_pass = seconds / passes as f64;
            // A clock may be too coarse for what is small.
            let per_second = |amount: f64| if per_pass > 0.0 { amount / per_pass * 1e-9 } else { 0.0 };
            let (gb_s, gflop_s) = (per_second(bytes), per_second(flops));
            KernelReport {
                kernel,
                dispatches: times.len() as f64 / passes as f64,
                seconds: per_pass,
                share: if total > 0.0 { seconds / total } else { 0.0 },
                bytes,
                flops,
                gb_s,
                gflop_s,
                roof_share: (gb_s / self.roofs.read_gb_s).max(gflop_s / self.roofs.fma_gflop_s),
            }
        };
        let mut reports: Vec<KernelReport> = kernels.into_iter().map(report).collect();
        reports.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        reports
    }
}

/// Weights by what their buffers are called: all experts of a layer share those of its first.
fn labels(spec: &ModelSpec) -> BTreeMap<String, WeightKey> {
    WeightKey::all(spec).map(|key| (key.packed_name(), key)).collect()
}

/// What the tokens of one pass have to do.
struct Pass<'a> {
    spec: &'a ModelSpec,
    keys: BTreeMap<String, WeightKey>,
    context: usize,
    depth: usize,
    tokens: usize,
}

impl Pass<'_> {
    fn bytes(&self, time: &DispatchTime) -> f64 {
        let bytes = |bound: &Bound| bound.bytes as f64 * self.share_read(time.kernel, bound);
        time.bound.iter().filter(|bound| is_read(time.kernel, bound)).map(bytes).sum()
    }

    /// Which share of a buffer the tokens cannot do without; nothing of activations.
    fn share_read(&self, kernel: &str, bound: &Bound) -> f64 {
        if is_cache(bound) {
            return (self.depth + self.tokens) as f64 / self.context as f64;
        }
        match self.keys.get(&*bound.label) {
            None => 0.0,
            Some(key) if key.role == Role::Embedding && is_lookup(kernel) => {
                (self.tokens as f64 / self.spec.vocab_size as f64).min(1.0)
            }
            Some(&key) => match self.experts(key) {
                // The experts that at least one token chose, if the tokens are spread evenly.
                Some((num_experts, chosen)) => 1.0 - (1.0 - chosen / num_experts).powf(self.tokens as f64),
                None => 1.0,
            },
        }
    }

    /// Operations of one pass, whatever the dispatches and chunks that they are cut into.
    fn flops(&self, kernel: &str, times: &[&DispatchTime]) -> f64 {
        let mut weights: BTreeSet<&WeightKey> = BTreeSet::new();
        let mut caches: BTreeSet<usize> = BTreeSet::new();
        for time in times {
            for bound in time.bound.iter().filter(|bound| is_read(kernel, bound)) {
                weights.extend(self.keys.get(&*bound.label));
                caches.extend(time.layer.filter(|_| is_cache(bound)));
            }
        }
        let of_weights: f64 = weights.into_iter().filter(|_| !is_lookup(kernel)).map(|key| self.flops_of(*key)).sum();
        of_weights + caches.into_iter().map(|layer| self.flops_of_cache(layer)).sum::<f64>()
    }

    fn flops_of(&self, key: WeightKey) -> f64 {
        let (rows, cols) = key.shape(self.spec);
        let of_one = 2.0 * rows as f64 * cols as f64;
        match key.role {
            // Only the last token of a prompt goes through the head.
            Role::Head | Role::Embedding => of_one,
            _ => of_one * self.tokens as f64 * self.experts(key).map_or(1.0, |(_, chosen)| chosen),
        }
    }

    fn flops_of_cache(&self, layer: usize) -> f64 {
        let per_position = |num_heads: usize, widths: usize| 2.0 * (num_heads * widths) as f64;
        let mean_length = self.depth as f64 + (self.tokens as f64 + 1.0) / 2.0;
        let of_block = |block: &BlockSpec| match block {
            BlockSpec::Latent(latent) => (per_position(latent.num_heads, latent.cache_dim() + latent.latent_dim), f64::INFINITY),
            _ => block.attention().map_or((0.0, f64::INFINITY), |attention| {
                let seen = match attention.mask {
                    Mask::Window(width) | Mask::Chunk(width) => width as f64,
                    Mask::Causal | Mask::All => f64::INFINITY,
                };
                (per_position(attention.num_heads, attention.head_dim + attention.value_dim), seen)
            }),
        };
        let blocks = self.spec.layers[layer].blocks.iter().map(of_block);
        blocks.map(|(per_position, seen)| self.tokens as f64 * mean_length.min(seen) * per_position).sum()
    }

    /// How many experts the weight stands for, and how many of them a token chooses.
    fn experts(&self, key: WeightKey) -> Option<(f64, f64)> {
        let (Role::ExpertGateUp | Role::ExpertDown) = key.role else { return None };
        let router = &self.spec.layers[key.layer].moe()?.router;
        Some((router.num_experts as f64, router.num_experts_per_tok as f64))
    }
}

/// Buffers that are also written do not count, except for the cache, which attention reads.
fn is_read(kernel: &str, bound: &Bound) -> bool {
    !bound.is_written || (kernel == "attention" && is_cache(bound))
}

fn is_cache(bound: &Bound) -> bool {
    matches!(&*bound.label, "k_cache" | "v_cache" | "latent_cache")
}

/// Kernels that take rows of the embedding, not all of it.
fn is_lookup(kernel: &str) -> bool {
    kernel.starts_with("embed") || kernel.starts_with("sample")
}
