//! The WGSL composer.

use moebius::Error;
use moebius::gpu::{Variant, compose};

/// The composed lines after the header.
fn lines(source: &str, variant: &Variant) -> Vec<String> {
    let text = compose("test", source, variant).unwrap();
    text.lines().skip(1).map(str::to_owned).collect()
}

fn problem(source: &str) -> String {
    match compose("test", source, &Variant::new()) {
        Err(Error::Gpu { attempted, message }) => {
            assert!(attempted.contains("test"), "{attempted}");
            message
        }
        other => panic!("{other:?}"),
    }
}

const NESTED: &str = "\
before
#ifdef A
a
#ifdef B
a and b
#else
a without b
#endif
still a
#else
not a
#ifdef B
b without a
#endif
#endif
after";

#[test]
fn branches_nest() {
    let with = |flags: &[&'static str]| lines(NESTED, &flags.iter().fold(Variant::new(), |variant, flag| variant.flag(flag)));
    assert_eq!(with(&[]), ["before", "not a", "after"]);
    assert_eq!(with(&["A"]), ["before", "a", "a without b", "still a", "after"]);
    assert_eq!(with(&["B"]), ["before", "not a", "b without a", "after"]);
    assert_eq!(with(&["A", "B"]), ["before", "a", "a and b", "still a", "after"]);
}

#[test]
fn constants_come_first_and_keep_their_values() {
    let variant = Variant::new().u32("WIDTH", 7).f32("EPS", 1e-5).f32("ONE", 1.0).f32("LEAST", f32::MIN_POSITIVE);
    let composed = lines("body", &variant);
    assert_eq!(
        composed,
        [
            "const EPS: f32 = 1e-5f;",
            "const LEAST: f32 = 1.1754944e-38f;",
            "const ONE: f32 = 1.0f;",
            "const WIDTH: u32 = 7u;",
            "body"
        ]
    );
    let text = compose("test", "fn f() -> f32 { return EPS + LEAST + ONE + f32(WIDTH); }", &variant).unwrap();
    naga::front::wgsl::parse_str(&text).unwrap();
}

#[test]
fn an_import_is_expanded_once_with_its_own_imports() {
    let variant = Variant::new().flag("WEIGHT_F32").flag("LANES_1").u32("CHUNK_QUADS", 1);
    let text = compose("test", "#import matmul\n#import weights\n#import matmul\n", &variant).unwrap();
    for once in ["fn matmul_rows(", "fn matmul_store(", "fn weight_quad(", "fn unpack_quad("] {
        assert_eq!(text.matches(once).count(), 1, "{once}");
    }
    assert!(text.find("fn weight_quad(") < text.find("fn matmul_rows("), "what is imported comes first");
}

#[test]
fn an_import_in_a_branch_not_taken_is_left_out() {
    assert!(lines("#ifdef A\n#import rows\n#endif", &Variant::new()).is_empty());
    assert!(!lines("#ifdef A\n#import rows\n#endif", &Variant::new().flag("A")).is_empty());
}

#[test]
fn an_unknown_import_is_named_with_its_line() {
    let message = problem("fine\n#import nowhere");
    assert!(message.contains("line 2") && message.contains("#import nowhere"), "{message}");
    // Even where it is not taken: it can only be a mistake.
    assert!(problem("#ifdef A\n#import nowhere\n#endif").contains("line 2"));
}

#[test]
fn loops_are_unrolled_and_nest() {
    let variant = Variant::new().u32("ROWS", 2);
    let source = "#for R in ROWS\nrow $R\n#for C in 3\n$R.$Cu\n#ifdef A\nnever\n#endif\n#end\n#end\nafter";
    assert_eq!(
        lines(source, &variant)[1..],
        ["row 0", "0.0u", "0.1u", "0.2u", "row 1", "1.0u", "1.1u", "1.2u", "after"].map(str::to_owned)
    );
    assert!(lines("#ifdef A\n#for R in NOWHERE\n#end\n#endif", &Variant::new()).is_empty());
    assert!(problem("#for R in NOWHERE\n#end").contains("line 1"));
    assert!(problem("#for R in 2\n#for C in 2\n#end").contains("never ends"));
    assert!(problem("#for R\n#end").contains("expected"));
    assert!(problem("#end").contains("unknown directive"));
}

#[test]
fn unbalanced_branches_are_refused() {
    assert!(problem("#ifdef A\n").contains("never closed"));
    assert!(problem("#endif").contains("line 1"));
    assert!(problem("a\nb\n#else").contains("line 3"));
    assert!(problem("#if A").contains("unknown directive"));
}

#[test]
fn variants_describe_themselves_in_a_fixed_order() {
    let variant = Variant::new().u32("B", 2).flag("Y").u32("A", 1).flag("X").f32("EPS", 0.5);
    assert_eq!(variant.describe(), "X Y A=1 B=2 EPS=0.5");
    assert_eq!(variant.get("B"), 2);
    assert!(variant.has("X") && !variant.has("Z"));
}
