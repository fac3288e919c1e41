//! How much an artifact may make the evaluator use: shapes, strings and numbers of nodes are its writer's word, memory and
//! time are the server's. All are far beyond what converters write.

use modelyard_protocol::{TensorData, binary};

use super::value::Answer;

/// Fuzzers look for ways around the limits, with less memory and patience than a server has.
const LESS: u32 = if cfg!(fuzzing) { 10 } else { 0 };

/// The most elements of a tensor that an operator gives.
pub(super) const MOST_ELEMENTS: usize = 1 << (26 - LESS);
/// The most bytes of a tensor that an operator gives: its strings may be long, and many of them the same.
pub(super) const MOST_BYTES: usize = 8 * MOST_ELEMENTS;
/// The most bytes of all tensors that one inference holds at a time.
pub(super) const MOST_HELD: usize = 2 * MOST_BYTES;
/// The most bytes that the operators of one inference take and give, all together.
pub(super) const MOST_MOVED: usize = 1 << (37 - LESS);
/// The most multiplications of one product of matrices: minutes of one core.
pub(super) const MOST_PRODUCTS: usize = 1 << (36 - LESS);
/// The most nodes of a graph.
pub(super) const MOST_NODES: usize = 1 << 16;
/// The most strings of an attribute that is kept string by string: keys, labels, categories.
pub(super) const MOST_STRINGS: usize = 1 << (22 - LESS);
/// The most of what takes more memory than it takes bytes in the file, in units of a string.
pub(super) const MOST_PARTS: usize = 1 << 22;

/// What a string takes beside its own bytes.
const STRING: usize = size_of::<Vec<u8>>();

/// The memory that elements take, in bytes.
pub(super) fn bytes(data: &TensorData) -> usize {
    match data {
        TensorData::Bytes(strings) => total(strings.iter().map(Vec::len)),
        other => other.len() * binary::element_size(other.datatype()).unwrap_or(1),
    }
}

fn total(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.fold(0, |sum, length| sum.saturating_add(STRING + length))
}

/// # Errors
/// If strings of these lengths are more than a tensor may hold. To be asked before they are made.
pub(super) fn check_strings(lengths: impl Iterator<Item = usize>) -> Answer<()> {
    let bytes = total(lengths);
    if bytes <= MOST_BYTES {
        Ok(())
    } else {
        Err(format!("strings of {bytes} bytes are beyond the {MOST_BYTES} allowed"))
    }
}

/// What an inference has used so far.
#[derive(Debug, Default)]
pub(super) struct Meter {
    held: usize,
    moved: usize,
}

impl Meter {
    /// Counts bytes that an operator took, or gave.
    ///
    /// # Errors
    /// If they are too many by now.
    pub(super) fn moves(&mut self, bytes: usize) -> Answer<()> {
        self.moved = self.moved.saturating_add(bytes);
        if self.moved <= MOST_MOVED {
            Ok(())
        } else {
            Err(format!("it goes beyond the {MOST_MOVED} bytes of work allowed"))
        }
    }

    /// Counts bytes that are kept from here on.
    ///
    /// # Errors
    /// If they are too many by now.
    pub(super) fn holds(&mut self, bytes: usize) -> Answer<()> {
        self.held = self.held.saturating_add(bytes);
        if self.held <= MOST_HELD {
            Ok(())
        } else {
            Err(format!("all tensors together are beyond the {MOST_HELD} bytes allowed"))
        }
    }

    pub(super) fn lets_go(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_count_with_what_they_take_beside_their_bytes() {
        assert_eq!(bytes(&TensorData::Bytes(vec![b"abc".to_vec(), Vec::new()])), 51);
        assert_eq!(bytes(&TensorData::Fp64(vec![0.0; 3])), 24);
        assert_eq!(bytes(&TensorData::Bool(vec![true; 3])), 3);
        assert!(check_strings([usize::MAX / 2, usize::MAX / 2, 9].into_iter()).is_err());
    }

    #[test]
    fn what_is_let_go_can_be_held_again_but_not_moved_again() {
        let mut meter = Meter::default();
        for _ in 0..MOST_MOVED / MOST_HELD {
            meter.moves(MOST_HELD).unwrap();
            meter.holds(MOST_HELD).unwrap();
            meter.lets_go(MOST_HELD);
        }
        assert!(meter.moves(1).unwrap_err().contains("bytes of work allowed"));
        meter.holds(MOST_HELD).unwrap();
        assert!(meter.holds(1).unwrap_err().contains("all tensors together"));
    }
}
