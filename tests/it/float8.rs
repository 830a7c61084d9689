//! Matrices in eight bits: a factor for each block of rows and columns, on disk and on the device.

use super::checkpoint::read_all;
use super::latent::{FP8, parse};
use crate::common::{TinyCheckpoint, TinyTensor, golden, open, spec_of};
use moebius::Error;
use moebius::checkpoint::Checkpoint;
use moebius::quant::QuantFormat;
use moebius::spec::{ModelSpec, Role, WeightKey};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// The fixture with matrices in eight bits, to be broken.
fn tiny() -> TinyCheckpoint {
    let file = std::fs::read(golden("fixtures").join(FP8).join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let copied = |(name, view): (String, safetensors::tensor::TensorView)| {
        let dtype = match view.dtype() {
            safetensors::Dtype::F8_E4M3 => "F8_E4M3",
            safetensors::Dtype::BF16 => "BF16",
            safetensors::Dtype::F32 => "F32",
            other => panic!("{other}"),
        };
        TinyTensor { name, dtype, shape: view.shape().to_vec(), bytes: view.data().to_vec() }
    };
    TinyCheckpoint { tensors: tensors.tensors().into_iter().map(copied).collect() }
}

fn packed(checkpoint: &Checkpoint, spec: &ModelSpec, key: WeightKey) -> Result<Vec<u8>, Error> {
    let (rows, _) = key.shape(spec);
    pollster::block_on(checkpoint.read_packed(key, 0..rows, QuantFormat::fp8()))
}

#[test]
fn eight_bit_matrices_are_codes_times_the_factor_of_their_block() {
    let spec = parse(FP8, &[]).unwrap();
    assert_eq!(spec.names.float8_block, Some([128, 128]));
    let mut tiny = tiny();
    // One value of every kind: zero, the least, the least normal, one, the largest, and their negatives.
    let codes = [
        (0x00, 0.0),
        (0x01, 2f32.powi(-9)),
        (0x08, 2f32.powi(-6)),
        (0x38, 1.0),
        (0x3c, 1.5),
        (0x7e, 448.0),
        (0xb8, -1.0),
        (0xfe, -448.0),
    ];
    let fill = |tensor: &mut TinyTensor| {
        let len = tensor.bytes.len();
        tensor.bytes = (0..len).map(|index| codes[index % codes.len()].0).collect();
    };
    let (wide, tall) = ("model.layers.0.self_attn.q_a_proj.weight", "model.layers.0.self_attn.o_proj.weight");
    for name in [wide, tall] {
        fill(tiny.tensor_mut(name));
        let scales = tiny.tensor_mut(&format!("{name}_scale_inv"));
        scales.bytes = [0.25f32, 3.0].iter().flat_map(|scale| scale.to_le_bytes()).collect();
    }
    let directory = tiny.write();
    let checkpoint = open(directory.path(), &spec).unwrap();
    // `[28, 160]` with a factor for each part of a row, `[160, 48]` with one for each part of a column.
    for (key, by_col) in [(Role::LatentQueryDown.of_layer(0), true), (Role::AttentionOutput.of_layer(0), false)] {
        let matrix = read_all(&checkpoint, &spec, key);
        for (index, value) in matrix.values.iter().enumerate() {
            let (row, col) = (index / matrix.cols, index % matrix.cols);
            let scale = if if by_col { col } else { row } < 128 { 0.25 } else { 3.0 };
            assert_eq!(*value, codes[index % codes.len()].1 * scale, "{key:?} {row} {col}");
        }
    }
}

#[test]
fn factors_of_eight_bit_matrices_may_be_stored_in_sixteen() {
    let spec = parse(FP8, &[]).unwrap();
    let mut tiny = tiny();
    let scales = tiny.tensor_mut("model.layers.0.self_attn.q_b_proj.weight_scale_inv");
    (scales.dtype, scales.bytes) = ("BF16", half::bf16::from_f32(0.5).to_le_bytes().to_vec());
    tiny.tensor_mut("model.layers.0.self_attn.q_b_proj.weight").bytes.fill(0x38);
    let directory = tiny.write();
    let values = read_all(&open(directory.path(), &spec).unwrap(), &spec, Role::LatentQueryUp.of_layer(0)).values;
    assert!(values.iter().all(|value| *value == 0.5));
}

#[test]
fn eight_bit_matrices_without_fitting_factors_are_refused() {
    let spec = parse(FP8, &[]).unwrap();
    let name = "model.layers.0.mlp.gate_proj.weight_scale_inv";
    let opened = |change: &dyn Fn(&mut TinyCheckpoint), spec: &ModelSpec| {
        let mut tiny = tiny();
        change(&mut tiny);
        let directory = tiny.write();
        open(directory.path(), spec).unwrap_err()
    };
    match opened(&|tiny| drop(tiny.take(name)), &spec) {
        Error::MissingTensors { missing, .. } => assert_eq!(missing, [name]),
        other => panic!("{other}"),
    }
    match opened(&|tiny| tiny.tensor_mut(name).shape = vec![2, 1], &spec) {
        Error::TensorShape { name: found, expected, .. } => assert_eq!((found.as_str(), expected), (name, vec![1, 2])),
        other => panic!("{other}"),
    }
    let error = opened(&|tiny| tiny.tensor_mut(name).dtype = "I32", &spec).to_string();
    assert_eq!(error, format!("tensor `{name}`: expected one of F32, F16, BF16, found I32"));
    let narrow = |tiny: &mut TinyCheckpoint| {
        let tensor = tiny.tensor_mut(name);
        (tensor.dtype, tensor.bytes) = ("F8_E4M3", vec![0; 2]);
    };
    let error = opened(&narrow, &spec).to_string();
    assert_eq!(error, format!("tensor `{name}`: expected one of F32, F16, BF16, found F8_E4M3"));
    let norm = "model.norm.weight";
    let narrow = |tiny: &mut TinyCheckpoint| {
        let tensor = tiny.tensor_mut(norm);
        (tensor.dtype, tensor.bytes) = ("F8_E4M3", vec![0; 160]);
    };
    assert_eq!(opened(&narrow, &spec).to_string(), format!("tensor `{norm}`: expected one of F32, F16, BF16, found F8_E4M3"));
    let without = parse(FP8, &[("quantization_config", Value::Null)]).unwrap();
    let error = opened(&|_| {}, &without).to_string();
    assert!(error.ends_with("expected one of F32, F16, BF16, found F8_E4M3"), "{error}");
}

#[test]
fn eight_bit_matrices_stay_as_they_are_on_the_device() {
    let directory = golden("fixtures").join(FP8);
    let spec = spec_of(&directory);
    let checkpoint = open(&directory, &spec).unwrap();
    let fp8 = QuantFormat::fp8();
    let mut kept = 0;
    for key in WeightKey::all(&spec) {
        let stored = checkpoint.stored_quant(key);
        let matrix = read_all(&checkpoint, &spec, key);
        let is_f32 = matches!(key.role, Role::SelectionBias);
        let is_wide = matches!(key.role, Role::Embedding | Role::Head | Role::Router) || matrix.rows == 1;
        assert_eq!(
            stored.name,
            if is_f32 {
                "f32"
            } else if is_wide {
                "bf16"
            } else {
                "fp8"
            },
            "{key:?}"
        );
        if stored == fp8 {
            kept += 1;
            // Every product to the last bit, rows in turns and turned over included.
            let back = fp8.unpack(&packed(&checkpoint, &spec, key).unwrap(), matrix.cols);
            assert!(back.iter().zip(&matrix.values).all(|(a, b)| a.to_bits() == b.to_bits()), "{key:?}");
        }
    }
    assert_eq!(kept, 2 * 6 + 2 + 2 * (8 + 1));
    // The codes themselves.
    let file = std::fs::read(directory.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let raw = tensors.tensor("model.layers.1.self_attn.o_proj.weight").unwrap();
    let packed = packed(&checkpoint, &spec, Role::AttentionOutput.of_layer(1)).unwrap();
    let cols = raw.shape()[1];
    for (row, stored) in packed.chunks_exact(fp8.row_bytes(cols)).zip(raw.data().chunks_exact(cols)) {
        assert_eq!(&row[..cols], stored);
    }
}

#[test]
fn blocks_that_do_not_lie_along_rows_are_widened() {
    let section = json!({ "quant_method": "fp8", "weight_block_size": [16, 64] });
    let spec = parse(FP8, &[("quantization_config", section)]).unwrap();
    let mut tiny = tiny();
    let matrices: Vec<(String, Vec<usize>)> = tiny
        .tensors
        .iter()
        .filter(|tensor| tensor.dtype == "F8_E4M3")
        .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
        .collect();
    for (name, shape) in matrices {
        let scales = tiny.tensor_mut(&format!("{name}_scale_inv"));
        scales.shape = vec![shape[0].div_ceil(16), shape[1].div_ceil(64)];
        let len = scales.shape[0] * scales.shape[1];
        scales.bytes = (0..len).flat_map(|index| (0.01 + index as f32).to_le_bytes()).collect();
    }
    let directory = tiny.write();
    let checkpoint = open(directory.path(), &spec).unwrap();
    let stored = |key: WeightKey| checkpoint.stored_quant(key).name;
    // 160 columns in blocks of 64; keys of 16 rows, of which the second head's begin at 28.
    assert_eq!(stored(Role::LatentQueryDown.of_layer(0)), "f32");
    assert_eq!(stored(Role::LatentKeyUp.of_layer(0)), "f32");
    // 48 columns in one block, and 20.
    assert_eq!(stored(Role::AttentionOutput.of_layer(0)), "fp8");
    assert_eq!(stored(Role::LatentValueUp.of_layer(0)), "fp8");
    // Asked for all the same: rounded again, near what is stored.
    let key = Role::LatentQueryDown.of_layer(0);
    let exact = read_all(&checkpoint, &spec, key);
    let again = QuantFormat::fp8().unpack(&packed(&checkpoint, &spec, key).unwrap(), exact.cols);
    for (row, again) in exact.values.chunks(exact.cols).zip(again.chunks(exact.cols)) {
        let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        assert!(row.iter().zip(again).all(|(a, b)| (a - b).abs() <= 0.037 * largest));
    }
}

#[test]
fn what_is_not_a_number_is_an_error_with_its_place() {
    let spec = parse(FP8, &[]).unwrap();
    let name = "model.layers.0.self_attn.o_proj.weight";
    let message = |change: &dyn Fn(&mut TinyCheckpoint)| {
        let mut tiny = tiny();
        change(&mut tiny);
        let directory = tiny.write();
        let checkpoint = open(directory.path(), &spec).unwrap();
        let key = Role::AttentionOutput.of_layer(0);
        let read = pollster::block_on(checkpoint.read(key, 0..key.shape(&spec).0)).unwrap_err().to_string();
        assert_eq!(packed(&checkpoint, &spec, key).unwrap_err().to_string(), read);
        read
    };
    for code in [0x7f, 0xff] {
        let found = message(&|tiny| tiny.tensor_mut(name).bytes[77] = code);
        assert_eq!(found, format!("tensor `{name}`: element 77 is not a number"));
    }
    for factor in [f32::NAN, f32::INFINITY] {
        let scales = format!("{name}_scale_inv");
        let found = message(&|tiny| tiny.tensor_mut(&scales).bytes[4..8].copy_from_slice(&factor.to_le_bytes()));
        assert_eq!(found, format!("tensor `{scales}`: element 1 is not a number"));
    }
    // Transposed, for keys.
    let name = "model.layers.0.self_attn.kv_b_proj.weight";
    let mut tiny = tiny();
    tiny.tensor_mut(name).bytes[21] = 0x7f;
    let directory = tiny.write();
    let checkpoint = open(directory.path(), &spec).unwrap();
    let found = packed(&checkpoint, &spec, Role::LatentKeyUp.of_layer(0)).unwrap_err().to_string();
    assert_eq!(found, format!("tensor `{name}`: element 21 is not a number"));
}
