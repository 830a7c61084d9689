//! What encoders and decoders of two stacks compute besides: attention to all keys, biases by distance, rows of positions.

use moebius::batch::Row;
use moebius::batch::sinusoid::sinusoids;
use moebius::reference::attention::{Inputs, attention};
use moebius::reference::{KvCache, embed::embed};
use moebius::spec::{AttentionSpec, Mask, RelativeBias};

/// Distances of a key from its query, and their buckets in an encoder and in a decoder of T5 (32 buckets, up to 128), by
/// `_relative_position_bucket` of transformers in f32.
const BUCKETS: [(i64, usize, usize); 24] = [
    (-300, 15, 31),
    (-128, 15, 31),
    (-91, 15, 29),
    (-90, 14, 29),
    (-64, 14, 26),
    (-63, 13, 26),
    (-46, 13, 24),
    (-32, 12, 21),
    (-31, 11, 21),
    (-17, 10, 16),
    (-16, 10, 16),
    (-15, 9, 15),
    (-12, 9, 12),
    (-8, 8, 8),
    (-7, 7, 7),
    (-1, 1, 1),
    (0, 0, 0),
    (1, 17, 0),
    (7, 23, 0),
    (8, 24, 0),
    (12, 25, 0),
    (32, 28, 0),
    (64, 30, 0),
    (300, 31, 0),
];

#[test]
fn distances_fall_into_the_buckets_of_t5() {
    for bidirectional in [true, false] {
        let bias = RelativeBias { num_buckets: 32, max_distance: 128, bidirectional };
        // Two heads; the weight of a bucket is its number, and a hundred more in the second head.
        let weight: Vec<f32> = (0..32).flat_map(|bucket| [bucket as f32, bucket as f32 + 100.0]).collect();
        let table = bias.table(&weight, 2);
        for (distance, encoder, decoder) in BUCKETS {
            let entry = bias.entry(1000, (1000 + distance) as usize);
            let expected = if bidirectional { encoder } else { decoder };
            let found = [table[entry], table[bias.width() + entry]];
            assert_eq!(found, [expected as f32, expected as f32 + 100.0], "distance {distance}");
        }
    }
}

#[test]
fn attention_to_all_keys_meets_later_ones_and_no_more_than_the_row_counts() {
    let spec = AttentionSpec { mask: Mask::All, ..AttentionSpec::new(1, 1, 4) };
    // Keys of weight one each; the fourth is there, but not of this text.
    let v = [1.0, 2.0, 6.0, 100.0].into_iter().flat_map(|value| [value; 4]).collect();
    let cache = KvCache { k: vec![0.0; 16], v, ..KvCache::default() };
    let rows = [Row { keys: 3, ..Row::new(0, 0, 0) }, Row { keys: 2, ..Row::new(0, 3, 0) }];
    let inputs =
        Inputs { spec: &spec, context: 4, rows: &rows, q: &[1.0; 8], cache: &cache, sinks: None, bias: None, value_dim: None };
    assert_eq!(attention(&inputs), [3.0, 3.0, 3.0, 3.0, 1.5, 1.5, 1.5, 1.5]);

    // A bias of ln 2 for the key before, ln 4 for the one after: weights of 2, 1 and 4 around the second position.
    let relative_bias = Some(RelativeBias { num_buckets: 4, max_distance: 1, bidirectional: true });
    let spec = AttentionSpec { relative_bias, ..spec.clone() };
    let rows = [Row { keys: 3, ..Row::new(0, 1, 0) }];
    let bias = [2f32.ln(), 0.0, 4f32.ln()];
    let y = attention(&Inputs { spec: &spec, rows: &rows, q: &[1.0; 4], bias: Some(&bias), ..inputs });
    let expected = (2.0 + 2.0 + 24.0) / 7.0;
    assert!(y.iter().all(|y| (y - expected).abs() < 1e-6), "{y:?}");
}

#[test]
fn positions_have_rows_of_sines_and_cosines() {
    let table = sinusoids(2, 3, 5);
    // Frequencies 1 and 1e-4; the last column is padding.
    for (row, position) in table.chunks_exact(5).zip([2.0f32, 3.0, 4.0]) {
        let expected = [position.sin(), (position * 1e-4).sin(), position.cos(), (position * 1e-4).cos(), 0.0];
        assert!(row.iter().zip(expected).all(|(value, expected)| (value - expected).abs() < 1e-6), "{row:?}");
    }
    let x =
        embed(&[Row::new(1, 2, 0), Row::new(0, 0, 0)], &[1.0, 2.0, 3.0, 4.0], 2, 10.0, Some(&[0.5, 0.25, 9.0, 9.0, 1.0, 2.0]));
    assert_eq!(x, [31.0, 42.0, 10.5, 20.25]);
}
