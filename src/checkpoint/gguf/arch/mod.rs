//! The architectures of GGUF files: what each is called here, and what its config has besides what all share.

mod recurrent;
mod windowed;

use super::Gguf;
use super::config::Config;
use crate::error::{Error, Result, nearest};
use crate::spec::{BlockSpec, ExpertStorage, ModelSpec, QkvStorage, RopePairing, RopeScaling, TensorNames};
use serde_json::{Map, Value, json};
use windowed::sliding_layers;

/// One architecture.
struct GgufArch {
    /// `general.architecture`.
    name: &'static str,
    /// Adds what its config has of its own.
    config: fn(&mut Config<'_>) -> Result<()>,
    /// Rows of queries and keys lie so that neighbours rotate together, because the converter permuted them or because they always did.
    adjacent: bool,
    /// Names that differ from [`TensorNames::GGUF`].
    names: fn(&mut TensorNames, &Config<'_>),
}

const BASE: GgufArch = GgufArch { name: "", config: |_| Ok(()), adjacent: false, names: |_, _| () };

static ARCHS: &[GgufArch] = &[
    GgufArch { name: "llama", config: llama, adjacent: true, ..BASE },
    GgufArch { name: "qwen3", config: qwen3, ..BASE },
    GgufArch { name: "qwen2moe", config: qwen2moe, ..BASE },
    GgufArch { name: "qwen3moe", config: qwen3moe, ..BASE },
    GgufArch { name: "qwen3vlmoe", config: qwen3vlmoe, ..BASE },
    GgufArch { name: "olmoe", config: olmoe, ..BASE },
    GgufArch { name: "granitemoe", config: granitemoe, adjacent: true, ..BASE },
    GgufArch { name: "phimoe", config: phimoe, ..BASE },
    GgufArch { name: "dbrx", config: dbrx, names: |names, _| names.ffn_norm = "blk.{l}.attn_output_norm.weight", ..BASE },
    GgufArch { name: "gpt-oss", config: gpt_oss, names: norm_after_attention, ..BASE },
    GgufArch { name: "llama4", config: llama4, adjacent: true, ..BASE },
    GgufArch { name: "deepseek", config: deepseek, adjacent: true, ..BASE },
    GgufArch { name: "deepseek2", config: deepseek2, adjacent: true, ..BASE },
    GgufArch { name: "glm4moe", config: glm4moe, names: norm_after_attention, ..BASE },
    GgufArch { name: "minimax-m2", config: minimax_m2, ..BASE },
    GgufArch { name: "hy_v3", config: hy_v3, ..BASE },
    GgufArch { name: "afmoe", config: afmoe, ..BASE },
    GgufArch { name: "dots1", config: dots1, ..BASE },
    GgufArch { name: "bailingmoe", config: bailingmoe, adjacent: true, ..BASE },
    GgufArch { name: "bailingmoe2", config: bailingmoe2, ..BASE },
    GgufArch { name: "ernie4_5-moe", config: ernie4_5_moe, adjacent: true, ..BASE },
    GgufArch { name: "hunyuan-moe", config: hunyuan_moe, ..BASE },
    GgufArch { name: "exaone-moe", config: exaone_moe, ..BASE },
    GgufArch { name: "arctic", config: arctic, adjacent: true, names: arctic_names },
    GgufArch { name: "grok", config: grok, names: grok_names, ..BASE },
    GgufArch { name: "mellum", config: windowed::mellum, ..BASE },
    GgufArch { name: "mimo2", config: windowed::mimo2, ..BASE },
    GgufArch { name: "gemma4", config: windowed::gemma4, names: windowed::gemma4_names, ..BASE },
    GgufArch { name: "lfm2moe", config: recurrent::lfm2moe, names: recurrent::lfm2moe_names, ..BASE },
    GgufArch { name: "granitehybrid", config: recurrent::granitehybrid, adjacent: true, names: recurrent::mamba_names },
    GgufArch { name: "nemotron_h_moe", config: recurrent::nemotron_h_moe, names: recurrent::nemotron_h_moe_names, ..BASE },
];

/// The spec of the model in a GGUF file.
///
/// # Errors
/// [`Error::Gguf`] for an architecture that is not known, or for metadata that are missing or damaged, and what [`ModelSpec::parse`] refuses.
pub async fn spec(gguf: &Gguf) -> Result<ModelSpec> {
    let metadata = gguf.metadata();
    let name = metadata.architecture()?;
    let arch = ARCHS.iter().find(|arch| arch.name == name).ok_or_else(|| unknown(gguf, name))?;
    let mut config = Config::of(gguf, name).await?;
    (arch.config)(&mut config)?;
    let biases = Biases::of(gguf);
    let frequencies = config.factors("rope_freqs.weight").map(<[f32]>::to_vec);
    let names = names(arch, gguf, &config);
    let mut spec = ModelSpec::parse(&config.into_text(), metadata.file())?;
    spec.names = names;
    for block in spec.layers.iter_mut().flat_map(|layer| &mut layer.blocks) {
        if let BlockSpec::Attention(attention) = block {
            attention.qkv_bias = biases.qkv;
            attention.output_bias = biases.output;
            if let Some(rope) = &mut attention.rope {
                if arch.adjacent {
                    rope.pairing = RopePairing::Interleaved;
                }
                if let Some(frequencies) = &frequencies {
                    rope.scaling = divided(frequencies, rope.dims, spec.max_positions)
                        .ok_or_else(|| metadata.error(wrong_length(frequencies.len(), rope.dims)))?;
                }
            }
        }
    }
    Ok(spec)
}

/// What the tensors of the file are called.
fn names(arch: &GgufArch, gguf: &Gguf, config: &Config<'_>) -> TensorNames {
    let mut names = TensorNames::GGUF;
    if config.has_tensor("blk.0.attn_qkv.weight") {
        names.qkv = QkvStorage::Fused("blk.{l}.attn_qkv.weight");
    }
    if !config.has_tensor("blk.0.attn_k_b.weight") {
        names.latent.absorbed = None;
    }
    if has_layer_tensor(gguf, "ffn_gate_up_exps.weight") {
        names.experts =
            ExpertStorage::Stacked { gate_up: "blk.{l}.ffn_gate_up_exps.weight", down: "blk.{l}.ffn_down_exps.weight" };
    }
    (arch.names)(&mut names, config);
    names
}

/// Frequencies that are divided whatever the length of the text: how a GGUF file stores the scaling of Llama 3.
fn divided(frequencies: &[f32], dims: usize, max_positions: usize) -> Option<RopeScaling> {
    let usable = frequencies.len() == dims / 2 && frequencies.iter().all(|divisor| divisor.is_finite() && *divisor > 0.0);
    let divisors: Vec<f64> = frequencies.iter().map(|divisor| f64::from(*divisor)).collect();
    usable.then(|| RopeScaling::Long {
        short: divisors.clone(),
        long: divisors,
        short_mscale: 1.0,
        long_mscale: 1.0,
        original_positions: max_positions,
    })
}

fn wrong_length(found: usize, dims: usize) -> String {
    format!("the tensor `rope_freqs.weight` has {found} values: expected {} positive ones, one for each pair", dims / 2)
}

/// Biases of attention, which metadata do not mention.
struct Biases {
    qkv: bool,
    output: bool,
}

impl Biases {
    fn of(gguf: &Gguf) -> Self {
        Biases {
            qkv: has_layer_tensor(gguf, "attn_q.bias") || has_layer_tensor(gguf, "attn_qkv.bias"),
            output: has_layer_tensor(gguf, "attn_output.bias"),
        }
    }
}

/// Whether any layer has a tensor that ends so.
fn has_layer_tensor(gguf: &Gguf, end: &str) -> bool {
    gguf.tensors().iter().any(|tensor| tensor.name.strip_suffix(end).is_some_and(|start| start.starts_with("blk.")))
}

fn unknown(gguf: &Gguf, name: &str) -> Error {
    let metadata = gguf.metadata();
    let known: Vec<&str> = ARCHS.iter().map(|arch| arch.name).collect();
    let meant = nearest(name, known.iter().copied()).map_or_else(String::new, |near| format!(" (near: {near})"));
    metadata.error(format!("the architecture `{name}` is not known{meant}; known are {}", known.join(", ")))
}

fn norm_after_attention(names: &mut TensorNames, _: &Config<'_>) {
    names.ffn_norm = "blk.{l}.post_attention_norm.weight";
}

fn arctic_names(names: &mut TensorNames, _: &Config<'_>) {
    names.ffn_norm = "blk.{l}.ffn_norm_exps.weight";
    names.parallel_norm = "blk.{l}.ffn_norm.weight";
}

/// Mixtral, or Llama where there are no experts.
fn llama(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    if config.integer("expert_count")?.unwrap_or(0) == 0 {
        config.set("model_type", "llama");
        return Ok(());
    }
    if config.has_tensor("blk.0.ffn_gate.0.weight") {
        return Err(config.metadata.error(
            "each expert has a tensor of its own (`blk.0.ffn_gate.0.weight`), as old converters wrote it: \
             look for a file made since April 2024, or convert the model again",
        ));
    }
    config.set("model_type", "mixtral");
    config.copy_integer("expert_count", "num_local_experts")
}

fn qwen3(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "qwen3");
    Ok(())
}

fn qwen2moe(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "qwen2_moe");
    config.set("norm_topk_prob", false);
    config.copy_integer("expert_shared_feed_forward_length", "shared_expert_intermediate_size")?;
    if config.get("moe_intermediate_size").is_none() {
        // Older files give the width of all experts of a token together.
        let (all, used) = (config.needed("feed_forward_length")?, config.needed("expert_used_count")?);
        let width = all.checked_div(used).ok_or_else(|| config.missing("expert_feed_forward_length"))?;
        config.set("moe_intermediate_size", width);
    }
    if config.get("shared_expert_intermediate_size").is_none() {
        config.set("shared_expert_intermediate_size", config.needed("feed_forward_length")?);
    }
    Ok(())
}

fn qwen3moe(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "qwen3_moe");
    config.set("norm_topk_prob", true);
    Ok(())
}

fn qwen3vlmoe(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.wrap(|text| {
        let tied = text.get("tie_word_embeddings").cloned().unwrap_or(Value::Bool(false));
        let mut outer = Map::new();
        outer.insert("model_type".to_owned(), "qwen3_vl_moe".into());
        outer.insert("tie_word_embeddings".to_owned(), tied);
        outer.insert("text_config".to_owned(), Value::Object(text));
        outer
    });
    Ok(())
}

fn olmoe(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "olmoe");
    config.set("norm_topk_prob", false);
    Ok(())
}

fn granitemoe(config: &mut Config<'_>) -> Result<()> {
    let shared = config.integer("expert_shared_feed_forward_length")?.unwrap_or(0);
    config.set("model_type", if shared > 0 { "granitemoeshared" } else { "granitemoe" });
    config.set("shared_intermediate_size", shared);
    config.copy_float("attention.scale", "attention_multiplier")?;
    config.copy_float("embedding_scale", "embedding_multiplier")?;
    config.copy_float("residual_scale", "residual_multiplier")?;
    config.copy_float("logit_scale", "logits_scaling")
}

fn phimoe(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "phimoe");
    config.set("lm_head_bias", config.has_tensor("output.bias"));
    Ok(())
}

fn dbrx(config: &mut Config<'_>) -> Result<()> {
    let theta = config.float("rope.freq_base")?.unwrap_or(10_000.0);
    let clip = config.float("attention.clamp_kqv")?;
    config.set("model_type", "dbrx");
    for (from, to) in [
        ("embedding_length", "d_model"),
        ("block_count", "n_layers"),
        ("attention.head_count", "n_heads"),
        ("context_length", "max_seq_len"),
    ] {
        config.copy_integer(from, to)?;
    }
    config.copy_float("attention.layer_norm_epsilon", "layer_norm_eps")?;
    let kv_heads = config.needed("attention.head_count_kv")?;
    config.set("attn_config", json!({ "kv_n_heads": kv_heads, "clip_qkv": clip, "rope_theta": theta }));
    let experts = json!({
        "moe_num_experts": config.needed("expert_count")?,
        "moe_top_k": config.needed("expert_used_count")?,
        "ffn_hidden_size": config.needed("feed_forward_length")?,
        "moe_normalize_expert_weights": 1,
    });
    config.set("ffn_config", experts);
    Ok(())
}

/// The makers do not truncate yarn's range, which a file cannot say; llama.cpp does.
fn gpt_oss(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "gpt_oss");
    let width = config.needed("expert_feed_forward_length")?;
    config.set("intermediate_size", width);
    config.set("swiglu_limit", 7.0);
    let scaling = config.get("rope_scaling").and_then(Value::as_object).cloned();
    match scaling {
        Some(mut scaling) => {
            scaling.insert("truncate".to_owned(), false.into());
            config.set("rope_scaling", scaling);
        }
        // A config without scaling would mean the published one.
        None => config.set("rope_scaling", json!({ "rope_type": "default" })),
    }
    Ok(())
}

fn llama4(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "llama4_text");
    config.copy_integer("expert_count", "num_local_experts")?;
    config.copy_integer("feed_forward_length", "intermediate_size_mlp")?;
    let width = config.needed("expert_feed_forward_length")?;
    config.set("intermediate_size", width);
    config.copy_integer("interleave_moe_layer_step", "interleave_moe_layer_step")?;
    let chunk = config.integer("attention.chunk_size")?.unwrap_or(8192);
    config.set("attention_chunk_size", chunk);
    config.set("no_rope_layer_interval", 4);
    // Maverick, which has 128 experts, does without.
    config.set("use_qk_norm", config.integer("expert_count")? != Some(128));
    config.set("attn_temperature_tuning", true);
    Ok(())
}

/// DeepSeek's number of shared experts, and its dense layers at the start.
fn shared_and_dense(config: &mut Config<'_>) -> Result<()> {
    let shared = match config.integer("expert_shared_count")? {
        Some(count) => count,
        None => {
            let (all, one) =
                (config.integer("expert_shared_feed_forward_length")?, config.integer("expert_feed_forward_length")?);
            all.zip(one).and_then(|(all, one)| all.checked_div(one)).unwrap_or(0)
        }
    };
    config.set("n_shared_experts", shared);
    config.set("num_shared_experts", shared);
    let dense = config.leading_dense()?;
    config.set("first_k_dense_replace", dense);
    let kinds = config.sparse_layers()?.into_iter().map(|is_sparse| if is_sparse { "sparse" } else { "dense" });
    config.set("mlp_layer_types", kinds.collect::<Vec<_>>());
    config.copy_integer("expert_count", "n_routed_experts")
}

fn deepseek(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "deepseek");
    shared_and_dense(config)
}

fn deepseek2(config: &mut Config<'_>) -> Result<()> {
    let vocabulary = config.get("vocab_size").and_then(Value::as_u64);
    let layers = config.num_layers()?;
    let sigmoid = match config.integer("expert_gating_func")? {
        Some(1) => false,
        Some(2) => true,
        // GLM-4.7-Flash came without the key.
        None | Some(0) => (47..=48).contains(&layers) && vocabulary == Some(154_880),
        Some(other) => {
            return Err(config.invalid("expert_gating_func", &format!("{other}: known are 1 (softmax) and 2 (sigmoid)")));
        }
    };
    config.set("model_type", if sigmoid { "deepseek_v3" } else { "deepseek_v2" });
    shared_and_dense(config)?;
    config.copy_integer("attention.q_lora_rank", "q_lora_rank")?;
    config.copy_integer("attention.kv_lora_rank", "kv_lora_rank")?;
    let rope = config.needed("rope.dimension_count")?;
    let key = config.integer("attention.key_length_mla")?.map_or_else(|| config.needed("attention.key_length"), Ok)?;
    let value = config.integer("attention.value_length_mla")?.map_or_else(|| config.needed("attention.value_length"), Ok)?;
    let nope =
        key.checked_sub(rope).ok_or_else(|| config.invalid("attention.key_length_mla", "less than the part that rotates"))?;
    config.set("qk_rope_head_dim", rope);
    config.set("qk_nope_head_dim", nope);
    config.set("v_head_dim", value);
    config.set("partial_rotary_factor", 1.0);
    config.remove("head_dim");
    if !sigmoid {
        // V2 takes the best of each group; with one group there is no choice.
        let groups = config.integer("expert_group_count")?.unwrap_or(1);
        config.set("topk_method", if groups > 1 { "group_limited_greedy" } else { "greedy" });
    }
    yarn_of_latents(config)
}

/// `yarn_log_multiplier` is a tenth of both `mscale` and `mscale_all_dim`.
fn yarn_of_latents(config: &mut Config<'_>) -> Result<()> {
    let multiplier = config.float("rope.scaling.yarn_log_multiplier")?;
    let scaling = config.get("rope_scaling").and_then(Value::as_object).cloned();
    if let (Some(multiplier), Some(mut scaling)) = (multiplier, scaling) {
        let mscale = multiplier * 10.0;
        scaling.insert("mscale".to_owned(), mscale.into());
        scaling.insert("mscale_all_dim".to_owned(), mscale.into());
        config.set("rope_scaling", scaling);
    }
    Ok(())
}

/// GLM-4.5, or Solar Open, which has neither biases nor norms of heads.
fn glm4moe(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    let (bias, norm) = (config.has_tensor("blk.0.attn_q.bias"), config.has_tensor("blk.0.attn_q_norm.weight"));
    config.set("model_type", if bias || norm { "glm4_moe" } else { "solar_open" });
    config.set("use_qk_norm", norm);
    shared_and_dense(config)
}

fn minimax_m2(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "minimax_m2");
    let width = config.needed("expert_feed_forward_length")?;
    config.set("intermediate_size", width);
    config.copy_integer("rope.dimension_count", "rotary_dim")?;
    config.copy_integer("expert_count", "num_local_experts")?;
    config.remove("partial_rotary_factor");
    Ok(())
}

fn hy_v3(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "hy_v3");
    config.copy_float("expert_weights_scale", "router_scaling_factor")?;
    shared_and_dense(config)
}

/// Embeddings are always scaled; the file does not say so.
fn afmoe(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "afmoe");
    config.set("mup_enabled", true);
    shared_and_dense(config)?;
    let dense = config.leading_dense()?;
    config.set("num_dense_layers", dense);
    config.copy_flag("expert_weights_norm", "route_norm")?;
    config.copy_float("expert_weights_scale", "route_scale")?;
    if let Some(kinds) = sliding_layers(config)? {
        config.set("layer_types", kinds);
    }
    Ok(())
}

fn dots1(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "dots1");
    shared_and_dense(config)
}

fn bailingmoe(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "bailing_moe");
    config.set("score_function", "softmax");
    config.set("use_qk_norm", config.has_tensor("blk.0.attn_q_norm.weight"));
    shared_and_dense(config)
}

fn bailingmoe2(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "bailing_moe_v2");
    let sigmoid = config.integer("expert_gating_func")? != Some(1);
    config.set("score_function", if sigmoid { "sigmoid" } else { "softmax" });
    let last = config.num_layers()?.saturating_sub(1);
    config.set("moe_router_enable_expert_bias", config.has_tensor(&format!("blk.{last}.exp_probs_b.bias")));
    config.set("use_qk_norm", config.has_tensor("blk.0.attn_q_norm.weight"));
    shared_and_dense(config)
}

fn ernie4_5_moe(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "ernie4_5_moe");
    config.copy_integer("expert_count", "moe_num_experts")?;
    config.copy_integer("expert_used_count", "moe_k")?;
    config.copy_integer("interleave_moe_layer_step", "moe_layer_interval")?;
    shared_and_dense(config)?;
    let (shared, dense) = (config.get("n_shared_experts").cloned(), config.leading_dense()?);
    config.set("moe_num_shared_experts", shared.unwrap_or(Value::from(0)));
    config.set("moe_layer_start_index", dense);
    let last = config.num_layers()?.saturating_sub(1);
    config.set("moe_use_aux_free", config.has_tensor(&format!("blk.{last}.exp_probs_b.bias")));
    Ok(())
}

/// The base of the rotary embedding has been changed by `alpha` already.
fn hunyuan_moe(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "hunyuan_v1_moe");
    config.copy_integer("expert_used_count", "moe_topk")?;
    config.copy_integer("expert_feed_forward_length", "intermediate_size")
}

fn exaone_moe(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "exaone_moe");
    shared_and_dense(config)?;
    if let Some(kinds) = sliding_layers(config)? {
        config.set("layer_types", kinds);
    }
    Ok(())
}

/// Grok-1. llama.cpp divides the weights of the chosen experts by their sum; xAI's code does not.
fn grok(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "grok-1");
    config.copy_integer("expert_count", "num_local_experts")?;
    config.copy_integer("expert_feed_forward_length", "intermediate_size")?;
    config.set("hidden_act", "gelu_pytorch_tanh");
    // What llama.cpp takes for files that do not say.
    for (key, ours, default) in [
        ("attention.output_scale", "attn_output_multiplier", 0.088_388_347_648_318_45),
        ("attn_logit_softcapping", "attn_logit_softcapping", 30.0),
        ("router_logit_softcapping", "router_logit_softcapping", 30.0),
        ("embedding_scale", "embedding_multiplier_scale", 78.383_671_769_061_69),
        ("logit_scale", "output_multiplier_scale", 0.577_350_269_189_625_7),
    ] {
        // Zero stands for no cap.
        let value = config.float(key)?.unwrap_or(default);
        if value != 0.0 {
            config.set(ours, value);
        }
    }
    if config.has_tensor("blk.0.ffn_up.weight") {
        return Err(config.metadata.error("Grok-2, which has an MLP beside its experts, is not read yet"));
    }
    Ok(())
}

fn grok_names(names: &mut TensorNames, config: &Config<'_>) {
    names.attention_post_norm = "blk.{l}.attn_output_norm.weight";
    // Of older files.
    if config.has_tensor("blk.0.layer_output_norm.weight") {
        names.ffn_post_norm = "blk.{l}.layer_output_norm.weight";
    }
}

/// In llama.cpp every layer has both an MLP and experts.
fn arctic(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "arctic");
    config.set("moe_layer_frequency", 1);
    config.copy_integer("expert_count", "num_local_experts")
}
