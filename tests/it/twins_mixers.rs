//! The references of mixers with a state, against values worked out by hand or another way.

use moebius::batch::Row;
use moebius::reference::short_conv::{Inputs, short_conv};

fn rows(positions: std::ops::Range<u32>, sequence: u32) -> Vec<Row> {
    positions.map(|position| Row::new(0, position, sequence)).collect()
}

/// A convolution of one channel over three positions.
fn convolved(rows: &[Row], x: &[f32], state: &mut [f32]) -> Vec<f32> {
    let weight = &[100.0, 10.0, 1.0];
    short_conv(&Inputs { rows, channels: 1, x, weight, bias: None, silu: false, gated: false }, state)
}

#[test]
fn a_short_convolution_sees_itself_with_the_last_weight_and_nothing_before_the_text() {
    let mut state = [f32::NAN; 9];
    assert_eq!(convolved(&rows(0..4, 0), &[1.0, 2.0, 3.0, 4.0], &mut state), [1.0, 12.0, 123.0, 234.0]);
    // Position p in row p % 3: the first has made room for the fourth.
    assert_eq!(state[..3], [4.0, 2.0, 3.0]);
    assert_eq!(convolved(&rows(4..5, 0), &[5.0], &mut state), [345.0]);
    // Another text begins with nothing.
    assert_eq!(convolved(&rows(0..1, 0), &[7.0], &mut state), [7.0]);
}

#[test]
fn a_short_convolution_finds_the_end_of_the_block_before_and_of_the_one_before_that() {
    let x: Vec<f32> = (0..140).map(|position| position as f32).collect();
    let mut state = [f32::NAN; 9];
    convolved(&rows(0..140, 0), &x, &mut state);
    for position in [64, 128, 140] {
        let found = convolved(&rows(position..position + 1, 0), &[9.0], &mut state.clone());
        assert_eq!(found, [110.0 * position as f32 - 210.0 + 9.0], "position {position}");
    }
}

#[test]
fn a_short_convolution_may_have_a_bias_an_activation_or_gates() {
    let mut state = [0.0; 9];
    let inputs = Inputs {
        rows: &rows(0..1, 0),
        channels: 1,
        x: &[2.0],
        weight: &[0.0, 0.0, 3.0],
        bias: Some(&[-6.0]),
        silu: true,
        gated: false,
    };
    assert_eq!(short_conv(&inputs, &mut state), [0.0]);
    let silu = short_conv(&Inputs { bias: Some(&[-5.0]), ..inputs }, &mut state)[0];
    assert!((silu - 0.731_058_6).abs() < 1e-6, "{silu}");
    // b = 2, c = 5, u = 7: c * weight * (b * u), and what is kept is the product.
    let inputs = Inputs { rows: &rows(0..1, 0), x: &[2.0, 5.0, 7.0], bias: None, silu: false, gated: true, ..inputs };
    assert_eq!(short_conv(&inputs, &mut state), [210.0]);
    assert_eq!(state[0], 14.0);
}

#[test]
fn texts_of_one_batch_do_not_see_each_other() {
    let both = [rows(0..2, 0), rows(0..2, 1)].concat();
    let mut state = [f32::NAN; 18];
    assert_eq!(convolved(&both, &[1.0, 2.0, 3.0, 4.0], &mut state), [1.0, 12.0, 3.0, 34.0]);
    assert_eq!([state[0], state[1], state[9], state[10]], [1.0, 2.0, 3.0, 4.0]);
}
