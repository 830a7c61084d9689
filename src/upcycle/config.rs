//! The config of the Mixture-of-Experts architecture that computes what a dense one does but for its MLPs.

use super::construct::Shape;
use crate::error::{Error, Result};
use crate::spec::{Activation, BlockSpec, LayerSpec, MlpSpec, ModelSpec, TensorNames};
use crate::tensor::Dtype;
use serde_json::{Map, Value, json};

/// The keys of a config that say what the experts are, from their shape and the neurons of each.
type Keys = fn(&Shape, usize) -> Value;

/// Architectures that a dense one becomes, by its `model_type`.
const BECOMES: &[(&str, Keys)] = &[("llama", mixtral), ("qwen3", qwen3_moe)];

fn mixtral(shape: &Shape, neurons: usize) -> Value {
    json!({
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": shape.num_experts,
        "num_experts_per_tok": shape.num_experts_per_tok,
        "intermediate_size": neurons,
        "sliding_window": null,
        "output_router_logits": false,
        "router_aux_loss_coef": 0.02,
    })
}

fn qwen3_moe(shape: &Shape, neurons: usize) -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": shape.num_experts,
        "num_experts_per_tok": shape.num_experts_per_tok,
        "moe_intermediate_size": neurons,
        "norm_topk_prob": true,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": false,
        "sliding_window": null,
        "output_router_logits": false,
        "router_aux_loss_coef": 0.001,
    })
}

/// Keys that say nothing about the new model, or something wrong.
const GONE: &[&str] = &["auto_map", "mlp_bias", "layer_types", "max_window_layers", "_name_or_path", "pretraining_tp", "dtype"];

/// What every layer of a dense model has in place of experts.
///
/// # Errors
/// [`Error::Argument`] for a model with a layer that has none, or several.
pub(super) fn mlp_of(spec: &ModelSpec) -> Result<MlpSpec> {
    let is_known = |mlp: &MlpSpec| mlp.activation == Activation::Silu && !mlp.bias;
    let mut first = None;
    for layer in &spec.layers {
        let mut mlps = layer.blocks.iter().filter(|block| !block.is_mixer());
        match (mlps.next(), mlps.next()) {
            (Some(BlockSpec::Mlp(mlp)), None) if is_known(mlp) && first.is_none_or(|first| first == *mlp) => first = Some(*mlp),
            _ => return Err(refused(spec.family)),
        }
    }
    first.ok_or_else(|| refused(spec.family))
}

fn refused(found: &str) -> Error {
    let names: Vec<&str> = BECOMES.iter().map(|(name, _)| *name).collect();
    Error::Argument {
        what: "model to upcycle",
        expected: format!("a dense model with the same MLP in every layer: {}", names.join(", ")),
        found: format!("`{found}`"),
    }
}

/// The config of the upcycled model, and its spec.
///
/// # Errors
/// [`Error::Argument`] where no architecture with experts computes the rest of the dense model.
pub(super) fn upcycled(config: &Value, dense: &ModelSpec, shape: &Shape, dtype: Dtype) -> Result<(Value, ModelSpec)> {
    let mlp = mlp_of(dense)?;
    let model_type = config["model_type"].as_str().unwrap_or(dense.family);
    let Some((_, becomes)) = BECOMES.iter().find(|(name, _)| *name == model_type) else { return Err(refused(model_type)) };
    let mut keys: Map<String, Value> = config.as_object().cloned().unwrap_or_default();
    keys.retain(|key, _| !GONE.contains(&key.as_str()));
    keys.retain(|_, value| !value.is_null());
    for (key, value) in explicit(dense).as_object().into_iter().flatten() {
        keys.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in becomes(shape, shape.neurons_per_expert(mlp.intermediate_size)).as_object().into_iter().flatten() {
        keys.insert(key.clone(), value.clone());
    }
    keys.insert("torch_dtype".to_owned(), json!(torch_name(dtype)));
    let config = Value::Object(keys);
    let spec = ModelSpec::parse(&config.to_string(), "the config of the upcycled model")?;
    if without_mlps(&spec) != without_mlps(dense) {
        let expected = format!("one whose attention, norms and embeddings `{}` computes too", spec.family);
        return Err(Error::Argument {
            what: "model to upcycle",
            expected,
            found: format!("a `{model_type}` with parts of its own, such as biases or windows"),
        });
    }
    Ok((config, spec))
}

/// What a config says by leaving it out, which differs between architectures.
fn explicit(dense: &ModelSpec) -> Value {
    let mut keys = json!({
        "max_position_embeddings": dense.max_positions,
        // The shortest number that is this one in f32, which a config would have.
        "rms_norm_eps": dense.final_norm.eps.to_string().parse::<f64>().ok(),
        "tie_word_embeddings": dense.tied_embeddings,
    });
    if let Some(attention) = dense.layers.first().and_then(LayerSpec::attention) {
        keys["num_key_value_heads"] = attention.num_kv_heads.into();
        keys["head_dim"] = attention.head_dim.into();
        if let Some(rope) = &attention.rope {
            keys["rope_theta"] = json!(rope.theta);
        }
    }
    keys
}

fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
    }
}

/// All that stays when a model is upcycled.
fn without_mlps(spec: &ModelSpec) -> ModelSpec {
    let mut rest = spec.clone();
    rest.family = "";
    rest.may_be_cut = false;
    rest.names = TensorNames::LLAMA;
    for layer in &mut rest.layers {
        layer.blocks.retain(BlockSpec::is_mixer);
    }
    rest
}
