//! Blocks of ggml in our formats, and codes with scales that are given. `tests/golden/gguf/blocks.safetensors` holds blocks as ggml's own quantiser packs
//! them and random ones, with the values that ggml widens them to.

use crate::common::golden;
use moebius::quant::{GgmlBlocks, I8M, I8S, Q4_K, Q5_K, Q6_K, QuantFormat};
use safetensors::SafeTensors;

fn name(blocks: GgmlBlocks) -> &'static str {
    match blocks {
        GgmlBlocks::Q4_0 => "q4_0",
        GgmlBlocks::Q4_1 => "q4_1",
        GgmlBlocks::Q5_0 => "q5_0",
        GgmlBlocks::Q8_0 => "q8_0",
        GgmlBlocks::Q4K => "q4_K",
        GgmlBlocks::Q5K => "q5_K",
        GgmlBlocks::Q6K => "q6_K",
        GgmlBlocks::Iq4Nl => "iq4_nl",
        GgmlBlocks::Mxfp4 => "mxfp4",
    }
}

/// Blocks and the values that they stand for.
fn stored(blocks: GgmlBlocks, random: &str) -> (Vec<u8>, Vec<f32>) {
    let file = std::fs::read(golden("gguf/blocks.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensor = |what: &str| tensors.tensor(&format!("{}.{random}{what}", name(blocks))).unwrap().data().to_vec();
    let values = tensor("f32").as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (tensor("raw"), values)
}

#[test]
fn blocks_of_ggml_keep_every_value() {
    for blocks in GgmlBlocks::ALL {
        for random in ["", "random_"] {
            let (raw, expected) = stored(blocks, random);
            assert_eq!(raw.len() / blocks.block_bytes() * blocks.block_len(), expected.len(), "{blocks:?}");
            // Rows of two blocks or more, and one row of all.
            for cols in [expected.len() / 2, expected.len()] {
                let found = blocks.quant().unpack(&blocks.pack(&[&raw], cols), cols);
                for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    // The smallest exponents of MXFP4 are below those of an ordinary f32.
                    let zero = blocks == GgmlBlocks::Mxfp4 && *found == 0.0 && expected.abs() < f32::MIN_POSITIVE * 6.0;
                    assert!(found == expected || zero, "{blocks:?} {random}{index}: {found} is not {expected}");
                }
                assert_eq!(found.len(), expected.len());
            }
            assert_eq!(blocks.first_not_finite(&raw), None, "{blocks:?}");
        }
    }
}

#[test]
fn rows_of_parts_take_turns() {
    for blocks in GgmlBlocks::ALL {
        let (ordinary, random) = (stored(blocks, "").0, stored(blocks, "random_").0);
        let len = ordinary.len().min(random.len());
        let parts = [&ordinary[..len], &random[..len]];
        let cols = len / blocks.block_bytes() / 2 * blocks.block_len();
        let alone = parts.map(|part| blocks.pack(&[part], cols));
        let row_bytes = alone[0].len() / 2;
        let expected: Vec<u8> = (0..4).flat_map(|row| alone[row % 2][row / 2 * row_bytes..][..row_bytes].to_vec()).collect();
        assert!(blocks.pack(&parts, cols) == expected, "{blocks:?}");
    }
}

#[test]
fn blocks_without_finite_scales_are_found() {
    for blocks in GgmlBlocks::ALL {
        let infinite = 0x7c00u16.to_le_bytes();
        // Where the scales of a block are, and what is no number there.
        let spoiled: &[(usize, &[u8])] = match blocks {
            GgmlBlocks::Q4_1 | GgmlBlocks::Q4K | GgmlBlocks::Q5K => &[(0, &infinite), (2, &infinite)],
            GgmlBlocks::Q6K => &[(208, &infinite)],
            GgmlBlocks::Mxfp4 => &[(0, &[255])],
            _ => &[(0, &infinite)],
        };
        for (at, bytes) in spoiled {
            let mut raw = stored(blocks, "").0;
            raw[2 * blocks.block_bytes() + at..][..bytes.len()].copy_from_slice(bytes);
            assert_eq!(blocks.first_not_finite(&raw), Some(2 * blocks.block_len()), "{blocks:?}");
        }
    }
}

#[test]
fn superblocks_take_hardly_more_bytes_than_in_ggml() {
    for (blocks, quant) in [(GgmlBlocks::Q4K, &Q4_K), (GgmlBlocks::Q5K, &Q5_K), (GgmlBlocks::Q6K, &Q6_K)] {
        assert_eq!(quant.row_bytes(2048), 8 * blocks.block_bytes());
        assert!(quant.row_bytes(1024) * 100 <= 4 * blocks.block_bytes() * 101);
    }
}

#[test]
fn codes_keep_the_scales_that_they_come_with() {
    // The last group of a row ends early, and the padding is a whole group more.
    let (rows, cols, groups) = (3, 40, 3);
    let codes: Vec<i8> = (0..rows * cols).map(|i| (i * 89 % 256) as u8 as i8).collect();
    let scales: Vec<f32> = (0..rows * groups).map(|i| 0.012_345_67 * (1.0 + i as f32)).collect();
    let minima: Vec<f32> = (0..rows * groups).map(|i| 0.3 - 0.7 * i as f32).collect();
    let group = |index: usize| index / cols * groups + index % cols / 16;
    let products: Vec<f32> = codes.iter().enumerate().map(|(i, code)| scales[group(i)] * f32::from(*code)).collect();
    let packed = QuantFormat::pack_codes(&codes, &scales, None, cols);
    assert_eq!(packed.len(), rows * I8S.row_bytes(cols));
    assert_eq!(I8S.unpack(&packed, cols), products);

    let sums: Vec<f32> = products.iter().enumerate().map(|(i, product)| product + minima[group(i)]).collect();
    let packed = QuantFormat::pack_codes(&codes, &scales, Some(&minima), cols);
    assert_eq!(packed.len(), rows * I8M.row_bytes(cols));
    assert_eq!(I8M.unpack(&packed, cols), sums);
}
