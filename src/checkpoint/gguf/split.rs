//! Models in several files: `name-00001-of-00003.gguf` and so on.

use crate::Error;
use std::path::{Path, PathBuf};

/// What the name of a part says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartName {
    stem: String,
    /// From 0 on.
    pub index: u64,
    pub count: u64,
}

const DIGITS: usize = 5;

impl PartName {
    /// `None` for a name of another kind.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = number_at_end(name)?;
        let (stem, number) = number_at_end(rest.strip_suffix("-of-")?)?;
        let index = number.checked_sub(1).filter(|index| *index < count)?;
        Some(PartName { stem: stem.strip_suffix('-')?.to_owned(), index, count })
    }

    /// The name of another part of the same model.
    pub fn of_part(&self, index: u64) -> String {
        format!("{}-{:05}-of-{:05}.gguf", self.stem, index + 1, self.count)
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

/// The error of a part that is not beside the others.
pub(super) fn missing(path: &Path, part: String) -> Error {
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    Error::MissingShard { directory, index: "the name of the first file", shard: part }
}
