// rule_row: what a rule of a gating method has of one token, and what it offers to a rule. Everything is in private memory: an invocation is a token.
// consts    NUM_EXPERTS, WIDTH assignments that a token may have, ROUTER_ROWS numbers of the router's product for a token, ROUTER_STRIDE from
//           one token to the next, HAS_ROUTER whether they are read
// A rule is fn choose(), which reads l and calls put(), and fn differentiate(), which reads dw and dp and adds to dl, or to dz.
// The kernel declares params, router, noise, state and rows, and sets `token`.

const NONE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.4e38;

var<private> token: u32;
var<private> z: array<f32, ROUTER_ROWS>; // the router's product
var<private> dz: array<f32, ROUTER_ROWS>; // its gradient, beside that of the logits
var<private> l: array<f32, NUM_EXPERTS>; // router logits: the first columns of the product, unless OWN_LOGITS
var<private> dl: array<f32, NUM_EXPERTS>; // their gradient; the losses' share of it is there before differentiate()
var<private> p: array<f32, NUM_EXPERTS>; // what losses take for the shares of experts
var<private> dp: array<f32, NUM_EXPERTS>; // the gradient of the shares, from losses
var<private> s: array<f32, NUM_EXPERTS>; // scores, where a rule has others
var<private> ds: array<f32, NUM_EXPERTS>; // their gradient
var<private> key: array<f32, NUM_EXPERTS>; // what the choice goes by
var<private> worth: array<f32, NUM_EXPERTS>; // of groups
var<private> is_taken: array<bool, NUM_EXPERTS>;
var<private> put_ids: array<u32, WIDTH>;
var<private> put_weights: array<f32, WIDTH>;
var<private> dw: array<f32, WIDTH>; // gradient of the routing weights, zero where there is no expert

fn setting(i: u32) -> f32 {
    return params.settings[i / 4u][i % 4u];
}

fn is_training() -> bool {
    return params.is_training == 1u;
}

// Number i of one kind of noise, of which params.noise holds where it begins and how many a token has. Without noise it is zero.
fn noise_at(kind: u32, i: u32) -> f32 {
    if i >= params.noise[2u * kind + 1u] {
        return 0.0;
    }
    return noise[token * params.noise_stride + params.noise[2u * kind] + i];
}

fn state_at(i: u32) -> f32 {
    return state[i];
}

fn token_id() -> u32 {
    return rows[2u * token];
}

fn domain() -> u32 {
    return rows[2u * token + 1u];
}

fn sigmoid(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn softplus(x: f32) -> f32 {
    return max(x, 0.0) + log(1.0 + exp(-abs(x)));
}

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

// The softmax of some logits becomes their shares.
fn softmax_range(first: u32, len: u32) {
    var most = LOWEST;
    for (var i = first; i < first + len; i++) {
        most = max(most, l[i]);
    }
    var total = 0.0;
    for (var i = first; i < first + len; i++) {
        p[i] = exp(l[i] - most);
        total += p[i];
    }
    for (var i = first; i < first + len; i++) {
        p[i] /= total;
    }
}

fn softmax_all() {
    softmax_range(0u, NUM_EXPERTS);
}

// The same of the keys.
fn softmax_keys() {
    var most = LOWEST;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        most = max(most, key[i]);
    }
    var total = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        p[i] = exp(key[i] - most);
        total += p[i];
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        p[i] /= total;
    }
}

fn softmax_back_range(first: u32, len: u32) {
    var mean = 0.0;
    for (var i = first; i < first + len; i++) {
        mean += p[i] * dp[i];
    }
    for (var i = first; i < first + len; i++) {
        dl[i] += p[i] * (dp[i] - mean);
    }
}

fn softmax_back() {
    softmax_back_range(0u, NUM_EXPERTS);
}

// Shares are scores over their sum: the gradient of these scores.
fn shares_back() {
    var mean = 0.0;
    var total = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        mean += p[i] * dp[i];
        total += s[i];
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        ds[i] = (dp[i] - mean) / total;
    }
}

fn copy_keys() {
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        key[i] = l[i];
    }
}

// The expert with the highest key of those that were not put; of equal ones the lower id.
fn best_left_of(first: u32, len: u32) -> u32 {
    var best = NONE;
    var most = LOWEST;
    for (var i = first; i < first + len; i++) {
        if !is_taken[i] && (best == NONE || key[i] > most) {
            best = i;
            most = key[i];
        }
    }
    return best;
}

fn best_left() -> u32 {
    return best_left_of(0u, NUM_EXPERTS);
}

// Experts of groups that are not among the best lose their keys. A group is worth the sum of its best keys, one or two.
fn keep_groups(num_groups: u32, num_kept: u32, num_counted: u32) {
    let len = NUM_EXPERTS / num_groups;
    for (var group = 0u; group < num_groups; group++) {
        var best = vec2<f32>(LOWEST, LOWEST);
        for (var i = group * len; i < (group + 1u) * len; i++) {
            if key[i] > best.x {
                best = vec2<f32>(key[i], best.x);
            } else if key[i] > best.y {
                best.y = key[i];
            }
        }
        worth[group] = select(best.x, best.x + best.y, num_counted == 2u && len > 1u);
    }
    for (var group = 0u; group < num_groups; group++) {
        var better = 0u;
        for (var other = 0u; other < num_groups; other++) {
            better += select(0u, 1u, worth[other] > worth[group] || (worth[other] == worth[group] && other < group));
        }
        if better >= num_kept {
            for (var i = group * len; i < (group + 1u) * len; i++) {
                key[i] = LOWEST;
            }
        }
    }
}

fn put(rank: u32, expert: u32, weight: f32) {
    put_ids[rank] = expert;
    put_weights[rank] = weight;
    is_taken[expert] = true;
}

fn scale_weights(factor: f32) {
    for (var rank = 0u; rank < WIDTH; rank++) {
        put_weights[rank] *= factor;
    }
}

fn chosen(rank: u32) -> u32 {
    return put_ids[rank];
}

fn weight_of(rank: u32) -> f32 {
    return put_weights[rank];
}

// Logits are the first columns of the product; nothing is put.
fn open_token() {
    if HAS_ROUTER == 1u {
        for (var i = 0u; i < ROUTER_ROWS; i++) {
            z[i] = router[token * ROUTER_STRIDE + i];
        }
    }
    for (var rank = 0u; rank < WIDTH; rank++) {
        put_ids[rank] = NONE;
    }
    if !OWN_LOGITS {
        for (var i = 0u; i < min(NUM_EXPERTS, ROUTER_ROWS); i++) {
            l[i] = z[i];
        }
    }
}

// What was learned about the logits belongs to the product.
fn close_token() {
    if !OWN_LOGITS {
        for (var i = 0u; i < min(NUM_EXPERTS, ROUTER_ROWS); i++) {
            dz[i] += dl[i];
        }
    }
}
