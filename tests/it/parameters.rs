//! Sizes of published models from their configs alone.

use crate::common::{all_models, demo_model, golden, spec_of};
use moebius::quant::{CacheFormat, QuantFormat};
use moebius::spec::{ModelSpec, Parameters};
use moebius::spec::{Role, WeightKey};

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

/// Publishers count what is active in different ways.
enum Active {
    /// As [`Parameters::active`] does.
    Whole(&'static str),
    /// Without the embedding table: a lookup, not a product.
    WithoutEmbedding(&'static str),
}

#[test]
fn published_models_have_their_published_sizes() {
    use Active::{Whole, WithoutEmbedding};
    let cases = [
        ("qwen1.5-moe-a2.7b", "14.3", Whole("2.7")),
        ("qwen3-30b-a3b", "30.5", Whole("3.3")),
        ("qwen3-235b-a22b", "235.1", Whole("22.1")),
        ("deepseek-moe-16b", "16.4", Whole("2.8")),
        ("dbrx", "131.6", Whole("36.5")),
        // Published as 314, and 86 active: the experts and the attention alone are 314.9, and two of eight experts with all else 83.8.
        ("grok-1", "315.7", Whole("83.8")),
        ("gpt-oss-20b", "20.9", WithoutEmbedding("3.6")),
        ("gpt-oss-120b", "116.8", WithoutEmbedding("5.1")),
        // Published as 109 with the vision tower, which is not read.
        ("llama-4-scout", "107.8", Whole("17.2")),
        ("llama-4-maverick", "400.7", Whole("17.2")),
        // Published as 480.
        ("arctic", "478.6", Whole("17.3")),
        ("olmoe-1b-7b", "6.9", Whole("1.3")),
        // Published as 52 and 12.
        ("jamba-v0.1", "51.6", Whole("12.1")),
        // The file lacks the divisors of longrope, which change no size.
        ("phi-3.5-moe", "41.9", Whole("6.6")),
    ];
    for (name, total, active) in cases {
        let counts = Parameters::of(&published(&format!("{name}.json")));
        let (found, expected) = match active {
            Whole(expected) => (counts.active(), expected),
            WithoutEmbedding(expected) => (counts.active() - counts.embedding, expected),
        };
        assert_eq!((billions(counts.total()).as_str(), billions(found).as_str()), (total, expected), "{name}");
    }
}

/// Published as 236 and 21 billion.
#[test]
fn deepseek_v2_has_235_7_billion_parameters_of_which_21_3_are_active() {
    let counts = Parameters::of(&published("deepseek-v2.json"));
    assert_eq!((billions(counts.total()).as_str(), billions(counts.active()).as_str()), ("235.7", "21.3"));
}

/// Published as 2.4 billion active, without one of the two tables.
#[test]
fn deepseek_v2_lite_has_15_7_billion_parameters_of_which_2_7_are_active() {
    let counts = Parameters::of(&published("deepseek-v2-lite.json"));
    assert_eq!((billions(counts.total()).as_str(), billions(counts.active()).as_str()), ("15.7", "2.7"));
    assert_eq!(billions(counts.active() - counts.embedding), "2.4");
}

/// Published as 671 and 37 billion.
#[test]
fn deepseek_v3_has_671_0_billion_parameters_of_which_37_4_are_active() {
    let counts = Parameters::of(&published("deepseek-v3.json"));
    assert_eq!((billions(counts.total()).as_str(), billions(counts.active()).as_str()), ("671.0", "37.4"));
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

/// Errors of these add up along a text.
fn is_part_of_a_recurrence(role: Role) -> bool {
    matches!(role, Role::Convolution | Role::RecurrentStep | Role::RecurrentStepUp | Role::RecurrentSelection)
}

#[test]
fn weight_bytes_are_those_of_padded_rows() {
    let formats = ["f32", "f16", "bf16", "q8_0", "q4_0"];
    for (directory, name) in all_models().iter().flat_map(|directory| formats.map(|name| (directory, name))) {
        let spec = spec_of(directory);
        let quant = QuantFormat::find(name).unwrap();
        let bytes = |key: WeightKey| {
            let (rows, cols) = key.shape(&spec);
            // A vector is a row of its own, or two where a norm has a bias.
            let is_exact = matches!(key.role, Role::Router | Role::RouterHidden | Role::ChoiceRouter);
            let stays_f32 = rows <= 2 || is_exact || is_part_of_a_recurrence(key.role);
            // q8_0 leaves the head in 16 bits.
            let is_head = key == Role::Head.of_model() || spec.tied_embeddings && key == Role::Embedding.of_model();
            let format = match name {
                _ if stays_f32 => QuantFormat::find("f32").unwrap(),
                "q8_0" if is_head => QuantFormat::find("bf16").unwrap(),
                _ => quant,
            };
            (rows * format.row_bytes(cols)) as u64
        };
        assert_eq!(spec.weight_bytes(quant), WeightKey::all(&spec).map(bytes).sum::<u64>(), "{} {name}", directory.display());
    }
}

#[test]
fn kv_cache_of_mixtral_8x7b_takes_256_kib_per_token_and_half_of_that_in_f16() {
    let spec = published("mixtral-8x7b.json");
    assert_eq!(spec.kv_bytes_per_token(CacheFormat::F32), 32 * 2 * 8 * 128 * 4);
    assert_eq!(spec.kv_bytes_per_token(CacheFormat::F16), 32 * 2 * 8 * 128 * 2);
}

#[test]
fn kv_cache_of_deepseek_v3_is_one_row_of_576_values_per_layer() {
    assert_eq!(published("deepseek-v3.json").kv_bytes_per_token(CacheFormat::F32), 61 * (512 + 64) * 4);
}
