//! The parts of an answer: what a model thinks before it answers, and the answer itself.
//!
//! Models mark them in two ways. Most put their thinking between two marks such as `<think>` and `</think>`, of which the template may
//! already have written the first. gpt-oss gives every message a channel (its format is called harmony):
//! `<|channel|>analysis<|message|>..<|end|><|start|>assistant<|channel|>final<|message|>..<|return|>`.

use serde::Serialize;

/// Whom a piece of an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Written for the model itself; no part of the conversation.
    Thinking,
    Answer,
}

/// Some text of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartText {
    pub part: Part,
    pub text: String,
}

/// How a family of models marks its thinking.
#[derive(Debug, PartialEq, Eq)]
struct Marks {
    open: &'static str,
    close: &'static str,
    /// Marks that may stand around the answer that follows.
    answer: &'static [(&'static str, &'static str)],
}

const MARKS: [Marks; 11] = [
    // DeepSeek, Qwen, GLM, MiniMax, Hunyuan, Kimi, Ernie, MiMo, Nemotron, Granite and others.
    Marks { open: "<think>", close: "</think>", answer: &[("<answer>", "</answer>"), ("<response>", "</response>")] },
    Marks { open: "<thinking>", close: "</thinking>", answer: &[] },
    Marks { open: "<thought>", close: "</thought>", answer: &[] },
    Marks { open: "<reasoning>", close: "</reasoning>", answer: &[] },
    Marks { open: "[THINK]", close: "[/THINK]", answer: &[] },
    Marks { open: "<seed:think>", close: "</seed:think>", answer: &[] },
    Marks { open: "<longcat_think>", close: "</longcat_think>", answer: &[] },
    Marks {
        open: "<|START_THINKING|>",
        close: "<|END_THINKING|>",
        answer: &[("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<|START_TEXT|>", "<|END_TEXT|>")],
    },
    Marks { open: "<|inner_prefix|>", close: "<|inner_suffix|>", answer: &[] },
    Marks { open: "<|think|>", close: "<|end|>", answer: &[("<|begin|>assistant<|content|>", "<|end|>")] },
    Marks { open: "<|channel>thought", close: "<channel|>", answer: &[] },
];

const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const START: &str = "<|start|>";
const HARMONY: [&str; 6] = [CHANNEL, MESSAGE, START, "<|end|>", "<|return|>", "<|call|>"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    Begin,
    Thinking(&'static Marks),
    /// The thinking is over, and nothing but white space came after it.
    After(&'static Marks),
    /// With the mark that may end it.
    Answer(Option<&'static str>),
    /// The name of a channel is being written.
    Header,
    Body(Part),
    /// After the end of a message.
    Between,
}

/// Tells the parts of an answer apart while it is written.
#[derive(Debug, Clone)]
pub struct AnswerParts {
    state: State,
    /// Text whose part is not certain yet.
    held: String,
    /// White space at the start of the part is left out.
    at_start: bool,
    /// Whether a part has text already.
    begun: [bool; 2],
}

impl AnswerParts {
    /// For the answer to a prompt that ends with `tail`, its control tokens spelled out: a template may open the thinking itself.
    pub fn after(tail: &str) -> Self {
        let begin = |state, held: &str, at_start| AnswerParts { state, held: held.to_owned(), at_start, begun: [false; 2] };
        let tail = tail.trim_end();
        if let Some(marks) = MARKS.iter().find(|marks| tail.ends_with(marks.open)) {
            return begin(State::Thinking(marks), "", true);
        }
        let Some((_, turn)) = tail.rsplit_once("<|start|>assistant") else { return begin(State::Begin, "", false) };
        match (turn.split_once(CHANNEL), turn.split_once(MESSAGE)) {
            _ if ["<|end|>", "<|return|>", "<|call|>"].iter().any(|end| turn.contains(end)) => begin(State::Begin, "", false),
            (Some((_, rest)), _) => match rest.split_once(MESSAGE) {
                Some((header, _)) => begin(State::Body(part_of(header)), "", false),
                None => begin(State::Header, rest, false),
            },
            (None, Some(_)) => begin(State::Body(Part::Answer), "", false),
            (None, None) => begin(State::Begin, "", false),
        }
    }

    /// Takes ordinary text.
    pub fn push(&mut self, text: &str) -> Vec<PartText> {
        let mut out = Vec::new();
        self.held.push_str(text);
        while self.step(&mut out) {}
        out
    }

    /// Whether a control token of this text marks a part here; those that do not are no text.
    pub fn heeds(&self, token: &str) -> bool {
        match self.state {
            State::Begin => token == CHANNEL || MARKS.iter().any(|marks| marks.open.starts_with(token)),
            State::Thinking(marks) => token == marks.close,
            State::After(marks) => marks.answer.iter().any(|(open, _)| open.contains(token)),
            State::Answer(close) => close == Some(token),
            State::Header | State::Body(_) | State::Between => HARMONY.contains(&token),
        }
    }

    /// Takes a control token that [`heeds`](Self::heeds) named.
    pub fn control(&mut self, token: &str) -> Vec<PartText> {
        if self.state == State::Begin && token == CHANNEL {
            self.held.clear();
            self.state = State::Header;
            return Vec::new();
        }
        match (self.state, token) {
            (State::Header, MESSAGE) => {
                let header = std::mem::take(&mut self.held);
                self.begin_body(part_of(&header))
            }
            (State::Between, MESSAGE) => self.begin_body(Part::Answer),
            (State::Header | State::Body(_) | State::Between, CHANNEL) => {
                self.held.clear();
                self.state = State::Header;
                Vec::new()
            }
            (State::Header | State::Body(_) | State::Between, _) => {
                self.held.clear();
                self.state = State::Between;
                Vec::new()
            }
            _ => self.push(token),
        }
    }

    /// What was held back, when nothing more comes.
    pub fn finish(&mut self) -> Vec<PartText> {
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::new();
        match self.state {
            State::Begin | State::Answer(_) => self.emit(Part::Answer, &held, &mut out),
            State::After(_) => self.emit(Part::Answer, held.trim_start(), &mut out),
            State::Thinking(_) => self.emit(Part::Thinking, held.trim_end(), &mut out),
            State::Header | State::Body(_) | State::Between => {}
        }
        out
    }

    /// Messages of one part stand apart.
    fn begin_body(&mut self, part: Part) -> Vec<PartText> {
        self.state = State::Body(part);
        let mut out = Vec::new();
        if self.begun[part as usize] {
            self.emit(part, "\n\n", &mut out);
        }
        out
    }

    /// One step with the held text; false when more has to come first.
    fn step(&mut self, out: &mut Vec<PartText>) -> bool {
        match self.state {
            State::Begin => self.step_begin(out),
            State::Thinking(marks) => match self.up_to(marks.close, Part::Thinking, out) {
                true => self.enter(State::After(marks)),
                false => false,
            },
            State::After(marks) => self.step_after(marks),
            State::Answer(Some(close)) => match self.up_to(close, Part::Answer, out) {
                true => self.enter(State::Answer(None)),
                false => false,
            },
            State::Answer(None) => {
                let held = std::mem::take(&mut self.held);
                let text = if self.at_start { held.trim_start() } else { &held };
                self.at_start &= text.is_empty();
                self.emit(Part::Answer, text, out);
                false
            }
            State::Body(part) => {
                let held = std::mem::take(&mut self.held);
                self.emit(part, &held, out);
                false
            }
            State::Header => false,
            State::Between => {
                self.held.clear();
                false
            }
        }
    }

    fn step_begin(&mut self, out: &mut Vec<PartText>) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() {
            return false;
        }
        if let Some(marks) = MARKS.iter().find(|marks| text.starts_with(marks.open)) {
            self.held = text[marks.open.len()..].to_owned();
            return self.enter(State::Thinking(marks));
        }
        if MARKS.iter().any(|marks| marks.open.starts_with(text)) {
            return false;
        }
        let held = std::mem::take(&mut self.held);
        self.state = State::Answer(None);
        self.emit(Part::Answer, &held, out);
        true
    }

    fn step_after(&mut self, marks: &'static Marks) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() {
            return false;
        }
        if let Some((open, close)) = marks.answer.iter().find(|(open, _)| text.starts_with(open)) {
            self.held = text[open.len()..].to_owned();
            return self.enter(State::Answer(Some(close)));
        }
        if marks.answer.iter().any(|(open, _)| open.starts_with(text)) {
            return false;
        }
        self.enter(State::Answer(None))
    }

    fn enter(&mut self, state: State) -> bool {
        self.state = state;
        self.at_start = true;
        true
    }

    /// Passes on what comes before `mark`, without the white space at either end. True once the mark is there, and taken off.
    fn up_to(&mut self, mark: &str, part: Part, out: &mut Vec<PartText>) -> bool {
        if self.at_start {
            self.held = self.held.trim_start().to_owned();
            self.at_start = self.held.is_empty();
        }
        if let Some(at) = self.held.find(mark) {
            let held = std::mem::take(&mut self.held);
            self.emit(part, held[..at].trim_end(), out);
            self.held = held[at + mark.len()..].to_owned();
            return true;
        }
        let ends = self.held.char_indices().map(|(start, _)| start);
        let partial = ends.into_iter().find(|&start| mark.starts_with(&self.held[start..])).unwrap_or(self.held.len());
        let certain = self.held[..partial].trim_end().len();
        let rest = self.held.split_off(certain);
        let text = std::mem::replace(&mut self.held, rest);
        self.emit(part, &text, out);
        false
    }

    fn emit(&mut self, part: Part, text: &str, out: &mut Vec<PartText>) {
        if text.is_empty() {
            return;
        }
        self.begun[part as usize] = true;
        match out.last_mut() {
            Some(last) if last.part == part => last.text.push_str(text),
            _ => out.push(PartText { part, text: text.to_owned() }),
        }
    }
}

/// What a message of this channel is. Commentary speaks to tools.
fn part_of(header: &str) -> Part {
    let channel = header.split(|letter: char| letter.is_whitespace() || letter == '<').next().unwrap_or_default();
    if channel == "final" { Part::Answer } else { Part::Thinking }
}
