//! Chat templates as published, and single constructs, against what transformers renders.

use crate::common::golden;
use moebius::generate::{ChatMessage, ChatRequest, ChatTemplate, SpecialTokens};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn stored(file: &str) -> Value {
    serde_json::from_str(&read(&golden("chat-templates").join(file))).unwrap()
}

fn messages(conversation: &Value) -> Vec<ChatMessage> {
    serde_json::from_value(conversation.clone()).unwrap()
}

/// The notations of dates in the templates, and how they write the day of the renderings.
const DATES: [(&str, &str); 3] = [("%Y-%m-%d", "2026-11-29"), ("%d %b %Y", "29 Nov 2026"), ("%B %d, %Y", "November 29, 2026")];

/// The rendering of the conversation of that name, as if today were the day of the stored ones.
fn render(golden: &Value, source: &str, name: &str) -> Result<String, moebius::Error> {
    let token = |key: &str| golden["special_tokens"][key].as_str().map(str::to_owned);
    let special = SpecialTokens {
        bos: token("bos_token"),
        eos: token("eos_token"),
        unk: token("unk_token"),
        pad: token("pad_token"),
        others: Vec::new(),
    };
    let tools = name.ends_with("+tools").then(|| golden["tools"].as_array().unwrap().as_slice());
    let messages = messages(&golden["conversations"][name.trim_end_matches("+tools")]);
    let request = ChatRequest { messages: &messages, add_generation_prompt: true, tools, ..Default::default() };
    let mut text = ChatTemplate::compile(source, &special)?.render_with(&request)?;
    for (format, day) in DATES {
        let today = ChatTemplate::compile(&format!("{{{{ strftime_now('{format}') }}}}"), &special)?.render(&messages, true)?;
        text = text.replace(&today, day);
    }
    Ok(text)
}

#[test]
fn published_templates_give_what_transformers_gives() {
    let golden = stored("renderings.json");
    let mut compared = 0;
    for (name, renderings) in golden["renderings"].as_object().unwrap() {
        let source = read(&crate::common::golden("chat-templates").join(format!("{name}.jinja")));
        for (conversation, expected) in renderings.as_object().unwrap() {
            // Where transformers refuses, so may we.
            let Some(expected) = expected.as_str() else { continue };
            let text = render(&golden, &source, conversation).unwrap_or_else(|error| panic!("{name}, {conversation}: {error}"));
            assert_eq!(text, expected, "{name}, {conversation}");
            compared += 1;
        }
    }
    assert!(compared >= 80, "{compared}");
}

/// Templates that may not lie here are compared by the hash of their rendering where `CHAT_TEMPLATES` says where they are.
#[test]
fn published_templates_in_a_folder_of_the_users_give_the_stored_hashes() {
    let golden = stored("renderings.json");
    let hashes = golden["hashes"].as_object().unwrap();
    assert!(hashes.len() >= 40 && hashes.values().all(|hash| hash["template"].as_str().is_some_and(|hash| hash.len() == 64)));
    let Some(folder) = std::env::var_os("CHAT_TEMPLATES") else { return };
    let hash = |text: &str| Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut compared = 0;
    for (name, hashes) in hashes {
        let Ok(source) = std::fs::read_to_string(Path::new(&folder).join(format!("{name}.jinja"))) else { continue };
        assert_eq!(hash(&source), hashes["template"].as_str().unwrap(), "{name} is another version");
        for (conversation, expected) in hashes.as_object().unwrap().iter().filter(|(key, _)| *key != "template") {
            let Some(expected) = expected.as_str() else { continue };
            let text = render(&golden, &source, conversation).unwrap_or_else(|error| panic!("{name}, {conversation}: {error}"));
            assert_eq!(hash(&text), expected, "{name}, {conversation}");
            compared += 1;
        }
    }
    assert!(compared > 0, "no template of {} lies in the folder", hashes.len());
}

#[test]
fn constructs_of_jinja_give_what_python_gives() {
    let golden = stored("dialect.json");
    let messages = messages(&golden["variables"]["messages"]);
    let special = SpecialTokens { bos: Some("<s>".to_owned()), ..Default::default() };
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 100);
    for case in cases {
        let (source, expected) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
        let text = ChatTemplate::compile(source, &special).and_then(|template| template.render(&messages, true));
        assert_eq!(text.unwrap_or_else(|error| panic!("{source}: {error}")), expected, "{source}");
    }
}

/// What the message `Hi` becomes.
fn say(source: &str) -> String {
    let special = SpecialTokens::default();
    ChatTemplate::compile(source, &special).unwrap().render(&[ChatMessage::new("user", "Hi")], true).unwrap()
}

#[test]
fn a_template_that_asks_whether_tools_are_iterable_renders_without_tools() {
    let source = "{%- if not tools is defined %}\n    {%- set tools = [] %}\n{%- endif %}\n\
                  {%- if tools is iterable and tools | length > 0 %}\n    {{- \"# Tools\\n\" }}\n{%- endif %}\n\
                  {%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}\
                  {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
    assert_eq!(say(source), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn line_ends_of_windows_are_line_ends() {
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\n{% if add_generation_prompt %}assistant:\n{% endif %}\n";
    let expected = say(source);
    assert_eq!(expected, "user: Hi\nassistant:\n");
    assert_eq!(say(&source.replace('\n', "\r\n")), expected);
    assert_eq!(say(&source.replace('\n', "\r")), expected);
}

#[test]
fn methods_percent_and_generation_blocks_are_those_of_python() {
    assert_eq!(say("{{ 'a</think>b</think>c'.rsplit('</think>', 1)[-1] }}"), "c");
    assert_eq!(say("{{ 'a=b'.partition('=')[2] }}"), "b");
    assert_eq!(say("{{ '%s-%d' % ('a', 3) }}{{ 7 % 4 }}{{ messages|length % 2 }}"), "a-331");
    assert_eq!(say("{%generation%}x{%endgeneration%}{%  generation  %}y{%  endgeneration  %}"), "xy");
    // The names of the blocks are nothing else anywhere else.
    assert_eq!(
        say("generation {{ 'generation' }} {% raw %}{% generation %}{% endraw %}"),
        "generation generation {% generation %}"
    );
}

#[test]
fn a_template_of_its_own_is_used_where_there_are_tools_and_thinking_is_handed_on() {
    let golden = stored("renderings.json");
    let tools = golden["tools"].as_array().unwrap();
    let mut message = ChatMessage::new("assistant", "Hello.");
    message.thinking = Some("Be polite.".to_owned());
    let template = ChatTemplate::compile(
        "{{ messages[0].thinking }}|{{ messages[0].reasoning_content }}|{{ tools[0].function.name }}|{{ mode }}",
        &SpecialTokens::default(),
    )
    .unwrap();
    let variables = serde_json::from_str(r#"{"mode": "fast"}"#).unwrap();
    let messages = [message];
    let request = ChatRequest { messages: &messages, tools: Some(tools), variables: Some(&variables), ..Default::default() };
    assert_eq!(template.render_with(&request).unwrap(), "Be polite.|Be polite.|get_weather|fast");
}
