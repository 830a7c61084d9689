//! How an architecture names and lays out its tensors on disk.
//!
//! Templates: `{l}` stands for the layer and `{e}` for the expert; where a stored layer is several of ours, `{l}` is the stored one and
//! `{s}` which of them. Every name gets [`TensorNames::prefix`] in front. The bias of a
//! matrix or norm that has one is its name with `.weight` replaced by `.bias`, except where [`ExpertStorage`] says otherwise.

/// Names of the tensors of one architecture. Only those that the spec asks for are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorNames {
    /// What a multimodal wrapper puts before the names of the language model.
    pub prefix: &'static str,
    /// So many layers of the spec in a row make one on disk.
    pub sub_layers: usize,
    pub embedding: &'static str,
    pub final_norm: &'static str,
    pub head: &'static str,
    /// Norms of the stream, and of query and key, are stored less one.
    pub zero_centred_norms: bool,
    /// Before the mixer.
    pub attention_norm: &'static str,
    /// After the mixer, for [`Residual::Post`](super::Residual) and `Sandwich`.
    pub attention_post_norm: &'static str,
    pub qkv: QkvStorage,
    pub query_norm: &'static str,
    pub key_norm: &'static str,
    pub sinks: &'static str,
    pub attention_gate: &'static str,
    pub latent: LatentNames,
    pub attention_output: &'static str,
    /// Where experts make query and output.
    pub choice: ChoiceNames,
    pub filter: FilterNames,
    pub convolution: ConvolutionNames,
    pub recurrent: RecurrentNames,
    /// Before the feed-forward part.
    pub ffn_norm: &'static str,
    /// After the feed-forward part.
    pub ffn_post_norm: &'static str,
    /// The first of two layers.
    pub router_hidden: &'static str,
    /// Of a router with attention the queries.
    pub router: &'static str,
    pub router_key: &'static str,
    pub router_value: &'static str,
    /// Before the router, where it has a norm of its own.
    pub router_norm: &'static str,
    pub expert_scale: &'static str,
    pub selection_bias: &'static str,
    pub experts: ExpertStorage,
    /// Where a checkpoint has this, it has it in place of [`experts`](Self::experts).
    pub stacked_experts: Option<ExpertStorage>,
    pub shared: ExpertStorage,
    pub shared_gate: &'static str,
    pub dense: ExpertStorage,
    /// Before the dense MLP that runs beside experts.
    pub parallel_norm: &'static str,
    /// After the dense MLP, and after the experts beside it.
    pub parallel_post_norm: &'static str,
    pub expert_post_norm: &'static str,
    /// The one number of [`LayerSpec::output_scale`](super::LayerSpec).
    pub output_scale: &'static str,
    /// The bias of the feed-forward part.
    pub ffn_bias: &'static str,
    pub parallel: ExpertStorage,
    /// A matrix may be stored as F8_E4M3, with one factor for so many rows and columns at a time. They stand under its name with
    /// `_scale_inv` appended: `[ceil(rows / block rows), ceil(cols / block cols)]`. `None`: no matrix may.
    pub float8_block: Option<[usize; 2]>,
}

/// Names of the tensors of [`LatentSpec`](super::LatentSpec).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentNames {
    /// Where there is one projection of the query.
    pub query: &'static str,
    pub query_down: &'static str,
    pub query_norm: &'static str,
    pub query_up: &'static str,
    pub down: &'static str,
    pub norm: &'static str,
    /// Per head the rows that make its key, then the rows that make its value.
    pub key_value_up: &'static str,
    /// The same in two tensors as kernels read them: `[heads, latent, nope]` for the keys, `[heads, value, latent]` for the values.
    /// `None`: as [`key_value_up`](Self::key_value_up).
    pub absorbed: Option<AbsorbedNames>,
}

/// See [`LatentNames::absorbed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsorbedNames {
    pub key_up: &'static str,
    pub value_up: &'static str,
}

/// Names of the tensors of [`AttentionSpec::choice`](super::AttentionSpec).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChoiceNames {
    pub router: &'static str,
    /// `[E, choice width, H]`
    pub query: &'static str,
    /// `[E, H, choice width]`; the bias is that of [`TensorNames::attention_output`].
    pub output: &'static str,
}

/// Names of the tensors of [`FilterSpec`](super::FilterSpec): convolutions `[out, in, 2, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterNames {
    pub first: &'static str,
    pub second: &'static str,
    pub norm: &'static str,
}

/// Names of the tensors around a convolution: of [`ShortConvSpec`](super::ShortConvSpec) and of [`RecurrentSpec`](super::RecurrentSpec).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionNames {
    /// Rows of b, then c, then u. Of a recurrence see [`RecurrentStorage`].
    pub input: &'static str,
    /// `[channels, 1, len]`
    pub weight: &'static str,
    pub output: &'static str,
}

impl ConvolutionNames {
    pub const NONE: ConvolutionNames = ConvolutionNames { input: "", weight: "", output: "" };
}

/// Names of the other tensors of [`RecurrentSpec`](super::RecurrentSpec).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecurrentNames {
    pub storage: RecurrentStorage,
    /// The second projection of steps, where there are two, and its norm.
    pub step_up: &'static str,
    pub step_norm: &'static str,
    pub step_bias: &'static str,
    pub decay: &'static str,
    /// Where `x` is stored, the decay is `-exp(x)`.
    pub decay_is_logarithm: bool,
    pub skip: &'static str,
    /// Of keys and queries that come from the values.
    pub key_norm: &'static str,
    pub query_norm: &'static str,
    /// Where it is not part of the input projection.
    pub gate: &'static str,
    pub norm: &'static str,
}

impl RecurrentNames {
    pub const NONE: RecurrentNames = RecurrentNames {
        storage: RecurrentStorage::Whole,
        step_up: "",
        step_norm: "",
        step_bias: "",
        decay: "",
        decay_is_logarithm: true,
        skip: "",
        key_norm: "",
        query_norm: "",
        gate: "",
        norm: "",
    };
}

/// How the first projections of a recurrence lie on disk; [`ConvolutionNames::input`] is `input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecurrentStorage {
    /// `input` has the rows of the gate, then values, keys and queries, then steps. The convolution has its channels in the same order.
    Whole,
    /// `input` has for each key head the rows of its query, its key, its values and their gates, `steps` those of its betas and its steps. The channels
    /// of the convolution are queries, keys, values.
    ByKeyHead { steps: &'static str },
    /// `input` has the rows of queries, keys and values, in the order of the channels of the convolution.
    Apart { gate: &'static str, steps: &'static str, betas: &'static str },
    /// Each of query, key and value has a matrix and a convolution.
    Separate {
        query: &'static str,
        key: &'static str,
        value: &'static str,
        /// In the same order.
        convolutions: [&'static str; 3],
        /// The first projections of steps and of gate.
        step_down: &'static str,
        gate_down: &'static str,
        betas: &'static str,
    },
    /// `input` has the rows of the values, then those of the gate; `selection` those that lead to steps, then keys and queries.
    Selective { selection: &'static str },
    /// `input` has for each head the rows of its query, its key and its value.
    ByHead,
}

/// Where query, key and value stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkvStorage {
    Separate {
        query: &'static str,
        key: &'static str,
        value: &'static str,
    },
    /// Rows of the queries, then the keys, then the values, as far as they are not elsewhere.
    Fused(&'static str),
    /// `query` has for each head the rows of its query, then those of its gate.
    Gated {
        query: &'static str,
        key: &'static str,
        value: &'static str,
    },
    /// The first two one after the other hold each head's query and then its key, head by head.
    Paired {
        first: &'static str,
        second: &'static str,
        value: &'static str,
    },
}

/// Where the projections of the experts stand, or of one MLP. `E` experts of width `F`, hidden size `H`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertStorage {
    /// Gate and up `[F, H]`, down `[H, F]`, a tensor each, for every expert.
    Each { gate: &'static str, up: &'static str, down: &'static str },
    /// Up `[F, H]` and down `[H, F]`, a tensor each, for every expert whose activation has no gate.
    EachUngated { up: &'static str, down: &'static str },
    /// Gate and up `[2F, H]`, all gate rows before all up rows, and down `[H, F]`, two tensors for every expert.
    EachFused { gate_up: &'static str, down: &'static str },
    /// Gate and up `[E, 2F, H]`, all gate rows before all up rows, and down `[E, H, F]`; for one MLP without the axis `E`.
    Stacked { gate_up: &'static str, down: &'static str },
    /// Gate and up `[E, F, H]`, a tensor each, and down `[E, H, F]`. Biases `[E, F]` and `[E, H]`.
    StackedEach { gate: &'static str, up: &'static str, down: &'static str },
    /// Up `[E, F, H]` and down `[E, H, F]`, where the activation has no gate.
    StackedUngated { up: &'static str, down: &'static str },
    /// Gate and up `[E, H, 2F]`, columns gate then up, or in turns where `interleaved`, and down `[E, F, H]`.
    /// Biases, where there are any, under the same names with `_bias` appended: `[E, 2F]` in the same order, `[E, H]`.
    Transposed { gate_up: &'static str, down: &'static str, interleaved: bool },
    /// Gate and up `[E, 2F, H]`, their rows in turns, and down `[E, H, F]`, each as MXFP4: under its name with `_blocks` appended
    /// `[.., cols / 32, 16]`, with `_scales` appended `[.., cols / 32]`. Biases as in `Transposed`.
    Mxfp4 { gate_up: &'static str, down: &'static str },
    /// Gate, up and down all `[E F, H]`: the rows of one expert after the other, down not transposed.
    RowBlocks { gate: &'static str, up: &'static str, down: &'static str },
}

impl TensorNames {
    /// The names of Llama with the experts of Qwen and DeepSeek: the base that architectures change.
    pub const LLAMA: TensorNames = TensorNames {
        prefix: "",
        sub_layers: 1,
        embedding: "model.embed_tokens.weight",
        final_norm: "model.norm.weight",
        head: "lm_head.weight",
        zero_centred_norms: false,
        attention_norm: "model.layers.{l}.input_layernorm.weight",
        attention_post_norm: "model.layers.{l}.post_attention_layernorm.weight",
        qkv: QkvStorage::Separate {
            query: "model.layers.{l}.self_attn.q_proj.weight",
            key: "model.layers.{l}.self_attn.k_proj.weight",
            value: "model.layers.{l}.self_attn.v_proj.weight",
        },
        query_norm: "model.layers.{l}.self_attn.q_norm.weight",
        key_norm: "model.layers.{l}.self_attn.k_norm.weight",
        sinks: "model.layers.{l}.self_attn.sinks",
        attention_gate: "model.layers.{l}.self_attn.gate_proj.weight",
        latent: LatentNames {
            query: "model.layers.{l}.self_attn.q_proj.weight",
            query_down: "model.layers.{l}.self_attn.q_a_proj.weight",
            query_norm: "model.layers.{l}.self_attn.q_a_layernorm.weight",
            query_up: "model.layers.{l}.self_attn.q_b_proj.weight",
            down: "model.layers.{l}.self_attn.kv_a_proj_with_mqa.weight",
            norm: "model.layers.{l}.self_attn.kv_a_layernorm.weight",
            key_value_up: "model.layers.{l}.self_attn.kv_b_proj.weight",
            absorbed: None,
        },
        attention_output: "model.layers.{l}.self_attn.o_proj.weight",
        choice: ChoiceNames { router: "", query: "", output: "" },
        filter: FilterNames { first: "", second: "", norm: "" },
        convolution: ConvolutionNames::NONE,
        recurrent: RecurrentNames::NONE,
        ffn_norm: "model.layers.{l}.post_attention_layernorm.weight",
        ffn_post_norm: "model.layers.{l}.post_feedforward_layernorm.weight",
        router_hidden: "",
        router: "model.layers.{l}.mlp.gate.weight",
        router_key: "",
        router_value: "",
        router_norm: "",
        expert_scale: "",
        selection_bias: "model.layers.{l}.mlp.gate.e_score_correction_bias",
        experts: ExpertStorage::Each {
            gate: "model.layers.{l}.mlp.experts.{e}.gate_proj.weight",
            up: "model.layers.{l}.mlp.experts.{e}.up_proj.weight",
            down: "model.layers.{l}.mlp.experts.{e}.down_proj.weight",
        },
        stacked_experts: None,
        shared: ExpertStorage::Each {
            gate: "model.layers.{l}.mlp.shared_experts.gate_proj.weight",
            up: "model.layers.{l}.mlp.shared_experts.up_proj.weight",
            down: "model.layers.{l}.mlp.shared_experts.down_proj.weight",
        },
        shared_gate: "model.layers.{l}.mlp.shared_expert_gate.weight",
        dense: ExpertStorage::Each {
            gate: "model.layers.{l}.mlp.gate_proj.weight",
            up: "model.layers.{l}.mlp.up_proj.weight",
            down: "model.layers.{l}.mlp.down_proj.weight",
        },
        parallel_norm: "",
        parallel_post_norm: "",
        expert_post_norm: "",
        output_scale: "",
        ffn_bias: "",
        parallel: ExpertStorage::Each { gate: "", up: "", down: "" },
        float8_block: None,
    };

    /// The names of GGUF files, the same for nearly all architectures.
    pub const GGUF: TensorNames = TensorNames {
        embedding: "token_embd.weight",
        final_norm: "output_norm.weight",
        head: "output.weight",
        attention_norm: "blk.{l}.attn_norm.weight",
        attention_post_norm: "blk.{l}.post_attention_norm.weight",
        qkv: QkvStorage::Separate {
            query: "blk.{l}.attn_q.weight",
            key: "blk.{l}.attn_k.weight",
            value: "blk.{l}.attn_v.weight",
        },
        query_norm: "blk.{l}.attn_q_norm.weight",
        key_norm: "blk.{l}.attn_k_norm.weight",
        sinks: "blk.{l}.attn_sinks.weight",
        attention_gate: "blk.{l}.attn_gate.weight",
        latent: LatentNames {
            query: "blk.{l}.attn_q.weight",
            query_down: "blk.{l}.attn_q_a.weight",
            query_norm: "blk.{l}.attn_q_a_norm.weight",
            query_up: "blk.{l}.attn_q_b.weight",
            down: "blk.{l}.attn_kv_a_mqa.weight",
            norm: "blk.{l}.attn_kv_a_norm.weight",
            key_value_up: "blk.{l}.attn_kv_b.weight",
            absorbed: Some(AbsorbedNames { key_up: "blk.{l}.attn_k_b.weight", value_up: "blk.{l}.attn_v_b.weight" }),
        },
        attention_output: "blk.{l}.attn_output.weight",
        ffn_norm: "blk.{l}.ffn_norm.weight",
        ffn_post_norm: "blk.{l}.post_ffw_norm.weight",
        router: "blk.{l}.ffn_gate_inp.weight",
        router_norm: "blk.{l}.ffn_gate_inp.scale",
        expert_scale: "blk.{l}.ffn_down_exps.scale",
        selection_bias: "blk.{l}.exp_probs_b.bias",
        experts: ExpertStorage::StackedEach {
            gate: "blk.{l}.ffn_gate_exps.weight",
            up: "blk.{l}.ffn_up_exps.weight",
            down: "blk.{l}.ffn_down_exps.weight",
        },
        shared: ExpertStorage::Each {
            gate: "blk.{l}.ffn_gate_shexp.weight",
            up: "blk.{l}.ffn_up_shexp.weight",
            down: "blk.{l}.ffn_down_shexp.weight",
        },
        shared_gate: "blk.{l}.ffn_gate_inp_shexp.weight",
        dense: MLP_OF_GGUF,
        parallel: MLP_OF_GGUF,
        ..TensorNames::LLAMA
    };
}

/// The MLP that every token uses, in a GGUF file.
const MLP_OF_GGUF: ExpertStorage =
    ExpertStorage::Each { gate: "blk.{l}.ffn_gate.weight", up: "blk.{l}.ffn_up.weight", down: "blk.{l}.ffn_down.weight" };
