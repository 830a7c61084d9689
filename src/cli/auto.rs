//! What `--device auto` is where there is no GPU: the software device, or the reference where that is quicker.

use super::model;
use super::progress::Waiting;
use super::shared::Global;
use super::talk::talk;
use anyhow::Result;
use moebius::LoadOptions;
use moebius::bench::{Comparison, Comparisons, ReferenceChoice, compare_with_reference, may_be_reference, measured_on};
use moebius::error::human_bytes;
use moebius::gpu::DeviceChoice;
use std::io::IsTerminal;
use std::path::Path;

/// The options with which a text is generated: as given, but for a device that nobody chose. Measured once for a model on a device, and kept.
pub async fn resolve(directory: &Path, global: &Global) -> Result<Global> {
    let device = model::device_options(global);
    // Where nothing is kept, nothing is measured each time.
    let kept_in = device.tunings.as_ref().map(|path| path.with_file_name("devices.json"));
    let (quant, kv_cache, context) = (global.quant, global.kv_cache, global.ctx.map(|tokens| tokens.get()));
    let expert_memory = global.expert_memory;
    let options = LoadOptions { device, quant, kv_cache, context, expert_memory, ..LoadOptions::default() };
    let Some(path) = kept_in else { return Ok(global.clone()) };
    let model = match may_be_reference(directory, &options).await? {
        ReferenceChoice::IfQuicker(model) => model,
        ReferenceChoice::Never => return Ok(global.clone()),
        ReferenceChoice::TooLarge { needed_bytes, room_bytes } => {
            let [needed, room] = [needed_bytes, room_bytes].map(human_bytes);
            let why = format!(
                "the best adapter, software; in f32, for the reference, the model takes {needed}, and {room} are to spare"
            );
            return Ok(Global { why: Some(why), ..global.clone() });
        }
    };
    let device = moebius::gpu::Device::open(&options.device).await?;
    if !device.caps().tuning.is_empty() {
        // Somebody tuned it, to use it.
        return Ok(global.clone());
    }
    let tuned_for = measured_on(&device);
    drop(device);
    let mut comparisons = Comparisons::read(&path).await?;
    let comparison = match comparisons.find(&tuned_for, &model) {
        Some(known) => known.clone(),
        None => {
            const MEASURED: &str = "this device beside the reference, once for this model";
            if !std::io::stderr().is_terminal() {
                talk!("measure  {MEASURED}");
            }
            let line = Waiting::new("measure", MEASURED);
            let made = compare_with_reference(directory, &options, model).await?;
            drop(line);
            comparisons.set(made.clone());
            // A cache that cannot be written costs the measurement again, and nothing else.
            let _ = comparisons.write(&path);
            made
        }
    };
    Ok(choose(&comparison, global))
}

fn choose(comparison: &Comparison, global: &Global) -> Global {
    let name = &comparison.device.adapter;
    let [own, reference] = comparison.tokens_per_second;
    let figures = format!("{reference:.0} tokens/s beside {own:.0}");
    if comparison.prefers_reference() {
        let why = format!(
            "there is only software here, and the reference writes this model faster ({figures}); --device gpu:0 takes {name}"
        );
        Global { device: DeviceChoice::Cpu, why: Some(why), ..global.clone() }
    } else {
        let why = format!(
            "the best adapter, software ({own:.0} tokens/s beside the reference's {reference:.0}); --device cpu takes the reference"
        );
        Global { why: Some(why), ..global.clone() }
    }
}
