//! Hints in the words of a page, where there is no command line.

use super::Error;

impl Error {
    /// [`hint`](Self::hint) for somebody who sits before a web page: it names no option, command or variable.
    pub fn page_hint(&self) -> Option<String> {
        let hint = match self {
            Error::ChatTemplate { .. } => {
                "the template lies beside the model, in chat_template.jinja or tokenizer_config.json; text can be continued without it"
            }
            Error::MissingFile { file, .. } if *file == "config.json" => {
                "a model is a folder in Hugging Face layout: config.json, tokenizer.json and the weights"
            }
            Error::PackedVersion { .. } => "reload the page to have its newest version, or quantise the original again",
            Error::CutModel { key, .. } => {
                return Some(format!("correct config.json, or add `\"{key}\": true` to it to run the model without the rest"));
            }
            Error::ForeignQuantization { .. } => {
                "take the repository without quantised weights; of quantised ones MXFP4 (gpt-oss) and FP8 in blocks (DeepSeek-V3, Qwen3-FP8) are read as \
                 they are"
            }
            Error::Dense { .. } | Error::NotYet { .. } | Error::UnknownArchitecture { .. } => {
                "the table of architectures in the README lists what can be run"
            }
            Error::Nonsense { .. } => {
                "a weight there is not a number, or so large that the result overflows. If the CPU reference computes well, it is the device: the Device \
                 tab compares its kernels with their references"
            }
            Error::PromptTooLong { .. } => "shorten the prompt, or begin a new conversation",
            Error::NoAdapter { .. } => "use a browser with WebGPU, or run the model on the CPU reference",
            Error::OutOfMemory { .. } => "close other tabs, take a smaller or quantised model, or run it on the CPU reference",
            Error::DeviceLimit { .. } => "run the model on the CPU reference",
            Error::Download { hint: Some(_), .. } => "load the model again: what has arrived is kept",
            Error::Download { .. }
            | Error::Tuning { .. }
            | Error::Trace { .. }
            | Error::Occupied { .. }
            | Error::AlreadyPacked { .. } => return None,
            // These name files only.
            _ => return self.hint(),
        };
        Some(hint.to_owned())
    }
}
