//! Conversations from outside: commands, several lines, thinking, and what is refused before the weights are loaded.

use crate::common::{TinyCheckpoint, TinyTensor, golden};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn moebius(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moebius"));
    command.args(args).args(["--device", "cpu"]);
    command
}

/// Exit code, stdout and stderr of a conversation with these lines.
fn talk(args: &[&str], lines: &str) -> (Option<i32>, String, String) {
    let mut child =
        moebius(&[&["chat"], args].concat()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses to begin does not read.
    let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A model of one layer whose attention looks a fixed number of tokens back and repeats what comes there, so that it writes the last
/// `period` tokens of its prompt again. Its tokens are bytes and `control`, which get the ids from 256 on.
pub fn echo_model(folder: &Path, period: usize, control: &[&str], chat_template: &str) {
    const HIDDEN: usize = 160;
    const CONSTANT: usize = 32;
    const HEAD: usize = 128;
    const THETA: f32 = 3.0;
    const AMPLITUDE: f32 = 6.0;
    let vocab = 256 + control.len();
    let mut state = 7_u32;
    let mut sign = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 16 & 1 == 0 { 1.0 } else { -1.0 }
    };
    let codes: Vec<f32> = (0..vocab * HEAD).map(|_| sign()).collect();
    let table = |constant: f32| {
        let rows = codes.chunks(HEAD).flat_map(move |code| std::iter::repeat_n(constant, CONSTANT).chain(code.iter().copied()));
        rows.collect::<Vec<f32>>()
    };
    let half = HEAD / 2;
    let phase = |i: usize| -(period as f32 - 1.0) * THETA.powf(-2.0 * i as f32 / HEAD as f32);
    let constant_columns =
        |row: usize, value: f32| (0..HIDDEN).map(move |col| if col < CONSTANT { value } else { 0.0 * row as f32 });
    let query = (0..HEAD).flat_map(|row| {
        let angle = phase(row % half);
        constant_columns(row, AMPLITUDE / CONSTANT as f32 * if row < half { angle.cos() } else { angle.sin() })
    });
    let key = (0..HEAD).flat_map(|row| constant_columns(row, if row < half { AMPLITUDE / CONSTANT as f32 } else { 0.0 }));
    let value = (0..HEAD * HIDDEN).map(|at| if at % HIDDEN == CONSTANT + at / HIDDEN { 1.0 } else { 0.0 });
    let output = (0..HIDDEN * HEAD).map(|at| if at / HEAD == CONSTANT + at % HEAD { 8.0 } else { 0.0 });
    let ones = || std::iter::repeat_n(1.0, HIDDEN);
    let name = |name: &str| format!("model.layers.0.{name}.weight");
    let mut tensors = vec![
        TinyTensor::new("model.embed_tokens.weight", &[vocab, HIDDEN], table(1.0)),
        TinyTensor::new("lm_head.weight", &[vocab, HIDDEN], table(0.0)),
        TinyTensor::new("model.norm.weight", &[HIDDEN], ones()),
        TinyTensor::new(name("input_layernorm"), &[HIDDEN], ones()),
        TinyTensor::new(name("post_attention_layernorm"), &[HIDDEN], ones()),
        TinyTensor::new(name("self_attn.q_proj"), &[HEAD, HIDDEN], query),
        TinyTensor::new(name("self_attn.k_proj"), &[HEAD, HIDDEN], key),
        TinyTensor::new(name("self_attn.v_proj"), &[HEAD, HIDDEN], value),
        TinyTensor::new(name("self_attn.o_proj"), &[HIDDEN, HEAD], output),
        TinyTensor::new(name("block_sparse_moe.gate"), &[2, HIDDEN], std::iter::repeat_n(0.0, 2 * HIDDEN)),
    ];
    for expert in 0..2 {
        for (part, shape) in [("w1", [32, HIDDEN]), ("w3", [32, HIDDEN]), ("w2", [HIDDEN, 32])] {
            let zeros = std::iter::repeat_n(0.0, 32 * HIDDEN);
            tensors.push(TinyTensor::new(name(&format!("block_sparse_moe.experts.{expert}.{part}")), &shape, zeros));
        }
    }
    fs::write(folder.join("model.safetensors"), TinyCheckpoint { tensors }.file()).unwrap();
    let config = json!({
        "model_type": "mixtral", "vocab_size": vocab, "hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": HEAD, "hidden_act": "silu", "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "rope_theta": THETA, "num_local_experts": 2, "num_experts_per_tok": 2, "tie_word_embeddings": false,
        "sliding_window": null,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    write_tokenizer(folder, control, chat_template);
}

/// A tokenizer of bytes and `control`.
fn write_tokenizer(folder: &Path, control: &[&str], chat_template: &str) {
    fs::copy(golden("tokenizers/bytes.json"), folder.join("tokenizer.json")).unwrap();
    let token = |content: &str| {
        let special = content.contains('|');
        json!({ "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": special })
    };
    let decoder: serde_json::Map<String, Value> =
        control.iter().enumerate().map(|(at, content)| ((256 + at).to_string(), token(content))).collect();
    let settings = json!({ "added_tokens_decoder": decoder, "eos_token": control[0], "chat_template": chat_template });
    fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
}

const HARMONY: [&str; 6] = ["<|return|>", "<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<think>"];

/// An echo model whose template ends in what it is to answer.
fn scripted(script: &str, control: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let period = control.iter().fold(script.to_owned(), |text, token| text.replace(token, "#")).len();
    let template = "{% for m in messages %}[{{ m.role }}: {{ m.content }}{{ m.thinking }}]{% endfor %}";
    echo_model(folder.path(), period, control, &format!("{template}{script}"));
    folder
}

fn messages(file: &Path) -> Value {
    serde_json::from_str::<Value>(&fs::read_to_string(file).unwrap()).unwrap()["messages"].clone()
}

#[test]
fn only_the_final_channel_of_gpt_oss_is_the_answer_and_goes_back_into_the_conversation() {
    let script = "<|channel|>analysis<|message|>Be polite.<|end|><|start|>assistant<|channel|>final<|message|>Hello!<|return|>";
    let model = scripted(script, &HARMONY);
    let folder = model.path().to_str().unwrap();
    let file = model.path().join("talk.json");
    let lines = format!("Hi\n/save {}\n", file.display());
    let (code, stdout, stderr) = talk(&[folder, "--temp", "0"], &lines);
    assert_eq!((code, stdout.as_str()), (Some(0), "<think>\nBe polite.\n</think>\n\nHello!\n"), "{stderr}");
    let expected =
        json!([{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Hello!", "thinking": "Be polite." }]);
    assert_eq!(messages(&file), expected);
    let (_, stdout, _) = talk(&[folder, "--temp", "0", "--hide-thinking"], "Hi\n");
    assert_eq!(stdout, "Hello!\n");

    let output = moebius(&["run", folder, script, "--temp", "0", "--json"]).output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["thinking"], &result["answer"]), (&json!("Be polite."), &json!("Hello!")));
    assert_eq!(result["text"], "analysisBe polite.assistantfinalHello!");
}

#[test]
fn thinking_that_the_template_opens_is_told_from_the_answer() {
    let control = ["<|end|>", "<think>", "</think>"];
    let model = scripted("Hm.</think>\n4<|end|><think>", &control);
    let folder = model.path().to_str().unwrap();
    let (code, stdout, stderr) = talk(&[folder, "--temp", "0"], "2+2?\n");
    assert_eq!((code, stdout.as_str()), (Some(0), "<think>\nHm.\n</think>\n\n4\n"), "{stderr}");
    let (_, stdout, _) = talk(&[folder, "--temp", "0", "--hide-thinking"], "2+2?\n");
    assert_eq!(stdout, "4\n");
}

#[test]
fn new_text_begins_with_the_space_that_belongs_to_it() {
    let model = tempfile::tempdir().unwrap();
    echo_model(model.path(), 3, &["<|end|>"], "");
    fs::write(model.path().join("tokenizer.json"), super::tokenizer_files::with_space_in_front()).unwrap();
    fs::write(model.path().join("tokenizer_config.json"), "{}").unwrap();
    let folder = model.path().to_str().unwrap();
    let output = moebius(&["run", folder, "a b c", "-n", "2", "--temp", "0", "--json"]).output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["text"], &result["answer"], &result["thinking"]), (&json!(" a b"), &json!(" a b"), &json!("")));
}

#[test]
fn perplexity_begins_a_text_as_the_tokenizer_does_and_trace_writes_control_tokens() {
    let model = tempfile::tempdir().unwrap();
    echo_model(model.path(), 3, &["<|end|>"], "");
    let file = model.path().join("text.txt");
    fs::write(&file, "abcabc").unwrap();
    let perplexity = |adds_bos: bool| {
        let settings = json!({ "bos_token": "<|end|>", "add_bos_token": adds_bos });
        fs::write(model.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
        let output = moebius(&["perplexity", model.path().to_str().unwrap(), file.to_str().unwrap(), "--json"]).output().unwrap();
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (
            result["tokens"].clone(),
            result["begins_with_bos"].clone(),
            said.contains("begin with a "),
            said.contains("begin without a "),
        )
    };
    assert_eq!(perplexity(false), (json!(5), json!(false), false, true));
    assert_eq!(perplexity(true), (json!(6), json!(true), true, false));

    let out = model.path().join("t.jsonl");
    let args = ["trace", model.path().to_str().unwrap(), "-p", "ab", "-n", "1", "--out", out.to_str().unwrap()];
    assert!(moebius(&args).output().unwrap().status.success());
    let trace = fs::read_to_string(out).unwrap();
    let texts: Vec<Value> =
        trace.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].clone()).collect();
    assert_eq!(texts, ["<|end|>", "a", "b"]);
}

#[test]
fn commands_of_a_conversation_do_what_help_says_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.json");
    let wrong = folder.path().join("wrong.json");
    fs::write(&wrong, "{\"messages\": [1]}").unwrap();
    let lines = format!(
        "/help\nhelp\n Exit \n/hepl\n/nonsense\n/experts\n/set temp warm\n/set top-p 7\n/set colour red\n/set temp 0.5\n/set top-k -1\n/system\n\
         /system Be brief.\n/clear now\n\"\"\"Who is\nthe king?\"\"\"\n/experts\n/save {0}\n/clear\n/load {1}\n/load {0}\n/system\n/save\n/exit\nnever read\n",
        file.display(),
        wrong.display()
    );
    let (code, stdout, stderr) = talk(&["-n", "4", "--temp", "0"], &lines);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stdout.is_empty() && !stdout.contains('/'), "{stdout}");
    for said in [
        "/set NAME VALUE",
        "commands begin with a slash: /help",
        "commands begin with a slash: /exit",
        "no command /hepl; did you mean /help?",
        "no command /nonsense; /help lists all",
        "There is no answer yet.",
        "temp: expected a number, found \"warm\"",
        "top_p: expected a number above 0 and at most 1, found 7",
        "there is no setting colour",
        "temp 0.5, top-k 0",
        "told nothing before the conversation",
        "/clear takes nothing after it",
        "no chat template",
        "as a share of its layer",
        "3 messages are in",
        "is no conversation",
        "goes on after 3 messages",
        "\nBe brief.\n",
        "/save needs a file",
    ] {
        assert!(stderr.contains(said), "{said:?} is missing in:\n{stderr}");
    }
    assert_eq!(messages(&file)[1], json!({ "role": "user", "content": "Who is\nthe king?" }));
}

#[test]
fn what_does_not_fit_is_said_and_the_conversation_goes_on_after_clear() {
    let (long, lines) = ("and what do you think of all of this? ".repeat(3), "Hello there\n");
    let lines = format!("{lines}{long}\n/clear\nHi\n");
    let (code, stdout, stderr) = talk(&["--ctx", "48", "-n", "3", "--temp", "0"], &lines);
    assert_eq!(code, Some(2), "a script hears of it: {stderr}");
    assert!(stderr.contains("but the context holds 48") && stderr.contains("/clear forgets"), "{stderr}");
    assert_eq!(talk(&["--ctx", "48", "-n", "3", "--temp", "0"], "Hi\n").1, stdout.lines().last().unwrap().to_owned() + "\n");
}

#[test]
fn a_broken_template_and_a_prompt_that_is_too_long_are_refused_before_the_weights_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    echo_model(folder.path(), 3, &["<|end|>"], "{% for m in messages %}");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, stdout, stderr) = talk(&[path], "Hi\n");
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("error: chat template: "), "{stderr}");
    let output = moebius(&["run", path, &"long ".repeat(200)]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.starts_with("error: the prompt has 1000 tokens, but the context holds 512"), "{stderr}");
}

#[cfg(unix)]
mod terminal {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    /// A program on a terminal of its own.
    struct Terminal {
        child: Child,
        keys: File,
        screen: Receiver<Vec<u8>>,
        seen: String,
    }

    impl Terminal {
        fn start(command: &mut Command) -> Self {
            let pair = nix::pty::openpty(None, None).unwrap();
            let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
            command.stdin(copy(&pair.slave)).stdout(copy(&pair.slave)).stderr(copy(&pair.slave)).env("TERM", "xterm");
            // SAFETY: both calls are allowed between fork and exec.
            unsafe {
                command.pre_exec(|| {
                    nix::unistd::setsid()?;
                    if nix::libc::ioctl(0, nix::libc::TIOCSCTTY as _, 0) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                    Ok(())
                })
            };
            let child = command.spawn().unwrap();
            drop(pair.slave);
            let (keys, mut output) = (File::from(copy(&pair.master)), File::from(pair.master));
            let (sender, screen) = channel();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut bytes) {
                    if sender.send(bytes[..count].to_vec()).is_err() {
                        return;
                    }
                }
            });
            Terminal { child, keys, screen, seen: String::new() }
        }

        /// Waits until `text` is on the screen, forgets what came up to its end, and gives what came before it.
        fn wait_for(&mut self, text: &str) -> String {
            while !self.seen.contains(text) {
                let bytes = self.screen.recv_timeout(Duration::from_secs(120));
                let bytes = bytes.unwrap_or_else(|_| panic!("{text:?} never came; on the screen:\n{}", self.seen));
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
            }
            let start = self.seen.find(text).unwrap();
            let before = self.seen[..start].to_owned();
            self.seen.drain(..start + text.len());
            before
        }

        fn press(&mut self, keys: &str) {
            self.keys.write_all(keys.as_bytes()).unwrap();
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn a_conversation_on_a_terminal_has_lines_to_edit_a_history_and_answers_that_ctrl_c_ends() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("talk.json");
        let mut command =
            super::moebius(&["chat", "-n", "100000", "--ctx", "512", "--temp", "0", "--ignore-eos", "--stop", "never"]);
        let mut terminal = Terminal::start(command.env("XDG_CACHE_HOME", home.path()));
        terminal.wait_for("tokens of context. Say something.");
        terminal.wait_for("> ");
        // Ctrl-C at the prompt ends nothing.
        terminal.press("\u{3}");
        terminal.wait_for("Ctrl-D or /exit ends the conversation.");
        terminal.wait_for("> ");
        // Left, backspace: what is sent is the line as edited.
        // On a busy machine the answer may be at its end before anyone can stop it: then once more.
        let stopped = (0..10).any(|_| {
            terminal.press("/clear\r");
            terminal.wait_for("is forgotten.");
            terminal.wait_for("> ");
            terminal.press("Who is the kind?");
            terminal.wait_for("kind?");
            terminal.press("\u{1b}[D\u{8}g");
            terminal.wait_for("g?");
            terminal.press("\r");
            // The answer is being written.
            terminal.wait_for("\n");
            terminal.wait_for(" ");
            terminal.press("\u{3}");
            terminal.wait_for("tokens of context used");
            let stopped = !terminal.wait_for("\n").contains("the context is full");
            terminal.wait_for("> ");
            stopped
        });
        assert!(stopped, "Ctrl-C never ended an answer");
        // Alt-Enter begins a line.
        terminal.press("/set max-tokens 3\r");
        terminal.wait_for("max-tokens 3");
        // What is typed before the editor has the terminal would be another key: Enter is a line feed until then.
        terminal.wait_for("> ");
        terminal.press("one\u{1b}\rtwo\r");
        terminal.wait_for("cut at max-tokens");
        terminal.wait_for("> ");
        // Up brings back what was said before.
        terminal.press("\u{1b}[A\r");
        terminal.wait_for("cut at max-tokens");
        terminal.wait_for("> ");
        terminal.press(&format!("/save {}\r", file.display()));
        terminal.wait_for("messages are in");
        terminal.wait_for("> ");
        terminal.press("\u{4}");
        assert!(terminal.child.wait().unwrap().success());
        let messages = super::messages(&file);
        let said: Vec<&str> =
            messages.as_array().unwrap().iter().filter(|m| m["role"] == "user").filter_map(|m| m["content"].as_str()).collect();
        assert_eq!(said, ["Who is the king?", "one\ntwo", "one\ntwo"]);
        assert!(std::fs::read_to_string(home.path().join("moebius/chat-history.txt")).unwrap().contains("king"));
    }
}
