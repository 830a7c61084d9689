//! What configs of many architectures have in common: the keys of Llama and of the usual routers.

use super::limits;
use crate::Result;
use crate::gating::{ExpertGroups, GroupScore, Normalize, RouterMethod, RouterSpec};
use crate::spec::{
    Activation, AttentionSpec, BlockSpec, ConfigJson, LayerSpec, MlpSpec, ModelSpec, NormSpec, Residual, RopePairing,
    RopeScaling, RopeSpec, TensorNames,
};
use crate::spec::{MoeSpec, QkNorm, QkNormOver, SharedSpec};
use std::ops::RangeInclusive;

/// Range of the epsilon of a norm.
pub const EPS: RangeInclusive<f64> = 1e-30..=1.0;
/// Range of factors that multiply activations.
pub const FACTOR: RangeInclusive<f64> = 1e-6..=1e6;
/// Range of the base of rotary frequencies.
pub const THETA: RangeInclusive<f64> = 1.0..=1e12;

/// What an absent key means.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub max_positions: usize,
    pub rms_norm_eps: f64,
    pub tied_embeddings: bool,
    pub rope_theta: f64,
    pub partial_rotary_factor: f64,
}

impl Defaults {
    /// Those of most classes in transformers.
    pub const LLAMA: Defaults = Defaults {
        max_positions: 2048,
        rms_norm_eps: 1e-6,
        tied_embeddings: false,
        rope_theta: 10_000.0,
        partial_rotary_factor: 1.0,
    };
}

pub fn hidden_size(config: &ConfigJson) -> Result<usize> {
    config.usize("hidden_size", limits::HIDDEN_SIZE)
}

pub fn rms_norm(config: &ConfigJson, defaults: &Defaults) -> Result<NormSpec> {
    Ok(NormSpec::rms(config.f64_or("rms_norm_eps", defaults.rms_norm_eps, EPS)? as f32))
}

/// A model of pre-norm layers with the names of Llama; `layer` makes each from its index.
pub fn model<M: Into<BlockSpec>>(
    config: &ConfigJson,
    family: &'static str,
    defaults: &Defaults,
    layer: impl Fn(usize) -> Result<(M, BlockSpec)>,
) -> Result<ModelSpec> {
    let norm = rms_norm(config, defaults)?;
    let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
    let block = |index: usize| {
        let (mixer, ffn) = layer(index)?;
        Ok(pre_norm(norm, mixer, ffn))
    };
    model_of(config, family, defaults, (0..num_layers).map(block).collect::<Result<_>>()?)
}

/// As [`model`], of layers that are made already.
pub fn model_of(config: &ConfigJson, family: &'static str, defaults: &Defaults, layers: Vec<LayerSpec>) -> Result<ModelSpec> {
    Ok(ModelSpec {
        family,
        vocab_size: config.usize("vocab_size", limits::VOCAB_SIZE)?,
        hidden_size: hidden_size(config)?,
        max_positions: config.usize_or("max_position_embeddings", defaults.max_positions, limits::POSITIONS)?,
        final_norm: rms_norm(config, defaults)?,
        tied_embeddings: config.bool_or("tie_word_embeddings", defaults.tied_embeddings)?,
        head_bias: false,
        embedding_scale: 1.0,
        logit_scale: 1.0,
        logit_softcap: None,
        layers,
        names: TensorNames::LLAMA,
        may_be_cut: false,
    })
}

pub fn pre_norm(norm: NormSpec, mixer: impl Into<BlockSpec>, ffn: BlockSpec) -> LayerSpec {
    LayerSpec { norm, residual: Residual::Pre, residual_scale: 1.0, blocks: vec![mixer.into(), ffn], output_scale: false }
}

/// Heads and rotary embedding.
pub fn attention(config: &ConfigJson, defaults: &Defaults) -> Result<AttentionSpec> {
    let heads = heads(config)?;
    Ok(AttentionSpec { rope: Some(rope(config, heads.head_dim, defaults)?), ..heads })
}

/// The attention of Qwen3: biases where `attention_bias` says so, and a norm of every query and key head.
pub fn head_normed_attention(config: &ConfigJson, defaults: &Defaults) -> Result<AttentionSpec> {
    let bias = config.bool_or("attention_bias", false)?;
    Ok(AttentionSpec {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: Some(qk_norm(rms_norm(config, defaults)?.eps, QkNormOver::Head)),
        ..attention(config, defaults)?
    })
}

/// Rows or columns of the state of a head.
pub fn state_dim(config: &ConfigJson, key: &str, default: usize) -> Result<usize> {
    let dim = config.usize_or(key, default, limits::STATE_DIM)?;
    if dim.is_multiple_of(4) {
        return Ok(dim);
    }
    Err(config.invalid(key, format!("a multiple of 4, at most {}", limits::STATE_DIM)))
}

/// Plain attention with the heads of the config.
pub fn heads(config: &ConfigJson) -> Result<AttentionSpec> {
    let num_heads = config.usize("num_attention_heads", limits::HEADS)?;
    let num_kv_heads = config.usize_or("num_key_value_heads", num_heads, limits::HEADS)?;
    if !num_heads.is_multiple_of(num_kv_heads) {
        let expected = format!("a multiple of num_key_value_heads ({num_kv_heads})");
        return Err(config.invalid("num_attention_heads", expected));
    }
    let hidden_size = hidden_size(config)?;
    let head_dim = match config.opt_usize("head_dim", limits::HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        None => {
            let expected = format!("a multiple of num_attention_heads ({num_heads}) where head_dim is absent");
            return Err(config.invalid("hidden_size", expected));
        }
    };
    check_head_dim(config, "head_dim", head_dim)?;
    Ok(AttentionSpec::new(num_heads, num_kv_heads, head_dim))
}

pub fn check_head_dim(config: &ConfigJson, key: &str, head_dim: usize) -> Result<()> {
    if head_dim.is_multiple_of(4) && head_dim <= limits::HEAD_DIM {
        return Ok(());
    }
    let expected = format!(
        "even, because rotary positions turn pairs, and a multiple of 4, because kernels read four values at once, at most {}",
        limits::HEAD_DIM
    );
    Err(config.invalid_value(key, expected, head_dim.to_string()))
}

/// Where the rotary embedding is described, if it has a section of its own.
pub fn rope_section(config: &ConfigJson) -> Result<Option<ConfigJson>> {
    Ok(match config.section("rope_parameters")? {
        Some(section) => Some(section),
        None => config.section("rope_scaling")?,
    })
}

/// The rotary embedding, spelt as before or after transformers 5.
pub fn rope(config: &ConfigJson, head_dim: usize, defaults: &Defaults) -> Result<RopeSpec> {
    let section = rope_section(config)?;
    if let Some(name) = section.as_ref().and_then(|section| section.sections().next()) {
        let key = if config.has("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
        return Err(config.invalid_value(key, "one set of values for all layers", format!("a set of its own for `{name}`")));
    }
    let section = section.as_ref().unwrap_or(config);
    // Both may be there: what transformers 5 wrote inside, and a default that an older version added outside.
    let nested = section.opt_f64("rope_theta", THETA)?;
    let theta = nested.or(config.opt_f64("rope_theta", THETA)?).unwrap_or(defaults.rope_theta);
    let partial = config.f64_or("partial_rotary_factor", defaults.partial_rotary_factor, 0.0..=1.0)?;
    let partial = section.f64_or("partial_rotary_factor", partial, 0.0..=1.0)?;
    let dims = rotary_dims(section, head_dim, partial)?;
    let mut rope = RopeSpec { theta, dims, pairing: RopePairing::Half, scaling: RopeScaling::None };
    scale_rope(config, section, defaults, &mut rope)?;
    Ok(rope)
}

/// How many dimensions of a head turn.
pub fn rotary_dims(section: &ConfigJson, head_dim: usize, partial: f64) -> Result<usize> {
    let dims = (head_dim as f64 * partial) as usize;
    if dims > 0 && dims.is_multiple_of(2) {
        return Ok(dims);
    }
    let expected = format!("a share of head_dim ({head_dim}) that is a whole number of pairs");
    Err(section.invalid("partial_rotary_factor", expected))
}

fn scale_rope(config: &ConfigJson, section: &ConfigJson, defaults: &Defaults, rope: &mut RopeSpec) -> Result<()> {
    const KINDS: [&str; 7] = ["default", "linear", "llama3", "yarn", "longrope", "su", "dynamic"];
    let key = if section.has("rope_type") { "rope_type" } else { "type" };
    let factor = || section.f64("factor", FACTOR);
    let max_positions = || config.usize_or("max_position_embeddings", defaults.max_positions, limits::POSITIONS);
    let original = || match section.opt_usize("original_max_position_embeddings", limits::POSITIONS)? {
        Some(positions) => Ok(positions),
        None => config.usize_or("original_max_position_embeddings", max_positions()?, limits::POSITIONS),
    };
    rope.scaling = match section.choice(key, &KINDS)? {
        "linear" => RopeScaling::Linear { factor: factor()? },
        "llama3" => RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: section.f64("low_freq_factor", FACTOR)?,
            high_freq_factor: section.f64("high_freq_factor", FACTOR)?,
            original_positions: original()?,
        },
        "yarn" => {
            // As in `_compute_yarn_parameters` of transformers, where there is no factor.
            let stretch = max_positions()? as f64 / original()? as f64;
            let factor = section.f64_or("factor", stretch.clamp(*FACTOR.start(), *FACTOR.end()), FACTOR)?;
            RopeScaling::Yarn {
                factor,
                beta_fast: section.f64_or("beta_fast", 32.0, FACTOR)?,
                beta_slow: section.f64_or("beta_slow", 1.0, FACTOR)?,
                original_positions: original()?,
                truncate: section.bool_or("truncate", true)?,
                attention_factor: yarn_attention_factor(section, factor)?,
            }
        }
        "longrope" | "su" => long_rope(section, original()?, max_positions()?, rope.dims)?,
        "dynamic" => {
            // With `alpha`, as in HunYuan, the base changes once and for all. Without, it follows the length of the text beyond
            // max_position_embeddings, which is where our context ends.
            let dims = rope.dims as f64;
            let alpha = section.f64_or("alpha", 1.0, FACTOR)?;
            if rope.dims > 2 {
                rope.theta *= alpha.powf(dims / (dims - 2.0));
            }
            RopeScaling::None
        }
        _ => RopeScaling::None,
    };
    Ok(())
}

/// What longer texts make of the entropy of a softmax, as yarn corrects it.
pub fn yarn_magnitude(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

fn yarn_attention_factor(section: &ConfigJson, factor: f64) -> Result<f64> {
    let magnitude = |scale: f64| yarn_magnitude(factor, scale);
    if let Some(given) = section.opt_f64("attention_factor", FACTOR)? {
        return Ok(given);
    }
    let mscale = section.f64_or("mscale", 0.0, 0.0..=1e6)?;
    let mscale_all_dim = section.f64_or("mscale_all_dim", 0.0, 0.0..=1e6)?;
    if mscale != 0.0 && mscale_all_dim != 0.0 { Ok(magnitude(mscale) / magnitude(mscale_all_dim)) } else { Ok(magnitude(1.0)) }
}

fn long_rope(section: &ConfigJson, original_positions: usize, max_positions: usize, dims: usize) -> Result<RopeScaling> {
    let stretch = (max_positions as f64 / original_positions as f64).max(1.0);
    let longer = (1.0 + stretch.ln() / (original_positions as f64).ln().max(f64::MIN_POSITIVE)).sqrt();
    let default = section.f64_or("attention_factor", if stretch > 1.0 { longer.min(1e6) } else { 1.0 }, FACTOR)?;
    Ok(RopeScaling::Long {
        short: section.numbers("short_factor", dims / 2, FACTOR)?,
        long: section.numbers("long_factor", dims / 2, FACTOR)?,
        short_mscale: section.f64_or("short_mscale", default, FACTOR)?,
        long_mscale: section.f64_or("long_mscale", default, FACTOR)?,
        original_positions,
    })
}

/// The window of Qwen2 and Qwen3, and the first layer that has it: only the later layers are windowed. `None`: no layer is.
pub fn late_window(config: &ConfigJson) -> Result<Option<(usize, usize)>> {
    if !config.bool_or("use_sliding_window", false)? {
        return Ok(None);
    }
    let first = config.count_or("max_window_layers", 28, limits::LAYERS)?;
    Ok(Some((config.usize_or("sliding_window", 4096, limits::POSITIONS)?, first)))
}

/// A gated MLP without biases; `key` holds its width.
pub fn silu_mlp(config: &ConfigJson, key: &str) -> Result<MlpSpec> {
    config.choice("hidden_act", &["silu"])?;
    Ok(silu(config.usize(key, limits::INTERMEDIATE_SIZE)?))
}

pub fn silu(intermediate_size: usize) -> MlpSpec {
    MlpSpec { intermediate_size, activation: Activation::Silu, bias: false }
}

/// The names under which configs give the number of experts: each family has its own, and tools write that of another.
const EXPERTS_KEYS: [&str; 3] = ["num_experts", "num_local_experts", "n_routed_experts"];

/// The keys that say how many experts there are and how many a token takes, the latter with its default.
pub fn router(config: &ConfigJson, experts: &str, (chosen, default): (&str, Option<usize>)) -> Result<RouterSpec> {
    let others = EXPERTS_KEYS.into_iter().filter(|key| *key != experts);
    let experts = config.present(&[experts].into_iter().chain(others).collect::<Vec<_>>());
    let num_experts = config.usize(experts, limits::EXPERTS)?;
    let num_experts_per_tok = match default {
        Some(default) => config.usize_or(chosen, default, limits::EXPERTS)?,
        None => config.usize(chosen, limits::EXPERTS)?,
    };
    if num_experts_per_tok > num_experts {
        let expected = format!("at most {experts} ({num_experts})");
        return Err(config.invalid_value(chosen, expected, num_experts_per_tok.to_string()));
    }
    check_all_experts(config, experts, num_experts, "num_hidden_layers")?;
    Ok(RouterSpec::new(num_experts, num_experts_per_tok))
}

/// Bounds the experts of all layers together.
pub fn check_all_experts(config: &ConfigJson, experts: &str, num_experts: usize, layers: &str) -> Result<()> {
    let num_layers = config.usize(layers, limits::LAYERS)?;
    if num_experts * num_layers <= limits::ALL_EXPERTS {
        return Ok(());
    }
    let expected = format!("at most {} over all {num_layers} layers", limits::ALL_EXPERTS);
    Err(config.invalid(experts, expected))
}

/// The kind of every layer, of those `accepted`, where the config lists them. Further entries are of layers that predict further tokens.
pub fn layer_kinds(config: &ConfigJson, key: &str, accepted: &[&'static str]) -> Result<Option<Vec<&'static str>>> {
    let kinds = config.opt_choices(key, accepted)?;
    let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
    match kinds {
        Some(kinds) if kinds.len() < num_layers => Err(config.invalid(key, "one entry per layer")),
        kinds => Ok(kinds),
    }
}

/// Whether layer `l` has experts, from `decoder_sparse_step` and `mlp_only_layers` of the Qwen configs.
pub fn sparse_step(config: &ConfigJson) -> Result<impl Fn(usize) -> bool> {
    let step = config.usize_or("decoder_sparse_step", 1, limits::LAYERS)?;
    let dense = config.opt_counts("mlp_only_layers", limits::LAYERS)?.unwrap_or_default();
    Ok(move |layer: usize| (layer + 1).is_multiple_of(step) && !dense.contains(&layer))
}

/// `moe` in a layer that has experts, elsewhere an MLP of `intermediate_size`.
pub fn sparse_or_dense(config: &ConfigJson, is_sparse: bool, moe: &MoeSpec) -> Result<BlockSpec> {
    Ok(if is_sparse { BlockSpec::Experts(moe.clone()) } else { BlockSpec::Mlp(silu_mlp(config, "intermediate_size")?) })
}

/// Whether layer `l` has experts, from `first_k_dense_replace` and `moe_layer_freq` of the DeepSeek configs.
pub fn after_dense(config: &ConfigJson, first_dense: usize) -> Result<impl Fn(usize) -> bool> {
    let first = config.count_or("first_k_dense_replace", first_dense, limits::LAYERS)?;
    let step = config.usize_or("moe_layer_freq", 1, limits::LAYERS)?;
    Ok(move |layer: usize| layer >= first && layer.is_multiple_of(step))
}

/// Whether layer `l` has experts, from `mlp_layer_types`, or as [`after_dense`] where the config does not list them.
pub fn listed_sparse(config: &ConfigJson, first_dense: usize) -> Result<impl Fn(usize) -> bool> {
    let kinds = layer_kinds(config, "mlp_layer_types", &["sparse", "dense"])?;
    let is_after = after_dense(config, first_dense)?;
    Ok(move |layer: usize| kinds.as_ref().map_or_else(|| is_after(layer), |kinds| kinds[layer] == "sparse"))
}

/// The experts that every token uses, as one MLP of all their widths; none where their number is zero.
pub fn shared(config: &ConfigJson, number: &str, default: usize, width: &str) -> Result<Option<SharedSpec>> {
    let num_shared = config.count_or(number, default, limits::SHARED_EXPERTS)?;
    let inner = config.usize(width, limits::INTERMEDIATE_SIZE)?;
    if num_shared * inner > limits::INTERMEDIATE_SIZE {
        return Err(config.invalid(number, format!("at most {} times {width} ({inner})", limits::INTERMEDIATE_SIZE / inner)));
    }
    Ok((num_shared > 0).then(|| SharedSpec { mlp: silu(num_shared * inner), gate: false }))
}

/// What `norm_topk_prob` and `routed_scaling_factor` say, with their defaults.
pub fn normalize(config: &ConfigJson, router: RouterSpec, default: bool) -> Result<RouterSpec> {
    let normalize = if config.bool_or("norm_topk_prob", default)? { Normalize::Sum { floor: 1e-20 } } else { Normalize::No };
    let scale = config.f64_or("routed_scaling_factor", 1.0, FACTOR)? as f32;
    Ok(RouterSpec { normalize, scale, ..router })
}

/// The router of DeepSeek-V3: sigmoid scores, a bias for choosing, and groups by `n_group` and `topk_group`.
/// Source: DeepSeek-AI 2024, arXiv 2412.19437.
pub fn noaux_tc(config: &ConfigJson, router: RouterSpec, normalizes: bool) -> Result<RouterSpec> {
    let groups = groups(config, &router, GroupScore::SumOfTopTwo)?;
    let router = RouterSpec { method: RouterMethod::Sigmoid, selection_bias: true, groups, ..router };
    normalize(config, router, normalizes)
}

/// The groups of experts, by `n_group` and `topk_group`; none where there is one.
pub fn groups(config: &ConfigJson, router: &RouterSpec, score: GroupScore) -> Result<Option<ExpertGroups>> {
    let num_groups = config.usize_or("n_group", 1, limits::EXPERTS)?;
    let num_kept = config.usize_or("topk_group", num_groups, limits::EXPERTS)?;
    if !router.num_experts.is_multiple_of(num_groups) {
        return Err(config.invalid("n_group", format!("a divisor of the number of experts ({})", router.num_experts)));
    }
    let enough = router.num_experts_per_tok.div_ceil(router.num_experts / num_groups);
    if !(enough..=num_groups).contains(&num_kept) {
        return Err(config.invalid_value(
            "topk_group",
            format!("an integer from {enough} to {num_groups}"),
            num_kept.to_string(),
        ));
    }
    Ok((num_groups > 1).then_some(ExpertGroups { num_groups, num_kept, score }))
}

/// RMSNorm of query and key with a weight, before the rotary embedding.
pub fn qk_norm(eps: f32, over: QkNormOver) -> QkNorm {
    QkNorm { eps, over, after_rope: false, weight: true }
}

/// Refuses a way to score experts that is not the one of the architecture, where a config names one. Architectures that read the key have
/// said what they accept.
pub fn check_score_function(config: &ConfigJson, spec: &ModelSpec) -> Result<()> {
    const KEYS: [&str; 3] = ["scoring_func", "score_func", "score_function"];
    let text = config.section("text_config")?;
    let config = text.as_ref().unwrap_or(config);
    let Some((_, moe)) = spec.moe_layers().next() else { return Ok(()) };
    // The name of the router's whole method stands there too.
    let accepted: &[&str] = match moe.router.method {
        RouterMethod::Sigmoid => &["sigmoid", "noaux_tc"],
        _ => &["softmax"],
    };
    KEYS.iter().try_for_each(|key| config.choice(key, accepted).map(drop))
}

/// Rows and columns that share a factor where `quantization_config` says that matrices are stored in eight bits.
pub fn float8_block(config: &ConfigJson) -> Result<Option<[usize; 2]>> {
    let Some(section) = config.section("quantization_config")? else { return Ok(None) };
    if !section.has("quant_method") || section.str("quant_method")? != "fp8" {
        return Ok(None);
    }
    let block = section.opt_counts("weight_block_size", limits::INTERMEDIATE_SIZE)?;
    match block.as_deref() {
        Some(&[rows, cols]) if rows > 0 && cols > 0 => Ok(Some([rows, cols])),
        _ => Err(section.invalid("weight_block_size", "the rows and the columns that share a factor, two integers from 1")),
    }
}
