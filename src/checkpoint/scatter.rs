//! The way back: from canonical weights to the tensors that an ordinary checkpoint stores.

use super::recipe::{Change, Layout, Order, Recipe};
use crate::error::{Error, Result};
use crate::spec::{ModelSpec, WeightKey};
use std::collections::BTreeMap;

/// A stored tensor: its shape, and its values in that order.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredValues {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// The tensors that a checkpoint of `spec` has for the weights in `keys`, by name, from the `[rows, cols]` of each weight. What shares a tensor has to be
/// asked for together.
///
/// # Errors
/// [`Error::NotTrained`] for a model whose weights are stored otherwise than as numbers.
pub fn scatter(
    spec: &ModelSpec,
    keys: impl IntoIterator<Item = WeightKey>,
    weight: &mut dyn FnMut(WeightKey) -> Vec<f32>,
) -> Result<BTreeMap<String, StoredValues>> {
    let mut tensors: BTreeMap<String, StoredValues> = BTreeMap::new();
    for key in keys {
        let (recipe, values) = (Recipe::of(key, spec), weight(key));
        let (rows, width) = (values.len() / recipe.cols, recipe.cols);
        let rows_of_parts = recipe.rows_of_parts(&(0..rows));
        let mut before = 0;
        for (index, part) in recipe.parts.iter().enumerate() {
            let as_numbers = part.change == Change::None && recipe.order != Order::Beside;
            let Some(place) = place_of(&part.layout).filter(|_| as_numbers) else {
                return Err(Error::NotTrained { family: spec.family, part: "weights that are not stored as numbers" });
            };
            let tensor = tensors.entry(part.tensor.name.clone()).or_insert_with(|| {
                let shape = part.tensor.shape.clone();
                StoredValues { values: vec![0.0; shape.iter().product()], shape }
            });
            let count = rows_of_parts[index].len();
            for row in 0..count {
                let from = if recipe.order == Order::Turns { row * recipe.parts.len() + index } else { before + row };
                for (col, value) in values[from * width..][..width].iter().enumerate() {
                    tensor.values[place(row, col, part.cols)] = *value;
                }
            }
            before += count;
        }
    }
    Ok(tensors)
}

/// From row, column and columns of a part to the element of its tensor.
type PlaceOf = dyn Fn(usize, usize, usize) -> usize;

/// Where the elements of a part lie, if they are numbers.
fn place_of(layout: &Layout) -> Option<Box<PlaceOf>> {
    match *layout {
        Layout::Rows { first } => Some(Box::new(move |row, col, cols| first as usize + row * cols + col)),
        Layout::Columns { first, stride } => Some(Box::new(move |row, col, _| first as usize + col * stride as usize + row)),
        Layout::Mxfp4 { .. } => None,
    }
}
