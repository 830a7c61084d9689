// embed: SCALE times the embedding row of each token, #ifdef POSITIONS plus the row of its position.
// grid      x = words of a row, WG per workgroup; y = token
// rows      [num_tokens] Row                      in
// table     [num_rows, ROW_WORDS] words           in   one shard of the vocabulary: ids first_row .. first_row + num_rows
// x         [num_tokens, ROW_QUADS] vec4<f32>     out  tokens of other shards are left alone
// positions [context, ROW_QUADS] vec4<f32>         in   #ifdef POSITIONS: padding columns are zero
// twin      src/reference/embed.rs
#import rows
#import weights

struct Params {
    first_row: u32,
    num_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> table: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;
#ifdef POSITIONS
@group(0) @binding(4) var<storage, read> positions: array<vec4<f32>>;
#endif

fn weight_word(word: u32) -> vec4<u32> {
    return table[word];
}

fn weight_u32(word: u32, part: u32) -> u32 {
    return table[word][part];
}

// Padding columns of x are zero; #ifdef RAGGED: those of the table are not.
fn within(column: u32, values: vec4<f32>) -> vec4<f32> {
#ifdef RAGGED
    return select(vec4<f32>(), values, vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COLUMNS));
#else
    return values;
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunk = workgroup.x * WG + local;
    let row = rows[workgroup.y].token - params.first_row; // wraps for ids below the shard, and fails the test that follows
    if chunk >= ROW_CHUNKS || row >= params.num_rows {
        return;
    }
    let word = load_word(row * ROW_WORDS, chunk);
    let scale = block_scale(row * ROW_WORDS, chunk / BLOCK_CHUNKS);
    let quad = (workgroup.y * ROW_CHUNKS + chunk) * CHUNK_QUADS;
#ifdef POSITIONS
    let place = (rows[workgroup.y].position * ROW_CHUNKS + chunk) * CHUNK_QUADS;
#for Q in CHUNK_QUADS
    x[quad + $Qu] = within((chunk * CHUNK_QUADS + $Qu) * 4u, weight_quad(word, $Qu, scale) * SCALE) + positions[place + $Qu];
#end
#else
#for Q in CHUNK_QUADS
    x[quad + $Qu] = within((chunk * CHUNK_QUADS + $Qu) * 4u, weight_quad(word, $Qu, scale) * SCALE);
#end
#endif
}
