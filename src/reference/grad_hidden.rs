//! grad_hidden: the way back through the down projection and SwiGLU of the experts: with r = down^T dy and h = silu(gate) up, the gradients of gate and
//! up from weight r, and that of the routing weight, <h, r>, in parts.
//!
//! ```text
//! dy        [num_tokens, hidden] f32                   in
//! down      [expert][hidden, intermediate] f32         in
//! ids       [num_assignments] u32                      in   expert of each assignment
//! gate_up   [num_assignments, 2 intermediate] f32      in   before the activation, gate and up by turns
//! weights   [num_assignments] f32                      in
//! dgate_up  [num_assignments, 2 intermediate] f32      out
//! parts     [num_assignments, intermediate] f32        out  four of them make one of the shader's
//! ```

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub dy: &'a [f32],
    pub down: &'a [&'a [f32]],
    pub ids: &'a [u32],
    pub gate_up: &'a [f32],
    pub weights: &'a [f32],
    pub hidden_size: usize,
}

/// Returns `dgate_up` and `parts`.
pub fn grad_hidden(inputs: &Inputs) -> [Vec<f32>; 2] {
    let Inputs { dy, down, ids, gate_up, weights, hidden_size } = *inputs;
    let (intermediate_size, top_k) = (down[0].len() / hidden_size, ids.len() / (dy.len() / hidden_size));
    let (mut dgate_up, mut parts) = (Vec::with_capacity(gate_up.len()), Vec::new());
    for (assignment, &expert) in ids.iter().enumerate() {
        let dy = &dy[assignment / top_k * hidden_size..][..hidden_size];
        let mut r = vec![0.0; intermediate_size];
        for (dy, down) in dy.iter().zip(down[expert as usize].chunks_exact(intermediate_size)) {
            r.iter_mut().zip(down).for_each(|(r, down)| *r += f64::from(*dy) * f64::from(*down)); // r += dy[c] down[c]
        }
        let own = gate_up[assignment * 2 * intermediate_size..][..2 * intermediate_size].as_chunks::<2>().0;
        for ([gate, up], r) in own.iter().zip(r) {
            let (gate, up, dh) = (f64::from(*gate), f64::from(*up), f64::from(weights[assignment]) * r);
            let sigmoid = 1.0 / (1.0 + (-gate).exp());
            parts.push((gate * sigmoid * up * r) as f32);
            dgate_up.push((dh * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))) as f32);
            dgate_up.push((dh * gate * sigmoid) as f32);
        }
    }
    [dgate_up, parts]
}
