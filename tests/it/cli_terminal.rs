//! The command line where a person sits before it: lines of progress, control characters, Ctrl-C.

use super::cli_chat::echo_model;
use crate::common::{demo_model, golden, lines, on_terminal};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const CONTROL: &str = "\u{1b}]0;a title\u{7}b\u{9b}2Jc\r\n";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn control_characters_that_a_model_writes_are_shown_on_a_terminal_and_kept_in_a_pipe() {
    let model = tempfile::tempdir().unwrap();
    echo_model(model.path(), CONTROL.len(), &["<|end|>"], "");
    let prompt = model.path().join("prompt.txt");
    fs::write(&prompt, CONTROL).unwrap();
    let tokens = CONTROL.len().to_string();
    let args = ["run", text(model.path()), "-f", text(&prompt), "--temp", "0", "-n", &tokens, "--device", "cpu"];
    let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(args).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{CONTROL}\n"), "a pipe gets what the model wrote");
    let Some(shown) = on_terminal(100, &args) else { return };
    assert!(!shown.contains("\u{1b}]") && !shown.contains(['\u{7}', '\u{9b}']), "{shown:?}");
    // Once as the prompt, once as what the model writes.
    assert_eq!(shown.matches("\u{241b}]0;a title\u{2407}b\u{fffd}2Jc").count(), 2, "{shown:?}");
}

#[test]
fn lines_of_progress_and_tables_of_loads_fit_a_narrow_terminal() {
    let (demo, many) = (demo_model(), golden("fixtures/qwen3_moe"));
    for (model, columns) in [(&demo, 80), (&demo, 40), (&many, 40)] {
        let args = ["run", text(model), "a b c", "-n", "3", "--temp", "0", "--device", "cpu"];
        let Some(received) = on_terminal(columns, &args) else { return };
        let lines = lines(&received);
        let loads: Vec<&String> = lines.iter().skip_while(|line| !line.starts_with("load of each")).skip(1).collect();
        assert!(lines.iter().any(|line| line.starts_with("load  ")) && loads.len() > 2, "{received:?}");
        // Sentences may go on in the next line of a terminal.
        let tables = lines.iter().filter(|line| line.starts_with("load  ") || line.starts_with("compile")).chain(loads);
        for line in tables {
            assert!(line.chars().count() <= columns, "{columns} columns: {line:?}");
        }
    }
}

#[test]
fn the_bundled_model_is_called_demo() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("t.jsonl");
    let program = folder.path().join("moebius");
    fs::copy(env!("CARGO_BIN_EXE_moebius"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["trace", "-p", "a", "-n", "1", "--device", "cpu", "--out", text(&out)]);
    command.env("XDG_CACHE_HOME", folder.path().join("cache"));
    assert!(command.output().unwrap().status.success());
    let trace = fs::read_to_string(&out).unwrap();
    let header: serde_json::Value = serde_json::from_str(trace.lines().next().unwrap()).unwrap();
    assert_eq!(header["model"], "demo", "unpacked as well");
}

#[cfg(unix)]
fn wait_for(mut there: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing for a minute");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_half_a_trace_behind() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("long.txt");
    fs::write(&long, "Once upon a time there was a king. ".repeat(2000)).unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let files = || fs::read_dir(&out).unwrap().count();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moebius"));
    command.args(["trace", "--file", text(&long), "--device", "cpu", "--out", text(&out.join("t.jsonl"))]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| files() == 1);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), files()), (Some(130), 0), "{}", String::from_utf8_lossy(&output.stderr));
}
