//! What configs with multi-head latent attention have in common.

use super::common::{self, Defaults};
use super::limits;
use crate::Result;
use crate::spec::{ConfigJson, LatentSpec, RopePairing, RopeScaling};

/// Of the norms inside the attention, whatever `rms_norm_eps` says. Source: `DeepseekV3RMSNorm` of transformers.
const NORM_EPS: f32 = 1e-6;

/// Heads, ranks and rotary embedding.
pub fn latent_attention(config: &ConfigJson, defaults: &Defaults) -> Result<LatentSpec> {
    config.unsupported("attention_bias", &false.into())?;
    let dim = |key: &str| {
        let dim = config.usize(key, limits::HEAD_DIM)?;
        common::check_head_dim(config, key, dim)?;
        Ok::<usize, crate::Error>(dim)
    };
    let (latent_dim, rope_dim) = (dim("kv_lora_rank")?, dim("qk_rope_head_dim")?);
    if latent_dim + rope_dim > limits::HEAD_DIM {
        let expected = format!("at most {} together with qk_rope_head_dim ({rope_dim})", limits::HEAD_DIM);
        return Err(config.invalid("kv_lora_rank", expected));
    }
    let mut rope = common::rope(config, rope_dim, defaults)?;
    if rope.dims != rope_dim {
        return Err(config.invalid("partial_rotary_factor", "1, because all of qk_rope_head_dim turns"));
    }
    if config.bool_or("rope_interleave", true)? {
        rope.pairing = RopePairing::Interleaved;
    }
    let nope_dim = dim("qk_nope_head_dim")?;
    let entropy = match rope.scaling {
        RopeScaling::Yarn { factor, .. } => yarn_entropy(config, factor)?,
        _ => 1.0,
    };
    Ok(LatentSpec {
        num_heads: config.usize("num_attention_heads", limits::HEADS)?,
        query_rank: config.opt_usize("q_lora_rank", limits::HIDDEN_SIZE)?,
        latent_dim,
        nope_dim,
        rope_dim,
        value_dim: dim("v_head_dim")?,
        scale: (entropy / ((nope_dim + rope_dim) as f64).sqrt()) as f32,
        norm_eps: NORM_EPS,
        latent_scale: 1.0,
        rope: Some(rope),
    })
}

/// What yarn multiplies the scores by, besides what it does to cosine and sine.
fn yarn_entropy(config: &ConfigJson, factor: f64) -> Result<f64> {
    let Some(section) = common::rope_section(config)? else { return Ok(1.0) };
    let mscale_all_dim = section.f64_or("mscale_all_dim", 0.0, 0.0..=1e6)?;
    Ok(if mscale_all_dim == 0.0 { 1.0 } else { common::yarn_magnitude(factor, mscale_all_dim).powi(2) })
}
