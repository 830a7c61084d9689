// expert_sort: assignments in the order of their experts, cut into tiles of at most TOKENS assignments of one expert.
// grid      one workgroup
// ids         [num_assignments] u32        in   expert of each assignment (= token * TOP_K + rank)
// slot_table  [NUM_EXPERTS] u32            in   cache slot of each expert
// tiles       [num_tiles] vec4<u32>        out  (slot, first index into order, count, 0); unused tiles have count 0
// order       [num_assignments] u32        out  assignments, by expert, then ascending
// num_tiles = ceil(num_assignments / TOKENS) + min(NUM_EXPERTS, num_assignments) always suffices.
// A lane owns an expert and reads all ids: the order is stable without atomics.
// twin      src/reference/expert_sort.rs

struct Params {
    num_assignments: u32,
    num_tiles: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> slot_table: array<u32>;
@group(0) @binding(3) var<storage, read_write> tiles: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> order: array<u32>;

var<workgroup> wg_counts: array<u32, NUM_EXPERTS>;

fn tiles_for(count: u32) -> u32 {
    return (count + TOKENS - 1u) / TOKENS;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) local: u32) {
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        var count = 0u;
        for (var assignment = 0u; assignment < params.num_assignments; assignment++) {
            count += u32(ids[assignment] == expert);
        }
        wg_counts[expert] = count;
    }
    workgroupBarrier();

    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        var next = 0u; // first place in `order` that belongs to this expert
        var tile = 0u; // first tile that belongs to it
        for (var earlier = 0u; earlier < expert; earlier++) {
            next += wg_counts[earlier];
            tile += tiles_for(wg_counts[earlier]);
        }
        let end = next + wg_counts[expert];
        for (var first = next; first < end; first += TOKENS) {
            tiles[tile] = vec4<u32>(slot_table[expert], first, min(TOKENS, end - first), 0u);
            tile++;
        }
        for (var assignment = 0u; assignment < params.num_assignments; assignment++) {
            if ids[assignment] == expert {
                order[next] = assignment;
                next++;
            }
        }
    }

    var used = 0u;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
        used += tiles_for(wg_counts[expert]);
    }
    for (var tile = used + local; tile < params.num_tiles; tile += WG) {
        tiles[tile] = vec4<u32>();
    }
}
