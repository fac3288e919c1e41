//! Whether the callers of one model version can call another without being changed.
//!
//! The rule is that of subtyping for functions (Liskov and Wing, *A behavioral notion of subtyping*, 1994): a version
//! may take more than the one before it, and give less variety, never the other way round. So it is transitive: a
//! series of accepted versions never comes to one that the first one's callers cannot use.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::signature::{Datatype, Signature, TensorSpec};

/// A dimension of any size.
const FREE: i64 = -1;

/// One thing that callers of the old version rely on, and the new one does not keep to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Difference {
    /// Callers send it, and the new version does not know it (it may be there under another name).
    InputRemoved(TensorSpec),
    /// Callers do not send it. A model has no optional inputs.
    InputAdded(TensorSpec),
    OutputRemoved(TensorSpec),
    Datatype {
        side: Side,
        name: String,
        old: Datatype,
        new: Datatype,
    },
    Rank {
        side: Side,
        name: String,
        old: Vec<i64>,
        new: Vec<i64>,
    },
    /// An input takes fewer sizes, or an output comes in others.
    Dimension {
        side: Side,
        name: String,
        /// From 0.
        axis: usize,
        old: i64,
        new: i64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    Input,
    Output,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |n: i64| if n == FREE { "any size".to_owned() } else { n.to_string() };
        match self {
            Self::InputRemoved(tensor) => write!(f, "input {tensor} is gone"),
            Self::InputAdded(tensor) => write!(f, "input {tensor} is new, and callers do not send it"),
            Self::OutputRemoved(tensor) => write!(f, "output {tensor} is gone"),
            Self::Datatype { side, name, old, new } => write!(f, "{side} {name} is {new}, not {old}"),
            Self::Rank { side, name, old, new } => {
                write!(f, "{side} {name} has {} dimensions {new:?}, not {} {old:?}", new.len(), old.len())
            }
            Self::Dimension { side, name, axis, old, new } => {
                write!(f, "dimension {axis} of {side} {name} is {}, not {}", size(*new), size(*old))
            }
        }
    }
}

/// What keeps callers of `old` from using `new`; empty if nothing does. Tensors go by name, not by order; what is new
/// among the outputs is no difference.
///
/// Of a signature that is not known ([`Signature::is_known`]) nothing can be said: ask that first.
pub fn differences(old: &Signature, new: &Signature) -> Vec<Difference> {
    let mut found = Vec::new();
    for was in &old.inputs {
        match by_name(&new.inputs, &was.name) {
            None => found.push(Difference::InputRemoved(was.clone())),
            // What callers send must be among what is taken.
            Some(is) => found.extend(changes(Side::Input, was, is, |old, new| new == FREE || new == old)),
        }
    }
    let added = new.inputs.iter().filter(|is| by_name(&old.inputs, &is.name).is_none());
    found.extend(added.cloned().map(Difference::InputAdded));
    for was in &old.outputs {
        match by_name(&new.outputs, &was.name) {
            None => found.push(Difference::OutputRemoved(was.clone())),
            // What is given must be among what callers expect.
            Some(is) => found.extend(changes(Side::Output, was, is, |old, new| old == FREE || new == old)),
        }
    }
    found
}

fn by_name<'t>(tensors: &'t [TensorSpec], name: &str) -> Option<&'t TensorSpec> {
    tensors.iter().find(|tensor| tensor.name == name)
}

fn changes(side: Side, was: &TensorSpec, is: &TensorSpec, fits: impl Fn(i64, i64) -> bool) -> Vec<Difference> {
    let mut found = Vec::new();
    let name = was.name.clone();
    if was.datatype != is.datatype {
        found.push(Difference::Datatype { side, name: name.clone(), old: was.datatype, new: is.datatype });
    }
    if was.shape.len() != is.shape.len() {
        found.push(Difference::Rank { side, name, old: was.shape.clone(), new: is.shape.clone() });
        return found;
    }
    for (axis, (old, new)) in was.shape.iter().copied().zip(is.shape.iter().copied()).enumerate() {
        if !fits(old, new) {
            found.push(Difference::Dimension { side, name: name.clone(), axis, old, new });
        }
    }
    found
}

#[cfg(test)]
mod tests;
