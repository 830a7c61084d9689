//! Hints for a page, where nobody can type an option or a command.

use moebius::Error;

fn text(text: &str) -> String {
    text.to_owned()
}

/// One of each kind whose hint on the command line names something to type there.
fn errors() -> Vec<Error> {
    let bytes = |available_bytes| Error::OutOfMemory {
        what: text("the weights"),
        device: text("a GPU"),
        needed_bytes: 9,
        available_bytes,
    };
    vec![
        Error::ChatTemplate { problem: text("line 3") },
        Error::MissingFile { directory: "x".into(), file: "config.json" },
        Error::MissingFile { directory: "x".into(), file: "model.safetensors" },
        Error::PackedVersion { file: text("f"), found: text("9"), known: 1 },
        Error::CutModel { expected: text("5"), found: text("6"), key: "moebius_cut" },
        Error::ForeignQuantization { key: "quantization_config", method: text("AWQ") },
        Error::Dense { model_type: text("llama") },
        Error::NotYet { model_type: text("qwen3_next"), reason: "later" },
        Error::UnknownArchitecture { model_type: text("x"), known: vec!["mixtral"] },
        Error::Nonsense { what: "numbers", place: text("layer 1") },
        Error::PromptTooLong { found: 9, limit: 4, longest: 8 },
        Error::NoAdapter { wanted: text("gpu"), found: vec![text("llvmpipe")] },
        Error::NoAdapter { wanted: text("auto"), found: Vec::new() },
        bytes(None),
        bytes(Some(4)),
        Error::DeviceLimit { what: text("a kernel"), device: text("a GPU"), expected: text("9"), found: text("8") },
        Error::DeviceLost { attempted: text("writing"), reason: text("reset") },
        Error::Download { what: text("a file"), message: text("cut"), hint: Some("run the command again") },
        Error::Tuning { file: text("f"), problem: text("p") },
        Error::Trace { file: text("f"), line: 1, problem: text("p") },
        Error::Occupied { path: "x".into(), found: "a file" },
        Error::AlreadyPacked { directory: "x".into(), quant: text("q4_0") },
        Error::MissingTensors { missing: vec![text("lm_head.weight")], expected: 9 },
        Error::MissingTensors { missing: vec![text("model.norm.weight")], expected: 9 },
        Error::TensorShape { name: text("t"), expected: vec![1], found: vec![2] },
        Error::NotANumber { name: text("t"), index: 0 },
        Error::Safetensors { file: text("f"), problem: text("p") },
        Error::Gguf { file: text("f"), problem: text("p") },
        Error::MissingShard { directory: "x".into(), index: "i", shard: text("s") },
    ]
}

#[test]
fn hints_for_a_page_name_no_option_command_or_variable() {
    for error in errors() {
        let Some(hint) = error.page_hint() else { continue };
        let typed = ["--", "`moebius ", "MOEBIUS_", "apt "].into_iter().find(|typed| hint.contains(typed));
        assert_eq!(typed, None, "{error}: {hint}");
    }
}

#[test]
fn what_a_page_can_do_about_has_a_hint_there_too() {
    let files_to_write = |error: &Error| {
        matches!(error, Error::Tuning { .. } | Error::Trace { .. } | Error::Occupied { .. } | Error::AlreadyPacked { .. })
    };
    for error in errors().into_iter().filter(|error| error.hint().is_some() && !files_to_write(error)) {
        assert!(error.page_hint().is_some(), "{error}");
    }
}
