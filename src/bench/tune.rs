//! Which values of the knobs make a model quickest on a device: one knob after the other, each value in turns with the one to beat.

use super::run::Bench;
use super::test::{Test, Work, median};
use crate::error::{Error, Result};
use crate::gpu::{Knob, Tuning};
use crate::model::Decoder;

/// How to tune.
#[derive(Debug, Clone, Copy)]
pub struct TuneOptions {
    /// Tokens of the prompt that is timed.
    pub prompt: usize,
    /// Tokens that are generated and timed.
    pub generate: usize,
    /// How often each value is timed.
    pub rounds: usize,
}

/// A value is taken only if it is quicker by so much, so that chance does not decide.
const MIN_GAIN: f64 = 1.03;
/// It is also quicker in this share of the rounds.
const MIN_WINS: f64 = 0.75;
/// After this many rounds a value that is slower than that is given up.
const SCREENING: (usize, f64) = (1, 0.7);
/// Tokens whose logits are compared: so many at once, and so many of them one by one.
const COMPARED: [usize; 2] = [40, 8];
/// How far logits may be from those of the untuned kernels, as the median over the tokens of either kind of the squared difference over the
/// square: a choice of experts that nearly ties may turn and move a few tokens, a wrong kernel moves all.
const MAX_DIFFERENCE: f64 = 1e-5;

/// One value of a knob that was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    pub knob: Knob,
    pub value: usize,
    /// The value to beat.
    pub over: usize,
    /// Tokens per second over those of the value to beat, the median of the rounds, of prompts and of tokens one by one: where they matter.
    pub gains: [Option<f64>; 2],
    pub verdict: Verdict,
}

/// What came of a [`Trial`].
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Taken,
    /// Not by more than chance.
    NotQuicker,
    /// Another value of the knob is quicker still.
    Beaten,
    /// The logits differ from those of the untuned kernels by this much: a mistake of the kernels or of the driver's compiler.
    Wrong(f64),
    /// The device does not compile or run it.
    Failed(String),
}

/// What [`Bench::tune`] reports while it works.
#[derive(Debug)]
pub enum TuneEvent<'a> {
    /// The values of a knob are being tried: the `number`th of so many.
    Knob { knob: Knob, number: usize, of: usize },
    /// What became of one of them.
    Trial(&'a Trial),
}

/// What tuning found.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    pub tuning: Tuning,
    /// How many times as fast prompts and single tokens are, tuned over untuned; 1 where nothing was worth a change.
    pub gains: [f64; 2],
}

impl Bench {
    /// Finds the quickest values for the loaded subject; the device stays tuned so.
    ///
    /// # Errors
    /// [`Error::Argument`] for nothing to time; what running untuned can fail with; [`Error::DeviceLost`].
    pub async fn tune(&mut self, options: &TuneOptions, tell: &mut dyn FnMut(TuneEvent)) -> Result<Tuned> {
        let TuneOptions { prompt, generate, rounds } = *options;
        let tests = [Work::Prefill(prompt), Work::Decode(generate)].map(|work| Test { work, depth: 0 });
        tests.iter().try_for_each(|test| self.check(*test, rounds))?;
        self.set_tuning(Tuning::default());
        let expected = self.outputs().await?;
        let mut best = Tuning::default();
        for (index, knob) in Knob::ALL.into_iter().enumerate() {
            tell(TuneEvent::Knob { knob, number: index + 1, of: Knob::ALL.len() });
            let untuned = self.device().untuned();
            let caps = if knob == Knob::Subgroups { untuned.clone() } else { untuned.tuned(best.clone()) };
            let Some((&over, others)) = knob.values(&caps).split_first().map(|(over, others)| (over, others.to_vec())) else {
                continue;
            };
            let mut trials = Vec::new();
            for value in others {
                let verdict = self.try_out(&best.with(knob, value), &expected).await?;
                trials.push(Trial { knob, value, over, gains: [None; 2], verdict });
            }
            self.race(&best, &mut trials, &tests, rounds).await?;
            if let Some(trial) = trials.iter().find(|trial| trial.verdict == Verdict::Taken) {
                best = best.with(knob, trial.value);
            }
            trials.iter().for_each(|trial| tell(TuneEvent::Trial(trial)));
        }
        self.verify(best, &tests, rounds).await
    }

    fn set_tuning(&mut self, tuning: Tuning) {
        match &mut self.decoder {
            Decoder::Gpu(decoder) => decoder.set_tuning(tuning),
            Decoder::Reference(_) => unreachable!("a bench loads no reference"),
        }
    }

    /// Logits of some tokens at once, then of some one by one.
    async fn outputs(&mut self) -> Result<[Vec<f32>; 2]> {
        let [together, alone] = COMPARED.map(|tokens| tokens.min(self.context()));
        self.fill(Test { work: Work::Prefill(1), depth: 0 }).await?;
        let ids = self.ids(0, together);
        let mut outputs = [self.decoder.forward(&ids, 0).await?.logits, Vec::new()];
        for position in 0..alone {
            outputs[1].extend(self.decoder.forward(&ids[position..][..1], position).await?.logits);
        }
        Ok(outputs)
    }

    /// [`Verdict::NotQuicker`] where nothing is wrong with a tuning: so far.
    async fn try_out(&mut self, tuning: &Tuning, expected: &[Vec<f32>; 2]) -> Result<Verdict> {
        self.set_tuning(tuning.clone());
        match self.outputs().await {
            Ok(found) => {
                let differences =
                    found.iter().zip(expected).map(|(found, expected)| difference(found, expected, self.spec.vocab_size));
                let difference = differences.fold(0.0, f64::max);
                Ok(if difference <= MAX_DIFFERENCE { Verdict::NotQuicker } else { Verdict::Wrong(difference) })
            }
            Err(lost @ Error::DeviceLost { .. }) => Err(lost),
            Err(error) => Ok(Verdict::Failed(error.to_string())),
        }
    }

    /// Times what [`try_out`](Self::try_out) found nothing wrong with, and takes the quickest if it is quick enough.
    async fn race(&mut self, best: &Tuning, trials: &mut [Trial], tests: &[Test; 2], rounds: usize) -> Result<()> {
        // Ratios of every trial, by test and round.
        let mut ratios: Vec<[Vec<f64>; 2]> = vec![Default::default(); trials.len()];
        for round in 0..rounds {
            let mut own = [None; 2];
            for (trial, ratios) in trials.iter().zip(&mut ratios) {
                let slow = |ratios: &Vec<f64>| round >= SCREENING.0 && median(ratios) < SCREENING.1;
                if trial.verdict != Verdict::NotQuicker || ratios.iter().any(|ratios| !ratios.is_empty() && slow(ratios)) {
                    continue;
                }
                for (which, test) in tests.iter().enumerate().filter(|(which, _)| trial.knob.concerns()[*which]) {
                    let over = match own[which] {
                        Some(over) => over,
                        None => *own[which].insert(self.time(best, *test).await?),
                    };
                    ratios[which].push(self.time(&best.with(trial.knob, trial.value), *test).await? / over);
                }
            }
        }
        let mut quickest: Option<(usize, f64)> = None;
        for (index, (trial, ratios)) in trials.iter_mut().zip(&ratios).enumerate() {
            trial.gains = [0, 1].map(|which| (!ratios[which].is_empty()).then(|| median(&ratios[which])));
            let gain = mean(&trial.gains);
            if trial.verdict == Verdict::NotQuicker && gain >= MIN_GAIN && wins(ratios) >= MIN_WINS * rounds as f64 {
                trial.verdict = Verdict::Beaten;
                quickest = quickest.filter(|(_, known)| *known >= gain).or(Some((index, gain)));
            }
        }
        if let Some((index, _)) = quickest {
            trials[index].verdict = Verdict::Taken;
        }
        Ok(())
    }

    /// All that was taken beside nothing of it: together it has to be quicker as well.
    async fn verify(&mut self, tuning: Tuning, tests: &[Test; 2], rounds: usize) -> Result<Tuned> {
        let mut ratios = [Vec::new(), Vec::new()];
        for _ in 0..if tuning.is_empty() { 0 } else { rounds } {
            for (test, ratios) in tests.iter().zip(&mut ratios) {
                let untuned = self.time(&Tuning::default(), *test).await?;
                ratios.push(self.time(&tuning, *test).await? / untuned);
            }
        }
        let gains = ratios.map(|ratios| if ratios.is_empty() { 1.0 } else { median(&ratios) });
        let tuned = if mean(&gains.map(Some)) > 1.0 {
            Tuned { tuning, gains }
        } else {
            Tuned { tuning: Tuning::default(), gains: [1.0; 2] }
        };
        self.set_tuning(tuned.tuning.clone());
        Ok(tuned)
    }

    /// Tokens per second, once, after a warm-up.
    async fn time(&mut self, tuning: &Tuning, test: Test) -> Result<f64> {
        self.set_tuning(tuning.clone());
        Ok(self.run(test, 1).await?.tokens_per_second())
    }
}

/// Median over rows of the squared difference over the square; infinite where a value is no number.
fn difference(found: &[f32], expected: &[f32], cols: usize) -> f64 {
    let rows = found.chunks_exact(cols).zip(expected.chunks_exact(cols));
    let of_row = |(found, expected): (&[f32], &[f32])| {
        let square = |value: f32| f64::from(value).powi(2);
        let apart: f64 = found.iter().zip(expected).map(|(found, expected)| square(found - expected)).sum();
        let whole: f64 = expected.iter().map(|value| square(*value)).sum();
        if apart.is_nan() { f64::INFINITY } else { apart / whole.max(f64::MIN_POSITIVE) }
    };
    median(&rows.map(of_row).collect::<Vec<_>>())
}

/// Rounds in which a trial was quicker in what it concerns, all in all.
fn wins(ratios: &[Vec<f64>; 2]) -> f64 {
    let rounds = ratios.iter().map(Vec::len).max().unwrap_or_default();
    let of_round = |round: usize| mean(&[0, 1].map(|which| ratios[which].get(round).copied()));
    (0..rounds).filter(|round| of_round(*round) > 1.0).count() as f64
}

/// The geometric mean of those that are there.
fn mean(ratios: &[Option<f64>; 2]) -> f64 {
    let logs: Vec<f64> = ratios.iter().flatten().map(|ratio| ratio.ln()).collect();
    (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp()
}
