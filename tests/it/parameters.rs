//! Sizes of published models from their configs alone.

use crate::common::{all_models, demo_model, golden, spec_of};
use moebius::checkpoint::WeightKey;
use moebius::quant::QuantFormat;
use moebius::spec::{ModelSpec, Parameters};

fn published(name: &str) -> ModelSpec {
    ModelSpec::parse(&std::fs::read_to_string(golden("configs").join(name)).unwrap(), name).unwrap()
}

fn billions(count: u64) -> String {
    format!("{:.1}", count as f64 / 1e9)
}

#[test]
fn mixtral_8x7b_has_46_7_billion_parameters_of_which_12_9_are_active() {
    let counts = Parameters::of(&published("mixtral-8x7b.json"));
    assert_eq!(counts.total(), 46_702_792_704);
    assert_eq!((billions(counts.total()).as_str(), billions(counts.active()).as_str()), ("46.7", "12.9"));
}

#[test]
fn mixtral_8x22b_has_140_6_billion_parameters_of_which_39_1_are_active() {
    let counts = Parameters::of(&published("mixtral-8x22b.json"));
    assert_eq!((billions(counts.total()).as_str(), billions(counts.active()).as_str()), ("140.6", "39.1"));
}

#[test]
fn demo_model_has_17_25_million_parameters_of_which_6_63_are_active() {
    let counts = Parameters::of(&spec_of(&demo_model()));
    let millions = |count: u64| format!("{:.2}", count as f64 / 1e6);
    assert_eq!((millions(counts.total()).as_str(), millions(counts.active()).as_str()), ("17.25", "6.63"));
}

#[test]
fn counts_equal_the_shapes_of_all_weights() {
    for directory in all_models() {
        let spec = spec_of(&directory);
        let elements: usize = WeightKey::all(&spec).map(|key| key.shape(&spec)).map(|(rows, cols)| rows * cols).sum();
        assert_eq!(Parameters::of(&spec).total(), elements as u64, "{}", directory.display());
    }
}

#[test]
fn a_tied_head_is_counted_once() {
    let mut spec = spec_of(&demo_model());
    let table = (spec.vocab_size * spec.hidden_size) as u64;
    let f16 = QuantFormat::find("f16").unwrap();
    let (untied, untied_bytes) = (Parameters::of(&spec).total(), spec.weight_bytes(f16));
    spec.tied_embeddings = true;
    assert_eq!(untied - Parameters::of(&spec).total(), table);
    assert_eq!(untied_bytes - spec.weight_bytes(f16), 2 * table);
}

#[test]
fn weight_bytes_are_those_of_padded_rows() {
    let spec = spec_of(&golden("fixtures/mixtral"));
    for name in ["f32", "f16", "bf16"] {
        let quant = QuantFormat::find(name).unwrap();
        let bytes = |key: WeightKey| {
            let (rows, cols) = key.shape(&spec);
            let stays_f32 = matches!(
                key,
                WeightKey::FinalNorm | WeightKey::AttentionNorm { .. } | WeightKey::FfnNorm { .. } | WeightKey::Router { .. }
            );
            let format = if stays_f32 { QuantFormat::find("f32").unwrap() } else { quant };
            (rows * format.row_bytes(cols)) as u64
        };
        assert_eq!(spec.weight_bytes(quant), WeightKey::all(&spec).map(bytes).sum::<u64>(), "{name}");
    }
}

#[test]
fn kv_cache_of_mixtral_8x7b_takes_256_kib_per_token() {
    assert_eq!(published("mixtral-8x7b.json").kv_bytes_per_token(), 32 * 2 * 8 * 128 * 4);
}
