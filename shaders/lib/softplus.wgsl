// softplus: log(1 + exp(x)) to the last digits everywhere: a logarithm of nearly one has few.
fn softplus(x: f32) -> f32 {
    let e = exp(-abs(x));
    let z = e / (2.0 + e);
    let s = z * z;
    let series = 1.0 + s * (0.33333334 + s * (0.2 + s * (0.14285715 + s * (0.11111111 + s * 0.09090909))));
    return max(x, 0.0) + 2.0 * z * series;
}
