//! Tensors that a spec leaves out, where leaving them out makes another model.
//!
//! Much in a checkpoint is known to be extra: layers that predict further tokens, vision towers, tables of frequencies. A whole layer or a whole
//! expert that the config does not count is not: the text would be another one, without a word.

use crate::spec::{CUT_ON_PURPOSE, ExpertStorage, ModelSpec};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Parts of names by which layers are known that predict further tokens: DeepSeek-V3, GLM-4.5, MiMo, Qwen3-Next and their kin store them as layers
/// behind the last one.
const PREDICTORS: [&str; 9] =
    ["eh_proj", "enorm", "hnorm", "shared_head", "mtp", "nextn", "embed_tokens", "final_layernorm", "input_proj"];

/// # Errors
/// [`Error::CutModel`] if `ignored` has whole layers or experts.
pub(super) fn check(spec: &ModelSpec, ignored: &[String]) -> Result<()> {
    if spec.may_be_cut {
        return Ok(());
    }
    let stored_layers = spec.layers.len() / spec.names.sub_layers.max(1);
    let layers = unused_layers(spec, stored_layers, ignored);
    if let Some(last) = layers.last() {
        return Err(Error::CutModel {
            expected: format!("the checkpoint has {}", last + 1),
            found: format!("it counts {stored_layers} layers"),
            key: CUT_ON_PURPOSE,
        });
    }
    let experts = unused_experts(spec, ignored);
    if let Some(last) = experts.last() {
        let num_experts = spec.moe_layers().map(|(_, moe)| moe.router.num_weighted()).max().unwrap_or(0);
        return Err(Error::CutModel {
            expected: format!("layers of the checkpoint have {}", last + 1),
            found: format!("it counts {num_experts} experts"),
            key: CUT_ON_PURPOSE,
        });
    }
    Ok(())
}

/// Tensors that make a layer more than somebody's leftover: attention alone has three.
const MIN_TENSORS: usize = 4;

/// Numbers of stored layers behind the last one that is used, without those that predict further tokens.
fn unused_layers(spec: &ModelSpec, stored_layers: usize, ignored: &[String]) -> BTreeSet<usize> {
    let template = format!("{}{}", spec.names.prefix, spec.names.attention_norm);
    let Some((before, _)) = template.split_once("{l}") else { return BTreeSet::new() };
    let (mut num_tensors, mut predictors) = (BTreeMap::new(), BTreeSet::new());
    for name in ignored {
        let Some((number, rest)) = number_after(name, before) else { continue };
        if number < stored_layers {
            continue;
        }
        *num_tensors.entry(number).or_insert(0) += 1;
        if PREDICTORS.iter().any(|part| rest.contains(part)) {
            predictors.insert(number);
        }
    }
    let whole = num_tensors.into_iter().filter(|&(layer, count)| count >= MIN_TENSORS && !predictors.contains(&layer));
    whole.map(|(layer, _)| layer).collect()
}

/// Numbers of experts in used layers that the spec does not count.
fn unused_experts(spec: &ModelSpec, ignored: &[String]) -> BTreeSet<usize> {
    let down = match spec.names.experts {
        ExpertStorage::Each { down, .. } | ExpertStorage::EachUngated { down, .. } | ExpertStorage::EachFused { down, .. } => {
            down
        }
        // The shape of a tensor that holds all experts is compared with the spec.
        _ => return BTreeSet::new(),
    };
    let template = format!("{}{down}", spec.names.prefix);
    let Some((before_layer, rest)) = template.split_once("{l}") else { return BTreeSet::new() };
    let Some((between, _)) = rest.split_once("{e}") else { return BTreeSet::new() };
    let expert = |name: &String| {
        let (layer, rest) = number_after(name, before_layer)?;
        let moe = spec.layers.get(layer * spec.names.sub_layers.max(1))?.moe()?;
        let (expert, _) = number_after(rest, between)?;
        (expert >= moe.router.num_weighted()).then_some(expert)
    };
    ignored.iter().filter_map(expert).collect()
}

/// The number that follows `before` at the beginning of `name`, and what follows the number.
fn number_after<'n>(name: &'n str, before: &str) -> Option<(usize, &'n str)> {
    let rest = name.strip_prefix(before)?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    Some((rest[..end].parse().ok()?, &rest[end..]))
}
