//! Every variant of every kernel, without a GPU: WGSL that naga accepts, an interface that equals the Rust side, and what the drivers get.

use crate::common::required;
use moebius::batch::Row;
use moebius::bench::{PROBES, probe_variants};
use moebius::conformance::cases;
use moebius::gpu::{Access, Caps, Kernel, Knob, Profile, Tuning, Variant};
use moebius::kernels::sample::Sampling;
use moebius::kernels::{KERNELS, expert_sort, matmul};
use moebius::quant::{F32, QUANTS};
use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy, Layouter};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess, TypeInner};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// A composed and validated variant.
struct Shader {
    kernel: &'static Kernel,
    variant: Variant,
    module: Module,
    info: ModuleInfo,
    /// The smallest number of buffers that a device which chooses it can bind.
    max_storage_buffers: u32,
}

/// Every variant that the cases produce on any of these devices.
static SHADERS: LazyLock<Vec<Shader>> = LazyLock::new(|| {
    let plain = Caps::webgpu_default();
    let wide = Caps { profile: Profile::Cpu, subgroup_size: Some(8), ..plain.clone() };
    let tuned = |caps: &Caps, values: &[(Knob, usize)]| {
        caps.tuned(values.iter().fold(Tuning::default(), |tuning, (knob, value)| tuning.with(*knob, *value)))
    };
    let devices = [
        plain.clone(),
        Caps { subgroup_size: Some(32), ..plain.clone() },
        Caps { subgroup_size: Some(64), ..plain.clone() },
        Caps { subgroup_size: Some(8), small_halves: true, ..plain.clone() },
        wide.clone(),
        Caps { profile: Profile::Cpu, subgroup_size: Some(4), ..plain.clone() },
        Caps { profile: Profile::Cpu, ..plain.clone() },
        // Some variants exist only where more buffers can be bound than WebGPU promises.
        Caps { max_storage_buffers: 16, ..plain.clone() },
        Caps { max_storage_buffers: 16, profile: Profile::Cpu, subgroup_size: Some(8), ..plain.clone() },
        Caps { max_storage_buffers: 16, profile: Profile::Cpu, ..plain.clone() },
        // What `moebius tune` may choose instead.
        tuned(&plain, &[(Knob::DecodeLanes, 16), (Knob::DecodeWorkgroup, 256), (Knob::BatchLanes, 32), (Knob::TileTokens, 32)]),
        tuned(&plain, &[(Knob::DecodeLanes, 64), (Knob::DecodeWorkgroup, 128), (Knob::BatchLanes, 16), (Knob::TileTokens, 8)]),
        tuned(&wide, &[(Knob::DecodeRows, 256), (Knob::TileTokens, 8), (Knob::TileRows, 512)]),
        tuned(&wide, &[(Knob::DecodeRows, 16), (Knob::TileRows, 64)]),
    ];
    let cases = cases();
    let mut variants: BTreeMap<(&str, Variant), u32> = BTreeMap::new();
    for caps in &devices {
        let of_cases = cases.iter().flat_map(|case| case.variants(caps).into_iter().map(|variant| (case.kernel, variant)));
        for key in of_cases.chain(probe_variants(caps, 1 << 20)) {
            let limit = variants.entry(key).or_insert(caps.max_storage_buffers);
            *limit = caps.max_storage_buffers.min(*limit);
        }
    }
    variants.into_iter().map(|((name, variant), limit)| Shader::new(name, variant, limit)).collect()
});

impl Shader {
    fn new(name: &str, variant: Variant, max_storage_buffers: u32) -> Shader {
        let kernel = KERNELS.iter().chain(PROBES).copied().find(|kernel| kernel.name == name).unwrap();
        let source = kernel.compose(&variant).unwrap();
        let what = || format!("{name} {}", variant.describe());
        let module =
            naga::front::wgsl::parse_str(&source).unwrap_or_else(|error| panic!("{}: {}", what(), error.emit_to_string(&source)));
        // What every WebGPU device has, and subgroups only where the variant says so.
        let mut capabilities = Capabilities::default() | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        capabilities.set(Capabilities::SUBGROUP, variant.has("SUBGROUPS"));
        let info = Validator::new(ValidationFlags::all(), capabilities)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}: {}", what(), error.emit_to_string(&source)));
        Shader { kernel, variant, module, info, max_storage_buffers }
    }

    fn what(&self) -> String {
        format!("{} {}", self.kernel.name, self.variant.describe())
    }

    /// Offsets of the fields of a struct, in order.
    fn fields(&self, name: &str) -> Option<Vec<(String, usize)>> {
        self.module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).map(|(_, ty)| {
            let TypeInner::Struct { members, .. } = &ty.inner else { panic!("{name} is no struct") };
            members.iter().map(|member| (member.name.clone().unwrap(), member.offset as usize)).collect()
        })
    }

    /// As wgpu translates for a Vulkan device, with and without robust buffer access.
    fn spirv(&self, lang_version: (u8, u8), buffer: BoundsCheckPolicy) -> Vec<u32> {
        let options = spv::Options {
            lang_version,
            flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
            bounds_check_policies: policies(buffer),
            zero_initialize_workgroup_memory: match buffer {
                BoundsCheckPolicy::Unchecked => spv::ZeroInitializeWorkgroupMemoryMode::Native,
                _ => spv::ZeroInitializeWorkgroupMemoryMode::Polyfill,
            },
            ..Default::default()
        };
        spv::write_vec(&self.module, &self.info, &options, None).unwrap_or_else(|error| panic!("{}: {error}", self.what()))
    }
}

fn policies(buffer: BoundsCheckPolicy) -> BoundsCheckPolicies {
    BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer,
        image_load: BoundsCheckPolicy::Restrict,
        binding_array: BoundsCheckPolicy::Unchecked,
    }
}

/// The fields of a Rust struct with their offsets, as [`Shader::fields`] gives those of WGSL.
macro_rules! rust_fields {
    ($struct:ty: $($field:ident)*) => {
        vec![$((stringify!($field).to_owned(), offset_of!($struct, $field))),*]
    };
}

/// A loop that asks for one value and waits for it lasts as long as memory takes to answer, trip by trip.
#[test]
fn on_gpus_loops_over_memory_have_several_loads_under_way() {
    // Kernels that take a number of loads from a constant, and the least of it: of a matmul each is of four rows.
    let least = [
        ("sample", "LOADS", 4),
        ("expert_sort", "LOADS", 8),
        ("norm", "LOADS", 4),
        ("router_topk", "LOADS", 4),
        ("qk_rope", "LOADS", 4),
        ("attention", "V_STEP", 8),
        ("matmul", "STEP_CHUNKS", 1),
        ("router", "STEP_CHUNKS", 1),
    ];
    let mut seen = BTreeSet::new();
    let number = |variant: &Variant, name: &str| -> Option<u32> {
        let text = variant.describe();
        text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    let gpu = Caps::webgpu_default();
    for case in cases() {
        for variant in case.variants(&gpu) {
            let what = format!("{} {}", case.kernel, variant.describe());
            for (kernel, name, least) in least {
                if let Some(found) = number(&variant, name).filter(|_| kernel == case.kernel) {
                    assert!(found >= least, "{what}");
                    seen.insert((kernel, name));
                }
            }
            // A part of all quads of a key: four or more, but for heads whose quads have no such part.
            if let Some(step) = number(&variant, "K_STEP") {
                let quads = number(&variant, "HEAD_DIM").unwrap() / 4;
                let possible = (1..=4).rev().find(|step| quads.is_multiple_of(*step)).unwrap();
                assert!(quads.is_multiple_of(step) && step >= possible, "{what}");
            }
            // Words of a few values make little work, so that more of each row are asked for: of a router, which is alone, more still.
            if let (Some(..=2), Some(step)) = (number(&variant, "CHUNK_QUADS"), number(&variant, "STEP_CHUNKS")) {
                assert!(step >= if case.kernel == "router" { 4 } else { 2 }, "{what}");
            }
        }
    }
    assert_eq!(seen.len(), least.len(), "{seen:?}");
}

#[test]
fn every_kernel_is_tried_in_every_weight_format_and_every_flag() {
    let flags_of = |name: &str| -> BTreeSet<String> {
        SHADERS
            .iter()
            .filter(|shader| shader.kernel.name == name)
            .flat_map(|shader| shader.variant.describe().split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    for kernel in KERNELS {
        let tried = flags_of(kernel.name);
        assert!(!tried.is_empty(), "{}", kernel.name);
        // Whatever a kernel's own text asks for with #ifdef has to occur.
        let asked = kernel.source.lines().filter_map(|line| line.strip_prefix("#ifdef "));
        for flag in asked {
            assert!(tried.contains(flag), "no variant of {} has {flag}", kernel.name);
        }
        if kernel.source.contains("#import weights") || kernel.source.contains("#import matmul") {
            for quant in QUANTS {
                assert!(tried.contains(quant.flag), "no variant of {} has {}", kernel.name, quant.flag);
            }
        }
        if kernel.source.contains("#import matmul") {
            assert!(tried.contains("LANES_1") && tried.contains("SUBGROUPS"), "{}: {tried:?}", kernel.name);
            if kernel.name == "router" {
                continue; // of one token
            }
            // Every staged tile, and values of every width in one.
            let staged = || SHADERS.iter().filter(|shader| shader.kernel.name == kernel.name && shader.variant.has("STAGED"));
            let tried = |name: &str| staged().map(|shader| shader.variant.get(name)).collect::<BTreeSet<u32>>();
            let smallest = if kernel.name.starts_with("expert_") { 16 } else { 32 };
            assert_eq!(tried("TOKENS"), [smallest, 32, 64].into(), "{}", kernel.name);
            assert_eq!(tried("CHUNK_QUADS"), [1, 2, 4, 8].into(), "{}", kernel.name);
        }
    }
    let staged = |flag| SHADERS.iter().any(|shader| shader.variant.has("STAGED") && shader.variant.has(flag));
    assert!(QUANTS.iter().all(|quant| staged(quant.flag)));
}

#[test]
fn tiles_follow_the_tokens_that_share_weights() {
    let gpu = Caps::webgpu_default();
    let cpu = Caps { profile: Profile::Cpu, subgroup_size: Some(8), ..gpu.clone() };
    let narrow = Caps { subgroup_size: Some(4), ..cpu.clone() };
    let dense = |num_tokens, rows| {
        let output = matmul::Output::Replace;
        let (cols, y_stride, quant) = (2048, rows, &F32);
        let problem =
            matmul::Problem { num_tokens, rows, cols, y_stride, bias: false, scale: 1.0, output, norm: None, part: None, quant };
        [&gpu, &cpu].map(|caps| matmul::choose(caps, &problem).get("TOKENS"))
    };
    assert_eq!([1, 2, 8, 9, 96, 97, 512].map(|num_tokens| dense(num_tokens, 2048)[0]), [1, 8, 8, 32, 32, 64, 64]);
    assert_eq!([1, 2, 8, 9, 97].map(|num_tokens| dense(num_tokens, 2048)[1]), [1, 8, 8, 16, 16]);
    assert_eq!([32, 33].map(|rows| dense(512, rows)[0]), [8, 64], "a team has all rows of a narrow matrix");

    let sort = |num_tokens: usize, num_experts_per_tok: usize, num_experts| expert_sort::Problem {
        num_assignments: num_tokens * num_experts_per_tok,
        num_experts,
    };
    // OLMoE, Mixtral, a dense layer.
    assert_eq!([2, 64, 65, 192, 193, 512].map(|num_tokens| sort(num_tokens, 8, 64).tile_len(&gpu)), [8, 8, 16, 16, 32, 32]);
    assert_eq!([32, 33, 96, 97, 384, 385].map(|num_tokens| sort(num_tokens, 2, 8).tile_len(&gpu)), [8, 16, 16, 32, 32, 64]);
    assert_eq!([2, 9, 25, 97].map(|num_tokens| sort(num_tokens, 1, 1).tile_len(&gpu)), [8, 16, 32, 64]);
    for (num_tokens, top_k, num_experts) in (1..=512).flat_map(|n| [(n, 8, 64), (n, 2, 8), (n, 1, 1), (n, 8, 300)]) {
        let problem = sort(num_tokens, top_k, num_experts);
        let share = (num_tokens * top_k).div_ceil(num_experts);
        assert_eq!(problem.tile_len(&cpu), if share > 8 { 16 } else { 8 }, "{problem:?}");
        assert_eq!(problem.tile_len(&narrow), 8);
        let largest = [sort(512, top_k, num_experts), sort(512, 8, 300)];
        assert!(largest.iter().all(|largest| problem.num_tiles(&gpu) <= largest.max_tiles()), "{problem:?}");
    }
}

#[test]
fn bindings_are_those_of_the_rust_side() {
    for shader in SHADERS.iter() {
        let declared: Vec<_> = shader
            .kernel
            .bindings_of(&shader.variant)
            .map(|binding| (binding.number, binding.name.to_owned(), binding.access))
            .collect();
        let mut reflected = Vec::new();
        for (_, global) in shader.module.global_variables.iter() {
            let Some(place) = &global.binding else { continue };
            assert_eq!(place.group, 0);
            let access = match global.space {
                AddressSpace::Uniform => Access::Uniform,
                AddressSpace::Storage { access } if access == StorageAccess::LOAD => Access::Read,
                AddressSpace::Storage { .. } => Access::ReadWrite,
                other => panic!("{}: {other:?}", shader.what()),
            };
            reflected.push((place.binding, global.name.clone().unwrap(), access));
        }
        reflected.sort_by_key(|(number, ..)| *number);
        assert_eq!(declared, reflected, "{}", shader.what());
    }
}

#[test]
fn uniforms_and_rows_are_laid_out_as_in_rust() {
    for shader in SHADERS.iter() {
        let declared: Vec<_> = shader.kernel.params.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect();
        assert_eq!(shader.fields("Params").unwrap_or_default(), declared, "{}", shader.what());
        if let Some(fields) = shader.fields("Row") {
            assert_eq!(fields, rust_fields!(Row: token position sequence keys));
        }
        if let Some(fields) = shader.fields("Sampling") {
            assert_eq!(fields, rust_fields!(Sampling: temperature top_k top_p min_p repeat_penalty seed));
        }
    }
}

#[test]
fn limits_that_every_device_grants_are_kept() {
    for shader in SHADERS.iter() {
        let mut layouter = Layouter::default();
        layouter.update(shader.module.to_ctx()).unwrap();
        let [entry] = &shader.module.entry_points[..] else { panic!("{}: not one entry point", shader.what()) };
        assert_eq!(entry.name, "main");
        assert_eq!(entry.workgroup_size, [shader.variant.get("WG"), 1, 1], "{}", shader.what());
        assert!(shader.variant.get("WG") <= 256, "{}", shader.what());

        let globals = || shader.module.global_variables.iter().map(|(_, global)| global);
        let storage = globals().filter(|global| matches!(global.space, AddressSpace::Storage { .. })).count();
        assert!(storage as u32 <= shader.max_storage_buffers, "{} has {storage} storage buffers", shader.what());
        let workgroup: u32 = globals()
            .filter(|global| global.space == AddressSpace::WorkGroup)
            .map(|global| layouter[global.ty].size.next_multiple_of(16))
            .sum();
        assert!(workgroup <= 16 << 10, "{} takes {workgroup} bytes of workgroup memory", shader.what());
    }
}

#[test]
fn every_variant_translates_to_msl() {
    for shader in SHADERS.iter() {
        let options = msl::Options {
            lang_version: (2, 3),
            bounds_check_policies: policies(BoundsCheckPolicy::Restrict),
            ..Default::default()
        };
        let text = msl::write_string(&shader.module, &shader.info, &options, &msl::PipelineOptions::default());
        let (text, translated) = text.unwrap_or_else(|error| panic!("{}: {error}", shader.what()));
        assert!(text.contains("kernel void"), "{}", shader.what());
        assert!(translated.entry_point_names.iter().all(Result::is_ok), "{}", shader.what());
    }
}

#[test]
fn every_variant_translates_to_hlsl() {
    for shader in SHADERS.iter() {
        let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..Default::default() };
        let pipeline = hlsl::PipelineOptions::default();
        let mut text = String::new();
        let translated = hlsl::Writer::new(&mut text, &options, &pipeline).write(&shader.module, &shader.info, None);
        let translated = translated.unwrap_or_else(|error| panic!("{}: {error}", shader.what()));
        assert!(text.contains("numthreads"), "{}", shader.what());
        assert!(translated.entry_point_names.iter().all(Result::is_ok), "{}", shader.what());
    }
}

#[test]
fn spirv_val_accepts_every_variant() {
    let available = Command::new("spirv-val").arg("--version").stdout(Stdio::null()).status().is_ok();
    // The translation is a test of its own.
    let mut modules: BTreeSet<(&str, Vec<u32>)> = BTreeSet::new();
    for shader in SHADERS.iter() {
        modules.insert(("vulkan1.3", shader.spirv((1, 6), BoundsCheckPolicy::Unchecked)));
        modules.insert(("vulkan1.1", shader.spirv((1, 3), BoundsCheckPolicy::Restrict)));
        if !shader.variant.has("SUBGROUPS") {
            modules.insert(("vulkan1.0", shader.spirv((1, 0), BoundsCheckPolicy::Restrict)));
        }
    }
    if !available {
        assert!(!required(), "spirv-val is missing: install spirv-tools");
        println!("skipped: no spirv-val");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut refused = Vec::new();
    for (index, (target, words)) in modules.iter().enumerate() {
        let path = directory.path().join(format!("{index}.spv"));
        std::fs::write(&path, words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        let output = Command::new("spirv-val").args(["--target-env", target]).arg(&path).output().unwrap();
        if !output.status.success() {
            refused.push(format!("{target}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    println!("{} modules of {} variants", modules.len(), SHADERS.len());
    assert!(modules.len() >= SHADERS.len() && refused.is_empty(), "{} refused, first: {}", refused.len(), refused[0]);
}
