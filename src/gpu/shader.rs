//! The WGSL composer: `#import name`, `#ifdef FLAG` / `#else` / `#endif`, `#for X in COUNT` / `#end`, and a prelude of constants.
//!
//! `#import` takes a file of `shaders/lib/`, or a part that the variant brings along.
//!
//! `#for` writes its lines COUNT times, a number or an integer constant of the variant, with 0, 1, ... for `$X`: loops whose values live in
//! registers must be unrolled, and no compiler can be relied on to do it.
//!
//! It only copies lines, so it needs no WGSL parser and works the same in a browser. Every kernel is one file under `shaders/`; what it
//! imports lies in `shaders/lib/`.

use crate::error::{Error, Result};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

/// The importable files.
static LIBRARY: &[(&str, &str)] = &[
    ("attend_lanes", include_str!("../../shaders/lib/attend_lanes.wgsl")),
    ("cache", include_str!("../../shaders/lib/cache.wgsl")),
    ("gate_row", include_str!("../../shaders/lib/gate_row.wgsl")),
    ("heads", include_str!("../../shaders/lib/heads.wgsl")),
    ("lane_sum", include_str!("../../shaders/lib/lane_sum.wgsl")),
    ("matmul", include_str!("../../shaders/lib/matmul.wgsl")),
    ("matmul_staged", include_str!("../../shaders/lib/matmul_staged.wgsl")),
    ("outer", include_str!("../../shaders/lib/outer.wgsl")),
    ("rng", include_str!("../../shaders/lib/rng.wgsl")),
    ("rows", include_str!("../../shaders/lib/rows.wgsl")),
    ("rule_params", include_str!("../../shaders/lib/rule_params.wgsl")),
    ("rule_row", include_str!("../../shaders/lib/rule_row.wgsl")),
    ("slab", include_str!("../../shaders/lib/slab.wgsl")),
    ("softplus", include_str!("../../shaders/lib/softplus.wgsl")),
    ("top_k", include_str!("../../shaders/lib/top_k.wgsl")),
    ("turn_back", include_str!("../../shaders/lib/turn_back.wgsl")),
    ("weights", include_str!("../../shaders/lib/weights.wgsl")),
];

/// What distinguishes two pipelines of one kernel: defined flags, baked constants, and parts of its text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    flags: BTreeSet<&'static str>,
    consts: BTreeMap<&'static str, Const>,
    /// By what `#import` calls them.
    parts: BTreeMap<&'static str, Part>,
}

/// A text that a kernel imports and that its variant brings along. Two of the same name are the same.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    pub name: &'static str,
    pub text: &'static str,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Part {}

impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Part {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(other.name)
    }
}

/// A WGSL constant. Floats are kept as bits so that variants can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Const {
    U32(u32),
    F32(u32),
}

impl Variant {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn flag(mut self, name: &'static str) -> Self {
        self.flags.insert(name);
        self
    }

    pub fn flag_if(self, condition: bool, name: &'static str) -> Self {
        if condition { self.flag(name) } else { self }
    }

    pub fn u32(mut self, name: &'static str, value: usize) -> Self {
        let value = u32::try_from(value).expect("shapes are checked to fit u32 when a spec is parsed");
        self.consts.insert(name, Const::U32(value));
        self
    }

    pub fn f32(mut self, name: &'static str, value: f32) -> Self {
        self.consts.insert(name, Const::F32(value.to_bits()));
        self
    }

    /// `#import NAME` stands for this text.
    pub fn part(mut self, name: &'static str, part: Part) -> Self {
        self.parts.insert(name, part);
        self
    }

    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// A number, or the value of the integer constant of that name.
    fn count(&self, text: &str) -> Option<u32> {
        match self.consts.get(text) {
            Some(Const::U32(value)) => Some(*value),
            _ => text.parse().ok(),
        }
    }

    /// The value of an integer constant.
    ///
    /// # Panics
    /// If the variant has no such constant.
    pub fn get(&self, name: &str) -> u32 {
        match self.consts.get(name) {
            Some(Const::U32(value)) => *value,
            other => panic!("variant has no integer constant {name}: {other:?}"),
        }
    }

    /// `WORD_A WORD_B NAME=1 ...`, for tables and file names.
    pub fn describe(&self) -> String {
        let consts = self.consts.iter().map(|(name, value)| match value {
            Const::U32(value) => format!("{name}={value}"),
            Const::F32(bits) => format!("{name}={}", f32::from_bits(*bits)),
        });
        let parts = self.parts.iter().map(|(name, part)| format!("{name}={}", part.name));
        self.flags.iter().map(|flag| (*flag).to_owned()).chain(consts).chain(parts).collect::<Vec<_>>().join(" ")
    }
}

/// The whole WGSL text of one variant of a kernel.
///
/// # Errors
/// [`Error::Gpu`] for an unknown import or unbalanced `#ifdef`: a defect of the shader, named with its line.
pub fn compose(name: &str, source: &str, variant: &Variant) -> Result<String> {
    let mut text = format!("// {name}: {}\n", variant.describe());
    // naga knows subgroup operations without the directive and refuses it; browsers demand it.
    if cfg!(target_family = "wasm") && variant.has("SUBGROUPS") {
        text.push_str("enable subgroups;\n");
    }
    for (name, value) in &variant.consts {
        text.push_str(&match value {
            Const::U32(value) => format!("const {name}: u32 = {value}u;\n"),
            Const::F32(bits) => format!("const {name}: f32 = {:?}f;\n", f32::from_bits(*bits)),
        });
    }
    let mut imported = BTreeSet::new();
    expand(name, source, variant, &mut imported, &mut text)?;
    Ok(text)
}

fn expand(name: &str, source: &str, variant: &Variant, imported: &mut BTreeSet<&'static str>, text: &mut String) -> Result<()> {
    // One entry per open #ifdef: whether its current branch is taken.
    let mut branches: Vec<bool> = Vec::new();
    let mut lines = source.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let problem = |what: &str| Error::Gpu {
            attempted: format!("composing the shader {name}"),
            message: format!("line {}: {what}: {line}", index + 1),
        };
        let active = branches.iter().all(|taken| *taken);
        if let Some(flag) = line.strip_prefix("#ifdef ") {
            branches.push(variant.has(flag.trim()));
        } else if line.trim_end() == "#else" {
            let taken = branches.last_mut().ok_or_else(|| problem("no #ifdef is open"))?;
            *taken = !*taken;
        } else if line.trim_end() == "#endif" {
            branches.pop().ok_or_else(|| problem("no #ifdef is open"))?;
        } else if let Some(repeat) = line.strip_prefix("#for ") {
            let (placeholder, count) = repeat.split_once(" in ").ok_or_else(|| problem("expected `#for X in COUNT`"))?;
            let mut body = String::new();
            let mut depth = 1;
            for (_, line) in lines.by_ref() {
                depth += i32::from(line.starts_with("#for ")) - i32::from(line.trim_end() == "#end");
                if depth == 0 {
                    break;
                }
                body.push_str(line);
                body.push('\n');
            }
            if depth > 0 {
                return Err(problem("never ends"));
            }
            if active {
                let count = variant.count(count.trim()).ok_or_else(|| problem("neither a number nor an integer constant"))?;
                for i in 0..count {
                    expand(name, &body.replace(&format!("${}", placeholder.trim()), &i.to_string()), variant, imported, text)?;
                }
            }
        } else if let Some(wanted) = line.strip_prefix("#import ") {
            let part = variant.parts.get_key_value(wanted.trim()).map(|(name, part)| (*name, part.name, part.text));
            let library = || LIBRARY.iter().find(|(name, _)| *name == wanted.trim()).map(|(name, text)| (*name, *name, *text));
            let (key, name, source) = part.or_else(library).ok_or_else(|| problem("no such import"))?;
            if active && imported.insert(key) {
                expand(name, source, variant, imported, text)?;
            }
        } else if line.starts_with('#') {
            return Err(problem("unknown directive"));
        } else if active {
            text.push_str(line);
            text.push('\n');
        }
    }
    if branches.is_empty() {
        return Ok(());
    }
    Err(Error::Gpu { attempted: format!("composing the shader {name}"), message: "an #ifdef is never closed".to_owned() })
}
