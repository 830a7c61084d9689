// rows: what every kernel that asks "which token, where" reads. One row per token of the batch.

struct Row {
    token: u32,    // id in the vocabulary
    position: u32, // index in its sequence
    sequence: u32, // which KV cache it belongs to
    keys: u32,     // keys that attention to all keys meets
}
