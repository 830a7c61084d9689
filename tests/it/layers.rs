//! The structure of the source tree: who may use whom, and the house rules that a text search can check.

use std::path::{Path, PathBuf};

/// Top-level modules of the library; each may use those before it.
const ORDER: &[&str] = &[
    "error",
    "platform",
    "tensor",
    "quant",
    "gating",
    "spec",
    "batch",
    "checkpoint",
    "reference",
    "gpu",
    "kernels",
    "conformance",
    "paging",
    "blocks",
    "model",
    "trace",
    "generate",
    "engine",
    "train",
    "upcycle",
    "bench",
    "web",
];

/// Files beside the kernels, and beside their twins, that are no kernel themselves.
const KERNEL_HELPERS: &[&str] = &["mod", "outer_tile", "slab", "tile"];
const REFERENCE_HELPERS: &[&str] = &["mod", "training"];

/// The hard stop of the house rules; 500 is the aim.
const MAX_LINES: usize = 800;

struct Source {
    /// Relative to the repository, with forward slashes.
    path: String,
    text: String,
}

#[test]
fn modules_use_only_modules_above_them() {
    let violations: Vec<String> =
        sources("src", "rs").iter().flat_map(|source| upward_uses(&source.path, &source.text)).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn the_layer_check_sees_every_way_of_naming_a_lower_module() {
    for text in [
        "use crate::engine::Engine;",
        "use crate::{error::Error, engine::{Engine}};",
        "fn f() { crate::engine::start() }",
        "use super::super::engine;",
    ] {
        assert_eq!(
            upward_uses("src/gpu/device.rs", text),
            ["src/gpu/device.rs: `gpu` uses `engine`, which is below it"],
            "{text}"
        );
    }
    assert_eq!(upward_uses("src/gpu.rs", "use super::engine;").len(), 1);
    assert_eq!(upward_uses("src/new.rs", "").len(), 1, "a module that the order does not know");
}

#[test]
fn the_layer_check_allows_what_is_above_and_what_is_only_mentioned() {
    for text in [
        "use crate::{Error, Result, tensor::Tensor};",
        "use crate::gpu::Caps;",
        "/// As [`crate::engine::Engine`] does it.",
        "use super::caps;",
        "use super::super::tensor;",
    ] {
        assert_eq!(upward_uses("src/gpu/device.rs", text), [""; 0], "{text}");
    }
    assert_eq!(upward_uses("src/cli/run.rs", "use crate::cli;"), [""; 0], "the binary is a crate of its own");
}

#[test]
fn only_the_platform_asks_what_it_runs_on() {
    let found = mentions(&["target_arch"], |path| path.starts_with("src/platform/mod.rs") || path == "src/lib.rs");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn only_the_command_line_prints() {
    let found = mentions(&["println!", "eprintln!", "print!(", "eprint!(", "dbg!("], is_command_line);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn nothing_is_left_unfinished() {
    let found = mentions(&["todo!(", "unimplemented!(", ".unwrap()", "#[ignore]"], |_| false);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_file_is_longer_than_the_hard_stop() {
    let mut files = sources("src", "rs");
    files.extend(sources("shaders", "wgsl"));
    for file in files {
        let lines = file.text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines, {MAX_LINES} are allowed", file.path);
    }
}

#[test]
fn every_kernel_has_its_three_files() {
    let shaders = stems("shaders", "wgsl", &[]);
    let kernels = stems("src/kernels", "rs", KERNEL_HELPERS);
    let references = stems("src/reference", "rs", REFERENCE_HELPERS);
    assert_eq!(shaders, kernels, "shaders/*.wgsl on the left, src/kernels/*.rs on the right");
    assert_eq!(shaders, references, "shaders/*.wgsl on the left, src/reference/*.rs on the right");
}

#[test]
fn every_shader_opens_with_its_name_and_names_its_twin() {
    for shader in sources("shaders", "wgsl").iter().filter(|shader| shader.path.matches('/').count() == 1) {
        let stem = Path::new(&shader.path).file_stem().expect("has a name").to_string_lossy();
        assert!(shader.text.starts_with(&format!("// {stem}: ")), "{}: the first line must be `// {stem}: ...`", shader.path);
        let twin = format!("src/reference/{stem}.rs");
        let ledger = shader.text.lines().take_while(|line| line.starts_with("//"));
        assert!(ledger.into_iter().any(|line| line.ends_with(&twin)), "{}: the ledger must name {twin}", shader.path);
    }
}

/// One sentence for every top-level module that the file names and may not use.
fn upward_uses(path: &str, text: &str) -> Vec<String> {
    if is_command_line(path) || path == "src/lib.rs" {
        return Vec::new();
    }
    let module = path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
    let Some(rank) = rank_of(module) else {
        return vec![format!("{path}: `{module}` has no place in the order of modules (tests/it/layers.rs)")];
    };
    let text: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let depth = module_depth(path);
    crate_paths(&text)
        .into_iter()
        .chain(super_paths(&text, depth))
        .filter(|used| rank_of(used).is_some_and(|used_rank| used_rank > rank))
        .map(|used| format!("{path}: `{module}` uses `{used}`, which is below it"))
        .collect()
}

fn rank_of(module: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == module)
}

/// How many `super` lead from the file's module to the crate's root.
fn module_depth(path: &str) -> usize {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inside.split('/').count()
}

/// The first names of all paths after `crate::`, those in braces included.
fn crate_paths(text: &str) -> Vec<String> {
    text.match_indices("crate::").flat_map(|(at, found)| first_names(&text[at + found.len()..])).collect()
}

/// The same for chains of `super::` that reach the root.
fn super_paths(text: &str, depth: usize) -> Vec<String> {
    let chain = "super::".repeat(depth);
    text.match_indices(&chain).flat_map(|(at, found)| first_names(&text[at + found.len()..])).collect()
}

/// `a` of `a::b`; `a` and `c` of `{a::{b}, c}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else { return vec![leading_name(path)] };
    let mut names = vec![leading_name(list)];
    let mut depth = 1;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(leading_name(&list[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn is_command_line(path: &str) -> bool {
    path == "src/main.rs" || path.starts_with("src/cli/")
}

/// Lines of `src/` outside comments that hold one of `words`, except in files that are `allowed`.
fn mentions(words: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources("src", "rs").iter().filter(|source| !allowed(&source.path)) {
        for (index, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    found
}

/// Sorted names of the kernels in a folder, without subfolders and `helpers`.
fn stems(folder: &str, extension: &str, helpers: &[&str]) -> Vec<String> {
    let depth = folder.matches('/').count() + 1;
    let files = sources(folder, extension);
    let names = files.iter().filter(|file| file.path.matches('/').count() == depth);
    let stems = names.map(|file| Path::new(&file.path).file_stem().expect("has a name").to_string_lossy().into_owned());
    stems.filter(|stem| !helpers.contains(&stem.as_str())).collect()
}

/// Every file below `folder` that ends in `extension`, sorted by path; none where the folder does not exist.
fn sources(folder: &str, extension: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join(folder), extension, &mut paths);
    paths.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root).expect("found below the root").to_string_lossy().replace('\\', "/"),
        text: std::fs::read_to_string(&path).expect("sources are text"),
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, extension: &str, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("the folder can be listed").path()) {
        if path.is_dir() {
            collect(&path, extension, paths);
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
}
