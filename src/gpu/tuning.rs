//! Choices of the kernels that only a measurement on the device can get right, and where those of `moebius tune` are kept.

use super::caps::{Caps, Profile};
use crate::error::{Error, Result};
use crate::platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

/// One choice. Every value computes the same, at another speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knob {
    /// 1: subgroup operations are used where the device has them.
    Subgroups,
    /// On a GPU, of one token: invocations that share four weight rows.
    DecodeLanes,
    /// On a GPU, of one token: invocations of a workgroup.
    DecodeWorkgroup,
    /// On a GPU, of two to eight tokens: invocations that share four weight rows.
    BatchLanes,
    /// Tokens of the largest tile of a prompt.
    TileTokens,
    /// On a software device, of one token: weight rows of a workgroup.
    DecodeRows,
    /// On a software device, of a tile: weight rows of a workgroup.
    TileRows,
    /// Weights of the largest router whose logits and choice are one dispatch.
    RouterWeights,
}

/// Lanes from which a software device takes tiles of sixteen tokens: each takes a vector register, and processors with narrower vectors have fewer.
const WIDE_LANES: u32 = 8;

impl Knob {
    /// In the order in which it makes sense to try them.
    pub const ALL: [Knob; 8] = [
        Knob::Subgroups,
        Knob::DecodeLanes,
        Knob::DecodeWorkgroup,
        Knob::DecodeRows,
        Knob::RouterWeights,
        Knob::BatchLanes,
        Knob::TileTokens,
        Knob::TileRows,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Knob::Subgroups => "subgroups",
            Knob::DecodeLanes => "decode_lanes",
            Knob::DecodeWorkgroup => "decode_workgroup",
            Knob::BatchLanes => "batch_lanes",
            Knob::TileTokens => "tile_tokens",
            Knob::DecodeRows => "decode_rows",
            Knob::TileRows => "tile_rows",
            Knob::RouterWeights => "router_weights",
        }
    }

    /// Whether it matters for prompts, and whether for tokens one by one.
    pub fn concerns(self) -> [bool; 2] {
        match self {
            Knob::Subgroups => [true, true],
            Knob::BatchLanes | Knob::TileTokens | Knob::TileRows => [true, false],
            Knob::DecodeLanes | Knob::DecodeWorkgroup | Knob::DecodeRows | Knob::RouterWeights => [false, true],
        }
    }

    /// What a device may use, that which it uses untuned first. Empty: the knob is not for it.
    pub fn values(self, caps: &Caps) -> Vec<usize> {
        let subgroup = caps.subgroup_size;
        let with_first = |first: usize, values: &[usize]| {
            std::iter::once(first).chain(values.iter().copied().filter(|value| *value != first)).collect()
        };
        match (self, caps.profile) {
            (Knob::Subgroups, _) => subgroup.map_or(Vec::new(), |_| vec![1, 0]),
            (Knob::DecodeLanes, Profile::Gpu) => with_first(subgroup.map_or(32, |size| size as usize), &[8, 16, 32, 64]),
            (Knob::DecodeWorkgroup, Profile::Gpu) => {
                with_first(subgroup.map_or(64, |size| size.max(64) as usize), &[64, 128, 256])
            }
            (Knob::BatchLanes, Profile::Gpu) => vec![8, 16, 32],
            (Knob::TileTokens, Profile::Gpu) => vec![64, 32, 8],
            (Knob::TileTokens, Profile::Cpu) if subgroup >= Some(WIDE_LANES) => vec![16, 8],
            (Knob::DecodeRows, Profile::Cpu) if subgroup.is_some() => vec![64, 16, 32, 128, 256],
            (Knob::TileRows, Profile::Cpu) if subgroup.is_some() => vec![256, 64, 128, 512],
            (Knob::RouterWeights, _) => vec![1 << 17, 0, 1 << 20],
            _ => Vec::new(),
        }
    }
}

impl Caps {
    /// As tuned, or else what the device uses untuned.
    ///
    /// # Panics
    /// If the knob is not for this device.
    pub fn knob(&self, knob: Knob) -> usize {
        self.tuning.get(knob).unwrap_or_else(|| knob.values(self)[0])
    }

    /// This untuned device, tuned.
    pub fn tuned(&self, tuning: Tuning) -> Caps {
        let subgroup_size = self.subgroup_size.filter(|_| tuning.get(Knob::Subgroups) != Some(0));
        Caps { subgroup_size, tuning, ..self.clone() }
    }
}

/// Values of some knobs; the others are untuned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tuning(BTreeMap<Knob, usize>);

impl Tuning {
    pub fn get(&self, knob: Knob) -> Option<usize> {
        self.0.get(&knob).copied()
    }

    /// This one, with another value of one knob.
    pub fn with(&self, knob: Knob, value: usize) -> Tuning {
        let mut tuning = self.clone();
        tuning.0.insert(knob, value);
        tuning
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value that an untuned device cannot use.
    fn misfit(&self, untuned: &Caps) -> Option<(Knob, usize)> {
        let tuned = untuned.tuned(self.clone());
        let fits = |knob: Knob, value: usize| {
            let caps = if knob == Knob::Subgroups { untuned } else { &tuned };
            knob.values(caps).contains(&value)
        };
        self.0.iter().map(|(knob, value)| (*knob, *value)).find(|(knob, value)| !fits(*knob, *value))
    }
}

impl fmt::Display for Tuning {
    /// `decode_rows 32, tile_rows 128`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(knob, value)| format!("{} {value}", knob.name())).collect();
        f.write_str(&words.join(", "))
    }
}

/// Which device a tuning is for. With another driver, profile or version of the kernels, or without its subgroups, it is another device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedFor {
    pub adapter: String,
    pub backend: String,
    pub driver: String,
    /// Name of the [`Profile`].
    pub profile: String,
    pub subgroup_size: Option<u32>,
    pub moebius: String,
}

/// The tunings of all devices, as a file keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunings {
    devices: Vec<TunedDevice>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TunedDevice {
    device: TunedFor,
    tuning: Tuning,
}

impl Tunings {
    /// None where there is no file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Tuning`] if it is not what [`write`](Self::write) writes.
    pub async fn read(path: &Path) -> Result<Self> {
        let text = match platform::read_text(path).await {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(Tunings::default()),
            text => text?,
        };
        serde_json::from_str(&text)
            .map_err(|error| Error::Tuning { file: path.display().to_string(), problem: error.to_string() })
    }

    /// Replaces the file, or leaves the old one whole.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("names and numbers are JSON");
        platform::replace_file(path, format!("{text}\n").as_bytes())
    }

    pub fn find(&self, device: &TunedFor) -> Option<&Tuning> {
        self.devices.iter().find(|tuned| tuned.device == *device).map(|tuned| &tuned.tuning)
    }

    /// Keeps a tuning in place of what was known of the device; an empty one: nothing is known any more.
    pub fn set(&mut self, device: TunedFor, tuning: Tuning) {
        self.devices.retain(|tuned| tuned.device != device);
        if !tuning.is_empty() {
            self.devices.push(TunedDevice { device, tuning });
        }
    }

    /// The tuning of a device that may use it.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::Tuning`] for a value that is not for this device.
    pub(super) async fn of_device(path: &Path, device: &TunedFor, untuned: &Caps) -> Result<Tuning> {
        let tuning = Self::read(path).await?.find(device).cloned().unwrap_or_default();
        match tuning.misfit(untuned) {
            None => Ok(tuning),
            Some((knob, value)) => {
                let problem = format!("{} {value} is not for {}", knob.name(), device.adapter);
                Err(Error::Tuning { file: path.display().to_string(), problem })
            }
        }
    }
}
