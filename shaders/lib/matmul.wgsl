// matmul: four weight rows times TOKENS activation rows, by a team of LANES invocations.
// needs     fn weight_word(word: u32) -> vec4<u32>         16-byte words of the weights
//           fn activation(quad: u32) -> vec4<f32>          four values of the activations
//           fn store(token: u32, rows: u32, sums: vec4<f32>)  one finished result: four rows of one token
// consts    WG invocations per workgroup, LANES per team (1, or a power of two >= TOKENS), TOKENS per tile,
//           K_CHUNKS chunks of 8 columns per row
// flags     LANES_1 no reduction; SUBGROUPS LANES is the subgroup size; otherwise workgroup memory
// A lane takes every LANES-th chunk of the columns. All accumulation is in f32.

#import weights

const TEAMS: u32 = WG / LANES;
const ROW_WORDS: u32 = K_CHUNKS * CHUNK_WORDS;
const ROW_QUADS: u32 = K_CHUNKS * 2u;

// sums[token] holds the four rows.
fn matmul_tile(lane: u32, row_words: vec4<u32>, token_quads: array<u32, TOKENS>) -> array<vec4<f32>, TOKENS> {
    var quads = token_quads;
    var sums: array<vec4<f32>, TOKENS>;
    for (var chunk = lane; chunk < K_CHUNKS; chunk += LANES) {
        let word = row_words + chunk * CHUNK_WORDS;
        let w0 = weight_chunk(word.x);
        let w1 = weight_chunk(word.y);
        let w2 = weight_chunk(word.z);
        let w3 = weight_chunk(word.w);
        for (var token = 0u; token < TOKENS; token++) {
            let lo = activation(quads[token] + chunk * 2u);
            let hi = activation(quads[token] + chunk * 2u + 1u);
            sums[token] += vec4<f32>(
                dot(w0.lo, lo) + dot(w0.hi, hi),
                dot(w1.lo, lo) + dot(w1.hi, hi),
                dot(w2.lo, lo) + dot(w2.hi, hi),
                dot(w3.lo, lo) + dot(w3.hi, hi),
            );
        }
    }
    return sums;
}

#ifdef LANES_1
fn finish_tile(lane: u32, team: u32, rows: u32, partial: array<vec4<f32>, TOKENS>) {
    var sums = partial;
    for (var token = 0u; token < TOKENS; token++) {
        store(token, rows, sums[token]);
    }
}
#else
#ifdef SUBGROUPS
// The team is one subgroup.
fn finish_tile(lane: u32, team: u32, rows: u32, partial: array<vec4<f32>, TOKENS>) {
    var sums = partial;
    for (var token = 0u; token < TOKENS; token++) {
        let sum = subgroupAdd(sums[token]);
        if lane == token {
            store(token, rows, sum);
        }
    }
}
#else
var<workgroup> wg_partial: array<vec4<f32>, WG * TOKENS>;

// Lane `token` of a team adds up what its team's lanes have for that token. One barrier: call it once, from uniform control flow.
fn finish_tile(lane: u32, team: u32, rows: u32, partial: array<vec4<f32>, TOKENS>) {
    var sums = partial;
    let base = team * LANES * TOKENS;
    for (var token = 0u; token < TOKENS; token++) {
        wg_partial[base + lane * TOKENS + token] = sums[token];
    }
    workgroupBarrier();
    if lane < TOKENS {
        var sum = vec4<f32>();
        for (var other = 0u; other < LANES; other++) {
            sum += wg_partial[base + other * TOKENS + lane];
        }
        store(lane, rows, sum);
    }
}
#endif
#endif
