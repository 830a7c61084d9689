//! LLaMA-MoE: Zhu et al. 2024, arXiv 2406.16554. Defaults are those of the `LlamaMoEConfig` that comes with the models.

use super::common::{self, Defaults, FACTOR};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{RouterMethod, RouterSpec};
use crate::spec::{BlockSpec, ConfigJson, ExpertStorage, ModelSpec, MoeSpec, TensorNames};

pub(super) static LLAMA_MOE: Arch =
    Arch { name: "llama_moe", model_types: &["llama_moe"], covers: "LLaMA-MoE v1 3.0B and 3.5B", parse };

const DEFAULTS: Defaults = Defaults::LLAMA;

const NAMES: TensorNames = TensorNames {
    router_hidden: "model.layers.{l}.mlp.gate.gate_network.0.weight",
    router: "model.layers.{l}.mlp.gate.gate_network.2.weight",
    experts: ExpertStorage::Each {
        gate: "model.layers.{l}.mlp.calculator.experts.weight_gate.{e}",
        up: "model.layers.{l}.mlp.calculator.experts.weight_up.{e}",
        down: "model.layers.{l}.mlp.calculator.experts.weight_down.{e}",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("multiply_gate_scores", &true.into())?;
    config.unsupported("gate_use_softmax", &true.into())?;
    config.choice("gate_type", &["TopKBalancedNoisyGate"])?;
    config.choice("calculator_type", &["UniversalCalculator"])?;
    let two_layers = config.choice("gate_network", &["mlp", "linear"])? == "mlp";
    let router = common::router(config, "num_experts", ("num_selects", Some(4)))?;
    let router = RouterSpec { hidden: two_layers.then_some(router.num_experts), method: RouterMethod::SoftmaxOfTopK, ..router };
    let whole = common::silu_mlp(config, "intermediate_size")?.intermediate_size;
    if !whole.is_multiple_of(router.num_experts) {
        return Err(config.invalid("intermediate_size", format!("a multiple of num_experts ({})", router.num_experts)));
    }
    let expert = common::silu(whole / router.num_experts);
    check_sizes(config, expert.intermediate_size, router.num_experts)?;
    let attention = common::attention(config, &DEFAULTS)?;
    let model = common::model(config, LLAMA_MOE.name, &DEFAULTS, |layer| {
        let router = RouterSpec { scale: scale(config, layer)?, ..router.clone() };
        Ok((attention.clone(), BlockSpec::Experts(MoeSpec { router, expert, shared: None, output_bias: false })))
    })?;
    let router = if two_layers { NAMES.router } else { "model.layers.{l}.mlp.gate.gate_network.weight" };
    Ok(ModelSpec { names: TensorNames { router, ..NAMES }, ..model })
}

/// The published configs list the width of every expert of every layer, all of them the same.
fn check_sizes(config: &ConfigJson, width: usize, num_experts: usize) -> Result<()> {
    let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
    match config.opt_count_lists("size_experts", limits::INTERMEDIATE_SIZE)? {
        Some(sizes) if sizes != vec![vec![width; num_experts]; num_layers] => {
            let expected = format!("null, or for each of {num_layers} layers a list of {num_experts} times {width}");
            Err(config.invalid("size_experts", expected))
        }
        _ => Ok(()),
    }
}

/// What multiplies the routed output of layer `l`: one number, or one per layer.
fn scale(config: &ConfigJson, layer: usize) -> Result<f32> {
    let scale = match config.opt_f64("score_scale_factor", FACTOR) {
        Ok(number) => number.unwrap_or(1.0),
        Err(no_number) => {
            let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
            config.numbers("score_scale_factor", num_layers, FACTOR).map_err(|_| no_number)?[layer]
        }
    };
    Ok(scale as f32)
}
