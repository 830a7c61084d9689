//! How much device memory experts may take, and how many slots that makes.

use crate::error::{Error, Result, human_bytes, nearest};
use std::fmt;
use std::str::FromStr;

/// A budget for the slots of all layers together.
///
/// Written `auto`, `all`, a size with its unit (`6GiB`, `800MB`) or a share of all routed experts (`50%`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ExpertMemory {
    /// Every expert where the memory that is free is enough, otherwise as many as fit there.
    #[default]
    Auto,
    All,
    Bytes(u64),
    /// In percent of the routed experts, above 0 and at most 100.
    Percent(f64),
}

/// A layer whose experts take slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceShape {
    /// Index in the model.
    pub layer: usize,
    pub experts: usize,
    /// The last so many of the experts have no weights, and need no slot.
    pub weightless: usize,
    pub experts_per_token: usize,
    /// Bytes of one expert on the device, where they are known.
    pub record_bytes: Option<u64>,
}

/// Units of sizes: four that are powers of two, from large to small, then those that are powers of ten.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];
const EXPECTED: &str = "auto, all, a size such as 6GiB or a share such as 50%";

impl PlaceShape {
    /// Experts that need a slot to be computed.
    pub fn weighted(&self) -> usize {
        self.experts - self.weightless
    }

    /// Slots that one token needs at most.
    pub fn least_slots(&self) -> usize {
        self.experts_per_token.min(self.weighted())
    }
}

impl ExpertMemory {
    /// The slots of each place, at most one for each of its experts. Every layer gets the same share of its experts, so layers of one shape get the same
    /// number of slots. `free_bytes` is what [`Auto`](Self::Auto) may take; where that is not known, it takes everything.
    ///
    /// # Errors
    /// [`Error::ExpertMemory`], which names the least that would do, if a layer would have fewer slots than one token uses experts;
    /// [`Error::Argument`] for a size where a place does not say how large its experts are.
    pub fn slots(self, places: &[PlaceShape], free_bytes: Option<u64>) -> Result<Vec<usize>> {
        let all = || places.iter().map(PlaceShape::weighted).collect();
        let slots: Vec<usize> = match self {
            ExpertMemory::All => all(),
            ExpertMemory::Percent(percent) => places.iter().map(|place| slots_of_share(percent, place.weighted())).collect(),
            ExpertMemory::Bytes(bytes) => slots_of_bytes(bytes, total_bytes(places)?, places),
            ExpertMemory::Auto => match free_bytes {
                None => all(),
                Some(free) => slots_of_bytes(free, total_bytes(places)?, places),
            },
        };
        match places.iter().zip(&slots).find(|(place, slots)| **slots < place.least_slots()) {
            None => Ok(slots),
            Some((place, &slots)) => Err(Error::ExpertMemory {
                given: self.given(free_bytes),
                layer: place.layer,
                slots,
                experts: place.weighted(),
                least_slots: place.least_slots(),
                enough: self.enough(places)?,
            }),
        }
    }

    /// The budget in the words of an error.
    fn given(self, free_bytes: Option<u64>) -> String {
        match (self, free_bytes) {
            (ExpertMemory::Auto, Some(free)) => human_bytes(free),
            _ => self.to_string(),
        }
    }

    /// The least budget of the same kind that gives every layer what one token uses, as one may type it.
    fn enough(self, places: &[PlaceShape]) -> Result<String> {
        let shares = places.iter().map(|place| (place.least_slots(), place.weighted()));
        if let ExpertMemory::Percent(_) = self {
            // In hundredths of a percent, rounded up.
            let hundredths = shares.map(|(least, weighted)| (least * 10_000).div_ceil(weighted.max(1))).max().unwrap_or(0);
            return Ok(ExpertMemory::Percent(hundredths as f64 / 100.0).to_string());
        }
        let total = u128::from(total_bytes(places)?);
        let bytes = shares.map(|(least, weighted)| (least as u128 * total).div_ceil(weighted.max(1) as u128)).max().unwrap_or(0);
        Ok(rounded_up(u64::try_from(bytes).unwrap_or(u64::MAX)))
    }
}

/// As many of `weighted` experts as a share makes. Shares such as a third cannot be written exactly, so a billionth of a slot is granted.
fn slots_of_share(percent: f64, weighted: usize) -> usize {
    ((percent * weighted as f64 / 100.0 + 1e-9).floor() as usize).min(weighted)
}

/// Every place gets the same share of its experts that the budget is of all of them.
fn slots_of_bytes(bytes: u64, total: u64, places: &[PlaceShape]) -> Vec<usize> {
    let of_place = |place: &PlaceShape| {
        let slots = u128::from(bytes) * place.weighted() as u128 / u128::from(total.max(1));
        usize::try_from(slots).unwrap_or(usize::MAX).min(place.weighted())
    };
    places.iter().map(of_place).collect()
}

/// Bytes of all experts.
fn total_bytes(places: &[PlaceShape]) -> Result<u64> {
    let of_place = |place: &PlaceShape| {
        let record = place.record_bytes.ok_or_else(|| Error::Argument {
            what: "expert memory in bytes",
            expected: "to know how large an expert is".to_owned(),
            found: format!("layer {}, which does not say", place.layer),
        })?;
        Ok(record.saturating_mul(place.weighted() as u64))
    };
    places.iter().map(of_place).try_fold(0u64, |sum, bytes: Result<u64>| Ok(sum.saturating_add(bytes?)))
}

/// At least `bytes`, in tenths of the unit that fits.
fn rounded_up(bytes: u64) -> String {
    let Some((name, unit)) = UNITS[..4].iter().find(|(_, unit)| bytes >= *unit) else { return format!("{bytes}B") };
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(*unit));
    if tenths.is_multiple_of(10) { format!("{}{name}", tenths / 10) } else { format!("{}.{}{name}", tenths / 10, tenths % 10) }
}

/// Such as `1.2MiB`, where that is read as just so many bytes.
fn in_tenths(size: u64) -> Option<String> {
    let text = human_bytes(size).replace(' ', "");
    let read: Option<ExpertMemory> = text.parse().ok();
    (read == Some(ExpertMemory::Bytes(size))).then_some(text)
}

impl fmt::Display for ExpertMemory {
    /// As it may be typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpertMemory::Auto => f.write_str("auto"),
            ExpertMemory::All => f.write_str("all"),
            ExpertMemory::Percent(percent) => write!(f, "{percent}%"),
            ExpertMemory::Bytes(bytes) => {
                // 2 GB are a whole number of KiB as well.
                let whole = UNITS[..8].iter().filter(|(_, unit)| *bytes >= *unit && bytes.is_multiple_of(*unit));
                match whole.max_by_key(|(_, unit)| *unit) {
                    Some((name, unit)) => write!(f, "{}{name}", bytes / unit),
                    None => f.write_str(&in_tenths(*bytes).unwrap_or_else(|| format!("{bytes}B"))),
                }
            }
        }
    }
}

impl FromStr for ExpertMemory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        match text.to_ascii_lowercase().as_str() {
            "auto" => return Ok(ExpertMemory::Auto),
            "all" => return Ok(ExpertMemory::All),
            _ => {}
        }
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.trim().parse::<f64>().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
            return percent
                .map(ExpertMemory::Percent)
                .ok_or_else(|| refused("a share above 0%, at most 100%", text, comma(number)));
        }
        let digits = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number = number.trim();
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        match (known, number.parse::<f64>()) {
            (Some((_, unit)), Ok(count)) if count > 0.0 && count.is_finite() => {
                Ok(ExpertMemory::Bytes(bytes(number, count, *unit)))
            }
            (Some(_), Ok(_)) => Err(refused("a size above zero", text, "")),
            (None, Ok(_)) => Err(refused(EXPECTED, text, &with_unit(number, unit))),
            _ => {
                let near = nearest(text, ["auto", "all"].into_iter()).filter(|_| digits == 0);
                let near = near.map_or_else(|| comma(number).to_owned(), |near| format!("; did you mean `{near}`?"));
                Err(refused(EXPECTED, text, &near))
            }
        }
    }
}

/// `number` units, exactly where it is whole. More than 64 bits hold is as much as they hold.
fn bytes(number: &str, count: f64, unit: u64) -> u64 {
    match number.parse::<u64>() {
        Ok(whole) => whole.saturating_mul(unit),
        Err(_) => ((count * unit as f64) as u64).max(1),
    }
}

/// What may have been meant by a number without a unit that is known.
fn with_unit(number: &str, unit: &str) -> String {
    let first = unit.get(..1).unwrap_or_default().to_ascii_uppercase();
    match UNITS[..4].iter().find(|(name, _)| !first.is_empty() && name.starts_with(&first)) {
        Some((name, _)) => format!("; write {number}{name}"),
        None if unit.is_empty() => format!("; write {number}B for bytes, {number}GiB or {number}%"),
        None => "; units are B, KiB, MiB, GiB and TiB, or KB, MB, GB and TB for powers of ten".to_owned(),
    }
}

fn comma(number: &str) -> &'static str {
    let is_number = number.contains(',') && number.replacen(',', ".", 1).trim().parse::<f64>().is_ok();
    if is_number { "; write a point, not a comma" } else { "" }
}

/// `advice` goes on where the sentence ends.
fn refused(expected: &str, found: &str, advice: &str) -> Error {
    Error::Argument { what: "expert memory", expected: expected.to_owned(), found: format!("`{found}`{advice}") }
}
