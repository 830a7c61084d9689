//! adamw: a step of AdamW over an arena of weights. Nothing changes where the norm of the gradients is no number.
//!
//! ```text
//! gradients  [n] f32   in
//! control    [4] f32   in       norm, factor, whether it is a number
//! live       [3] f32   in       learning rate, corrections of the first and of the second moment
//! weights    [n] f32   in, out  those that decay lose a share of lr weight_decay
//! first      [n] f32   in, out
//! second     [n] f32   in, out
//! ```
//!
//! Source: Loshchilov and Hutter 2019, arXiv 1711.05101.

/// The numbers of an optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Constants {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// Weights that decay, from the first on.
    pub num_decayed: usize,
}

/// `state`: weights, first and second moments.
pub fn adamw(constants: &Constants, gradients: &[f32], control: [f32; 4], live: [f32; 3], state: [&mut [f32]; 3]) {
    if control[2] == 0.0 {
        return;
    }
    let [lr, first_correction, second_correction] = live.map(f64::from);
    let [beta1, beta2] = [constants.beta1, constants.beta2].map(f64::from);
    let [weights, first, second] = state;
    for (i, gradient) in gradients.iter().enumerate() {
        let gradient = f64::from(*gradient) * f64::from(control[1]);
        let decay = if i < constants.num_decayed { f64::from(constants.weight_decay) } else { 0.0 };
        let mean = beta1 * f64::from(first[i]) + (1.0 - beta1) * gradient;
        let square = beta2 * f64::from(second[i]) + (1.0 - beta2) * gradient * gradient;
        (first[i], second[i]) = (mean as f32, square as f32);
        let root = (square / second_correction).sqrt() + f64::from(constants.eps);
        weights[i] = (f64::from(weights[i]) * (1.0 - lr * decay) - lr * mean / first_correction / root) as f32;
    }
}
