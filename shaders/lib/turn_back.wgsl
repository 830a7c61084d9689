// turn_back: the gradient of a head before its rotary embedding, from that after it, and its way to memory.
// needs     var<storage, read> rope where there is one, var<storage, read_write> dqkv: array<f32>
// consts    HEAD_QUADS, and #ifdef ROPE ROPE_PAIRS: pair i are the values i and ROPE_PAIRS + i

var<private> turned: array<vec4<f32>, HEAD_QUADS>; // begins at zero

fn turned_value(i: u32) -> f32 {
    return turned[i / 4u][i % 4u];
}

fn store_turned_back(position: u32, base: u32) {
    for (var i = 0u; i < HEAD_QUADS * 4u; i++) {
        dqkv[base + i] = turned_value(i);
    }
#ifdef ROPE
    for (var i = 0u; i < ROPE_PAIRS; i++) {
        let turn = rope[position * ROPE_PAIRS + i];
        let first = turned_value(i);
        let second = turned_value(ROPE_PAIRS + i);
        dqkv[base + i] = first * turn.x + second * turn.y;
        dqkv[base + ROPE_PAIRS + i] = second * turn.x - first * turn.y;
    }
#endif
}
