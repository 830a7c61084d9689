use super::super::inputs::Inputs;
use super::super::stage::{Prepared, Stage, canaries};
use super::super::{Case, Problem};
use super::{SUM, rows_with_gaps};
use crate::batch::rope::rope_table;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::latent::{self, Buffers};
use crate::quant::{CacheFormat, padded};
use crate::reference::{self, KvCache};
use crate::spec::{LatentSpec, RopePairing, RopeScaling, RopeSpec};

struct Latent {
    num_tokens: usize,
    spec: LatentSpec,
    cache: CacheFormat,
}

const CONTEXT: usize = 40;
const SEQUENCES: usize = 2;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let (full, half) = (CacheFormat::F32, CacheFormat::F16);
    let kinds = [
        (Some(RopePairing::Half), 1.0, full),
        (Some(RopePairing::Interleaved), 1.0, full),
        (Some(RopePairing::Interleaved), 1.5, full),
        (None, 1.0, full),
        (Some(RopePairing::Half), 1.0, half),
        // Beyond the largest f16.
        (Some(RopePairing::Interleaved), 1e5, half),
    ];
    for (pairing, latent_scale, cache) in kinds {
        for (num_tokens, num_heads, latent_dim, nope_dim, rope_dim) in
            [(1, 3, 32, 16, 8), (9, 3, 20, 12, 4), (17, 1, 4, 4, 4), (33, 2, 512, 128, 64)]
        {
            let spec = LatentSpec {
                num_heads,
                query_rank: None,
                latent_dim,
                nope_dim,
                rope_dim,
                value_dim: 4,
                scale: 1.0,
                norm_eps: 1e-6,
                latent_scale,
                rope: pairing.map(|pairing| RopeSpec { theta: 10_000.0, dims: rope_dim, pairing, scaling: RopeScaling::None }),
            };
            let name = format!(
                "{num_tokens} tokens, {num_heads} heads of {nope_dim} + {rope_dim}, latent {latent_dim} times {latent_scale}, {}{}",
                pairing.map_or("no positions".to_owned(), |pairing| format!("{pairing:?}")),
                if cache == half { ", f16 cache" } else { "" }
            );
            cases.push(Case::new("latent", name, SUM, Latent { num_tokens, spec, cache }));
        }
    }
    cases
}

impl Latent {
    fn problem(&self) -> latent::Problem<'_> {
        latent::Problem { num_tokens: self.num_tokens, context: CONTEXT, cache: self.cache, latent: &self.spec }
    }
}

impl Problem for Latent {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![latent::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(13));
        let (spec, context) = (&self.spec, CONTEXT);
        let rows = rows_with_gaps(self.num_tokens, CONTEXT);
        let q = inputs.floats(self.num_tokens * spec.query_width(), 1.0);
        let kv = inputs.floats(self.num_tokens * spec.cache_dim(), 1.0);
        let norm = inputs.floats(spec.latent_dim, 1.0);
        let rope = spec.rope.as_ref().map(|rope| rope_table(rope, CONTEXT, CONTEXT)).unwrap_or_default();

        let cache_before = canaries(SEQUENCES * CONTEXT * spec.cache_dim());
        let mut cache = KvCache { k: cache_before.clone(), v: Vec::new(), format: self.cache };
        let mut turned = q.clone();
        let twin = reference::latent::Inputs { spec, context, rows: &rows, kv: &kv, norm: &norm, rope: &rope };
        reference::latent::latent(&twin, &mut turned, &mut cache);

        // The kernel puts the turned part of each head where attention reads it, behind the place of the absorbed part.
        let stride = padded(spec.num_heads * spec.cache_dim());
        let query_before = canaries(self.num_tokens * stride);
        let mut query_after = query_before.clone();
        for (index, head) in turned.chunks_exact(spec.key_dim()).enumerate() {
            let (token, h) = (index / spec.num_heads, index % spec.num_heads);
            let place = token * stride + h * spec.cache_dim() + spec.latent_dim;
            query_after[place..][..spec.rope_dim].copy_from_slice(&head[spec.nope_dim..]);
        }

        let query = stage.partly("query", &query_before, &query_after);
        let rope_buffer = spec.rope.as_ref().map(|_| stage.input("rope", &rope));
        let cache = stage.cache("cache", &cache_before, &cache.k, self.cache);
        let buffers = Buffers {
            rows: &stage.input("rows", &rows),
            q: &stage.padded_input("q", &q, spec.query_width()),
            kv: &stage.padded_input("kv", &kv, spec.cache_dim()),
            norm: &stage.input("norm", &norm),
            rope: rope_buffer.as_ref(),
            query: &query.buffer,
            cache: &cache.buffer,
        };
        let mut recording = Recording::default();
        latent::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![query, cache] })
    }
}
