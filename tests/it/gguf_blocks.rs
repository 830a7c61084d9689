//! Block formats of GGUF files, against what ggml makes of the same bytes.

use crate::common::golden;
use moebius::checkpoint::gguf::{BLOCK_TYPES, BlockType, Codes, GROUP};
use safetensors::SafeTensors;

/// Stored bytes and values.
struct Stored(Vec<u8>);

impl Stored {
    fn open() -> Self {
        Stored::read("gguf/blocks.safetensors")
    }

    fn read(name: &str) -> Self {
        Stored(std::fs::read(golden(name)).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Each type that is read, with bytes and what ggml makes of them: of ordinary values as its quantiser packs them, and of random bytes.
    fn each(&self, mut check: impl FnMut(&'static BlockType, &str, &[u8], &[f32])) {
        for block in BLOCK_TYPES.iter().filter(|block| block.dtype().is_none()) {
            let stem = block.name.to_lowercase().replace("_k", "_K");
            for prefix in ["", "random_"] {
                let name = format!("{stem}.{prefix}");
                check(block, &name, &self.bytes(&format!("{name}raw")), &self.values(&format!("{name}f32")));
            }
        }
    }
}

#[test]
fn every_format_has_the_bits_of_ggml() {
    let mut num_values = 0;
    Stored::open().each(|block, name, bytes, expected| {
        let mut found = Vec::new();
        block.widen(bytes, &mut found).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (n, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{name} value {n}: expected {expected:?}, found {found:?}");
        }
        num_values += found.len();
    });
    assert_eq!(num_values, 25 * 2048 + 15 * 1024 + 10 * 512);
}

#[test]
fn codes_hold_every_format_exactly() {
    Stored::open().each(|block, name, bytes, expected| {
        let mut codes = Codes::default();
        block.codes(bytes, &mut codes).unwrap();
        assert_eq!(codes.codes.len(), expected.len(), "{name}");
        assert_eq!((codes.scales.len(), codes.minimums.len()), (expected.len() / GROUP, expected.len() / GROUP), "{name}");
        assert!(block.has_minimum || codes.minimums.iter().all(|minimum| *minimum == 0.0), "{name}");
        for (n, &expected) in expected.iter().enumerate() {
            let (scale, minimum) = (codes.scales[n / GROUP], codes.minimums[n / GROUP]);
            let found = (f64::from(scale) * f64::from(codes.codes[n]) + f64::from(minimum)) as f32;
            assert_eq!(found, expected, "{name} value {n}: {scale} * {} + {minimum}", codes.codes[n]);
        }
    });
}

#[test]
fn a_block_has_the_bytes_and_values_that_ggml_says() {
    let stored = Stored::open();
    let (_, header) = SafeTensors::read_metadata(&stored.0).unwrap();
    let types: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["types"]).unwrap();
    let types = types.as_object().unwrap();
    for (name, said) in types {
        let block = BlockType::find(said["type"].as_u64().unwrap() as u32).unwrap_or_else(|| panic!("{name} is not read"));
        assert_eq!(block.name.to_lowercase(), name.to_lowercase());
        assert_eq!((block.len as u64, block.bytes as u64), (said["values"].as_u64().unwrap(), said["bytes"].as_u64().unwrap()));
    }
    assert_eq!(types.len(), BLOCK_TYPES.iter().filter(|block| block.dtype().is_none()).count());
}

/// The blocks of `blocks.safetensors` name only some rows of the tables.
#[test]
fn every_row_of_every_table_is_that_of_ggml() {
    let stored = Stored::read("gguf/rows.safetensors");
    for (name, num_rows) in
        [("IQ1_S", 2048), ("IQ1_M", 2048), ("IQ2_XXS", 256), ("IQ2_XS", 512), ("IQ2_S", 1024), ("IQ3_XXS", 256), ("IQ3_S", 512)]
    {
        let block = BLOCK_TYPES.iter().find(|block| block.name == name).unwrap();
        let stem = name.to_lowercase();
        let mut found = Vec::new();
        block.widen(&stored.bytes(&format!("{stem}.raw")), &mut found).unwrap();
        let row_len = if name.starts_with("IQ3") { 4 } else { 8 };
        assert_eq!(found.len(), num_rows * row_len, "{name}");
        let expected = stored.bytes(&format!("{stem}.f16"));
        for (n, (found, expected)) in found.iter().zip(expected.as_chunks().0).enumerate() {
            assert_eq!(*found, half::f16::from_le_bytes(*expected).to_f32(), "{name} row {} value {}", n / row_len, n % row_len);
        }
    }
}

#[test]
fn blocks_of_many_are_read_as_each_of_them() {
    Stored::open().each(|block, name, bytes, expected| {
        let mut found = vec![7.0];
        for one in bytes.chunks(block.bytes) {
            block.widen(one, &mut found).unwrap();
        }
        assert_eq!(found[0], 7.0, "{name}: what was there before stays");
        assert!(found[1..].iter().zip(expected).all(|(found, expected)| found.to_bits() == expected.to_bits()), "{name}");
    });
}

#[test]
fn a_scale_that_is_no_number_is_found_where_it_is() {
    for (name, at, index) in [
        ("Q4_0", 18, 32),
        ("Q4_1", 22, 32),
        ("Q8_0", 34, 32),
        ("Q2_K", 84 + 82, 256),
        ("Q6_K", 2 * 210 - 2, 256),
        ("IQ1_S", 2 * 50, 512),
        ("IQ2_XXS", 66, 256),
        ("IQ3_S", 110, 256),
    ] {
        let block = BLOCK_TYPES.iter().find(|block| block.name == name).unwrap();
        for bad in [half::f16::INFINITY, half::f16::NEG_INFINITY, half::f16::NAN] {
            // Scales of the K formats are products, and zero times infinity is none.
            let mut bytes = vec![1; 3 * block.bytes];
            assert_eq!(block.widen(&bytes, &mut Vec::new()), Ok(()));
            bytes[at..at + 2].copy_from_slice(&bad.to_le_bytes());
            assert_eq!(block.widen(&bytes, &mut Vec::new()), Err(index), "{name} {bad}");
            assert_eq!(block.codes(&bytes, &mut Codes::default()), Err(index), "{name} {bad}");
        }
    }
}

/// IQ1_M has its scale in four places, the upper halves of every second of the last eight bytes.
#[test]
fn a_scale_in_four_places_that_is_no_number_is_found() {
    let block = BLOCK_TYPES.iter().find(|block| block.name == "IQ1_M").unwrap();
    for bad in [half::f16::INFINITY, half::f16::NEG_INFINITY, half::f16::NAN] {
        let mut bytes = vec![1; 3 * block.bytes];
        assert_eq!(block.widen(&bytes, &mut Vec::new()), Ok(()));
        for place in 0..4 {
            bytes[56 + 49 + 2 * place] = ((bad.to_bits() >> (4 * place) & 15) << 4) as u8;
        }
        assert_eq!(block.widen(&bytes, &mut Vec::new()), Err(256), "{bad}");
        assert_eq!(block.codes(&bytes, &mut Codes::default()), Err(256), "{bad}");
    }
}

#[test]
fn mxfp4_is_finite_up_to_the_largest_that_f32_holds() {
    let block = BLOCK_TYPES.iter().find(|block| block.name == "MXFP4").unwrap();
    let values = |exponent: u8, code: u8| {
        let mut values = Vec::new();
        let mut bytes = vec![code << 4 | code; 17];
        bytes[0] = exponent;
        block.widen(&bytes, &mut values).map(|()| values[0])
    };
    assert_eq!(values(252, 7), Ok(6.0 * 2f32.powi(125)));
    assert_eq!(values(254, 3), Ok(1.5 * 2f32.powi(127)));
    assert_eq!(values(254, 4), Err(0));
    assert_eq!(values(0, 1), Ok(0.5 * 2f32.powi(-126) / 2.0));
    assert_eq!(values(1, 1), Ok(0.5 * 2f32.powi(-126)));
}
