//! The `config.json` of a model that settings describe: that of an architecture which computes the same.

use super::settings::Settings;
use super::vocabulary::Vocabulary;
use serde_json::json;

/// The text of the config.
pub(super) fn config_of(settings: &Settings, vocabulary: &Vocabulary) -> String {
    let (model, gate) = (&settings.model, &settings.gate);
    let mut config = json!({
        "vocab_size": vocabulary.size(),
        "hidden_size": model.hidden_size,
        "intermediate_size": model.moe_intermediate_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.max_position_embeddings,
        "rms_norm_eps": model.rms_norm_eps,
        "rope_theta": model.rope_theta,
        "num_experts_per_tok": gate.num_experts_per_tok,
        "tie_word_embeddings": model.tie_word_embeddings,
        "torch_dtype": "float32",
    });
    let of_architecture = if gate.renormalize {
        json!({
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            "num_local_experts": model.num_experts,
            "router_aux_loss_coef": settings.losses.load_balancing_loss,
            "sliding_window": null,
        })
    } else {
        // DeepSeekMoE without a shared expert: softmax over all experts, weights as they are.
        json!({
            "architectures": ["DeepseekForCausalLM"],
            "model_type": "deepseek",
            "n_routed_experts": model.num_experts,
            "n_shared_experts": null,
            "moe_intermediate_size": model.moe_intermediate_size,
            "first_k_dense_replace": 0,
            "moe_layer_freq": 1,
            "norm_topk_prob": false,
            "scoring_func": "softmax",
            "attention_bias": false,
        })
    };
    for (key, value) in of_architecture.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    if let Some(id) = vocabulary.end_id() {
        config["eos_token_id"] = json!(id);
    }
    format!("{config:#}\n")
}
