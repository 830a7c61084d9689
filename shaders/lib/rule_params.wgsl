// rule_params: the uniform of the kernels that apply a rule.

struct Params {
    num_tokens: u32,
    is_training: u32, // 1 in a step of training
    noise_stride: u32,
    seq_len: u32,
    noise: vec4<u32>, // of both kinds of noise where it begins, and how many a token has
    settings: array<vec4<f32>, 5>, // in the order of the method
}
