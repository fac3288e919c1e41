//! Two answers to one request, compared output by output and by datatype. Pure.
//!
//! The reference is what the client got, the candidate what the mirrored variant would have answered.

use std::fmt;

use modelyard_core::{Magnitude, Mirror, OutputDisagreement, OutputRule, Tolerance};
use modelyard_protocol::{InferResponse, Tensor, TensorData};

/// Elements of one output that are added to its histograms; of a longer one, this many at equal distances.
const MOST_SCORES: usize = 4_096;

/// What came of one comparison.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// By output, each with the counts of this one answer.
    pub(crate) outputs: Vec<(String, OutputDisagreement)>,
    pub(crate) differences: Vec<Difference>,
}

impl Comparison {
    pub(crate) fn differs(&self) -> bool {
        !self.differences.is_empty()
    }
}

/// How an output differs, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) output: String,
    /// Without values of either answer.
    pub(crate) what: String,
    /// With those of the first place where they differ.
    pub(crate) first: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.output, self.what)?;
        self.first.as_ref().map_or(Ok(()), |first| write!(f, " ({first})"))
    }
}

/// Compares all outputs that the mirror does not ignore: those of the reference, then those that only the candidate has.
pub(crate) fn compare(mirror: &Mirror, reference: &InferResponse, candidate: &InferResponse) -> Comparison {
    let find = |response: &'_ InferResponse, name: &str| response.outputs.iter().position(|o| o.name == name);
    let of_reference =
        reference.outputs.iter().map(|r| (Some(r), find(candidate, &r.name).and_then(|i| candidate.outputs.get(i))));
    let only_candidate = candidate.outputs.iter().filter(|c| find(reference, &c.name).is_none());
    let mut comparison = Comparison::default();
    for (reference, candidate) in of_reference.chain(only_candidate.map(|c| (None, Some(c)))) {
        let Some(name) = reference.or(candidate).map(|tensor| tensor.name.clone()) else { continue };
        let rule = mirror.outputs.get(&name).copied();
        if rule == Some(OutputRule::Ignore) {
            continue;
        }
        let Counted { mut counts, difference } = match (reference, candidate) {
            (Some(reference), Some(candidate)) => compare_output(reference, candidate, rule, mirror.tolerance),
            (Some(_), None) => Counted::mismatched("it is missing".into()),
            (None, _) => Counted::mismatched("it is new".into()),
        };
        counts.compared = 1;
        if let Some((what, first)) = difference {
            counts.differing = 1;
            comparison.differences.push(Difference { output: name.clone(), what, first });
        }
        comparison.outputs.push((name, counts));
    }
    comparison
}

/// Counts of one output, and how it differs, if it does: in words without values, and the first place with its values.
#[derive(Default)]
struct Counted {
    counts: OutputDisagreement,
    difference: Option<(String, Option<String>)>,
}

impl Counted {
    fn mismatched(what: String) -> Self {
        let counts = OutputDisagreement { mismatched: 1, ..OutputDisagreement::default() };
        Self { counts, difference: Some((what, None)) }
    }
}

fn compare_output(reference: &Tensor, candidate: &Tensor, rule: Option<OutputRule>, tolerance: Tolerance) -> Counted {
    if reference.datatype() != candidate.datatype() {
        return Counted::mismatched(format!("{} became {}", reference.datatype(), candidate.datatype()));
    }
    if reference.shape != candidate.shape {
        return Counted::mismatched(format!("the shape {:?} became {:?}", reference.shape, candidate.shape));
    }
    match (floats(&reference.data), floats(&candidate.data)) {
        (Some(old), Some(new)) => compare_floats(&reference.shape, &old, &new, rule, tolerance),
        _ => compare_exactly(&reference.data, &candidate.data),
    }
}

/// The elements of a tensor of floats.
fn floats(data: &TensorData) -> Option<Vec<f64>> {
    match data {
        TensorData::Fp16(values) => Some(values.iter().copied().map(|v| v.to_f64()).collect()),
        TensorData::Bf16(values) => Some(values.iter().copied().map(|v| v.to_f64()).collect()),
        TensorData::Fp32(values) => Some(values.iter().copied().map(f64::from).collect()),
        TensorData::Fp64(values) => Some(values.clone()),
        _ => None,
    }
}

fn compare_floats(
    shape: &[usize],
    reference: &[f64],
    candidate: &[f64],
    rule: Option<OutputRule>,
    tolerance: Tolerance,
) -> Counted {
    let mut counts = OutputDisagreement::default();
    for (old, new) in reference.iter().zip(candidate) {
        let gap = gap(*old, *new);
        counts.largest_absolute = counts.largest_absolute.max(gap);
        if Magnitude::of(*old) > tolerance.absolute {
            counts.largest_relative = counts.largest_relative.max(Magnitude::of(gap.get() / old.abs()));
        }
    }
    let step = reference.len().div_ceil(MOST_SCORES).max(1);
    reference.iter().step_by(step).for_each(|score| counts.reference.record(*score));
    candidate.iter().step_by(step).for_each(|score| counts.candidate.record(*score));
    let classes = shape.last().copied().unwrap_or(1);
    let by_label = rule.map_or(shape.len() >= 2 && classes >= 2, |rule| rule == OutputRule::Label);
    let difference = if by_label && classes > 0 {
        let labels = |scores: &[f64]| scores.chunks(classes).map(argmax).collect::<Vec<_>>();
        flips(&mut counts, &labels(reference), &labels(candidate), "label", |label| label.to_string())
    } else {
        beyond(reference, candidate, tolerance)
    };
    Counted { counts, difference }
}

/// |candidate - reference|. NaN is the same as NaN, and an infinity as itself; neither is near any number.
fn gap(reference: f64, candidate: f64) -> Magnitude {
    #[expect(clippy::float_cmp, reason = "infinities, and the common case")]
    if reference == candidate || (reference.is_nan() && candidate.is_nan()) {
        return Magnitude::ZERO;
    }
    Magnitude::of(candidate - reference)
}

/// The place of the largest score; of the first NaN, if there is one, as in NumPy.
fn argmax(scores: &[f64]) -> usize {
    if let Some(nan) = scores.iter().position(|score| score.is_nan()) {
        return nan;
    }
    let larger = |best: (usize, f64), next: (usize, f64)| if next.1 > best.1 { next } else { best };
    scores.iter().copied().enumerate().reduce(larger).map_or(0, |(place, _)| place)
}

fn beyond(reference: &[f64], candidate: &[f64], tolerance: Tolerance) -> Option<(String, Option<String>)> {
    let differ = |(_, (old, new)): &(usize, (&f64, &f64))| !tolerance.holds(**new, **old);
    let mut differing = reference.iter().zip(candidate).enumerate().filter(differ);
    let (place, (old, new)) = differing.next()?;
    let what = format!("{} of {} values differ", differing.count() + 1, reference.len());
    Some((what, Some(format!("{old} became {new} at {place}"))))
}

fn compare_exactly(reference: &TensorData, candidate: &TensorData) -> Counted {
    macro_rules! of {
        ($($kind:ident => $show:expr),*) => {
            match (reference, candidate) {
                $((TensorData::$kind(old), TensorData::$kind(new)) => {
                    let mut counts = OutputDisagreement::default();
                    let difference = flips(&mut counts, old, new, "value", $show);
                    Counted { counts, difference }
                })*
                // Floats are compared as such, and datatypes are the same.
                _ => Counted::default(),
            }
        };
    }
    of!(Bool => ToString::to_string, Uint8 => ToString::to_string, Uint16 => ToString::to_string,
        Uint32 => ToString::to_string, Uint64 => ToString::to_string, Int8 => ToString::to_string,
        Int16 => ToString::to_string, Int32 => ToString::to_string, Int64 => ToString::to_string,
        Bytes => |bytes: &Vec<u8>| text(bytes))
}

/// Counts labels and those that differ, and says so in words.
fn flips<T: PartialEq>(
    counts: &mut OutputDisagreement,
    reference: &[T],
    candidate: &[T],
    noun: &str,
    show: impl Fn(&T) -> String,
) -> Option<(String, Option<String>)> {
    let mut differing = reference.iter().zip(candidate).enumerate().filter(|(_, (old, new))| old != new);
    let first = differing.next();
    counts.labels = reference.len() as u64;
    counts.flips = first.map_or(0, |_| 1 + differing.count() as u64);
    let (place, (old, new)) = first?;
    let what = format!("{} of {} {noun}s differ", counts.flips, counts.labels);
    let first = format!("{noun} {} became {} at {place}", show(old), show(new));
    Some((what, Some(first)))
}

/// The beginning of a string, for people.
fn text(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes).chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests;
