//! regroup: blocks of values to another place, row by row: copied, or added `scale` times.
//!
//! ```text
//! x  [num_tokens, ..] f32  in
//! y  [num_tokens, ..] f32  out   y[t, a, b, c] = x[t, a, b, c], each by its own strides
//! ```

use crate::batch::regroup::Regroup;

pub fn regroup(shape: &Regroup, num_tokens: usize, x: &[f32], y: &mut [f32]) {
    for t in 0..num_tokens {
        for block in 0..shape.outer * shape.inner {
            let (a, b) = (block / shape.inner, block % shape.inner);
            let from = &x[shape.x.place(t, a, b)..][..shape.len];
            let to = &mut y[shape.y.place(t, a, b)..][..shape.len];
            match shape.add {
                None => to.copy_from_slice(from),
                Some(scale) => to.iter_mut().zip(from).for_each(|(y, x)| *y += scale * x),
            }
        }
    }
}
