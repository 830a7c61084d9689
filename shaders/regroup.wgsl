// regroup: blocks of values to another place, row by row: y[t, a, b, c] = x[t, a, b, c]; #ifdef ADD: += SCALE times that.
// grid      x = groups of WG values of a row; y = token
// x         [num_tokens, ..] f32  in      element (t, a, b, c) at X_FIRST + t X_TOKEN + a X_OUTER + b X_INNER + c
// y         [num_tokens, ..] f32  in, out the same with Y_
// a < OUTER, b < INNER, c < LEN.
// twin      src/reference/regroup.rs

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * WG + local;
    if i >= OUTER * INNER * LEN {
        return;
    }
    let a = i / (INNER * LEN);
    let b = i / LEN % INNER;
    let c = i % LEN;
    let value = x[X_FIRST + workgroup.y * X_TOKEN + a * X_OUTER + b * X_INNER + c];
    let place = Y_FIRST + workgroup.y * Y_TOKEN + a * Y_OUTER + b * Y_INNER + c;
#ifdef ADD
    y[place] += SCALE * value;
#else
    y[place] = value;
#endif
}
