// outer: sums over i of A(i, m) B(i, n), for the gradients of matrix products; columns n are contiguous in B.
// needs     fn a_quad(i: u32, m: u32) -> vec4<f32>            #ifdef A_ALONG_I: A(i .. i + 4, m), zeros from the last i on; otherwise A(i, m .. m + 4)
//           fn b_quad(i: u32, n: u32) -> vec4<f32>            B(i, 4 n .. 4 n + 4)
//           fn store(m: u32, n: u32, sums: vec4<f32>)         one finished result: columns 4 n .. 4 n + 4 of row m
// consts    WG invocations, M rows and N_QUADS quads of columns of a tile
// A kernel calls outer() from uniform control flow; rows are counted from the start of the tile, quads of columns from that of the matrix.
// Without any i it stores zeros. Three ways:
// #ifdef STAGED: a tile of 4 N_QUADS = M rows and columns goes through workgroup memory, STEP i at a time; an invocation has 4 x 4 sums.
// #ifdef SUBGROUPS: the workgroup is one subgroup of LANES; a lane has a quad of columns and all rows, and a share of A that it hands to all.
// #else: an invocation has a quad of columns and all rows, and loads A itself.

#ifdef STAGED
const STEP: u32 = 16u;

var<workgroup> wg_a: array<f32, STEP * M>; // by i, then m
var<workgroup> wg_b: array<vec4<f32>, STEP * N_QUADS>;

fn outer(local: u32, num_m: u32, first_quad: u32, num_quads: u32, num_i: u32) {
    let row = local / N_QUADS * 4u;
    let column = local % N_QUADS;
#for R in 4
    var sums_$R = vec4<f32>();
#end
    for (var first = 0u; first < num_i; first += STEP) {
        workgroupBarrier();
#for L in LOADS
        {
            let at = local + $Lu * WG;
#ifdef A_ALONG_I
            let m = at / (STEP / 4u);
            let i = at % (STEP / 4u) * 4u;
            let a = a_quad(first + i, min(m, num_m - 1u));
#for C in 4
            wg_a[(i + $Cu) * M + m] = a[$C];
#end
#else
            let m = at % (M / 4u) * 4u;
            let i = at / (M / 4u);
            let a = select(vec4<f32>(), a_quad(min(first + i, num_i - 1u), min(m, (num_m - 1u) / 4u * 4u)), first + i < num_i);
#for C in 4
            wg_a[i * M + m + $Cu] = a[$C];
#end
#endif
            wg_b[at] = b_quad(min(first + at / N_QUADS, num_i - 1u), min(first_quad + at % N_QUADS, num_quads - 1u));
        }
#end
        workgroupBarrier();
        for (var i = 0u; i < STEP; i++) {
            let b = wg_b[i * N_QUADS + column];
#for R in 4
            sums_$R = fma(vec4<f32>(wg_a[i * M + row + $Ru]), b, sums_$R);
#end
        }
    }
    if first_quad + column < num_quads {
#for R in 4
        if row + $Ru < num_m {
            store(row + $Ru, first_quad + column, sums_$R);
        }
#end
    }
}
#else
#ifdef A_ALONG_I
fn outer(lane: u32, num_m: u32, first_quad: u32, num_quads: u32, num_i: u32) {
    let column = min(first_quad + lane, num_quads - 1u);
    var sums: array<vec4<f32>, M>;
    for (var i = 0u; i < num_i; i += 4u) {
#for K in 4
        let b_$K = b_quad(min(i + $Ku, num_i - 1u), column);
#end
#ifdef SUBGROUPS
#for L in M_LANES
        let a_$L = a_quad(i, min(lane + $Lu * LANES, num_m - 1u));
#end
#for L in M_LANES
#for S in LANES
        {
            let a = subgroupBroadcast(a_$L, $Su);
            var sum = fma(a.xxxx, b_0, sums[$L * LANES + $S]);
            sum = fma(a.yyyy, b_1, sum);
            sum = fma(a.zzzz, b_2, sum);
            sums[$L * LANES + $S] = fma(a.wwww, b_3, sum);
        }
#end
#end
#else
        for (var m = 0u; m < min(M, num_m); m++) {
            let a = a_quad(i, m);
            sums[m] += a.x * b_0 + a.y * b_1 + a.z * b_2 + a.w * b_3;
        }
#endif
    }
    if first_quad + lane < num_quads {
        for (var m = 0u; m < min(M, num_m); m++) {
            store(m, column, sums[m]);
        }
    }
}
#else
fn outer(lane: u32, num_m: u32, first_quad: u32, num_quads: u32, num_i: u32) {
    let column = min(first_quad + lane, num_quads - 1u);
    let last_m = (num_m - 1u) / 4u * 4u;
    var sums: array<vec4<f32>, M>;
#ifdef SUBGROUPS
    for (var i = 0u; i < num_i; i += LANES) {
#for Q in M_QUADS
        let a_$Q = select(vec4<f32>(), a_quad(min(i + lane, num_i - 1u), min($Qu * 4u, last_m)), i + lane < num_i);
#end
#for S in LANES
        {
            let b = b_quad(min(i + $Su, num_i - 1u), column);
#for Q in M_QUADS
            let a_of_$Q = subgroupBroadcast(a_$Q, $Su);
#for C in 4
            sums[4 * $Q + $C] = fma(vec4<f32>(a_of_$Q[$C]), b, sums[4 * $Q + $C]);
#end
#end
        }
#end
    }
#else
    for (var i = 0u; i < num_i; i++) {
        let b = b_quad(i, column);
        for (var m = 0u; m <= min(M - 4u, last_m); m += 4u) {
            let a = a_quad(i, m);
#for C in 4
            sums[m + $Cu] += a[$C] * b;
#end
        }
    }
#endif
    if first_quad + lane < num_quads {
        for (var m = 0u; m < min(M, num_m); m++) {
            store(m, column, sums[m]);
        }
    }
}
#endif
#endif
