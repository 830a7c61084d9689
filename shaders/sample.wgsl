// sample: the next token of a sequence, and the row that feeds it to the next step.
// grid      one workgroup per sequence: workgroup_id.x = row of logits
// sampling  the caller's choices                            in   uniform
// logits    [num_sequences, VOCAB] f32                      in
// seen      [num_sequences, SEEN_WORDS] u32                 in, out  one bit per token of the sequence so far
// rows      [num_tokens] Row                                in   row first_row + workgroup: the last token so far
//                                                           out  row workgroup: the chosen token at the next position;
//                                                                first_row is 0 or at least num_sequences
// sampled   [num_sequences, RING] u32                       out  the chosen token, at its position modulo RING; with its highest bit set
//                                                                where a logit is not finite
// halt      [..] u32                                        in   #ifdef PAGED: where its first word is not 0, the last token goes on to the next
//                                                                position, and nothing else is written
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
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> seen: array<u32>;
@group(0) @binding(4) var<storage, read_write> rows: array<Row>;
@group(0) @binding(5) var<storage, read_write> sampled: array<u32>;
#ifdef PAGED
@group(0) @binding(6) var<storage, read> halt: array<u32>;

var<workgroup> wg_is_halted: u32;
#endif

const SEEN_WORDS: u32 = (VOCAB + 31u) / 32u;
const CHUNK: u32 = (VOCAB + WG - 1u) / WG;
const LOWEST: f32 = -3.0e38;
const FAULT: u32 = 0x80000000u;
const PASS_BITS: u32 = 3u; // eight thresholds

// A block is BLOCK_STEPS tokens, WG apart; a span is WG blocks side by side.
const MAX_BLOCKS: u32 = 1024u;
const BLOCK_STEPS: u32 = (VOCAB + MAX_BLOCKS * LOADS - 1u) / (MAX_BLOCKS * LOADS) * LOADS;
const NUM_SPANS: u32 = (VOCAB + BLOCK_STEPS * WG - 1u) / (BLOCK_STEPS * WG);
const NUM_BLOCKS: u32 = NUM_SPANS * WG;

const CANDIDATES: u32 = 384u;
const GROUPS: u32 = 16u; // parts of a sum over the workgroup

// Eight sums at once.
struct Sums {
    low: vec4<f32>,
    high: vec4<f32>,
}

var<workgroup> wg_low: array<vec4<f32>, WG>;
var<workgroup> wg_high: array<vec4<f32>, GROUPS>;
var<workgroup> wg_maxima: array<f32, NUM_BLOCKS>;
var<workgroup> wg_num_blocks: atomic<u32>;
var<workgroup> wg_num_found: atomic<u32>;
var<workgroup> wg_count: u32;
// Candidates as they were found; the ids serve other lists before and after.
var<workgroup> wg_found: array<u32, CANDIDATES>;
var<workgroup> wg_masses: array<f32, CANDIDATES>;
// Candidates by ascending id.
var<workgroup> wg_ids: array<u32, CANDIDATES>;
var<workgroup> wg_scaled: array<f32, CANDIDATES>;
var<workgroup> wg_bound: f32;
var<workgroup> wg_choice: u32;

var<private> top_logit: f32;

// The bound of a loop. #ifdef ROLLED it is no constant, and loops stay loops: software devices compile each load of eight lanes into a page of code.
fn trips(count: u32) -> u32 {
#ifdef ROLLED
    return count * min(1u, arrayLength(&rows));
#else
    return count;
#endif
}

// LOADS logits, `stride` tokens apart, after the penalty; LOWEST from `end` on. All are under way before any is looked at.
fn next_logits(sequence: u32, first: u32, stride: u32, end: u32) -> array<f32, LOADS> {
#for I in LOADS
    let token_$I = min(first + $Iu * stride, VOCAB - 1u);
    var logit_$I = logits[sequence * VOCAB + token_$I];
#end
    if sampling.repeat_penalty != 1.0 {
#for I in LOADS
        let word_$I = seen[sequence * SEEN_WORDS + token_$I / 32u];
#end
#for I in LOADS
        let penalized_$I = select(logit_$I / sampling.repeat_penalty, logit_$I * sampling.repeat_penalty, logit_$I < 0.0);
        logit_$I = select(logit_$I, penalized_$I, ((word_$I >> (token_$I % 32u)) & 1u) != 0u);
#end
    }
    return array<f32, LOADS>(
#for I in LOADS
        select(LOWEST, logit_$I, first + $Iu * stride < end),
#end
    );
}

// (logit - maximum) / temperature
fn scaled(logit: f32) -> f32 {
    return max(logit - top_logit, -1.0e30) / sampling.temperature;
}

// Larger f32, larger key.
fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

// The sum over the workgroup, in every invocation, always in the same order.
fn sum_vectors(local: u32, value: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    wg_low[local] = value;
    workgroupBarrier();
    if local < GROUPS {
        var sum = vec4<f32>();
        for (var other = 0u; other < trips(WG / GROUPS); other++) {
            sum += wg_low[local * (WG / GROUPS) + other];
        }
        wg_high[local] = sum;
    }
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var other = 0u; other < trips(GROUPS); other++) {
        sum += wg_high[other];
    }
    return sum;
}

fn sum_all(local: u32, sums: Sums) -> Sums {
    var all = sums;
    for (var half = 0u; half < 2u * min(1u, arrayLength(&rows)); half++) {
        let sum = sum_vectors(local, select(sums.low, sums.high, half == 1u));
        all.low = select(all.low, sum, half == 0u);
        all.high = select(all.high, sum, half == 1u);
    }
    return all;
}

// Thresholds that differ in the next PASS_BITS bits: key, and that with 1, 2, ... at `shift`. In the last step two bits are left: 3 stands for 3
// to 7.
fn thresholds_low(key: u32, shift: u32) -> vec4<u32> {
    return vec4<u32>(key) | (vec4<u32>(0u, 1u, 2u, 3u) << vec4<u32>(shift));
}

fn thresholds_high(key: u32, shift: u32) -> vec4<u32> {
    return vec4<u32>(key) | (select(vec4<u32>(3u), vec4<u32>(4u, 5u, 6u, 7u), vec4<bool>(shift > 0u)) << vec4<u32>(shift));
}

// The highest of those thresholds that amounts to at least `goal`.
fn refine(key: u32, shift: u32, sums: Sums, goal: f32) -> u32 {
    let low = select(vec4<u32>(), vec4<u32>(1u), sums.low >= vec4<f32>(goal));
    let high = select(vec4<u32>(), vec4<u32>(1u), sums.high >= vec4<f32>(goal));
    let digit = low.y + low.z + low.w + high.x + high.y + high.z + high.w;
    return key | (select(min(digit, 3u), digit, shift > 0u) << shift);
}

// What the tokens from each threshold up amount to: their number, or #by_mass their unnormalised probability. #of_blocks: the blocks by their highest
// logits, which are not scaled.
fn measure(local: u32, sequence: u32, low: vec4<u32>, high: vec4<u32>, by_mass: bool, of_blocks: bool) -> Sums {
    var sums = Sums(vec4<f32>(), vec4<f32>());
    for (var first = local; first < select(VOCAB, NUM_BLOCKS, of_blocks); first += LOADS * WG) {
        var values: array<f32, LOADS>;
        if of_blocks {
#for I in LOADS
            values[$I] = select(LOWEST, wg_maxima[min(first + $Iu * WG, NUM_BLOCKS - 1u)], first + $Iu * WG < NUM_BLOCKS);
#end
        } else {
            values = next_logits(sequence, first, WG, VOCAB);
        }
#for I in LOADS
        {
            let value = select(scaled(values[$I]), values[$I], of_blocks);
            let key = vec4<u32>(key_of(value));
            let amount = vec4<f32>(select(1.0, exp(value), by_mass) * select(0.0, 1.0, values[$I] > LOWEST));
            sums.low += select(vec4<f32>(), amount, key >= low);
            sums.high += select(vec4<f32>(), amount, key >= high);
        }
#end
    }
    return sum_all(local, sums);
}

// Finds the tokens that reach `bound`, in no order. Their number, which may be more than CANDIDATES: then they are not all there.
fn collect(local: u32, sequence: u32, bound: f32) -> u32 {
    for (var block = local; block < NUM_BLOCKS; block += WG) {
        if scaled(wg_maxima[block]) >= bound {
            let place = atomicAdd(&wg_num_blocks, 1u);
            if place < CANDIDATES {
                wg_ids[place] = block;
            }
        }
    }
    workgroupBarrier();
    if local == 0u {
        wg_count = atomicLoad(&wg_num_blocks);
    }
    let num_blocks = workgroupUniformLoad(&wg_count);
    if num_blocks > CANDIDATES {
        return num_blocks;
    }
    const TRIPS = BLOCK_STEPS / LOADS;
    for (var i = local; i < num_blocks * TRIPS; i += WG) {
        let block = wg_ids[i / TRIPS];
        let first = (block / WG * BLOCK_STEPS + i % TRIPS * LOADS) * WG + block % WG;
        let values = next_logits(sequence, first, WG, VOCAB);
#for I in LOADS
        {
            let value = scaled(values[$I]);
            if values[$I] > LOWEST && value >= bound {
                let place = atomicAdd(&wg_num_found, 1u);
                if place < CANDIDATES {
                    wg_found[place] = first + $Iu * WG;
                    wg_masses[place] = value;
                }
            }
        }
#end
    }
    workgroupBarrier();
    if local == 0u {
        wg_count = atomicLoad(&wg_num_found);
    }
    return workgroupUniformLoad(&wg_count);
}

// A token drawn from `count` candidates; `total` is the mass of all tokens, and counts where there is no top-k.
fn draw_candidate(local: u32, count: u32, total: f32, best: u32, uniform_number: f32) -> u32 {
    // In the order of their ids, so that no sum depends on who was found first.
    for (var i = local; i < count; i += WG) {
        let id = wg_found[i];
        var place = 0u;
        for (var other = 0u; other < count; other++) {
            place += u32(wg_found[other] < id);
        }
        wg_ids[place] = id;
        wg_scaled[place] = wg_masses[i];
    }
    workgroupBarrier();
    let by_rank = sampling.top_k > 0u && sampling.top_k < VOCAB;
    for (var i = local; i < count; i += WG) {
        let value = wg_scaled[i];
        var better = 0u;
        for (var other = 0u; other < count; other++) {
            better += u32(wg_scaled[other] > value);
        }
        wg_masses[i] = select(exp(value), 0.0, by_rank && better >= sampling.top_k);
    }
    workgroupBarrier();
    if sampling.top_p < 1.0 {
        for (var i = local; i < count; i += WG) {
            let value = wg_scaled[i];
            var all = 0.0;
            var better = 0.0;
            for (var other = 0u; other < count; other++) {
                let mass = wg_masses[other];
                all += mass;
                better += select(0.0, mass, wg_scaled[other] > value);
            }
            let goal = sampling.top_p * select(total, all, by_rank);
            wg_found[i] = u32(better == 0.0 || better < goal);
        }
    } else {
        for (var i = local; i < count; i += WG) {
            wg_found[i] = 1u;
        }
    }
    workgroupBarrier();
    if local == 0u {
        var kept = 0.0;
        for (var i = 0u; i < count; i++) {
            let mass = select(0.0, wg_masses[i], wg_found[i] != 0u && wg_masses[i] >= sampling.min_p);
            wg_masses[i] = mass;
            kept += mass;
        }
        let goal = uniform_number * kept;
        var reached = 0.0;
        wg_choice = best;
        for (var i = 0u; i < count; i++) {
            reached += wg_masses[i];
            if wg_masses[i] > 0.0 && goal < reached {
                wg_choice = wg_ids[i];
                break;
            }
        }
    }
    workgroupBarrier();
    return wg_choice;
}

fn kept_mass(logit: f32, floor_key: u32) -> f32 {
    let value = scaled(logit);
    let mass = exp(value);
    return select(0.0, mass, logit > LOWEST && key_of(value) >= floor_key && mass >= sampling.min_p);
}

// A token drawn with probability proportional to its kept mass; `best` if rounding leaves none.
fn draw(local: u32, sequence: u32, floor_key: u32, best: u32, uniform_number: f32) -> u32 {
    let first = local * CHUNK;
    let end = min(first + CHUNK, VOCAB);
    var mine = 0.0;
    for (var token = first; token < end; token += LOADS) {
        let values = next_logits(sequence, token, 1u, end);
#for I in LOADS
        mine += kept_mass(values[$I], floor_key);
#end
    }
    let goal = uniform_number * sum_vectors(local, vec4<f32>(mine)).x;
    var reached = 0.0; // the mass of the invocations before this one
    for (var other = 0u; other < local; other++) {
        reached += wg_low[other].x;
    }
    if local == 0u {
        wg_choice = best;
    }
    workgroupBarrier();
    if reached <= goal && goal < reached + mine {
        for (var token = first; token < end && reached <= goal; token += LOADS) {
            let values = next_logits(sequence, token, 1u, end);
#for I in LOADS
            {
                let mass = kept_mass(values[$I], floor_key);
                if mass > 0.0 && reached <= goal {
                    wg_choice = token + $Iu;
                    reached += mass;
                }
            }
#end
        }
    }
    workgroupBarrier();
    return wg_choice;
}

// Values that top-p alone tries first, from the highest on; the last threshold, 0, is for the total mass.
const REACH_LOW = vec4<f32>(-0.5, -1.0, -2.0, -3.0);
const REACH_HIGH = vec4<f32>(-4.0, -6.0, -8.0, LOWEST);

// The passes: over the blocks, for a logit that TOP_K of them reach, 18 bits of it; over all logits, for a value that enough probability reaches.
// Then what reaches it is collected. Where that is too much: over all logits, for the last kept key by rank, the total mass, and the key by mass.
const REACH_PASS: u32 = 6u;
const RANK_PASS: u32 = REACH_PASS + 1u;
const TOTAL_PASS: u32 = RANK_PASS + (32u + PASS_BITS - 1u) / PASS_BITS;
const MASS_PASS: u32 = TOTAL_PASS + 1u;
const PASSES: u32 = MASS_PASS + TOTAL_PASS - RANK_PASS;

fn draw_token(local: u32, sequence: u32, best: u32, uniform_number: f32) -> u32 {
    let by_rank = sampling.top_k > 0u && sampling.top_k < VOCAB;
    let by_share = sampling.top_p < 1.0;
    var bound = LOWEST; // a value
    if !by_rank && !by_share && sampling.min_p > 0.0 {
        bound = log(sampling.min_p) - 0.001;
    }
    var total = 0.0; // mass of all tokens
    var floor_key = 0u;
    var key = 0u;
    var goal = f32(sampling.top_k);
    // One loop over all kinds of passes, so that drivers compile `measure` once.
    for (var pass_index = 0u; pass_index <= PASSES; pass_index++) {
        if pass_index == RANK_PASS {
            key = 0u;
            // Uniform, which browsers have to see; and with room for rounding.
            if local == 0u {
                wg_bound = bound - 1.0e-5 * max(1.0, -bound);
            }
            let reached = workgroupUniformLoad(&wg_bound);
            if reached > LOWEST {
                let count = collect(local, sequence, reached);
                if count <= CANDIDATES {
                    return draw_candidate(local, count, total, best, uniform_number);
                }
            }
        }
        let of_blocks = pass_index < REACH_PASS;
        let is_reach = pass_index == REACH_PASS;
        let of_rank = pass_index >= RANK_PASS && pass_index < TOTAL_PASS;
        let is_total = pass_index == TOTAL_PASS;
        let of_mass = pass_index >= MASS_PASS;
        if pass_index == PASSES || ((of_blocks || of_rank) && !by_rank) || (is_reach && (by_rank || !by_share)) || ((is_total || of_mass) && !by_share) {
            continue;
        }
        var first = 0u;
        first = select(first, RANK_PASS, of_rank);
        first = select(first, MASS_PASS, of_mass);
        let bits = (pass_index - first) * PASS_BITS;
        let shift = max(29u, bits) - bits;
        var low = max(thresholds_low(key, shift), vec4<u32>(floor_key));
        var high = max(thresholds_high(key, shift), vec4<u32>(floor_key));
        if is_reach {
            low = vec4<u32>(key_of(REACH_LOW.x), key_of(REACH_LOW.y), key_of(REACH_LOW.z), key_of(REACH_LOW.w));
            high = vec4<u32>(key_of(REACH_HIGH.x), key_of(REACH_HIGH.y), key_of(REACH_HIGH.z), 0u);
        } else if is_total {
            low = vec4<u32>(floor_key);
        }
        let sums = measure(local, sequence, low, high, is_reach || is_total || of_mass, of_blocks);
        if is_reach {
            total = sums.high.w;
#for I in 3
            bound = select(bound, REACH_HIGH[2 - $I], sums.high[2 - $I] >= sampling.top_p * total);
#end
#for I in 4
            bound = select(bound, REACH_LOW[3 - $I], sums.low[3 - $I] >= sampling.top_p * total);
#end
        } else if is_total {
            goal = sampling.top_p * sums.low.x;
        } else {
            key = refine(key, shift, sums, goal);
        }
        if pass_index + 1u == REACH_PASS && key > key_of(LOWEST) {
            bound = scaled(value_of(key));
        }
        if pass_index + 1u == TOTAL_PASS {
            floor_key = key;
            key = 0u;
        }
    }
    return draw(local, sequence, max(key, floor_key), best, uniform_number);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let sequence = workgroup.x;
#ifdef PAGED
    if local == 0u {
        wg_is_halted = halt[0];
    }
    if workgroupUniformLoad(&wg_is_halted) != 0u {
        // What runs behind a halt must not write where keys and values of the text are.
        if local == 0u {
            let last = rows[params.first_row + sequence];
            rows[sequence] = Row(last.token, last.position + 1u, last.sequence, 0u);
        }
        return;
    }
#endif

    // The best token, lowest id first. Drivers may assume that there is no NaN: an exponent of ones tells one, and an infinity.
    var top = LOWEST;
    var best = 0u;
    var fault = 0u;
    for (var span = 0u; span < trips(NUM_SPANS); span++) {
        var highest = LOWEST;
        for (var step = 0u; step < trips(BLOCK_STEPS); step += LOADS) {
            let first = (span * BLOCK_STEPS + step) * WG + local;
            let values = next_logits(sequence, first, WG, VOCAB);
#for I in LOADS
            {
                let logit = values[$I];
                fault |= select(0u, FAULT, (bitcast<u32>(logit) & 0x7f800000u) == 0x7f800000u);
                highest = max(highest, logit);
                if logit > top {
                    top = logit;
                    best = first + $Iu * WG;
                }
            }
#end
        }
        wg_maxima[span * WG + local] = highest;
    }
    if local == 0u {
        atomicStore(&wg_num_blocks, 0u);
        atomicStore(&wg_num_found, 0u);
    }
    wg_low[local] = vec4<f32>(top);
    wg_found[local] = best | fault;
    workgroupBarrier();
    for (var other = 0u; other < trips(WG); other++) {
        let rival = wg_low[other].x;
        let rival_id = wg_found[other] & ~FAULT;
        fault |= wg_found[other] & FAULT;
        if rival > top || (rival == top && rival_id < best) {
            top = rival;
            best = rival_id;
        }
    }
    workgroupBarrier();
    top_logit = top;

    let row = rows[params.first_row + sequence];
    var choice = best;
    if sampling.temperature > 0.0 {
        choice = draw_token(local, sequence, best, uniform_f32(sampling.seed, row.position));
    }

    storageBarrier(); // everyone has read rows and seen
    if local == 0u {
        let word = sequence * SEEN_WORDS + choice / 32u;
        seen[word] |= 1u << (choice % 32u);
        rows[sequence] = Row(choice, row.position + 1u, row.sequence, 0u);
        sampled[sequence * RING + (row.position + 1u) % RING] = choice | fault;
    }
}
