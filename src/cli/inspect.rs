//! `moebius inspect`: what a model is and needs, from its `config.json` and, on the hub, the headers of its weights.

use super::failure::Failure;
use super::inspect_budget::Budgets;
use super::inspect_choice::{Chosen, weigh};
use super::stored::{Packed, Stored};
use super::talk::talk;
use super::{Global, bundled, files, inspect_published, model, model_name, number, table};
use anyhow::Result;
use clap::Args;
use moebius::Error;
use moebius::bench::{self, RoofOptions};
use moebius::checkpoint::gguf::Gguf;
use moebius::checkpoint::{Checkpoint, ModelFiles};
use moebius::error::human_bytes;
use moebius::gpu::{Device, DeviceChoice, DeviceOptions};
use moebius::platform::{self, is_gguf_name};
use moebius::quant::{CacheChoice, CacheFormat, QUANTS, Quant, QuantFormat};
use moebius::spec::{
    AttentionSpec, BlockSpec, Decay, LayerSpec, Mask, ModelSpec, MoeSpec, ParallelSpec, Parameters, RecurrentSpec, Rule,
    STATE_SLOTS, published,
};
use moebius::tensor::Dtype;
use serde_json::{Value, json};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius inspect examples/models/demo
  moebius inspect Mixtral-8x22B-v0.1/config.json
  moebius inspect mistralai/Mixtral-8x7B-v0.1      fetches config.json and the headers of the weights
  moebius inspect examples/models/demo --measure            the tokens per second to expect here
  moebius inspect examples/models/demo --read-gb-s 400      and on a device that reads so much
  moebius inspect examples/models/demo --quant experts=q4_0,head=q8_0    adds a row
  moebius inspect glam-64b                         a model without weights: what its sizes come to, beside its paper";

/// Show layers, experts, parameters and memory, and what fits on this device.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// A directory, a GGUF file, a config.json, a hub id (org/name), or a model of `moebius list published`.
    model: String,
    /// What the device reads per second, in 10^9 bytes, as `moebius bench` measures it: adds the tokens per second to expect.
    #[arg(long, value_name = "GB_S", value_parser = number::above_zero)]
    read_gb_s: Option<f64>,
    /// Measure what this device reads per second, over 1024 MiB or as many as are given: some seconds, and the same figures.
    #[arg(long, value_name = "MIB", num_args = 0..=1, require_equals = true, default_missing_value = "1024", value_parser = number::positive, conflicts_with = "read_gb_s")]
    measure: Option<NonZeroUsize>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl InspectArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        if let Some(model) = published(&self.model).filter(|_| !Path::new(&self.model).exists()) {
            let mut stdout = std::io::stdout().lock();
            match self.json {
                true => writeln!(stdout, "{}", inspect_published::object(model))?,
                false => write!(stdout, "{}", inspect_published::text(model))?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let name = self.name()?;
        let files = files_of(&name).await?;
        let spec = match &files {
            Some(files) => files.spec().clone(),
            None => ModelSpec::parse(&files::read_text(Path::new(&name))?, &name)?,
        };
        let context = global.ctx.map_or(spec.max_positions, |tokens| tokens.get());
        if context > spec.max_positions {
            let problem = format!("--ctx {context} is more than the model's {} positions", spec.max_positions);
            return Err(Failure::new(problem, "leave --ctx out for the model's own length").into());
        }
        // Without a device there is less to say, and no error.
        let roof = self.roof(&global.device).await?;
        let target = Target::find(&global.device).await;
        let is_gguf = files.as_ref().is_some_and(|files| files.gguf().is_some());
        let stored = if is_gguf { None } else { stored(&name, &spec)? };
        let packed = packed(&name, &spec).await?;
        let (chosen, cache) = weigh((global.quant, global.kv_cache), files.as_ref(), &spec).await?;
        let caches = (global.kv_cache, cache);
        let host_bytes = platform::available_memory_bytes();
        let only = QuantFormat::find(&global.quant.to_string());
        let model = Inspected { spec, context, caches, target, host_bytes, roof, stored, packed, chosen, only };
        let mut stdout = std::io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", model.json())?;
        } else {
            write!(stdout, "{}", model.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What is read per second, where it is given or to be measured.
    async fn roof(&self, choice: &DeviceChoice) -> Result<Option<ReadRoof>> {
        let Some(mebibytes) = self.measure else {
            return Ok(self.read_gb_s.map(|gb_s| ReadRoof { gb_s, measured_bytes: None }));
        };
        if *choice == DeviceChoice::Cpu {
            let hint = "choose another --device, or say what it reads with --read-gb-s";
            return Err(Failure::new("--measure is for a device: the reference is there to be right, not fast", hint).into());
        }
        let device = Device::open(&DeviceOptions::from_env(choice.clone())).await?;
        let options = RoofOptions { bytes: (mebibytes.get() as u64) << 20, ..RoofOptions::default() };
        let (gb_s, bytes) = bench::measure_read_roof(&device, &options).await?;
        Ok(Some(ReadRoof { gb_s, measured_bytes: Some(bytes) }))
    }

    /// The folder, file or hub id that MODEL stands for.
    fn name(&self) -> Result<String> {
        let path = Path::new(&self.model);
        if path.extension().is_some_and(|extension| extension == "json") && path.is_file() {
            return Ok(self.model.clone());
        }
        if self.model == model::BUNDLED_NAME && !path.exists() {
            return Ok(bundled::directory()?.display().to_string());
        }
        model_name::understood(&self.model)
    }
}

/// A folder, a GGUF file, or a model on the hub, of which only what describes it is fetched; `None` for a config by itself.
async fn files_of(name: &str) -> Result<Option<ModelFiles>> {
    let path = Path::new(name);
    if path.is_file() && !is_gguf_name(path) {
        return Ok(None);
    }
    if let Some(parts) = platform::fetch_gguf_start(name)? {
        return Ok(Some(ModelFiles::of_gguf(Gguf::of_parts(parts).await?).await?));
    }
    Ok(Some(ModelFiles::open(&platform::fetch_config_only(name)?).await?))
}

/// What the hub says about the weights; nothing of a model on this machine, and nothing where the hub does not answer.
fn stored(name: &str, spec: &ModelSpec) -> Result<Option<Stored>> {
    if Path::new(name).exists() {
        return Ok(None);
    }
    match platform::fetch_headers(name) {
        Ok(headers) => {
            let hint = "the repository is damaged; its owner has to know";
            Ok(Some(Stored::read(&headers, spec).map_err(|problem| Failure::new(problem, hint))?))
        }
        Err(error) => {
            talk!("the weights could not be looked at: {error}");
            Ok(None)
        }
    }
}

/// What `moebius quantize` wrote into a directory; nothing of any other model, and nothing of a directory without weights.
async fn packed(name: &str, spec: &ModelSpec) -> moebius::Result<Option<Packed>> {
    match Checkpoint::packed_info_of(Path::new(name)).await {
        Ok(info) => Ok(info.map(|info| Packed::new(info, spec))),
        Err(Error::PackedVersion { file, found, known }) => Err(Error::PackedVersion { file, found, known }),
        Err(_) => Ok(None),
    }
}

/// What a model would run on.
struct Target {
    name: String,
    /// Memory, where it can be asked.
    bytes: Option<u64>,
    /// It keeps every weight in this format, whatever was asked for.
    only: Option<Quant>,
}

impl Target {
    /// `None` without an adapter.
    async fn find(choice: &DeviceChoice) -> Option<Self> {
        if *choice == DeviceChoice::Cpu {
            let only = Some(QuantFormat::exact_for(Dtype::F32));
            return Some(Target { name: "cpu, the reference".to_owned(), bytes: platform::available_memory_bytes(), only });
        }
        let device = Device::open(&DeviceOptions::from_env(choice.clone())).await.ok()?;
        Some(Target { name: device.name().to_owned(), bytes: device.caps().memory_bytes, only: None })
    }
}

/// How fast something reads weights.
#[derive(Clone, Copy)]
struct ReadRoof {
    /// 10^9 bytes per second.
    gb_s: f64,
    /// What was read to measure it; `None`: it was given.
    measured_bytes: Option<u64>,
}

/// A model, a length of its context, and something to put them on.
struct Inspected {
    spec: ModelSpec,
    context: usize,
    /// What was asked for the KV cache, and what it becomes.
    caches: (CacheChoice, CacheFormat),
    target: Option<Target>,
    /// Memory of the machine that is free.
    host_bytes: Option<u64>,
    roof: Option<ReadRoof>,
    stored: Option<Stored>,
    /// Only for a directory that `moebius quantize` wrote.
    packed: Option<Packed>,
    /// A row for `--quant`.
    chosen: Option<Chosen>,
    /// The one format that was asked for.
    only: Option<Quant>,
}

/// Tokens per second with two digits at least, as far as hundredths.
fn speed(tokens: f64) -> String {
    if tokens < 10.0 { format!("{tokens:.2}") } else { format!("{tokens:.1}") }
}

impl Inspected {
    /// The page that a person reads.
    fn text(&self) -> String {
        let mut stored = self.stored.as_ref().map_or_else(Vec::new, |stored| stored.facts(human_bytes));
        stored.extend(self.packed.as_ref().map(Packed::fact));
        let facts = [self.model_facts(), self.parameter_facts(), self.compute_facts(), stored, self.memory_facts()].concat();
        let lines: String = facts.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect();
        let row = |name: &str, [weights, active]: [u64; 2], cache: CacheFormat| {
            let needed = human_bytes(self.needed_bytes(weights, cache));
            let mut cells = vec![name.to_owned(), human_bytes(weights), needed, human_bytes(active)];
            cells.extend([self.verdict(weights, cache), self.host_verdict(weights, cache)]);
            cells.extend(self.roof.map(|roof| speed(tokens_per_s(active, roof.gb_s))));
            cells
        };
        let of_quant = |quant: &Quant| row(quant.name, self.bytes_in(quant), self.cache_beside(quant));
        let mut rows: Vec<Vec<String>> = QUANTS.iter().map(of_quant).collect();
        let of_choice = |chosen: &Chosen| row(&chosen.name, [chosen.weight_bytes, chosen.active_weight_bytes], self.caches.1);
        rows.extend(self.chosen.as_ref().map(of_choice));
        let mut header = vec!["format", "weights", "with KV cache", "read per token", "fits on this device", "fits in memory"];
        header.extend(self.roof.map(|_| "tokens/s at best"));
        format!(
            "{lines}\n{}{}",
            table::aligned(&header, &rows),
            self.budgets().map_or_else(String::new, |budgets| budgets.text())
        )
    }

    /// Where the experts do not all fit on the device, in the format of the whole model that was asked for, or the narrowest that loses little.
    fn budgets(&self) -> Option<Budgets> {
        let quant = self.only.unwrap_or(QuantFormat::find("q4_0")?);
        let [weights, _] = self.bytes_in(quant);
        let is_tight = self.longest_context(weights, self.cache_beside(quant)).is_some_and(|longest| longest < self.context);
        let budgets = Budgets::new(&self.spec, quant, self.roof.map(|roof| roof.gb_s));
        budgets.filter(|_| is_tight && self.target.as_ref().is_some_and(|target| target.only.is_none()))
    }

    fn model_facts(&self) -> Vec<(&'static str, String)> {
        let ModelSpec { family, hidden_size, vocab_size, layers, .. } = &self.spec;
        let mut facts = vec![
            ("family", (*family).to_owned()),
            ("layers", format!("{}, hidden size {hidden_size}, vocabulary {vocab_size}", layers.len())),
        ];
        // Each kind of layer once, with how many there are of it.
        let blocks = layers.iter().flat_map(|layer| &layer.blocks);
        for (name, mixes) in [("attention", true), ("experts", false)] {
            for (fact, count) in counted(blocks.clone().filter(|block| block.is_mixer() == mixes).map(block_fact)) {
                facts.push((name, of_layers(&fact, count, layers.len())));
            }
        }
        facts
    }

    fn parameter_facts(&self) -> Vec<(&'static str, String)> {
        let counts = Parameters::of(&self.spec);
        let parts = [
            ("embedding", counts.embedding),
            ("head", counts.head),
            ("attention", counts.attention),
            ("dense MLPs", counts.dense),
            ("routers", counts.router),
            ("experts", counts.experts),
            ("shared experts", counts.shared),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {}", human_count(*count))).collect();
        vec![
            ("parameters", format!("{}, {} active per token", human_count(counts.total()), human_count(counts.active()))),
            ("", parts.join(", ")),
            (
                "",
                format!(
                    "active counts embedding and head whole; {} without the embedding, as some publishers count",
                    human_count(counts.active() - counts.embedding)
                ),
            ),
        ]
    }

    fn compute_facts(&self) -> Vec<(&'static str, String)> {
        let counts = Parameters::of(&self.spec);
        let (own, dense) = (counts.flops_per_token(), counts.flops_of_dense());
        let text = format!(
            "{} per token beside attention, {:.3} times a dense model of the same active size, 1/{:.1} of one of the same size",
            number::human_flops(own),
            own as f64 / dense as f64,
            counts.total() as f64 / counts.active() as f64
        );
        vec![("compute", text)]
    }

    fn memory_facts(&self) -> Vec<(&'static str, String)> {
        let (_, cache) = self.caches;
        let per_token = self.spec.kv_bytes_per_token(cache);
        let all = human_bytes(per_token * self.context as u64);
        let held = self.spec.held_state_bytes();
        let device = match &self.target {
            None => "no adapter".to_owned(),
            Some(Target { name, bytes: None, .. }) => format!("{name}, which does not tell its memory"),
            Some(Target { name, bytes: Some(bytes), .. }) => format!("{name}, {}", human_bytes(*bytes)),
        };
        let mut facts = vec![
            (
                "context",
                format!(
                    "{} tokens, KV cache of {} per token in {}, {all} in all",
                    self.context,
                    human_bytes(per_token),
                    cache.name()
                ),
            ),
            ("device", device),
        ];
        if held > 0 {
            let [one, all] = [self.spec.state_bytes(), held].map(human_bytes);
            facts.insert(1, ("state", format!("{one} for a text of any length, kept {STATE_SLOTS} times to go back to: {all}")));
        }
        facts.extend(self.roof_fact());
        facts
    }

    fn roof_fact(&self) -> Option<(&'static str, String)> {
        let ReadRoof { gb_s, measured_bytes } = self.roof?;
        let whose = match (measured_bytes, &self.target) {
            (Some(bytes), Some(target)) => format!("measured now over {} on {}", human_bytes(bytes), target.name),
            _ => "as given".to_owned(),
        };
        Some(("read roof", format!("{gb_s:.1} GB/s, {whose}")))
    }

    /// All weights, and those that a token reads.
    fn bytes_in(&self, quant: Quant) -> [u64; 2] {
        [self.spec.weight_bytes(quant), self.spec.active_weight_bytes(quant)]
    }

    /// The format of the KV cache where all weights are in `quant`.
    fn cache_beside(&self, quant: Quant) -> CacheFormat {
        self.caches.0.format([quant].into_iter())
    }

    fn needed_bytes(&self, weights: u64, cache: CacheFormat) -> u64 {
        weights + self.spec.memory_bytes(self.context, cache)
    }

    /// The longest context that fits beside the weights; `None` where the device does not tell its memory.
    fn longest_context(&self, weights: u64, cache: CacheFormat) -> Option<usize> {
        let target = self.target.as_ref()?;
        // The reference keeps its cache in f32 too.
        let cache = target.only.map_or(cache, |_| CacheFormat::F32);
        let rest = target.bytes?.saturating_sub(target.only.map_or(weights, |quant| self.spec.weight_bytes(quant)));
        let tokens = rest.saturating_sub(self.spec.held_state_bytes()) / self.spec.kv_bytes_per_token(cache).max(1);
        Some(usize::try_from(tokens).unwrap_or(usize::MAX).min(self.spec.max_positions))
    }

    fn verdict(&self, weights: u64, cache: CacheFormat) -> String {
        match self.longest_context(weights, cache) {
            None => "unknown".to_owned(),
            Some(0) => "no".to_owned(),
            Some(longest) if longest >= self.context => "yes".to_owned(),
            Some(longest) => format!("with --ctx {longest}"),
        }
    }

    /// Whether it fits in the free memory of the machine.
    fn host_verdict(&self, weights: u64, cache: CacheFormat) -> String {
        match self.host_bytes {
            None => "unknown".to_owned(),
            Some(bytes) if self.needed_bytes(weights, cache) <= bytes => "yes".to_owned(),
            Some(_) => "no".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let spec = &self.spec;
        let counts = Parameters::of(spec);
        let format = |name: &str, [weights, active]: [u64; 2], cache: CacheFormat| {
            json!({
                "format": name,
                "weight_bytes": weights,
                "kv_cache": cache.name(),
                "needed_bytes": self.needed_bytes(weights, cache),
                "longest_context": self.longest_context(weights, cache),
                "active_weight_bytes": active,
                "decode_tokens_per_s": self.roof.map(|roof| tokens_per_s(active, roof.gb_s)),
            })
        };
        let of_quant = |quant: &Quant| format(quant.name, self.bytes_in(quant), self.cache_beside(quant));
        let of_choice = |chosen: &Chosen| format(&chosen.name, [chosen.weight_bytes, chosen.active_weight_bytes], self.caches.1);
        let formats = QUANTS.iter().map(of_quant).chain(self.chosen.as_ref().map(of_choice));
        json!({
            "family": spec.family,
            "hidden_size": spec.hidden_size,
            "vocab_size": spec.vocab_size,
            "max_positions": spec.max_positions,
            "layers": spec.layers.iter().map(layer_json).collect::<Vec<_>>(),
            "parameters": {
                "total": counts.total(),
                "active": counts.active(),
                "embedding": counts.embedding,
                "head": counts.head,
                "active_without_embedding": counts.active() - counts.embedding,
                "attention": counts.attention,
                "norms": counts.norms,
                "dense": counts.dense,
                "shared": counts.shared,
                "router": counts.router,
                "experts": counts.experts,
            },
            "flops_per_token": counts.flops_per_token(),
            "flops_of_dense": counts.flops_of_dense(),
            "stored": self.stored.as_ref().map(Stored::json),
            "packed": self.packed.as_ref().map(Packed::json),
            "host_memory_bytes": self.host_bytes,
            "context": self.context,
            "kv_cache": self.caches.1.name(),
            "kv_bytes_per_token": spec.kv_bytes_per_token(self.caches.1),
            "state_bytes": spec.held_state_bytes(),
            "device": self.target.as_ref().map(|target| json!({ "name": target.name, "memory_bytes": target.bytes })),
            "read_roof": self.roof.map(|roof| json!({ "gb_s": roof.gb_s, "measured_bytes": roof.measured_bytes })),
            "formats": formats.collect::<Vec<_>>(),
            "expert_budgets": self.budgets().map(|budgets| budgets.json()),
        })
    }
}

/// At best, where reading each weight that a token uses once is all that takes time.
fn tokens_per_s(active_weight_bytes: u64, read_gb_s: f64) -> f64 {
    read_gb_s * 1e9 / active_weight_bytes as f64
}

/// Different values in the order of their first appearance, and how often each appears.
fn counted(values: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    counts
}

fn of_layers(fact: &str, count: usize, all: usize) -> String {
    if count == all { fact.to_owned() } else { format!("{fact}, in {count} layers") }
}

fn block_fact(block: &BlockSpec) -> String {
    match block {
        BlockSpec::Attention(attention) => attention_fact(attention),
        BlockSpec::AttentionExperts(experts) => attention_fact(&experts.heads),
        BlockSpec::Latent(latent) => format!(
            "{} heads of {}, values of {}, all of a latent of {} and a shared key of {}, causal",
            latent.num_heads,
            latent.key_dim(),
            latent.value_dim,
            latent.latent_dim,
            latent.rope_dim
        ),
        BlockSpec::ShortConv(conv) => format!("none, a gated convolution over {} tokens", conv.len),
        BlockSpec::Recurrent(recurrent) => recurrent_fact(recurrent),
        BlockSpec::Mlp(mlp) => format!("none, a dense MLP {} wide", mlp.intermediate_size),
        BlockSpec::Experts(moe) => moe_fact(moe),
        BlockSpec::Parallel(ParallelSpec { dense, moe, .. }) => {
            format!("{}, beside a dense MLP {} wide", moe_fact(moe), dense.intermediate_size)
        }
    }
}

fn attention_fact(attention: &AttentionSpec) -> String {
    let AttentionSpec { num_heads, num_kv_heads, head_dim, .. } = attention;
    let mask = match attention.mask {
        Mask::Causal => "causal".to_owned(),
        Mask::Window(window) => format!("window of {window} tokens"),
        Mask::Chunk(chunk) => format!("chunks of {chunk} tokens"),
        Mask::All => "all positions".to_owned(),
    };
    format!("{num_heads} heads of {head_dim}, {num_kv_heads} for keys and values, {mask}")
}

fn recurrent_fact(recurrent: &RecurrentSpec) -> String {
    let RecurrentSpec { key_heads, value_heads, key_dim, value_dim, rule, decay, conv, .. } = *recurrent;
    let over = conv.map_or(String::new(), |conv| format!(", over a convolution of {} tokens", conv.len));
    if let Decay::Pair { .. } = decay {
        return format!("none, a state space of {value_dim} channels of {key_dim}{over}");
    }
    let kind = match (rule, decay) {
        (Rule::Add, Decay::Constant { .. }) => "linear attention",
        (Rule::Add, _) => "a state space",
        (Rule::Delta, Decay::Channel { .. }) => "a delta rule with decays by channel,",
        (Rule::Delta, _) => "a gated delta rule",
    };
    format!("none, {kind} with {value_heads} heads of {key_dim} x {value_dim}, {key_heads} for keys{over}")
}

fn moe_fact(moe: &MoeSpec) -> String {
    let (experts, chosen) = (moe.router.num_experts, moe.router.num_experts_per_tok);
    let shared = moe.shared.map_or(String::new(), |shared| format!(", one shared {} wide", shared.mlp.intermediate_size));
    format!("{experts} per layer, {chosen} per token, {} wide{shared}", moe.expert.intermediate_size)
}

fn layer_json(layer: &LayerSpec) -> Value {
    let (attention, latent) = (layer.attention(), layer.latent());
    let mask = attention.map(|attention| attention.mask);
    let (moe, dense) = (layer.moe(), layer.dense());
    json!({
        "num_attention_heads": attention.map(|attention| attention.num_heads).or(latent.map(|latent| latent.num_heads)),
        "num_key_value_heads": attention.map(|attention| attention.num_kv_heads),
        "head_dim": attention.map(|attention| attention.head_dim),
        "sliding_window": match mask { Some(Mask::Window(window)) => Some(window), _ => None },
        "attention_chunk_size": match mask { Some(Mask::Chunk(chunk)) => Some(chunk), _ => None },
        "q_lora_rank": latent.and_then(|latent| latent.query_rank),
        "kv_lora_rank": latent.map(|latent| latent.latent_dim),
        "qk_nope_head_dim": latent.map(|latent| latent.nope_dim),
        "qk_rope_head_dim": latent.map(|latent| latent.rope_dim),
        "v_head_dim": latent.map(|latent| latent.value_dim),
        "num_experts": moe.map(|moe| moe.router.num_experts),
        "num_experts_per_tok": moe.map(|moe| moe.router.num_experts_per_tok),
        "moe_intermediate_size": moe.map(|moe| moe.expert.intermediate_size),
        "shared_expert_intermediate_size": moe.and_then(|moe| moe.shared).map(|shared| shared.mlp.intermediate_size),
        "intermediate_size": dense.map(|mlp| mlp.intermediate_size),
    })
}

/// `46.7 B`, `17.2 M`: a count of parameters.
fn human_count(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")];
    match UNITS.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", count as f64 / unit as f64),
        None => count.to_string(),
    }
}
