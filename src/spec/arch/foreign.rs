//! What configs describe that is not read, so that the message can say what it is.

use crate::spec::ConfigJson;
use crate::{Error, Result};

/// `model_type`s of dense models: no layer has experts.
const DENSE: &[&str] = &[
    "apertus",
    "arcee",
    "baichuan",
    "bitnet",
    "bloom",
    "chatglm",
    "codegen",
    "cohere",
    "cohere2",
    "deepseek_llm",
    "exaone",
    "exaone4",
    "falcon",
    "falcon3",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gemma3n",
    "glm",
    "glm4",
    "gpt2",
    "gpt_bigcode",
    "gpt_j",
    "gptj",
    "gpt_neo",
    "gpt_neox",
    "granite",
    "helium",
    "hunyuan_v1_dense",
    "internlm",
    "internlm2",
    "internlm3",
    "minicpm",
    "minicpm3",
    "ministral",
    "mistral",
    "mistral3",
    "mpt",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "phi4mm",
    "qwen",
    "qwen2",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
    "xverse",
    "yi",
    "zamba2",
    "mamba",
    "mamba2",
    "rwkv",
    "bert",
    "roberta",
    "t5",
    "bart",
    "whisper",
];

/// `model_type`s of models with experts that need something which is not there yet.
const NOT_YET: &[(&str, &str)] = &[
    ("minimax_text_01", LINEAR),
    ("minimax_m1", LINEAR),
    ("bailing_moe_linear", LINEAR),
    ("falcon_h1", STATE),
    ("zamba", STATE),
    ("switch_transformers", ENCODER),
    ("nllb-moe", ENCODER),
    ("nllb_moe", ENCODER),
    ("deepseek_v32", SPARSE),
    ("glm_moe_dsa", SPARSE),
    ("skywork_moe", ROUTER),
    ("skywork", ROUTER),
    ("openmoe", ROUTER),
    ("grok", ROUTER),
    ("grok-2", ROUTER),
    ("qwen3_omni_moe", "it takes and gives speech"),
    ("ernie4_5_vl_moe", "its experts differ for text and pictures"),
];
const LINEAR: &str = "its layers have linear attention with a state";
const STATE: &str = "its layers have state-space mixers (Mamba)";
const ENCODER: &str = "it is an encoder-decoder with limited capacity of experts";
const SPARSE: &str = "its attention chooses which keys it sees";
const ROUTER: &str = "it has no file under `spec/arch`";

/// Why `model_type` is not among the known ones.
pub fn unknown(model_type: &str, known: Vec<&'static str>) -> Error {
    if DENSE.contains(&model_type) {
        return Error::Dense { model_type: model_type.to_owned() };
    }
    match NOT_YET.iter().find(|(name, _)| *name == model_type) {
        Some((_, reason)) => Error::NotYet { model_type: model_type.to_owned(), reason },
        None => Error::UnknownArchitecture { model_type: model_type.to_owned(), known },
    }
}

/// Ways to quantise by the name in `quant_method`, and how people call them.
const METHODS: &[(&str, &str)] = &[
    ("aqlm", "AQLM"),
    ("auto-round", "AutoRound"),
    ("awq", "AWQ"),
    ("bitnet", "BitNet"),
    ("bitsandbytes", "bitsandbytes"),
    ("compressed-tensors", "compressed-tensors (llm-compressor)"),
    ("eetq", "EETQ"),
    ("exl2", "ExLlamaV2"),
    ("exl3", "ExLlamaV3"),
    ("fbgemm_fp8", "FBGEMM FP8"),
    ("fp_quant", "FP-Quant"),
    ("gptq", "GPTQ"),
    ("gguf", "GGUF"),
    ("higgs", "HIGGS"),
    ("hqq", "HQQ"),
    ("modelopt", "NVIDIA ModelOpt (FP8 or NVFP4)"),
    ("quanto", "Quanto"),
    ("quark", "AMD Quark"),
    ("spqr", "SpQR"),
    ("torchao", "torchao"),
    ("vptq", "VPTQ"),
];

/// Refuses weights in a format that is not read: only MXFP4 and FP8 in blocks are, and their own checks follow.
///
/// # Errors
/// [`Error::ForeignQuantization`], or [`Error::Config`] where nobody knows the name.
pub fn check_quantization(config: &ConfigJson) -> Result<()> {
    for holder in [Some(config.clone()), config.section("text_config")?].into_iter().flatten() {
        for key in ["quantization_config", "quantization", "compression_config", "quantize_config"] {
            let Some(section) = holder.section(key)?.filter(|section| !section.is_empty()) else { continue };
            let refused = |method: String| Err(Error::ForeignQuantization { key, method });
            if !section.has("quant_method") {
                return match key {
                    // As `mlx_lm.convert` writes it.
                    "quantization" | "quantization_config" if section.has("bits") => refused("MLX".to_owned()),
                    "compression_config" => refused("compressed-tensors (llm-compressor)".to_owned()),
                    _ if section.has("load_in_4bit") || section.has("load_in_8bit") => refused("bitsandbytes".to_owned()),
                    _ => Ok(()),
                };
            }
            let method = section.str("quant_method")?;
            match method {
                // Their own checks follow.
                "mxfp4" | "fp8" => {}
                _ => {
                    let lower = method.to_lowercase();
                    let name = METHODS.iter().find(|(name, _)| *name == lower.replace('_', "-") || *name == lower);
                    return match name {
                        Some((_, name)) => refused((*name).to_owned()),
                        None => Err(section.invalid("quant_method", "`mxfp4` or `fp8`, the formats that are read")),
                    };
                }
            }
        }
    }
    Ok(())
}
