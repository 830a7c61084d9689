//! Names of GGUF files: what they end in, and how the parts of a model in several files are called, `name-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

const EXTENSION: &str = ".gguf";

/// Whether `path` names a GGUF file, going by its name.
pub fn is_gguf_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().ends_with(EXTENSION))
}

/// Whether `path` names the only or the first file of a model, and no projector of pictures beside one.
pub(crate) fn is_gguf_model(path: &Path) -> bool {
    let is_first = PartName::of(path).is_none_or(|part| part.index == 0);
    let is_projector = path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().starts_with("mmproj"));
    is_gguf_name(path) && is_first && !is_projector
}

/// What the name of a part says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartName {
    pub stem: String,
    /// From 0 on.
    pub index: u64,
    pub count: u64,
}

const DIGITS: usize = 5;

impl PartName {
    /// `None` for a name of another kind.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?;
        let (rest, count) = number_at_end(name)?;
        let (stem, number) = number_at_end(rest.strip_suffix("-of-")?)?;
        let index = number.checked_sub(1).filter(|index| *index < count)?;
        Some(PartName { stem: stem.strip_suffix('-')?.to_owned(), index, count })
    }

    /// The name of another part of the same model.
    pub fn of_part(&self, index: u64) -> String {
        format!("{}-{:05}-of-{:05}{EXTENSION}", self.stem, index + 1, self.count)
    }

    /// The path of another part, beside `path`.
    pub fn beside(&self, path: &Path, index: u64) -> PathBuf {
        path.with_file_name(self.of_part(index))
    }
}

/// What comes before the five digits at the end of `text`, and the number that they are.
fn number_at_end(text: &str) -> Option<(&str, u64)> {
    let at = text.len().checked_sub(DIGITS)?;
    let (rest, digits) = text.split_at_checked(at)?;
    Some((rest, if digits.bytes().all(|digit| digit.is_ascii_digit()) { digits.parse().ok()? } else { return None }))
}
