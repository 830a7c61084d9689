// sample: the next token of a sequence, and the row that feeds it to the next step.
// grid      one workgroup per sequence: workgroup_id.x = row of logits
// sampling  the caller's choices                            in   uniform
// logits    [num_sequences, VOCAB] f32                      in, overwritten with (logit - maximum) / temperature
// seen      [num_sequences, SEEN_WORDS] u32                 in, out  one bit per token of the sequence so far
// rows      [num_tokens] Row                                in   row first_row + workgroup: the last token so far
//                                                           out  row workgroup: the chosen token at the next position;
//                                                                first_row is 0 or at least num_sequences
// sampled   [num_sequences, RING] u32                       out  the chosen token, at its position modulo RING; with its highest bit set
//                                                                where a logit is not finite
// Order of the filters as in transformers: repetition penalty, temperature, top-k, top-p, min-p. Tokens that tie with the last
// one kept are kept. The draw walks the kept tokens in the order of their ids.
// source    Keskar et al. 2019, arXiv 1909.05858 (penalty); Holtzman et al. 2019, arXiv 1904.09751 (top-p)
// twin      src/reference/sample.rs
#import rows
#import rng

struct Params {
    first_row: u32,
}

struct Sampling {
    temperature: f32, // 0: the best token, lowest id first
    top_k: u32,       // 0: off
    top_p: f32,       // 1: off
    min_p: f32,       // 0: off
    repeat_penalty: f32, // 1: off
    seed: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> sampling: Sampling;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> seen: array<u32>;
@group(0) @binding(4) var<storage, read_write> rows: array<Row>;
@group(0) @binding(5) var<storage, read_write> sampled: array<u32>;

const SEEN_WORDS: u32 = (VOCAB + 31u) / 32u;
const CHUNK: u32 = (VOCAB + WG - 1u) / WG;
const LOWEST: f32 = -3.0e38;
const FAULT: u32 = 0x80000000u;

var<workgroup> wg_values: array<f32, WG>;
var<workgroup> wg_ids: array<u32, WG>;
var<workgroup> wg_choice: u32;

fn penalized(sequence: u32, token: u32) -> f32 {
    let logit = logits[sequence * VOCAB + token];
    if ((seen[sequence * SEEN_WORDS + token / 32u] >> (token % 32u)) & 1u) == 0u {
        return logit;
    }
    return select(logit / sampling.repeat_penalty, logit * sampling.repeat_penalty, logit < 0.0);
}

// The sum over the workgroup, in every invocation.
fn sum_all(local: u32, value: f32) -> f32 {
    workgroupBarrier();
    wg_values[local] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var other = 0u; other < WG; other++) {
        sum += wg_values[other];
    }
    return sum;
}

// Larger f32, larger key.
fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// What the tokens from `floor_key` up amount to: their number, or #by_mass their unnormalised probability.
fn measure(local: u32, base: u32, floor_key: u32, by_mass: bool) -> f32 {
    var sum = 0.0;
    for (var token = local; token < VOCAB; token += WG) {
        let value = logits[base + token];
        if key_of(value) >= floor_key {
            sum += select(1.0, exp(value), by_mass);
        }
    }
    return sum_all(local, sum);
}

// The highest key, not below `floor_key`, from which up the tokens amount to at least `goal`: found bit by bit.
fn threshold(local: u32, base: u32, floor_key: u32, goal: f32, by_mass: bool) -> u32 {
    var key = 0u;
    for (var bit = 0x80000000u; bit != 0u; bit >>= 1u) {
        if measure(local, base, max(key | bit, floor_key), by_mass) >= goal {
            key |= bit;
        }
    }
    return max(key, floor_key);
}

fn kept_mass(value: f32, floor_key: u32) -> f32 {
    let mass = exp(value);
    return select(0.0, mass, key_of(value) >= floor_key && mass >= sampling.min_p);
}

// A token drawn with probability proportional to its kept mass; `best` if rounding leaves none.
fn draw(local: u32, base: u32, floor_key: u32, best: u32, uniform_number: f32) -> u32 {
    let first = local * CHUNK;
    let end = min(first + CHUNK, VOCAB);
    var mine = 0.0;
    for (var token = first; token < end; token++) {
        mine += kept_mass(logits[base + token], floor_key);
    }
    let goal = uniform_number * sum_all(local, mine);
    var reached = 0.0; // the mass of the invocations before this one
    for (var other = 0u; other < local; other++) {
        reached += wg_values[other];
    }
    if local == 0u {
        wg_choice = best;
    }
    workgroupBarrier();
    if reached <= goal && goal < reached + mine {
        for (var token = first; token < end; token++) {
            let mass = kept_mass(logits[base + token], floor_key);
            if mass > 0.0 {
                wg_choice = token;
                reached += mass;
                if goal < reached {
                    break;
                }
            }
        }
    }
    workgroupBarrier();
    return wg_choice;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let sequence = workgroup.x;
    let base = sequence * VOCAB;

    // The best token, lowest id first. Drivers may assume that there is no NaN: an exponent of ones tells one, and an infinity.
    var top = LOWEST;
    var best = 0u;
    var fault = 0u;
    for (var token = local; token < VOCAB; token += WG) {
        let logit = penalized(sequence, token);
        fault |= select(0u, FAULT, (bitcast<u32>(logit) & 0x7f800000u) == 0x7f800000u);
        if logit > top {
            top = logit;
            best = token;
        }
    }
    wg_values[local] = top;
    wg_ids[local] = best | fault;
    workgroupBarrier();
    for (var other = 0u; other < WG; other++) {
        let rival = wg_values[other];
        let rival_id = wg_ids[other] & ~FAULT;
        fault |= wg_ids[other] & FAULT;
        if rival > top || (rival == top && rival_id < best) {
            top = rival;
            best = rival_id;
        }
    }

    let row = rows[params.first_row + sequence];
    var choice = best;
    if sampling.temperature > 0.0 {
        for (var token = local; token < VOCAB; token += WG) {
            logits[base + token] = (penalized(sequence, token) - top) / sampling.temperature;
        }
        storageBarrier();
        var floor_key = 0u;
        if sampling.top_k > 0u && sampling.top_k < VOCAB {
            floor_key = threshold(local, base, floor_key, f32(sampling.top_k), false);
        }
        if sampling.top_p < 1.0 {
            let total = measure(local, base, floor_key, true);
            floor_key = threshold(local, base, floor_key, sampling.top_p * total, true);
        }
        choice = draw(local, base, floor_key, best, uniform_f32(sampling.seed, row.position));
    }

    storageBarrier(); // everyone has read rows and seen
    if local == 0u {
        let word = sequence * SEEN_WORDS + choice / 32u;
        seen[word] |= 1u << (choice % 32u);
        rows[sequence] = Row(choice, row.position + 1u, row.sequence, 0u);
        sampled[sequence * RING + (row.position + 1u) % RING] = choice | fault;
    }
}
