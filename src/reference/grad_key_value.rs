//! grad_key_value: the gradients of the keys of causal attention, before their rotary embedding, and of the values.
//!
//! ```text
//! what grad_query reads                                        in
//! stats    [num_tokens, num_heads] [f32; 2]                    in   of grad_query
//! dk       [num_tokens, num_kv_heads head_dim] f32             out
//! dv       the same                                            out
//! ```

use super::dot;
use super::grad_query::Inputs;

/// Returns `dk` and `dv`.
pub fn grad_key_value(inputs: &Inputs, stats: &[[f32; 2]]) -> [Vec<f32>; 2] {
    let Inputs { spec, rows, q, cache, dy, .. } = *inputs;
    let (head_dim, group, scale) = (spec.head_dim, spec.num_heads / spec.num_kv_heads, f64::from(spec.scale));
    let [mut all_dk, mut all_dv] = [const { Vec::new() }; 2];
    for (t, row) in rows.iter().enumerate() {
        let end = (t + 1..rows.len()).find(|&later| rows[later].position == 0).unwrap_or(rows.len());
        for kv_head in 0..spec.num_kv_heads {
            let place = inputs.key_place(t, kv_head, row.position as usize) * head_dim;
            let (k, v) = (&cache.k[place..][..head_dim], &cache.v[place..][..head_dim]);
            let [mut dk, mut dv] = [(); 2].map(|()| vec![0.0; head_dim]);
            for index in (t..end).flat_map(|later| (0..group).map(move |i| later * spec.num_heads + kv_head * group + i)) {
                let [q, dy] = [q, dy].map(|values| &values[index * head_dim..][..head_dim]); // q[later, h]
                let [lse, along] = stats[index].map(f64::from);
                let probability = (scale * dot(q, k) - lse).exp();
                let dscore = probability * (dot(dy, v) - along) * scale;
                dk.iter_mut().zip(q).for_each(|(dk, q)| *dk += dscore * f64::from(*q));
                dv.iter_mut().zip(dy).for_each(|(dv, dy)| *dv += probability * f64::from(*dy));
            }
            all_dk.extend(inputs.turned_back(t, dk));
            all_dv.extend(dv.into_iter().map(|value| value as f32));
        }
    }
    [all_dk, all_dv]
}
