//! Which format each class of weights takes.

use super::{QUANTS, Quant, QuantFormat};
use crate::error::{Error, Result, nearest};
use std::fmt;
use std::str::FromStr;

/// What matrices do in a model, as far as they may differ in their format. Norms, biases and routers belong to none: they are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightClass {
    /// A router chooses some of these for each token.
    Experts,
    /// MLPs that every token uses: shared experts, dense layers, and what runs beside experts.
    Shared,
    /// Every projection of the mixers.
    Attention,
    Embedding,
    Head,
}

impl WeightClass {
    pub const ALL: [WeightClass; 5] =
        [WeightClass::Experts, WeightClass::Shared, WeightClass::Attention, WeightClass::Embedding, WeightClass::Head];

    /// As given to `--quant`.
    pub fn name(self) -> &'static str {
        match self {
            WeightClass::Experts => "experts",
            WeightClass::Shared => "shared",
            WeightClass::Attention => "attention",
            WeightClass::Embedding => "embedding",
            WeightClass::Head => "head",
        }
    }

    fn find(name: &str) -> Option<Self> {
        WeightClass::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// The format of every class of weights; the default keeps all as they are stored.
///
/// Written as one format for all (`q4_0`; of `q8_0` for all but the head), as formats of some classes, the others as stored (`experts=q4_0,head=q8_0`), or as both: then the
/// classes differ from the rest (`q4_0,head=q8_0`). `auto` stands for as stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuantChoice {
    /// Format of the classes that are not named; `None`: as stored.
    rest: Option<Quant>,
    /// By [`WeightClass`], where it is named.
    named: [Option<Named>; WeightClass::ALL.len()],
}

/// `None`: as stored, although the rest may not be.
type Named = Option<Quant>;

/// The word for weights that keep the format they are stored in.
const AUTO: &str = "auto";

impl QuantChoice {
    /// The same format for every matrix.
    pub fn all(quant: Quant) -> Self {
        QuantChoice { rest: Some(quant), ..QuantChoice::default() }
    }

    /// This choice with another format for one class; `None`: as stored.
    pub fn with(mut self, class: WeightClass, quant: Option<Quant>) -> Self {
        self.named[class as usize] = Some(quant);
        self
    }

    /// The format of a class; `None`: as stored. A format for all may spare the head, see [`QuantFormat::keeps_head`].
    pub fn of(&self, class: WeightClass) -> Option<Quant> {
        let rest = self.rest.filter(|rest| class != WeightClass::Head || !rest.keeps_head);
        self.named[class as usize].unwrap_or(rest)
    }

    /// Whether every weight keeps the format it is stored in.
    pub fn is_as_stored(&self) -> bool {
        WeightClass::ALL.into_iter().all(|class| self.of(class).is_none())
    }

    /// For a model whose embedding table is its head as well: one table has one format. It is that of whichever of the two is named, else what
    /// the head takes.
    ///
    /// # Errors
    /// [`Error::Argument`] if both are, and differ.
    pub fn for_tied_embeddings(mut self) -> Result<Self> {
        let [embedding, head] = [WeightClass::Embedding, WeightClass::Head].map(|class| self.named[class as usize]);
        if let (Some(embedding), Some(head)) = (embedding, head)
            && embedding != head
        {
            let [embedding, head] = [embedding, head].map(|named| named.map_or(AUTO, |quant| quant.name));
            return Err(Error::Argument {
                what: "quant",
                expected: "one format for embedding and head, which are one table in this model".to_owned(),
                found: format!("embedding={embedding},head={head}"),
            });
        }
        let table = head.or(embedding).unwrap_or(self.of(WeightClass::Head));
        self.named[WeightClass::Embedding as usize] = Some(table);
        self.named[WeightClass::Head as usize] = Some(table);
        Ok(self)
    }
}

impl FromStr for QuantChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut choice = QuantChoice::default();
        let text = &text.trim().to_ascii_lowercase();
        for (index, item) in text.split(',').enumerate() {
            match item.split_once('=') {
                None if index == 0 => choice.rest = parse_format(item)?,
                None => return Err(refused("CLASS=FORMAT after the first comma".to_owned(), item)),
                Some((name, format)) => {
                    let class = WeightClass::find(name).ok_or_else(|| refused(known_classes(), name))?;
                    if choice.named[class as usize].replace(parse_format(format)?).is_some() {
                        return Err(refused(format!("one format for {name}"), text));
                    }
                }
            }
        }
        Ok(choice)
    }
}

fn parse_format(name: &str) -> Result<Option<Quant>> {
    if name == AUTO {
        return Ok(None);
    }
    QuantFormat::find(name).map(Some).ok_or_else(|| {
        let meant = nearest(name, QUANTS.iter().map(|quant| quant.name));
        let meant = meant.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        refused(format!("a format of {}{meant}", known_formats()), name)
    })
}

fn refused(expected: String, found: &str) -> Error {
    Error::Argument { what: "quant", expected, found: format!("`{found}`") }
}

fn known_formats() -> String {
    [AUTO].into_iter().chain(QUANTS.iter().map(|quant| quant.name)).collect::<Vec<_>>().join(", ")
}

fn known_classes() -> String {
    let names: Vec<&str> = WeightClass::ALL.into_iter().map(WeightClass::name).collect();
    format!("a class of {} (routers, norms and biases are f32 always)", names.join(", "))
}

impl fmt::Display for QuantChoice {
    /// What [`from_str`](Self::from_str) reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |quant: Option<Quant>| quant.map_or(AUTO, |quant| quant.name);
        let named = WeightClass::ALL.into_iter().filter_map(|class| Some((class, self.named[class as usize]?)));
        let mut items: Vec<String> = named.map(|(class, quant)| format!("{}={}", class.name(), name(quant))).collect();
        if self.rest.is_some() || items.is_empty() {
            items.insert(0, name(self.rest).to_owned());
        }
        f.pad(&items.join(","))
    }
}
