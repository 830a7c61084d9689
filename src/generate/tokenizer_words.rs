//! How tokenizers of GGUF files cut a text into words before they merge: the rules behind the names of `tokenizer.ggml.pre`.
//!
//! The rules of qwen2, deepseek-llm, deepseek-v3, glm4 and gpt-4o are compared with ids that llama.cpp's tokenizer gives, and those of refact and olmo
//! with vocabularies that were made again from such ids. The others are written from what is published of the families' tokenizers, and checked by
//! a case or two each.

/// The rules of one family, or of several.
#[derive(Debug)]
pub struct Words {
    /// As `tokenizer.ggml.pre` has them.
    names: &'static [&'static str],
    /// Expressions that isolate what they match, each within the pieces that those before it left.
    pub passes: &'static [&'static str],
    /// A word that is a token as it stands stays whole.
    pub ignore_merges: bool,
    /// Texts begin with the beginning-of-text token unless the file says otherwise.
    pub adds_bos: bool,
    /// Texts are brought to NFC first, as the family's `tokenizer.json` does. GGUF has no key for it.
    pub normalizes: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN35: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A word that is cut where its case changes, with a contraction, digits in threes. As OpenAI's o200k.
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const KIMI_K2: &str = concat!(
    r"[\p{Han}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const UP_TO_THREE_DIGITS: &str = r"\p{N}{1,3}";
const THREES_FROM_THE_RIGHT: &str = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";
const DEEPSEEK_V3_CJK: &str = r"[一-龥぀-ゟ゠-ヿ]+";
const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"##,
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
);
const DEEPSEEK_CJK: &str = r"[一-龥ࠀ-一가-\x{D7FF}]+";

/// Blocks of scripts that have no spaces, or other ones: Chinese, Japanese, Thai, Lao, Khmer, Burmese, Korean.
const AFMOE_SCRIPTS: &str = concat!(
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}",
    r"\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
);

const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

const EXAONE_MOE: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|",
    r"\s*[\r\n]|\s+(?!\S)|\s+",
);

const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What llama.cpp takes where a file has no name: punctuation apart, then as GPT-2, then digits apart, in threes.
pub static UNNAMED: Words = plain(&["default"], &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9]{3}"]);

static ALL: &[Words] = &[
    plain(&["gpt-2", "mpt", "jais", "trillion", "phi-2", "gigachat", "mellum", "a.x-4.0"], &[GPT2]),
    Words { normalizes: true, ..plain(&["olmo"], &[GPT2]) },
    plain(&["refact", "starcoder", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"], &[r"\p{N}", GPT2]),
    Words {
        ignore_merges: true,
        adds_bos: true,
        ..plain(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"], &[LLAMA3])
    },
    plain(&["dbrx", "smaug-bpe", "smaug", "glm4", "chatglm-bpe"], &[LLAMA3]),
    Words { normalizes: true, ..plain(&["qwen2"], &[QWEN2]) },
    plain(&["deepseek-r1-qwen", "stablelm2", "hunyuan", "solar-open", "grok-2", "megrez"], &[QWEN2]),
    plain(&["qwen35"], &[QWEN35]),
    plain(&["gpt-4o", "llama4", "kanana2", "minimax-m2"], &[GPT4O]),
    Words { ignore_merges: true, adds_bos: true, ..plain(&["tekken"], &[TEKKEN]) },
    plain(&["kimi-k2"], &[KIMI_K2]),
    plain(&["deepseek-v3", "hunyuan-dense"], &[UP_TO_THREE_DIGITS, DEEPSEEK_V3_CJK, DEEPSEEK_V3]),
    plain(
        &["deepseek-llm"],
        // The letters are those that have cases, the punctuation that of ASCII and its wide forms.
        &[r"[\r\n]", r"\s?[\p{Lu}\p{Ll}\p{Lt}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", DEEPSEEK_CJK, r"\p{N}+"],
    ),
    plain(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"]),
    plain(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    plain(&["afmoe"], &[THREES_FROM_THE_RIGHT, AFMOE_SCRIPTS, DEEPSEEK_V3]),
    plain(&["exaone-moe"], &[EXAONE_MOE]),
    plain(&["seed-coder"], &[SEED_CODER]),
    plain(&["superbpe"], &[r"\p{N}+", THREES_FROM_THE_RIGHT]),
];

const fn plain(names: &'static [&'static str], passes: &'static [&'static str]) -> Words {
    Words { names, passes, ignore_merges: false, adds_bos: false, normalizes: false }
}

impl Words {
    /// The rules that `tokenizer.ggml.pre` names.
    pub fn find(name: &str) -> Option<&'static Words> {
        ALL.iter().chain([&UNNAMED]).find(|words| words.names.contains(&name))
    }

    /// Every name that is known, sorted.
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<&str> = ALL.iter().flat_map(|words| words.names).copied().collect();
        names.sort_unstable();
        names
    }
}
