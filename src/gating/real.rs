//! Numbers that the twins of rules compute with: plain ones, and ones on a tape that remember where they come from.
//!
//! A rule is written once over [`Real`]. With `f64` it routes. With [`Var`] every operation leaves a record on a [`Tape`], and going through the
//! records backwards gives the gradient, so that no gradient of a rule is derived by hand before it is needed in a shader.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number of a rule. What is discrete in a rule looks at [`value`](Real::value) and passes no gradient on.
pub trait Real:
    Copy
    + fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Add<f64, Output = Self>
    + Sub<f64, Output = Self>
    + Mul<f64, Output = Self>
    + Div<f64, Output = Self>
{
    /// A constant.
    fn of(value: f64) -> Self;
    fn value(self) -> f64;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn erf(self) -> Self;

    fn zero() -> Self {
        Self::of(0.0)
    }

    /// The same value, through which no gradient flows.
    fn stop(self) -> Self {
        Self::of(self.value())
    }

    /// The first of equal ones.
    fn max(self, other: Self) -> Self {
        if other.value() > self.value() { other } else { self }
    }

    fn relu(self) -> Self {
        if self.value() > 0.0 { self } else { Self::zero() }
    }

    fn square(self) -> Self {
        self * self
    }

    fn sigmoid(self) -> Self {
        // The exponential never grows beyond 1.
        if self.value() >= 0.0 {
            Self::of(1.0) / ((-self).exp() + 1.0)
        } else {
            let e = self.exp();
            e / (e + 1.0)
        }
    }

    /// `ln(1 + exp(x))`
    fn softplus(self) -> Self {
        if self.value() > 0.0 { self + ((-self).exp() + 1.0).ln() } else { (self.exp() + 1.0).ln() }
    }

    /// The share of a standard normal distribution below.
    fn normal_cdf(self) -> Self {
        ((self / std::f64::consts::SQRT_2).erf() + 1.0) * 0.5
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn value(self) -> f64 {
        self
    }

    fn exp(self) -> Self {
        f64::exp(self)
    }

    fn ln(self) -> Self {
        f64::ln(self)
    }

    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    fn tanh(self) -> Self {
        f64::tanh(self)
    }

    fn erf(self) -> Self {
        libm::erf(self)
    }
}

/// What was computed from [`Var`]s, in order.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
}

/// One operation: which numbers it read, and its derivative with respect to each.
#[derive(Debug, Clone, Copy)]
struct Node {
    parents: [u32; 2],
    partials: [f64; 2],
}

/// A number on a tape, or a constant.
#[derive(Clone, Copy)]
pub struct Var<'t> {
    value: f64,
    /// Where it is on the tape; a constant is nowhere.
    place: Option<(&'t Tape, u32)>,
}

/// Derivatives of one sum of outputs with respect to everything on a tape.
#[derive(Debug)]
pub struct Gradient {
    adjoints: Vec<f64>,
}

impl Tape {
    pub fn new() -> Tape {
        Tape::default()
    }

    /// A number of which the gradient is wanted.
    pub fn var(&self, value: f64) -> Var<'_> {
        self.push(value, Node { parents: [0; 2], partials: [0.0; 2] })
    }

    pub fn vars(&self, values: &[f64]) -> Vec<Var<'_>> {
        values.iter().map(|&value| self.var(value)).collect()
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.nodes.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The gradient of the sum of `seeds`, each an output and what it is multiplied with.
    pub fn gradient<'t>(&'t self, seeds: impl IntoIterator<Item = (Var<'t>, f64)>) -> Gradient {
        let nodes = self.nodes.borrow();
        let mut adjoints = vec![0.0; nodes.len()];
        for (output, seed) in seeds {
            if let Some((_, node)) = output.place {
                adjoints[node as usize] += seed;
            }
        }
        for (index, node) in nodes.iter().enumerate().rev() {
            let adjoint = adjoints[index];
            if adjoint != 0.0 {
                for (parent, partial) in node.parents.iter().zip(node.partials) {
                    adjoints[*parent as usize] += adjoint * partial;
                }
            }
            // An input counts itself as its parent, with a derivative of zero: its adjoint stays.
        }
        Gradient { adjoints }
    }

    fn push(&self, value: f64, node: Node) -> Var<'_> {
        let mut nodes = self.nodes.borrow_mut();
        let place = nodes.len() as u32;
        nodes.push(node);
        Var { value, place: Some((self, place)) }
    }
}

impl Gradient {
    /// Zero for a constant.
    pub fn of(&self, var: Var<'_>) -> f64 {
        var.place.map_or(0.0, |(_, node)| self.adjoints[node as usize])
    }

    pub fn of_all(&self, vars: &[Var<'_>]) -> Vec<f64> {
        vars.iter().map(|&var| self.of(var)).collect()
    }
}

impl<'t> Var<'t> {
    fn unary(self, value: f64, partial: f64) -> Var<'t> {
        match self.place {
            None => Var { value, place: None },
            Some((tape, node)) => tape.push(value, Node { parents: [node, 0], partials: [partial, 0.0] }),
        }
    }

    /// `partials` with respect to `self` and `other`.
    fn binary(self, other: Var<'t>, value: f64, partials: [f64; 2]) -> Var<'t> {
        match (self.place, other.place) {
            (None, None) => Var { value, place: None },
            (Some(_), None) => self.unary(value, partials[0]),
            (None, Some(_)) => other.unary(value, partials[1]),
            (Some((tape, left)), Some((_, right))) => tape.push(value, Node { parents: [left, right], partials }),
        }
    }
}

impl fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Var({})", self.value)
    }
}

impl Real for Var<'_> {
    fn of(value: f64) -> Self {
        Var { value, place: None }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn exp(self) -> Self {
        let value = self.value.exp();
        self.unary(value, value)
    }

    fn ln(self) -> Self {
        self.unary(self.value.ln(), self.value.recip())
    }

    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        self.unary(value, 0.5 / value)
    }

    fn tanh(self) -> Self {
        let value = self.value.tanh();
        self.unary(value, 1.0 - value * value)
    }

    fn erf(self) -> Self {
        self.unary(libm::erf(self.value), std::f64::consts::FRAC_2_SQRT_PI * (-self.value * self.value).exp())
    }
}

impl Neg for Var<'_> {
    type Output = Self;

    fn neg(self) -> Self {
        self.unary(-self.value, -1.0)
    }
}

/// An operator between two numbers on a tape, and between one and a constant.
macro_rules! operator {
    ($trait:ident, $method:ident, |$a:ident, $b:ident| $value:expr, $partials:expr) => {
        impl $trait for Var<'_> {
            type Output = Self;

            fn $method(self, other: Self) -> Self {
                let ($a, $b) = (self.value, other.value);
                self.binary(other, $value, $partials)
            }
        }

        impl $trait<f64> for Var<'_> {
            type Output = Self;

            fn $method(self, other: f64) -> Self {
                self.$method(Self::of(other))
            }
        }
    };
}

operator!(Add, add, |a, b| a + b, [1.0, 1.0]);
operator!(Sub, sub, |a, b| a - b, [1.0, -1.0]);
operator!(Mul, mul, |a, b| a * b, [b, a]);
operator!(Div, div, |a, b| a / b, [b.recip(), -a / (b * b)]);
