//! Quant formats: what is packed comes back within the stated error.

use moebius::quant::{F16, F32, MaxError, QUANTS, Quant, QuantChoice, QuantFormat, ROW_ALIGN, WeightClass, decode_e4m3, padded};
use moebius::tensor::Dtype;
use proptest::prelude::*;

#[test]
fn rows_are_whole_16_byte_words() {
    for quant in QUANTS {
        for cols in [1, 2, 31, 32, 33, 96, 1000] {
            // The planes behind the values are padded to a word of their own, and a block that ends early has all of its scales.
            let bytes = padded(cols) as f64 * quant.bits_per_weight() / 8.0;
            let early = padded(cols).next_multiple_of(quant.block_len) - padded(cols);
            let scales = (quant.scale_bits * early) as f64 / (8 * quant.block_len) as f64;
            let padding = if quant.high_bits > 0 { 32.0 } else { 16.0 };
            let row_bytes = quant.row_bytes(cols) as f64;
            assert!((bytes..bytes + scales + padding).contains(&row_bytes), "{} of {cols}: {row_bytes}", quant.name);
            assert!(quant.row_bytes(cols).is_multiple_of(16), "{} of {cols}", quant.name);
        }
    }
}

/// How far a value may be off after a round trip, in a block whose largest magnitude is `largest`.
fn allowed(quant: Quant, value: f32, largest: f32) -> f32 {
    match quant.max_error {
        MaxError::OfValue(error) => error * value.abs(),
        MaxError::OfBlock(error) => error * largest,
    }
}

#[test]
fn formats_are_found_by_name() {
    for quant in QUANTS {
        assert_eq!(QuantFormat::find(quant.name), Some(*quant));
    }
    assert_eq!(QuantFormat::find("f64"), None);
}

#[test]
fn a_choice_of_formats_is_read_and_written_back() {
    use WeightClass::*;
    let name = |choice: &QuantChoice, class: WeightClass| choice.of(class).map(|quant| quant.name);
    let formats = |text: &str| {
        let choice: QuantChoice = text.parse().unwrap();
        assert_eq!(choice.to_string(), text);
        WeightClass::ALL.map(|class| name(&choice, class))
    };
    assert_eq!(formats("auto"), [None; 5]);
    assert_eq!(formats("q4_0"), [Some("q4_0"); 5]);
    // q8_0 for all leaves the head as stored, unless it is named.
    let mut spared = [Some("q8_0"); 5];
    spared[Head as usize] = None;
    assert_eq!(formats("q8_0"), spared);
    assert_eq!(formats("q8_0,head=q8_0"), [Some("q8_0"); 5]);
    assert_eq!(formats("experts=q4_0,attention=f16,head=q8_0"), [Some("q4_0"), None, Some("f16"), None, Some("q8_0")]);
    assert_eq!(formats("q4_0,shared=q8_0,embedding=auto"), [Some("q4_0"), Some("q8_0"), Some("q4_0"), None, Some("q4_0")]);
    assert!(QuantChoice::default().is_as_stored() && !QuantChoice::all(&F32).is_as_stored());
    assert_eq!(name(&QuantChoice::all(&F32).with(Head, Some(&F16)), Head), Some("f16"));
    for (text, words) in [
        ("q9", ["`q9`", "auto, f32, f16, bf16, i8m, i8s, q8_0"]),
        ("", ["``", "auto, f32"]),
        ("experts=q9", ["`q9`", "auto, f32"]),
        ("router=q4_0", ["`router`", "experts, shared, attention, embedding, head (routers, norms and biases are f32 always)"]),
        ("head=q4_0,head=q8_0", ["one format for head", "head=q4_0,head=q8_0"]),
        ("head=q4_0,q8_0", ["CLASS=FORMAT", "`q8_0`"]),
    ] {
        let error = text.parse::<QuantChoice>().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
}

#[test]
fn a_table_that_is_embedding_and_head_has_one_format() {
    let tied = |text: &str| text.parse::<QuantChoice>().unwrap().for_tied_embeddings();
    for (text, expected) in [
        ("q4_0", Some("q4_0")),
        ("experts=q4_0", None),
        ("experts=q4_0,head=q8_0", Some("q8_0")),
        ("q4_0,embedding=f16", Some("f16")),
        ("q4_0,embedding=q8_0,head=q8_0", Some("q8_0")),
        ("q4_0,head=auto", None),
        ("q8_0", None),
        ("q8_0,embedding=q8_0", Some("q8_0")),
    ] {
        let choice = tied(text).unwrap();
        for class in [WeightClass::Embedding, WeightClass::Head] {
            assert_eq!(choice.of(class).map(|quant| quant.name), expected, "{text}");
        }
    }
    let error = tied("embedding=f16,head=q8_0").unwrap_err().to_string();
    assert!(error.contains("one table") && error.contains("embedding=f16,head=q8_0"), "{error}");
}

#[test]
fn padding_is_zero() {
    for quant in QUANTS {
        let cols = ROW_ALIGN + 1;
        let bytes = quant.pack(&vec![1.5; 2 * cols], cols);
        assert_eq!(bytes.len(), 2 * quant.row_bytes(cols), "{}", quant.name);
        let padded_rows = quant.unpack(&bytes, padded(cols));
        for row in padded_rows.chunks_exact(padded(cols)) {
            assert!(row[..cols].iter().all(|&value| (value - 1.5).abs() <= allowed(quant, 1.5, 1.5)), "{}: {row:?}", quant.name);
            assert!(row[cols..].iter().all(|&value| value == 0.0), "{}: {row:?}", quant.name);
        }
    }
}

#[test]
fn stored_values_survive_their_exact_format() {
    for dtype in Dtype::ALL {
        let quant = QuantFormat::exact_for(dtype);
        let cols = 16;
        let stored: Vec<u8> = (0..4096u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 2).to_le_bytes()).collect();
        let mut values = Vec::new();
        dtype.widen_into(&stored, &mut values);
        values.retain(|value| value.is_finite());
        values.truncate(values.len() / cols * cols);
        assert_eq!(quant.unpack(&quant.pack(&values, cols), cols), values, "{}", quant.name);
    }
}

#[test]
fn packing_what_was_packed_changes_nothing() {
    let cols = 96;
    let values: Vec<f32> = (0..4 * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
    // Of the others the scales follow from more than the largest value.
    for quant in QUANTS.iter().filter(|quant| !["i8m", "q6_k", "q5_k", "q4_1", "q4_k"].contains(&quant.name)) {
        let once = quant.pack(&values, cols);
        assert_eq!(quant.pack(&quant.unpack(&once, cols), cols), once, "{}", quant.name);
    }
}

#[test]
fn every_code_of_eight_bits_survives_with_the_factor_it_has() {
    // More columns than a block, and factors that no power of two is.
    let codes: Vec<u8> = (0..=255).filter(|code| code & 127 != 127).collect();
    let values: Vec<f32> = codes.iter().map(|&code| decode_e4m3(code)).collect();
    let cols = values.len();
    let scales: Vec<f32> = (0..cols).map(|col| if col < 128 { 0.012_345_67 } else { 3.1e-5 }).collect();
    let packed = QuantFormat::pack_fp8(&values, &scales, cols);
    assert_eq!(packed[..cols], codes);
    assert_eq!(packed.len(), QuantFormat::fp8().row_bytes(cols));
    let products: Vec<f32> = values.iter().zip(&scales).map(|(value, scale)| value * scale).collect();
    assert_eq!(QuantFormat::fp8().unpack(&packed, cols), products);
    assert!(decode_e4m3(127).is_nan() && decode_e4m3(255).is_nan());
}

#[test]
fn eight_bit_floats_are_rounded_to_the_nearest_and_ties_to_even() {
    // With 448 in the block the factor is 1.
    let cases = [
        (448.0, 448.0),
        (432.0, 448.0), // between 416 and 448
        (431.0, 416.0),
        (1.0625, 1.0),
        (1.1875, 1.25),
        (15.6, 16.0),                   // rounds up into the next exponent
        (2f32.powi(-9), 2f32.powi(-9)), // the smallest
        (1.5 * 2f32.powi(-9), 2f32.powi(-8)),
        (2f32.powi(-10), 0.0),
        (-0.3, -0.3125),
    ];
    let values: Vec<f32> = cases.iter().map(|(value, _)| *value).collect();
    let fp8 = QuantFormat::fp8();
    let back = fp8.unpack(&fp8.pack(&values, values.len()), values.len());
    assert_eq!(back, cases.map(|(_, expected)| expected));
}

#[test]
fn rows_of_several_superblocks_come_back_within_the_stated_error() {
    let cols = 2 * 256 + 33;
    // Blocks of every size from 1 to 2^-6, one of zeros and one that is all positive.
    let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) * 0.02 * 0.5f32.powi((i / 32 % 7) as i32);
    let mut values: Vec<f32> = (0..3 * cols).map(value).collect();
    values[64..96].fill(0.0);
    values[96..128].iter_mut().for_each(|value| *value = 1.0 + value.abs());
    for quant in QUANTS {
        let back = quant.unpack(&quant.pack(&values, cols), cols);
        for (row, back) in values.chunks(cols).zip(back.chunks(cols)) {
            for (block, back) in row.chunks(quant.block_len).zip(back.chunks(quant.block_len)) {
                let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                for (&value, &found) in block.iter().zip(back) {
                    assert!((found - value).abs() <= allowed(quant, value, largest), "{}: {value} became {found}", quant.name);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// In the range where every format is normal: 2^-14 to 65504.
    #[test]
    fn round_trip_stays_within_the_stated_error(
        rows in prop::collection::vec(prop::collection::vec((6.2e-5f32..6e4, any::<bool>()), 37), 1..4),
    ) {
        let cols = 37;
        let values: Vec<f32> = rows.into_iter().flatten().map(|(value, minus)| if minus { -value } else { value }).collect();
        for quant in QUANTS {
            let back = quant.unpack(&quant.pack(&values, cols), cols);
            prop_assert_eq!(back.len(), values.len());
            for (row, back) in values.chunks(cols).zip(back.chunks(cols)) {
                for (block, back) in row.chunks(quant.block_len).zip(back.chunks(quant.block_len)) {
                    let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                    for (&value, &found) in block.iter().zip(back) {
                        let bound = allowed(quant, value, largest);
                        prop_assert!((found - value).abs() <= bound, "{}: {} became {}", quant.name, value, found);
                    }
                }
            }
        }
    }
}
