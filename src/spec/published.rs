//! Models that were described, but whose weights nobody has: their sizes, and what their papers say these come to.

/// A model by its sizes.
#[derive(Debug)]
pub struct Published {
    pub name: &'static str,
    pub summary: &'static str,
    pub source: &'static str,
    /// An entry of [`GATES`](crate::gating::GATES).
    pub gate: &'static str,
    pub hidden_size: usize,
    pub vocab_size: usize,
    /// Attention blocks, those of a decoder to its encoder included, and the width of all heads together.
    pub num_attentions: usize,
    pub attention_size: usize,
    pub dense: Feed,
    pub experts: Feed,
    /// Layers with experts: how many of them have how many experts.
    pub pyramid: &'static [[usize; 2]],
    pub num_experts_per_tok: usize,
    pub capacity_factor: f64,
    /// What the paper says, in parameters.
    pub stated: Stated,
}

/// Feed-forward parts of one kind: how many, how wide inside, and of how many matrices each.
#[derive(Debug, Clone, Copy)]
pub struct Feed {
    pub count: usize,
    pub intermediate_size: usize,
    pub matrices: usize,
}

#[derive(Debug, Clone, Copy)]
pub struct Stated {
    pub total: f64,
    /// Of one token.
    pub active: Option<f64>,
}

/// What the sizes come to, in parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arithmetic {
    pub embedding: f64,
    pub attention: f64,
    pub dense: f64,
    pub routers: f64,
    pub experts: f64,
    /// Of the experts of one token.
    pub active_experts: f64,
}

impl Feed {
    fn parameters(&self, hidden_size: usize) -> f64 {
        self.matrices as f64 * hidden_size as f64 * self.intermediate_size as f64
    }
}

impl Published {
    pub fn arithmetic(&self) -> Arithmetic {
        let hidden_size = self.hidden_size as f64;
        let expert = self.experts.parameters(self.hidden_size);
        let num_experts: usize = self.pyramid.iter().map(|[layers, experts]| layers * experts).sum();
        let num_layers: usize = self.pyramid.iter().map(|[layers, _]| layers).sum();
        Arithmetic {
            embedding: self.vocab_size as f64 * hidden_size,
            attention: self.num_attentions as f64 * 4.0 * hidden_size * self.attention_size as f64,
            dense: self.dense.count as f64 * self.dense.parameters(self.hidden_size),
            routers: num_experts as f64 * hidden_size,
            experts: num_experts as f64 * expert,
            active_experts: (num_layers * self.num_experts_per_tok) as f64 * expert,
        }
    }

    /// Experts of the layer that has most.
    pub fn num_experts(&self) -> usize {
        self.pyramid.iter().map(|[_, experts]| *experts).max().unwrap_or(0)
    }
}

impl Arithmetic {
    pub fn total(&self) -> f64 {
        self.embedding + self.attention + self.dense + self.routers + self.experts
    }

    pub fn active(&self) -> f64 {
        self.embedding + self.attention + self.dense + self.routers + self.active_experts
    }
}

const GSHARD: Published = Published {
    name: "gshard-600b",
    summary: "GShard, the translation model with 2048 experts in every other layer",
    source: "Lepikhin et al. 2020, arXiv 2006.16668",
    gate: "top2_gshard",
    hidden_size: 1024,
    vocab_size: 64_000,
    num_attentions: 36,
    attention_size: 2048,
    dense: Feed { count: 18, intermediate_size: 8192, matrices: 2 },
    experts: Feed { count: 18, intermediate_size: 8192, matrices: 2 },
    pyramid: &[[18, 2048]],
    num_experts_per_tok: 2,
    capacity_factor: 1.0,
    stated: Stated { total: 600e9, active: None },
};

const GLAM: Published = Published {
    name: "glam-64b",
    summary: "GLaM 64B/64E, a decoder with 64 experts in every other layer",
    source: "Du et al. 2021, arXiv 2112.06905",
    gate: "top2_gshard",
    hidden_size: 8192,
    vocab_size: 256_000,
    num_attentions: 64,
    attention_size: 16_384,
    dense: Feed { count: 32, intermediate_size: 32_768, matrices: 3 },
    experts: Feed { count: 32, intermediate_size: 32_768, matrices: 2 },
    pyramid: &[[32, 64]],
    num_experts_per_tok: 2,
    capacity_factor: 1.25,
    stated: Stated { total: 1.2e12, active: Some(96.6e9) },
};

/// A decoder of 24 layers, with experts in every other one.
const DEEPSPEED: Published = Published {
    name: "deepspeed-moe-52b",
    summary: "DeepSpeed-MoE 1.3B+MoE-128: 128 experts in every other layer",
    source: "Rajbhandari et al. 2022, arXiv 2201.05596",
    gate: "top1_switch",
    hidden_size: 2048,
    vocab_size: 50_257,
    num_attentions: 24,
    attention_size: 2048,
    dense: Feed { count: 12, intermediate_size: 8192, matrices: 2 },
    experts: Feed { count: 12, intermediate_size: 8192, matrices: 2 },
    pyramid: &[[12, 128]],
    num_experts_per_tok: 1,
    capacity_factor: 1.0,
    stated: Stated { total: 52e9, active: None },
};

const M6_T: Published = Published {
    name: "m6-t-1t",
    summary: "M6-T with a trillion parameters: 960 experts in every layer, in prototypes",
    source: "Yang et al. 2021, arXiv 2105.15082",
    gate: "grouped_top_k",
    hidden_size: 1024,
    vocab_size: 21_128,
    num_attentions: 24,
    attention_size: 1024,
    dense: Feed { count: 0, intermediate_size: 0, matrices: 2 },
    experts: Feed { count: 24, intermediate_size: 21_248, matrices: 2 },
    pyramid: &[[24, 960]],
    num_experts_per_tok: 1,
    capacity_factor: 1.25,
    stated: Stated { total: 1.0e12, active: None },
};

/// Every one of them.
pub static PUBLISHED: &[Published] = &[
    GSHARD,
    Published {
        name: "gshard-150b",
        summary: "GShard with 512 experts",
        pyramid: &[[18, 512]],
        stated: Stated { total: 150e9, active: None },
        ..GSHARD
    },
    Published {
        name: "gshard-37b",
        summary: "GShard with 128 experts",
        pyramid: &[[18, 128]],
        stated: Stated { total: 37e9, active: None },
        ..GSHARD
    },
    GLAM,
    Published {
        name: "st-moe-32b",
        summary: "ST-MoE-32B, an encoder and a decoder with 64 experts in every fourth layer",
        source: "Zoph et al. 2022, arXiv 2202.08906",
        gate: "top2_gshard",
        hidden_size: 5120,
        vocab_size: 256_000,
        // 27 layers each; those of the decoder attend to the encoder, too.
        num_attentions: 81,
        attention_size: 8192,
        dense: Feed { count: 42, intermediate_size: 20_480, matrices: 3 },
        experts: Feed { count: 12, intermediate_size: 20_480, matrices: 3 },
        pyramid: &[[12, 64]],
        num_experts_per_tok: 2,
        capacity_factor: 1.25,
        // The 32 billion of its name are those of a dense model that costs as much.
        stated: Stated { total: 269e9, active: None },
    },
    DEEPSPEED,
    Published {
        name: "pr-moe-31b",
        summary: "DeepSpeed 1.3B+PR-MoE-64/128: a pyramid of 64 experts, then 128, each beside a dense part",
        gate: "residual_moe",
        dense: Feed { count: 24, intermediate_size: 8192, matrices: 2 },
        pyramid: &[[10, 64], [2, 128]],
        stated: Stated { total: 31e9, active: None },
        ..DEEPSPEED
    },
    Published {
        name: "pr-moe-4b",
        summary: "DeepSpeed 350M+PR-MoE-32/64: a pyramid of 32 experts, then 64, each beside a dense part",
        gate: "residual_moe",
        hidden_size: 1024,
        attention_size: 1024,
        dense: Feed { count: 24, intermediate_size: 4096, matrices: 2 },
        experts: Feed { count: 12, intermediate_size: 4096, matrices: 2 },
        pyramid: &[[10, 32], [2, 64]],
        stated: Stated { total: 4e9, active: None },
        ..DEEPSPEED
    },
    M6_T,
    Published {
        name: "m6-t-100b",
        summary: "M6-T with a hundred billion parameters: 512 experts in every layer",
        experts: Feed { count: 24, intermediate_size: 4096, matrices: 2 },
        pyramid: &[[24, 512]],
        stated: Stated { total: 100e9, active: None },
        ..M6_T
    },
];

/// One of [`PUBLISHED`] by its name.
pub fn published(name: &str) -> Option<&'static Published> {
    PUBLISHED.iter().find(|model| model.name == name)
}
