// gate_row: what a rule of a gating method has of one token, and what it offers to a rule. Everything is in private memory: an invocation is a token.
// consts    NUM_EXPERTS, WIDTH assignments that a token may have
// A rule is fn choose(), which reads l and calls put(), and fn differentiate(), which reads dw and adds to dl.

const NONE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.4e38;

var<private> l: array<f32, NUM_EXPERTS>; // router logits
var<private> p: array<f32, NUM_EXPERTS>; // router scores
var<private> dl: array<f32, NUM_EXPERTS>; // gradient of the logits
var<private> dw: array<f32, WIDTH>; // gradient of the routing weights, zero where there is no expert
var<private> put_ids: array<u32, WIDTH>;
var<private> put_weights: array<f32, WIDTH>;
var<private> is_taken: array<bool, NUM_EXPERTS>;

fn log_sum_exp() -> f32 {
    var most = LOWEST;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        most = max(most, l[i]);
    }
    var total = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        total += exp(l[i] - most);
    }
    return most + log(total);
}

// The softmax of all logits becomes the scores.
fn softmax_all() {
    var most = LOWEST;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        most = max(most, l[i]);
    }
    var total = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        p[i] = exp(l[i] - most);
        total += p[i];
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        p[i] /= total;
    }
}

// The expert with the highest logit of those that were not put; of equal ones the lower id.
fn best_left() -> u32 {
    var best = NONE;
    var most = LOWEST;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        if !is_taken[i] && (best == NONE || l[i] > most) {
            best = i;
            most = l[i];
        }
    }
    return best;
}

fn put(rank: u32, expert: u32, weight: f32) {
    put_ids[rank] = expert;
    put_weights[rank] = weight;
    if expert < NUM_EXPERTS {
        is_taken[expert] = true;
    }
}

fn chosen(rank: u32) -> u32 {
    return put_ids[rank];
}

fn weight_of(rank: u32) -> f32 {
    return put_weights[rank];
}
