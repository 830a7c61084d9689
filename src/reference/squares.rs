//! squares: sums of the squares of all gradients, in parts: quad `q` belongs to part `q / workgroup % num_parts`.
//!
//! ```text
//! gradients  [num_quads 4] f32   in
//! parts      [num_parts] f32     out
//! ```

pub fn squares(gradients: &[f32], workgroup: usize, num_parts: usize) -> Vec<f32> {
    let mut sums = vec![0.0; num_parts];
    for (quad, values) in gradients.as_chunks::<4>().0.iter().enumerate() {
        sums[quad / workgroup % num_parts] += values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}
