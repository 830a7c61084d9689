// norm: y = weight * x / sqrt(mean(x^2) + EPS), row by row.
// #ifdef LAYER_NORM: of x - mean(x) instead of x. #ifdef BIAS: plus a bias. #ifdef RESIDUAL: SCALE times that is added to y.
// #ifdef OUTPUT_SCALE: and y is multiplied by one number. #ifdef RESCALED: x becomes FACTOR times what y does.
// grid      one workgroup per token: workgroup_id.x = row of y
// x         [first_row + num_tokens, ROW_QUADS] vec4<f32>  in   padding columns are zero; #ifdef RESCALED: in, out
// weight    [1, ROW_QUADS] vec4<f32>                       in   padding columns are zero; #ifdef BIAS: [2, ROW_QUADS], row 1 the bias
// y         [num_tokens, ROW_QUADS] vec4<f32>              out
// output_scale [1] f32                                     in   #ifdef OUTPUT_SCALE
// source    Zhang and Sennrich 2019, arXiv 1910.07467; Ba et al. 2016, arXiv 1607.06450
// twin      src/reference/norm.rs

struct Params {
    first_row: u32, // of x
}

@group(0) @binding(0) var<uniform> params: Params;
#ifdef RESCALED
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;
#else
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
#endif
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
#ifdef OUTPUT_SCALE
@group(0) @binding(4) var<storage, read> output_scale: array<f32>;
#endif

var<workgroup> wg_sums: array<f32, WG>;

// The sum over the workgroup, in every invocation: all add up all partial sums, one barrier instead of a tree of them.
fn sum_all(local: u32, value: f32) -> f32 {
    workgroupBarrier();
    wg_sums[local] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var other = 0u; other < WG; other++) {
        sum += wg_sums[other];
    }
    return sum;
}

// Four values minus the mean; zero beyond the row.
fn centered(value: vec4<f32>, quad: u32, mean: f32) -> vec4<f32> {
#ifdef LAYER_NORM
    // Padding columns are no part of the variance, and stay zero.
    return select(vec4<f32>(), value - mean, vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COLUMNS));
#else
    return select(vec4<f32>(), value, quad < ROW_QUADS);
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let source = (params.first_row + workgroup.x) * ROW_QUADS;
    var mean = 0.0;
    // Each loop has LOADS quads under way; beyond the end of the row the last quad again.
#ifdef LAYER_NORM
    var sums = vec4<f32>();
    for (var quad = local; quad < ROW_QUADS; quad += LOADS * WG) {
#for I in LOADS
        let x_$I = x[source + min(quad + $Iu * WG, ROW_QUADS - 1u)];
#end
#for I in LOADS
        sums += select(vec4<f32>(), x_$I, quad + $Iu * WG < ROW_QUADS);
#end
    }
    mean = sum_all(local, dot(sums, vec4<f32>(1.0))) / f32(COLUMNS);
#endif
    var squares = 0.0;
    for (var quad = local; quad < ROW_QUADS; quad += LOADS * WG) {
#for I in LOADS
        let x_$I = x[source + min(quad + $Iu * WG, ROW_QUADS - 1u)];
#end
#for I in LOADS
        let value_$I = centered(x_$I, quad + $Iu * WG, mean);
        squares += dot(value_$I, value_$I);
#end
    }
    let scale = inverseSqrt(sum_all(local, squares) / f32(COLUMNS) + EPS);
    for (var quad = local; quad < ROW_QUADS; quad += LOADS * WG) {
#for I in LOADS
        let quad_$I = min(quad + $Iu * WG, ROW_QUADS - 1u);
        let x_$I = x[source + quad_$I];
        let weight_$I = weight[quad_$I];
#ifdef BIAS
        let bias_$I = weight[ROW_QUADS + quad_$I];
#endif
#ifdef RESIDUAL
        let y_$I = y[workgroup.x * ROW_QUADS + quad_$I];
#endif
#end
#for I in LOADS
        if quad + $Iu * WG < ROW_QUADS {
            var value = centered(x_$I, quad_$I, mean) * scale * weight_$I;
#ifdef BIAS
            value += bias_$I;
#endif
#ifdef RESIDUAL
            value = y_$I + SCALE * value;
#ifdef OUTPUT_SCALE
            value *= output_scale[0];
#endif
#endif
            y[workgroup.x * ROW_QUADS + quad_$I] = value;
#ifdef RESCALED
            x[source + quad_$I] = FACTOR * value;
#endif
        }
#end
    }
}
