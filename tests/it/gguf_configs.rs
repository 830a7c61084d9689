//! What the metadata of a GGUF file say of a model, where converters leave something out.

use crate::common::{GgufFile, GgufValue};
use moebius::checkpoint::ModelFiles;
use moebius::spec::{RopeScaling, RopeSpec};
use pollster::block_on;

/// A Phi-3.5-MoE of one layer, as llama.cpp's converter writes it: factors without a type of scaling.
fn phimoe() -> GgufFile {
    let integers = [
        ("context_length", 4096),
        ("rope.scaling.original_context_length", 512),
        ("embedding_length", 48),
        ("feed_forward_length", 60),
        ("block_count", 1),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", 12),
        ("expert_count", 6),
        ("expert_used_count", 2),
    ];
    let floats = [("attention.layer_norm_rms_epsilon", 1e-5), ("rope.freq_base", 1e4), ("rope.scaling.attn_factor", 1.25)];
    let mut file = GgufFile::default().with("general.architecture", GgufValue::text("phimoe"));
    for (key, value) in integers {
        file = file.with(&format!("phimoe.{key}"), GgufValue::u32(value));
    }
    for (key, value) in floats {
        file = file.with(&format!("phimoe.{key}"), GgufValue::f32(value));
    }
    file.tensor("token_embd.weight", &[48, 440], 0, vec![0; 48 * 440 * 4])
}

/// The rotary embedding of the first layer.
fn rope_of(file: &GgufFile) -> RopeSpec {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    let files = block_on(ModelFiles::open(&path)).unwrap();
    files.spec().layers[0].attention().unwrap().rope.clone().unwrap()
}

#[test]
fn factors_for_long_texts_count_where_the_file_names_no_scaling() {
    let factors = |first: f32| (0..6).flat_map(|pair| (first + pair as f32).to_le_bytes()).collect();
    let with = phimoe().tensor("rope_factors_short.weight", &[6], 0, factors(1.0)).tensor(
        "rope_factors_long.weight",
        &[6],
        0,
        factors(3.0),
    );
    let expected = RopeScaling::Long {
        short: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        long: vec![3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        short_mscale: 1.25,
        long_mscale: 1.25,
        original_positions: 512,
    };
    assert_eq!(rope_of(&with).scaling, expected);
    assert_eq!(rope_of(&phimoe()).scaling, RopeScaling::None);
}
