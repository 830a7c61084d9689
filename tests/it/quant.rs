//! Quant formats: what is packed comes back within the stated error.

use moebius::quant::{QUANTS, QuantFormat, ROW_ALIGN, padded};
use moebius::tensor::Dtype;
use proptest::prelude::*;

#[test]
fn rows_are_whole_16_byte_words() {
    for quant in QUANTS {
        for cols in [1, 2, 31, 32, 33, 96, 1000] {
            let bits = padded(cols) as f64 * quant.bits_per_weight;
            assert_eq!(quant.row_bytes(cols) as f64, bits / 8.0, "{} of {cols}", quant.name);
            assert!(quant.row_bytes(cols).is_multiple_of(16), "{} of {cols}", quant.name);
        }
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
fn padding_is_zero() {
    for quant in QUANTS {
        let cols = ROW_ALIGN + 1;
        let bytes = quant.pack(&vec![1.5; 2 * cols], cols);
        assert_eq!(bytes.len(), 2 * quant.row_bytes(cols), "{}", quant.name);
        let padded_rows = quant.unpack(&bytes, padded(cols));
        for row in padded_rows.chunks_exact(padded(cols)) {
            assert!(row[..cols].iter().all(|&value| value == 1.5), "{}: {row:?}", quant.name);
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
            for (&value, &found) in values.iter().zip(&back) {
                let bound = quant.max_relative_error * value.abs();
                prop_assert!((found - value).abs() <= bound, "{}: {} became {}", quant.name, value, found);
            }
        }
    }
}
