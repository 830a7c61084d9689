//! Tokens that a device draws, many of them, beside the distribution of the twin.

use crate::common::{gpu_device, gpu_device_with};
use moebius::batch::rng::uniform_f32;
use moebius::batch::{Row, Sampling, seen_words};
use moebius::gpu::{Device, DeviceOptions, Overrides, Profile, Recording};
use moebius::kernels::sample::{Buffers, Problem, record};
use moebius::reference::sample::probabilities;

const VOCAB: usize = 2000;
const DRAWS: usize = 4000;

const HOT: Sampling = Sampling { temperature: 0.8, seed: 7, ..Sampling::GREEDY };

/// Uniform in plus and minus `range`.
fn logits(range: f32) -> Vec<f32> {
    (0..VOCAB as u32).map(|token| (2.0 * uniform_f32(3, token) - 1.0) * range).collect()
}

/// One token for each of so many positions.
fn draws(device: &Device, sampling: Sampling, logits: &[f32]) -> Vec<u32> {
    let storage = |label: &str, words: &[u32]| {
        let buffer = device.storage(label, 4 * words.len() as u64);
        device.write(&buffer, 0, bytemuck::cast_slice(words));
        buffer
    };
    let rows: Vec<Row> = (0..DRAWS as u32).map(|position| Row::new(0, position, 0)).collect();
    let words: Vec<u32> = logits.iter().map(|logit| logit.to_bits()).collect();
    let sampled = storage("sampled", &vec![0; DRAWS]);
    let buffers = Buffers {
        sampling: &device.uniform("sampling", bytemuck::bytes_of(&sampling)),
        logits: &storage("logits", &words.repeat(DRAWS)),
        seen: &storage("seen", &vec![0; DRAWS * seen_words(VOCAB)]),
        rows: &storage("rows", bytemuck::cast_slice(&rows)),
        sampled: &sampled,
        halt: None,
    };
    let problem = Problem { num_sequences: DRAWS, vocab_size: VOCAB, first_row: 0, ring: 1, halts: false };
    let mut recording = Recording::default();
    record(device, &mut recording, &problem, &buffers).unwrap();
    pollster::block_on(async {
        device.submit("drawing", &[&recording]).await.unwrap();
        device.read_as("drawing", &sampled, DRAWS).await.unwrap()
    })
}

/// How far the draws are from what was expected, in standard deviations of the chi-square distribution. Tokens of which fewer than five are
/// expected count as one.
fn deviation(drawn: &[u32], expected: &[f64]) -> f64 {
    let mut counts = vec![0.0; VOCAB];
    drawn.iter().for_each(|token| counts[*token as usize] += 1.0);
    let (mut chi_square, mut freedom, mut rest) = (0.0, -1.0, [0.0; 2]);
    for (count, share) in counts.iter().zip(expected) {
        let wanted = share * DRAWS as f64;
        assert!(wanted > 0.0 || *count == 0.0, "a token was drawn that no filter left");
        if wanted < 5.0 {
            rest[0] += count;
            rest[1] += wanted;
        } else {
            chi_square += (count - wanted).powi(2) / wanted;
            freedom += 1.0;
        }
    }
    if rest[1] > 0.0 {
        chi_square += (rest[0] - rest[1]).powi(2) / rest[1];
        freedom += 1.0;
    }
    (chi_square - freedom) / (2.0f64 * freedom).sqrt()
}

fn draws_follow_the_twin(device: &Device) {
    let tried = [
        ("top-k 20, top-p 0.95", Sampling { top_k: 20, top_p: 0.95, ..HOT }, 6.0),
        ("top-p 0.9", Sampling { top_p: 0.9, temperature: 0.2, ..HOT }, 6.0),
        ("min-p 0.1", Sampling { min_p: 0.1, ..HOT }, 6.0),
        // More tokens than the kernel lists.
        ("top-k 600, top-p 0.95", Sampling { top_k: 600, top_p: 0.95, ..HOT }, 3.0),
        ("no filter", HOT, 6.0),
    ];
    for (name, sampling, range) in tried {
        let logits = logits(range);
        let expected = probabilities(&sampling, &logits, &vec![0; seen_words(VOCAB)]);
        assert!((expected.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let deviation = deviation(&draws(device, sampling, &logits), &expected);
        println!("{name}: {deviation:.2} standard deviations");
        assert!(deviation.abs() < 4.0, "{name}: {deviation}");
    }
}

#[test]
fn draws_follow_the_distribution_of_the_twin() {
    if let Some(device) = gpu_device() {
        draws_follow_the_twin(&device);
    }
}

#[test]
fn draws_follow_the_distribution_of_the_twin_in_the_profile_for_gpus() {
    let overrides = Overrides { profile: Some(Profile::Gpu), ..Overrides::from_env() };
    if let Some(device) = gpu_device_with(&DeviceOptions { overrides, ..Default::default() }) {
        draws_follow_the_twin(&device);
    }
}
