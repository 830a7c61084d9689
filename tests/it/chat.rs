//! Chat templates as the hub has them, broken ones and hostile ones.

use crate::common::{demo_model, golden};
use moebius::Error;
use moebius::generate::{ChatMessage, ChatTemplate, SpecialTokens, Tokenizer};
use pollster::block_on;
use proptest::prelude::*;

fn conversation() -> Vec<ChatMessage> {
    vec![
        ChatMessage::new("user", "Hello <b>"),
        ChatMessage::new("assistant", "Hi & welcome"),
        ChatMessage::new("user", " Who's \"there\"? "),
    ]
}

fn special() -> SpecialTokens {
    SpecialTokens { bos: Some("<s>".to_owned()), eos: Some("</s>".to_owned()), ..Default::default() }
}

fn render(source: &str, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, Error> {
    ChatTemplate::compile(source, &special())?.render(messages, add_generation_prompt)
}

/// What `source` makes of a single message.
fn say(source: &str) -> String {
    render(source, &[ChatMessage::new("user", "Hi")], true).unwrap()
}

fn problem(source: &str) -> String {
    match render(source, &conversation(), true).unwrap_err() {
        Error::ChatTemplate { problem } => problem,
        other => panic!("{source}: {other}"),
    }
}

#[test]
fn the_instruction_template_of_the_fixtures_gives_its_exact_text() {
    let tokenizer = block_on(Tokenizer::open(&golden("fixtures/mixtral"))).unwrap();
    let template = ChatTemplate::of(&tokenizer).unwrap();
    let text = template.render(&conversation(), true).unwrap();
    assert_eq!(text, "<s>[INST] Hello <b> [/INST] Hi & welcome</s>[INST]  Who's \"there\"?  [/INST]");
    assert!(template.writes_special_tokens() && template.stop_strings().is_empty());
    let ids = tokenizer.encode(&text, false).unwrap();
    assert_eq!((ids[0], ids.iter().filter(|&&id| id == 1).count(), ids.iter().filter(|&&id| id == 2).count()), (1, 1, 1));
}

#[test]
fn the_chatml_template_gives_its_exact_text_with_and_without_the_generation_prompt() {
    let source = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
    let turns = "<|im_start|>user\nHello <b><|im_end|>\n<|im_start|>assistant\nHi & welcome<|im_end|>\n\
                 <|im_start|>user\n Who's \"there\"? <|im_end|>\n";
    assert_eq!(render(source, &conversation(), false).unwrap(), turns);
    assert_eq!(render(source, &conversation(), true).unwrap(), format!("{turns}<|im_start|>assistant\n"));
}

/// After the published template of Mixtral Instruct: alternation enforced, a system message merged into the first user turn.
#[test]
fn a_template_that_enforces_alternation_renders_and_refuses() {
    let source = r#"
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [INST] " + system_message + "\n\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- " [INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- endif %}
{%- endfor %}
"#;
    let mut messages = vec![ChatMessage::new("system", "Be brief.")];
    messages.extend(conversation());
    let text = render(source, &messages, true).unwrap();
    assert_eq!(text, "<s> [INST] Be brief.\n\nHello <b> [/INST] Hi & welcome</s> [INST]  Who's \"there\"?  [/INST]");
    messages.remove(1);
    let error = render(source, &messages, true).unwrap_err().to_string();
    assert!(error.contains("conversation roles must alternate"), "{error}");
}

#[test]
fn the_python_in_published_templates_works() {
    assert_eq!(say("{{ ' a '.strip() + 'x-y'.split('-')[-1] + '\\na'.lstrip('\\n') }}"), "aya");
    assert_eq!(say("{{ messages[0].content.startswith('H') }} {{ 'b' in 'abc' }}"), "True True");
    assert_eq!(say("{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}"), "role=user;content=Hi;");
    assert_eq!(say("{{ messages[0].get('tool_calls') is none }}{{ messages[-1]['role'] | trim | upper }}"), "TrueUSER");
    assert_eq!(
        say(
            "{% set ns = namespace(n=0) %}{% for c in 'abc' %}{% if c == 'c' %}{% break %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
        ),
        "2"
    );
    assert_eq!(
        say("{{ tools is none }}{{ tools is not none }}{% if documents %}no{% endif %}{{ undefined_name is defined }}"),
        "TrueFalseFalse"
    );
    assert_eq!(
        say("{% macro turn(m) %}[{{ m.role }}]{% endmacro %}{{ turn(messages[0]) }}{{ messages[0].content is string }}"),
        "[user]True"
    );
    assert_eq!(say("{% generation %}kept{% endgeneration %} {%- generation -%} too {%- endgeneration %}"), "kepttoo");
    assert_eq!(say("  {% if true %}\n  indented\n  {% endif %}\nend\n"), "  indented\nend");
}

#[test]
fn json_is_written_as_python_writes_it() {
    assert_eq!(say("{{ messages | tojson }}"), r#"[{"role": "user", "content": "Hi"}]"#);
    assert_eq!(
        say("{{ {'a': '<é\\'>', 'b': [1, 2.5, none, true]} | tojson(ensure_ascii=False) }}"),
        r#"{"a": "<é'>", "b": [1, 2.5, null, true]}"#
    );
    assert_eq!(say("{{ {'a': [1]} | tojson(indent=4) }}"), "{\n    \"a\": [\n        1\n    ]\n}");
}

#[test]
fn strftime_now_gives_todays_date_and_refuses_nonsense() {
    let year: u32 = say("{{ strftime_now('%Y') }}").parse().unwrap();
    assert!((2024..2200).contains(&year), "{year}");
    let text = say("{{ strftime_now('%d %B %Y|%Y-%m-%d') }}");
    assert_eq!(text.split_once('|').unwrap().1.len(), 10, "{text}");
    assert!(problem("{{ strftime_now('%!') }}").contains("strftime"));
}

#[test]
fn without_a_template_the_conversation_is_a_plain_transcript() {
    let template = ChatTemplate::of(&block_on(Tokenizer::open(&demo_model())).unwrap()).unwrap();
    let mut messages = conversation();
    messages.insert(0, ChatMessage::new("system", "Be brief."));
    let turns = "Be brief.\n\nUser: Hello <b>\nAssistant: Hi & welcome\nUser: Who's \"there\"?\n";
    assert_eq!(template.render(&messages, false).unwrap(), turns);
    assert_eq!(template.render(&messages, true).unwrap(), format!("{turns}Assistant:"));
    assert_eq!(template.stop_strings(), ["\nUser:"]);
    assert!(!template.writes_special_tokens());
}

#[test]
fn broken_templates_are_errors_with_the_line() {
    for source in [
        "{% if %}",
        "\n{{ 1 + }}",
        "{% for m in messages %}",
        "{{ nothing_there() }}",
        "{{ undefined_name.field }}",
        "{{ messages | nope }}",
    ] {
        let problem = problem(source);
        assert!(problem.contains("chat_template:"), "{source}: {problem}");
    }
    assert!(problem("\n\n{{ raise_exception('only users') }}").contains("only users"));
}

#[test]
fn hostile_templates_run_out_of_fuel_instead_of_time_or_stack() {
    let rounds = "{% for a in range(50000) %}{% for b in range(50000) %}{% endfor %}{% endfor %}";
    assert!(problem(rounds).contains("fuel"), "{}", problem(rounds));
    let recursion = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    assert!(problem(recursion).contains("recursion"), "{}", problem(recursion));
    let inclusion = "{% include 'chat_template' %}";
    assert!(problem(inclusion).contains("recursion"), "{}", problem(inclusion));
    problem("{{ range(10000000000) | list }}");
    problem("{{ 'x' * 100000000000000 }}");
    problem(&format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)));
    problem(&"{% if true %}".repeat(100_000));
}

proptest! {
    #[test]
    fn no_template_makes_the_engine_panic(parts in prop::collection::vec(prop::sample::select(vec![
        "{%", "%}", "{{", "}}", "-", " for ", " in ", "messages", " if ", " endif ", " endfor ", "'", "x", "[", "]", "(", ")", "-1", ":",
        "|tojson", "|trim", ".split(", ".strip()", "1", " + ", " * ", "~", " set ", "=", "strftime_now", "raise_exception", "\n", "é", "{#", "#}", " macro ", "%", "//", "0",
    ]), 0..24)) {
        if let Err(error) = render(&parts.concat(), &conversation(), true) {
            prop_assert!(matches!(error, Error::ChatTemplate { .. }), "{error}");
        }
    }
}
