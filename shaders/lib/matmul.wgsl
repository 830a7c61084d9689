// matmul: weight rows times TOKENS activation rows.
// needs     fn weight_word(word: u32) -> vec4<u32>         16-byte words of the weights
//           fn weight_u32(word: u32, part: u32) -> u32     one of the four parts of a word
//           fn row_word(row: u32) -> u32                   first word of a row, as the workgroup counts rows; any row may be asked for
//           fn token_quad(token: u32) -> u32               first quad of activations of a token, as the workgroup counts tokens
//           fn activation(quad: u32) -> vec4<f32>          four values of the activations
//           fn store(token: u32, rows: u32, sums: vec4<f32>)  one finished result: rows rows .. rows + 4 of one token
// consts    WG invocations per workgroup, ROWS rows of one workgroup, TOKENS per tile, ROW_QUADS quads of activations per row,
//           and those of weights
// flags     NORM the activations go through an RMSNorm first, whose division is put off until the sums are known (only TOKENS 1):
//           needs fn norm_weight(quad: u32) -> vec4<f32>, consts COLUMNS and NORM_EPS
// A kernel calls matmul_batch(), or matmul_rows() once or more and then matmul_store(), all from uniform control flow. All accumulation is
// in f32. Three ways to cut the work, by profile and tokens:
// #ifdef STAGED: a tile of many tokens and rows, through workgroup memory; only matmul_batch(). See matmul_staged.
// #ifdef SLICE: the workgroup is one subgroup; a lane keeps its slice of the activations in registers and meets every row with it.
// #else: teams of LANES invocations take four rows each; a lane strides over the chunks of those rows, of one token STEP_CHUNKS at a time.

#import weights

#ifdef STAGED
#import matmul_staged
#else
#ifdef NORM
var<private> norm_squares: f32; // of the activations that this lane has seen

// A quad of activations, or zeros.
fn normed(quad: u32, counts: bool) -> vec4<f32> {
    let value = select(vec4<f32>(), activation(quad), counts);
    norm_squares += dot(value, value);
    return value * norm_weight(quad);
}

// What the finished sums are multiplied by, once the squares of all lanes are added up.
fn norm_scale(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(COLUMNS) + NORM_EPS);
}
#else
fn normed(quad: u32, counts: bool) -> vec4<f32> {
    return select(vec4<f32>(), activation(quad), counts);
}
#endif

#ifdef SLICE
#import lane_sum

// A pass gives every lane its next slice: SLICE_CHUNKS words of a row, in PARTS of PART_QUADS that share a scale or, without scales, all of one
// kind. One token and scaled blocks: two of them, whose scales lie together. More words than a few make no step faster, and drivers slow to
// compile.
const SLICE_QUADS: u32 = SLICE_CHUNKS * CHUNK_QUADS;
const PARTS: u32 = SLICE_QUADS / PART_QUADS;
const PASSES: u32 = (ROW_CHUNKS + SLICE_CHUNKS * WG - 1u) / (SLICE_CHUNKS * WG);

#ifdef ONE_TOKEN
var<workgroup> wg_sums: array<f32, ROWS>;

fn sum_of(row: u32, token: u32) -> f32 {
    return wg_sums[row];
}
#else
// Of every row, for the tokens whose number modulo WG is this lane's. Workgroup memory would cost more: there a lane takes a branch for every
// access, and the barrier makes a coroutine of the shader.
var<private> own_sums: array<f32, ROWS * LANE_TOKENS>;

fn sum_of(row: u32, token: u32) -> f32 {
    return own_sums[row * LANE_TOKENS + token / WG];
}
#endif
var<private> slice_began: bool; // the sums hold something

// Adds `factor` times the products of rows 0 .. count with the activations that begin at token_quads.
fn matmul_rows(lane: u32, count: u32, token_quads: array<u32, TOKENS>, factor: f32) {
    var first_quads = token_quads;
    var slice: array<vec4<f32>, SLICE_QUADS * TOKENS>;
    for (var pass_index = 0u; pass_index < PASSES; pass_index++) {
        let first_chunk = (pass_index * WG + lane) * SLICE_CHUNKS;
        let first_quad = first_chunk * CHUNK_QUADS;
        // Beyond the end of a row: zeros, and words that are certain to exist. The bound is no constant, so that nobody unrolls the loops:
        // software devices compile each load of this many lanes into a page of code.
        let valid = min(max(first_quad, ROW_QUADS) - first_quad, SLICE_QUADS);
        for (var token = 0u; token < TOKENS; token++) {
            for (var i = 0u; i < valid; i++) {
                slice[token * SLICE_QUADS + i] = normed(first_quads[token] + first_quad + i, true);
            }
            for (var i = valid; i < SLICE_QUADS; i++) {
                slice[token * SLICE_QUADS + i] = vec4<f32>();
            }
        }
#for C in SLICE_CHUNKS
        let chunk_$C = min(first_chunk + $Cu, ROW_CHUNKS - 1u);
#end
        let block = chunk_0 / BLOCK_CHUNKS;
#ifdef OFFSET
#ifdef ONE_TOKEN
        // What an offset of 1 adds in each block.
        var sums_0 = vec4<f32>();
        var sums_1 = vec4<f32>();
#for I in PART_QUADS
        sums_0 += slice[$I];
        sums_1 += slice[PART_QUADS + $I];
#end
        let offset_sums = vec2<f32>(dot(sums_0, vec4<f32>(1.0)), dot(sums_1, vec4<f32>(1.0)));
#endif
#endif
#ifdef ONE_TOKEN
        for (var row = 0u; row < count; row++) {
            let base = row_word(row);
            // The scales wait until the block is summed.
            var parts: array<vec4<f32>, PARTS>;
#for C in SLICE_CHUNKS
            let word_$C = load_word(base, chunk_$C);
#for Q in CHUNK_QUADS
            parts[($C * CHUNK_QUADS + $Q) / PART_QUADS] =
                fma(unpack_quad(word_$C, $Qu), slice[$C * CHUNK_QUADS + $Q], parts[($C * CHUNK_QUADS + $Q) / PART_QUADS]);
#end
#end
#ifdef SCALED
            let scales = pair_scales(base, block / 2u);
#ifdef HALVES
            let halves = parts[0] * scales.x + parts[1] * scales.y + parts[2] * scales.z + parts[3] * scales.w;
            var sum = dot(halves, vec4<f32>(1.0));
#else
            var sum = dot(parts[0] * scales.x + parts[1] * scales.z, vec4<f32>(1.0));
#endif
#else
            var sum = dot(parts[0], vec4<f32>(1.0));
#endif
#ifdef OFFSET
            sum += dot(scales.yw, offset_sums);
#endif
            let total = factor * lane_sum(sum);
            if lane == 0u {
                wg_sums[row] = total + select(0.0, sum_of(row, 0u), slice_began);
            }
        }
#else
        for (var row = 0u; row < count; row++) {
            let base = row_word(row);
#ifdef SHORT_BLOCKS
            // Two words, of a block each.
            let scales = pair_scales(base, block / 2u);
            let scale_0 = scales.xy;
            let scale_1 = scales.zw;
#else
            let scale = block_scale(base, block);
#for C in SLICE_CHUNKS
            let scale_$C = scale;
#end
#endif
            // One sum per token: with the lanes of a quad apart there would be more of them than a processor has registers. All words are loaded
            // before any is used: every load of this many lanes is full of branches, and compilers schedule what stands between two.
            var parts: array<f32, TOKENS>;
#for C in SLICE_CHUNKS
            let word_$C = load_word(base, chunk_$C);
#end
#for C in SLICE_CHUNKS
#for Q in CHUNK_QUADS
            let quad_$C_$Q = weight_quad(word_$C, $Qu, scale_$C);
#for I in 4
#for T in TOKENS
            parts[$T] = fma(quad_$C_$Q[$I], slice[$T * SLICE_QUADS + $C * CHUNK_QUADS + $Q][$I], parts[$T]);
#end
#end
#end
#end
            var totals: array<f32, TOKEN_QUADS>;
#for G in TOKEN_QUADS
            totals[$G] = factor * lane_sum_of_four(vec4<f32>(parts[4 * $G], parts[4 * $G + 1], parts[4 * $G + 2], parts[4 * $G + 3]), lane);
#end
            for (var token = lane; token < TOKENS; token += WG) {
                var total = totals[0];
#for G in TOKEN_QUADS
                total = select(total, totals[$G], token / 4u == $Gu);
#end
                if slice_began {
                    total += sum_of(row, token);
                }
                own_sums[row * LANE_TOKENS + token / WG] = total;
            }
        }
#endif
        slice_began = true;
    }
}

// Stores four rows from `row` on; beyond the last one that again.
fn store_quad(token: u32, first: u32, row: u32, count: u32, scale: f32) {
    var sums: vec4<f32>;
    for (var j = 0u; j < 4u; j++) {
        sums[j] = select(0.0, scale * sum_of(min(row + j, count - 1u), token), slice_began);
    }
    store(token, first + row, sums);
}

// `first` is the row that row 0 of the workgroup is to store().
fn matmul_store(lane: u32, first: u32, count: u32) {
    var scale = 1.0;
#ifdef NORM
    scale = norm_scale(lane_sum(norm_squares));
#endif
#ifdef ONE_TOKEN
    workgroupBarrier();
    for (var row = lane * 4u; row < count; row += 4u * WG) {
        store_quad(0u, first, row, count, scale);
    }
#else
    for (var token = lane; token < TOKENS; token += WG) {
        for (var row = 0u; row < count; row += 4u) {
            store_quad(token, first, row, count, scale);
        }
    }
#endif
}
#else
const TEAMS: u32 = WG / LANES;

var<private> team_sums: array<vec4<f32>, TOKENS>; // of four rows

#ifdef ONE_TOKEN
#else
// The products of a quad of four rows with that of every token.
fn add_quad(
    rows: array<vec4<f32>, 4>,
    quad: u32,
    first_quads: ptr<function, array<u32, TOKENS>>,
    sums: ptr<function, array<vec4<f32>, TOKENS>>,
) {
    for (var token = 0u; token < TOKENS; token++) {
        let value = normed((*first_quads)[token] + quad, true);
        (*sums)[token] += vec4<f32>(dot(rows[0], value), dot(rows[1], value), dot(rows[2], value), dot(rows[3], value));
    }
}
#endif

// Adds `factor` times the products of this team's four rows with the activations that begin at token_quads. Rows past count repeat the last.
fn matmul_rows(local: u32, count: u32, token_quads: array<u32, TOKENS>, factor: f32) {
    var quads = token_quads;
    var sums: array<vec4<f32>, TOKENS>;
    let row = local / LANES * 4u;
    let row_0 = row_word(min(row, count - 1u));
    let row_1 = row_word(min(row + 1u, count - 1u));
    let row_2 = row_word(min(row + 2u, count - 1u));
    let row_3 = row_word(min(row + 3u, count - 1u));
#ifdef LANES_1
    let row_end = select(ROW_CHUNKS, 0u, count == 0u); // no constants: what software devices would unroll they compile for minutes
    let chunk_quads = select(CHUNK_QUADS, 0u, count == 0u);
#else
    let row_end = ROW_CHUNKS;
#endif
#ifdef ONE_TOKEN
    // STEP_CHUNKS words of each row are under way at once; beyond the end of a row the last again, which meets zeros. Scales and offsets wait
    // until the products of the word are summed.
    for (var chunk = local % LANES; chunk < row_end; chunk += STEP_CHUNKS * LANES) {
#for U in STEP_CHUNKS
        let chunk_$U = min(chunk + $Uu * LANES, ROW_CHUNKS - 1u);
        let counts_$U = $Uu == 0u || chunk + $Uu * LANES < ROW_CHUNKS;
#for R in 4
        let word_$U_$R = load_word(row_$R, chunk_$U);
        let scale_$U_$R = block_scale(row_$R, chunk_$U / BLOCK_CHUNKS);
#end
#end
#for U in STEP_CHUNKS
        {
            var products = vec4<f32>();
#ifdef OFFSET
            var values = 0.0;
#endif
#for Q in CHUNK_QUADS
            let value_$Q = normed(quads[0] + chunk_$U * CHUNK_QUADS + $Qu, counts_$U);
            products += vec4<f32>(
#for R in 4
                dot(unpack_quad(word_$U_$R, $Qu), value_$Q),
#end
            );
#ifdef HALVES
            if $Qu == SCALE_QUADS / 2u - 1u {
                sums[0] = fma(vec4<f32>(scale_$U_0.x, scale_$U_1.x, scale_$U_2.x, scale_$U_3.x), products, sums[0]);
                products = vec4<f32>();
            }
#endif
#ifdef OFFSET
            values += dot(value_$Q, vec4<f32>(1.0));
#endif
#end
#ifdef HALF_BITS
            products *= HALF_FACTOR;
#endif
#ifdef HALVES
            sums[0] = fma(vec4<f32>(scale_$U_0.y, scale_$U_1.y, scale_$U_2.y, scale_$U_3.y), products, sums[0]);
#else
            sums[0] = fma(vec4<f32>(scale_$U_0.x, scale_$U_1.x, scale_$U_2.x, scale_$U_3.x), products, sums[0]);
#endif
#ifdef OFFSET
            sums[0] = fma(vec4<f32>(scale_$U_0.y, scale_$U_1.y, scale_$U_2.y, scale_$U_3.y), vec4<f32>(values), sums[0]);
#endif
        }
#end
    }
#else
    for (var chunk = local % LANES; chunk < row_end; chunk += LANES) {
        let word_0 = load_word(row_0, chunk);
        let word_1 = load_word(row_1, chunk);
        let word_2 = load_word(row_2, chunk);
        let word_3 = load_word(row_3, chunk);
        let block = chunk / BLOCK_CHUNKS;
        let scale_0 = block_scale(row_0, block);
        let scale_1 = block_scale(row_1, block);
        let scale_2 = block_scale(row_2, block);
        let scale_3 = block_scale(row_3, block);
#ifdef LANES_1
        for (var quad = 0u; quad < chunk_quads; quad++) {
            let rows = array<vec4<f32>, 4>(
                weight_quad(word_0, quad, scale_0),
                weight_quad(word_1, quad, scale_1),
                weight_quad(word_2, quad, scale_2),
                weight_quad(word_3, quad, scale_3),
            );
            add_quad(rows, chunk * CHUNK_QUADS + quad, &quads, &sums);
        }
#else
        if CHUNK_QUADS >= 4u {
            // A loop whose bound is no constant: unrolled, the activations of all quads would be loaded before any is used, and take more registers
            // than a GPU has for enough waves.
            for (var quad = 0u; quad < select(CHUNK_QUADS, 0u, count == 0u); quad++) {
                let rows = array<vec4<f32>, 4>(
                    weight_quad(first_quad(word_0, quad), 0u, quad_scale(scale_0, quad)),
                    weight_quad(first_quad(word_1, quad), 0u, quad_scale(scale_1, quad)),
                    weight_quad(first_quad(word_2, quad), 0u, quad_scale(scale_2, quad)),
                    weight_quad(first_quad(word_3, quad), 0u, quad_scale(scale_3, quad)),
                );
                add_quad(rows, chunk * CHUNK_QUADS + quad, &quads, &sums);
            }
        } else {
#for Q in CHUNK_QUADS
            let rows_$Q = array<vec4<f32>, 4>(
                weight_quad(word_0, $Qu, scale_0),
                weight_quad(word_1, $Qu, scale_1),
                weight_quad(word_2, $Qu, scale_2),
                weight_quad(word_3, $Qu, scale_3),
            );
            add_quad(rows_$Q, chunk * CHUNK_QUADS + $Qu, &quads, &sums);
#end
        }
#endif
    }
#endif
    for (var token = 0u; token < TOKENS; token++) {
        team_sums[token] += factor * sums[token];
    }
}

#ifdef LANES_1
fn matmul_store(local: u32, first: u32, count: u32) {
    let rows = local * 4u;
    if rows >= count {
        return;
    }
    var scale = 1.0;
#ifdef NORM
    scale = norm_scale(norm_squares);
#endif
    for (var token = 0u; token < TOKENS; token++) {
        store(token, first + rows, scale * team_sums[token]);
    }
}
#else
#ifdef SUBGROUPS
#import lane_sum

// The team lies in one subgroup.
fn matmul_store(local: u32, first: u32, count: u32) {
    let lane = local % LANES;
    let rows = local / LANES * 4u;
    var scale = 1.0;
#ifdef NORM
    scale = norm_scale(lane_sum(norm_squares));
#endif
    for (var token = 0u; token < TOKENS; token++) {
        let sum = lane_sum_of_vectors(team_sums[token]);
        if lane == token && rows < count {
            store(token, first + rows, scale * sum);
        }
    }
}
#else
var<workgroup> wg_partial: array<vec4<f32>, WG * TOKENS>;
#ifdef NORM
var<workgroup> wg_squares: array<f32, WG>;
#endif

// Lane `token` of a team adds up what its team's lanes have for that token. One barrier.
fn matmul_store(local: u32, first: u32, count: u32) {
    let lane = local % LANES;
    let rows = local / LANES * 4u;
    let base = (local - lane) * TOKENS;
    for (var token = 0u; token < TOKENS; token++) {
        wg_partial[base + lane * TOKENS + token] = team_sums[token];
    }
#ifdef NORM
    wg_squares[local] = norm_squares;
#endif
    workgroupBarrier();
    if lane >= TOKENS || rows >= count {
        return;
    }
    var sum = vec4<f32>();
    for (var other = 0u; other < LANES; other++) {
        sum += wg_partial[base + other * TOKENS + lane];
    }
#ifdef NORM
    var squares = 0.0;
    for (var other = 0u; other < LANES; other++) {
        squares += wg_squares[local - lane + other];
    }
    sum *= norm_scale(squares);
#endif
    store(lane, first + rows, sum);
}
#endif
#endif
#endif

// Stores the products of `count` rows from `first` on with `num_tokens` tokens, neither of them 0. Tokens past the end repeat the last one;
// store() drops them.
fn matmul_batch(local: u32, first: u32, count: u32, num_tokens: u32) {
    var token_quads: array<u32, TOKENS>;
    for (var token = 0u; token < TOKENS; token++) {
        token_quads[token] = token_quad(min(token, num_tokens - 1u));
    }
    matmul_rows(local, count, token_quads, 1.0);
    matmul_store(local, first, count);
}
#endif
