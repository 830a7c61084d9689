// expert_sort: assignments in the order of their experts, cut into tiles of at most TOKENS assignments of one expert.
// grid      one workgroup
// ids         [num_assignments] u32        in   expert of each assignment (= token * TOP_K + rank)
// slot_table  [NUM_EXPERTS] u32            in   cache slot of each expert
// tiles       [num_tiles] vec4<u32>        out  (slot, first index into order, count, 0); unused tiles have count 0
// order       [num_assignments] u32        out  assignments, by expert, then ascending
// starts      [NUM_EXPERTS + 1] u32        out  #ifdef STARTS: first index into order of each expert; last: assignments of all experts
// num_tiles = ceil(num_assignments / TOKENS) + min(NUM_EXPERTS, num_assignments) always suffices.
// A lane owns an expert and a part of the assignments, which it reads in their order: the result is stable without atomics. LOADS ids at a time
// are under way; where there are fewer experts than lanes, they share the reading in PARTS.
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
#ifdef STARTS
@group(0) @binding(5) var<storage, read_write> starts: array<u32>;
#endif

const PARTS: u32 = max(1u, WG / NUM_EXPERTS);

var<workgroup> wg_counts: array<u32, PARTS * NUM_EXPERTS>; // of each part
var<workgroup> wg_totals: array<u32, NUM_EXPERTS>;

fn tiles_for(count: u32) -> u32 {
    return (count + TOKENS - 1u) / TOKENS;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) local: u32) {
    let part_len = (params.num_assignments + PARTS * LOADS - 1u) / (PARTS * LOADS) * LOADS;
    let last = max(params.num_assignments, 1u) - 1u;
    for (var i = local; i < PARTS * NUM_EXPERTS; i += WG) {
        let expert = i % NUM_EXPERTS;
        let first = i / NUM_EXPERTS * part_len;
        let end = min(first + part_len, params.num_assignments);
        var count = 0u;
        for (var assignment = first; assignment < end; assignment += LOADS) {
#for I in LOADS
            let id_$I = ids[min(assignment + $Iu, last)];
#end
#for I in LOADS
            count += u32(id_$I == expert && assignment + $Iu < end);
#end
        }
        wg_counts[i] = count;
    }
    workgroupBarrier();
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        var total = 0u;
        for (var part = 0u; part < PARTS; part++) {
            total += wg_counts[part * NUM_EXPERTS + expert];
        }
        wg_totals[expert] = total;
    }
    workgroupBarrier();

    for (var i = local; i < PARTS * NUM_EXPERTS; i += WG) {
        let expert = i % NUM_EXPERTS;
        let part = i / NUM_EXPERTS;
        var next = 0u; // first place in `order` that belongs to this expert
        var tile = 0u; // first tile that belongs to it
        for (var earlier = 0u; earlier < expert; earlier++) {
            next += wg_totals[earlier];
            tile += tiles_for(wg_totals[earlier]);
        }
        if part == 0u {
            let end = next + wg_totals[expert];
#ifdef STARTS
            starts[expert] = next;
            if expert == NUM_EXPERTS - 1u {
                starts[NUM_EXPERTS] = end;
            }
#endif
            let slot = slot_table[expert];
            for (var first = next; first < end; first += TOKENS) {
                tiles[tile] = vec4<u32>(slot, first, min(TOKENS, end - first), 0u);
                tile++;
            }
        }
        for (var earlier = 0u; earlier < part; earlier++) {
            next += wg_counts[earlier * NUM_EXPERTS + expert];
        }
        let first = part * part_len;
        let end = min(first + part_len, params.num_assignments);
        for (var assignment = first; assignment < end; assignment += LOADS) {
#for I in LOADS
            let id_$I = ids[min(assignment + $Iu, last)];
#end
#for I in LOADS
            if id_$I == expert && assignment + $Iu < end {
                order[next] = assignment + $Iu;
                next++;
            }
#end
        }
    }

    var used = 0u;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
        used += tiles_for(wg_totals[expert]);
    }
    for (var tile = used + local; tile < params.num_tiles; tile += WG) {
        tiles[tile] = vec4<u32>();
    }
}
