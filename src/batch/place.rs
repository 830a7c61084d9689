//! Where in a model numbers stop being numbers.

use std::fmt;

/// A part of the forward pass, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The embedding of the tokens.
    Embedding,
    /// A part of the layer with this number.
    Layer(usize, LayerPart),
    /// The final norm, or the head.
    Head,
}

/// What a layer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerPart {
    Attention,
    Router,
    /// The experts, or the MLP of a dense layer.
    FeedForward,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Embedding => f.write_str("the embedding"),
            Place::Layer(layer, LayerPart::Attention) => write!(f, "the attention of layer {layer}"),
            Place::Layer(layer, LayerPart::Router) => write!(f, "the router of layer {layer}"),
            Place::Layer(layer, LayerPart::FeedForward) => write!(f, "the experts or MLP of layer {layer}"),
            Place::Head => f.write_str("the final norm or the head"),
        }
    }
}

/// Whether all of `values` are finite, by their bits: an exponent of ones is an infinity or NaN, whatever a compiler assumes of comparisons.
pub fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().all(|value| value.to_bits() & EXPONENT != EXPONENT)
}
