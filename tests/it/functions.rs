//! No function is longer than a screen, and none has more parameters than one can keep apart.

use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, FnArg, ImplItemFn, ItemFn, Signature, Type};

const MAX_LINES: usize = 60;
const MAX_PARAMETERS: usize = 5;

/// Files whose functions are being taken apart. Nothing new may come to this list.
const NOT_YET: [&str; 5] = [
    "src/blocks/experts.rs",
    "src/reference/expert_identity.rs",
    "src/reference/router.rs",
    "src/kernels/attention.rs",
    "src/error.rs",
];

/// What is wrong with the functions of one file, a line each.
struct Judge<'a> {
    path: &'a str,
    problems: Vec<String>,
}

impl Judge<'_> {
    fn look_at(&mut self, signature: &Signature, block: &Block) {
        let (first, last) = (signature.fn_token.span().start().line, block.span().end().line);
        let lines = last - first + 1;
        let parameters = signature.inputs.iter().filter_map(|input| match input {
            FnArg::Receiver(_) => None,
            FnArg::Typed(typed) => Some(values_in(&typed.ty)),
        });
        let parameters: usize = parameters.sum();
        let name = format!("{}:{first}: `{}`", self.path, signature.ident);
        if lines > MAX_LINES {
            self.problems.push(format!("{name} has {lines} lines, {MAX_LINES} are allowed"));
        }
        if parameters > MAX_PARAMETERS {
            self.problems.push(format!("{name} takes {parameters} values, {MAX_PARAMETERS} are allowed: name them in a struct"));
        }
    }
}

/// Values that a parameter of this type stands in for: a tuple is as many parameters as it has parts.
fn values_in(ty: &Type) -> usize {
    match ty {
        Type::Tuple(tuple) => tuple.elems.iter().map(values_in).sum(),
        Type::Reference(reference) => values_in(&reference.elem),
        Type::Paren(paren) => values_in(&paren.elem),
        _ => 1,
    }
}

impl<'ast> Visit<'ast> for Judge<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.look_at(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.look_at(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}

fn problems(path: &str, text: &str) -> Vec<String> {
    let mut judge = Judge { path, problems: Vec::new() };
    judge.visit_file(&syn::parse_file(text).expect("it compiles"));
    judge.problems
}

#[test]
fn functions_are_short_and_take_few_values() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "examples"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 300, "{} files", files.len());
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        if !NOT_YET.iter().any(|part| path.starts_with(part)) {
            found.extend(problems(&path, &std::fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_tuple_is_as_many_parameters_as_it_has_parts() {
    let text = "fn f((a, b): (u8, (u8, u8)), c: &(u8, u8), d: [u8; 9], e: Vec<(u8, u8)>) {}";
    assert_eq!(problems("x.rs", text), ["x.rs:1: `f` takes 7 values, 5 are allowed: name them in a struct"]);
    assert_eq!(problems("x.rs", "impl A { fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8) {} }"), [""; 0]);
    let long = format!("impl A {{ fn f() {{\n{}}} }}", "g();\n".repeat(60));
    assert_eq!(problems("x.rs", &long), ["x.rs:1: `f` has 62 lines, 60 are allowed"]);
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
