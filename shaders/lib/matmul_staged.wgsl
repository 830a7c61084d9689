// matmul_staged: matmul where many tokens share the weights: a tile of TOKENS x ROWS sums goes along the rows block by block.
// needs     what matmul needs, and weights
// consts    WG = 2 ROWS invocations, TOKENS a multiple of WG / 8; TOKEN_LOADS = 8 TOKENS / WG quads of activations that an invocation loads
//           per block; THREAD_TOKENS = TOKENS / 8 tokens that it has sums of
// A step is one block, 32 columns. Weights are unpacked once and lie in workgroup memory by column, four rows to a vector; activations are
// gathered by token and lie there as they are, four columns to a vector. Of ROWS = 64 and WG = 128:
//   TOKENS  sums of an invocation  workgroup memory  q4_0 weights + activations from memory per step  operations per byte of them
//       16  2 tokens x 4 rows             10 KiB      1.1 + 2 KiB                                      20
//       32  4 tokens x 4 rows             12 KiB      1.1 + 4 KiB                                      25
//       64  8 tokens x 4 rows             16 KiB      1.1 + 8 KiB                                      28
// A vector from workgroup memory serves 5.3, 8 or 10.7 multiply-adds. Tokens are dealt out in eights, so that those beyond the tile's count
// are neither loaded nor, eight by eight, multiplied. Workgroup memory is not zeroed before: every step writes all of it.

const ROW_TEAMS: u32 = ROWS / 4u;
const TOKEN_TEAMS: u32 = 8u;

var<workgroup> wg_x: array<vec4<f32>, TOKENS * BLOCK_QUADS>;
var<workgroup> wg_weights: array<vec4<f32>, ROWS * BLOCK_QUADS>;

// Four rows of a column. Neighbours ask for neighbouring `rows` of one column when they multiply, and for one `rows` of all quads when they
// store: turned by the quad, both fall on different banks.
fn weight_place(rows: u32, quad: u32, column: u32) -> u32 {
    return (quad * 4u + column) * ROW_TEAMS + (rows ^ quad);
}

// Four weights of the row that begins at word `row`, of which nothing else is loaded.
fn row_quad(row: u32, quad: u32) -> vec4<f32> {
    let scale = block_scale(row, quad / SCALE_QUADS);
    // As the first quad of a word, for a constant `quad`.
    return weight_quad(load_quad(row, quad), 0u, quad_scale(scale, quad % SCALE_QUADS));
}

// Stores the products of `count` rows from `first` on with `num_tokens` tokens, neither of them 0. Browsers must see that `count` is uniform:
// it may not come from a private variable.
fn matmul_batch(local: u32, first: u32, count: u32, num_tokens: u32) {
    // What this invocation loads: a quad of four rows, and of every (WG / 8)th token.
    let quad = local % BLOCK_QUADS;
    let lane = local / BLOCK_QUADS;
#for J in 4
    let row_$J = row_word(min(lane * 4u + $Ju, count - 1u));
#end
#for L in TOKEN_LOADS
    let quads_$L = token_quad(min(lane + $Lu * (WG / BLOCK_QUADS), num_tokens - 1u)) + quad;
#end
    // What it multiplies: four rows, and every eighth token.
    let rows = local % ROW_TEAMS;
    let token = local / ROW_TEAMS;
    let live = (num_tokens + TOKEN_TEAMS - 1u) / TOKEN_TEAMS;
#for T in THREAD_TOKENS
    var sums_$T = vec4<f32>();
#end
    let row_end = select(ROW_QUADS, 0u, count == 0u); // no constant: a few steps would be unrolled, which only costs
    for (var step = 0u; step < row_end; step += BLOCK_QUADS) {
        // Under way while others still multiply.
#for J in 4
        let weights_$J = row_quad(row_$J, step + quad);
#end
#for L in TOKEN_LOADS
        var x_$L = vec4<f32>();
        if lane + $Lu * (WG / BLOCK_QUADS) < num_tokens {
            x_$L = activation(quads_$L + step);
        }
#end
        workgroupBarrier();
        wg_weights[weight_place(lane, quad, 0u)] = vec4<f32>(weights_0.x, weights_1.x, weights_2.x, weights_3.x);
        wg_weights[weight_place(lane, quad, 1u)] = vec4<f32>(weights_0.y, weights_1.y, weights_2.y, weights_3.y);
        wg_weights[weight_place(lane, quad, 2u)] = vec4<f32>(weights_0.z, weights_1.z, weights_2.z, weights_3.z);
        wg_weights[weight_place(lane, quad, 3u)] = vec4<f32>(weights_0.w, weights_1.w, weights_2.w, weights_3.w);
#for L in TOKEN_LOADS
        wg_x[local + $Lu * WG] = x_$L;
#end
        workgroupBarrier();
        // A branch for each token would have every load from workgroup memory waited for, so a full tile has none.
        if live == THREAD_TOKENS {
            for (var q = 0u; q < BLOCK_QUADS; q++) {
                let column_0 = wg_weights[weight_place(rows, q, 0u)];
                let column_1 = wg_weights[weight_place(rows, q, 1u)];
                let column_2 = wg_weights[weight_place(rows, q, 2u)];
                let column_3 = wg_weights[weight_place(rows, q, 3u)];
#for T in THREAD_TOKENS
                {
                    let value = wg_x[(token + $Tu * TOKEN_TEAMS) * BLOCK_QUADS + q];
                    sums_$T = fma(column_0, value.xxxx, sums_$T);
                    sums_$T = fma(column_1, value.yyyy, sums_$T);
                    sums_$T = fma(column_2, value.zzzz, sums_$T);
                    sums_$T = fma(column_3, value.wwww, sums_$T);
                }
#end
            }
        } else {
            for (var q = 0u; q < BLOCK_QUADS; q++) {
                let column_0 = wg_weights[weight_place(rows, q, 0u)];
                let column_1 = wg_weights[weight_place(rows, q, 1u)];
                let column_2 = wg_weights[weight_place(rows, q, 2u)];
                let column_3 = wg_weights[weight_place(rows, q, 3u)];
#for T in THREAD_TOKENS
                if $Tu < live {
                    let value = wg_x[(token + $Tu * TOKEN_TEAMS) * BLOCK_QUADS + q];
                    sums_$T = fma(column_0, value.xxxx, sums_$T);
                    sums_$T = fma(column_1, value.yyyy, sums_$T);
                    sums_$T = fma(column_2, value.zzzz, sums_$T);
                    sums_$T = fma(column_3, value.wwww, sums_$T);
                }
#end
            }
        }
    }
    // The sums are in registers and stay there; store() is large and stands here once.
    for (var t = 0u; t < live; t++) {
        var sums = sums_0;
#for T in THREAD_TOKENS
        sums = select(sums, sums_$T, t == $Tu);
#end
        if token + t * TOKEN_TEAMS < num_tokens && rows * 4u < count {
            store(token + t * TOKEN_TEAMS, first + rows * 4u, sums);
        }
    }
}
