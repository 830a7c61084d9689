//! How much work a device gets at once.

/// Bounds of what is submitted together. Work that waits in the queue keeps a device busy; too much of it makes a screen stand still, or the
/// driver take the device for hung, and is work for nothing where the text ends early.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The longest that one submission should run.
    pub seconds: f64,
    /// Tokens of a text that one submission makes at most, 1 to [`Pace::MOST_STEPS`].
    pub steps: usize,
}

impl Pace {
    pub const MOST_STEPS: usize = 16;

    /// The default, with what the environment sets: `MOEBIUS_SUBMIT_MS` and `MOEBIUS_SUBMIT_STEPS`. What is no number, or out of range, is
    /// not heard.
    pub fn from_env() -> Self {
        let number =
            |name: &str| std::env::var(name).ok()?.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 1.0);
        let default = Pace::default();
        Pace {
            seconds: number("MOEBIUS_SUBMIT_MS").map_or(default.seconds, |ms| ms / 1000.0),
            steps: number("MOEBIUS_SUBMIT_STEPS").map_or(default.steps, |steps| (steps as usize).min(Self::MOST_STEPS)),
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace { seconds: 0.05, steps: 8 }
    }
}
