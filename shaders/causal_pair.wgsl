// causal_pair: every value beside the one at the position before, of the same sequence: a causal convolution over two positions is then
// a product with a matrix. Two dispatches: #ifdef APPEND puts x into the cache, where the other one finds the rows of the same batch too.
// grid      x = groups of WG values of a row; y = row
// rows      [num_tokens] Row                    in
// x         [num_tokens, X_STRIDE] f32          in       #ifdef APPEND
// cache     [sequence, CONTEXT, WIDTH] f32      in, out  x at the row's position
// y         [num_tokens, Y_STRIDE] f32          out      #ifndef APPEND: (the value before, the value) of each; zero before position 0
// twin      src/reference/causal_pair.rs
#import rows

@group(0) @binding(0) var<storage, read> rows: array<Row>;
#ifdef APPEND
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> cache: array<f32>;
#else
@group(0) @binding(2) var<storage, read> cache: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = workgroup.x * WG + local;
    if c >= WIDTH {
        return;
    }
    let row = rows[workgroup.y];
    let place = (row.sequence * CONTEXT + row.position) * WIDTH + c;
#ifdef APPEND
    cache[place] = x[workgroup.y * X_STRIDE + c];
#else
    var before = 0.0;
    if row.position > 0u {
        before = cache[place - WIDTH];
    }
    y[workgroup.y * Y_STRIDE + 2u * c] = before;
    y[workgroup.y * Y_STRIDE + 2u * c + 1u] = cache[place];
#endif
}
