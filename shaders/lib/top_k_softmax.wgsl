// top_k_softmax: the WIDTH best of the softmax over all experts; #ifdef RENORMALIZE: over their sum, which makes it the softmax over these alone.
// A rule: see gate_row.

fn choose() {
    softmax_all();
    var total = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        put(rank, expert, p[expert]);
        total += p[expert];
    }
#ifdef RENORMALIZE
    for (var rank = 0u; rank < WIDTH; rank++) {
        put(rank, chosen(rank), weight_of(rank) / total);
    }
#endif
}

fn differentiate() {
    var mean = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        mean += weight_of(rank) * dw[rank];
    }
#ifdef RENORMALIZE
    for (var rank = 0u; rank < WIDTH; rank++) {
        dl[chosen(rank)] += weight_of(rank) * (dw[rank] - mean);
    }
#else
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        dl[i] -= p[i] * mean;
    }
    for (var rank = 0u; rank < WIDTH; rank++) {
        dl[chosen(rank)] += weight_of(rank) * dw[rank];
    }
#endif
}
