//! Rows through trees.
//!
//! One walk waits for memory at each node; so eight go side by side, of eight rows in one tree or of one row in eight
//! trees. A block of rows goes through one tree after the other, which stays in the cache meanwhile.

use super::forest::{Forest, Mode, Node, Votes};
use super::number::{Feature, Number};

/// How many walks go side by side.
const LANES: usize = 8;
/// How many rows go through a tree before the next one.
const BLOCK: usize = 128;

/// How votes add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Min,
    Max,
}

/// The scores of a block of rows, row by row, and which of them got a vote.
pub(super) struct Tally {
    pub(super) scores: Vec<f64>,
    pub(super) has_score: Vec<bool>,
}

impl<T: Number> Forest<T> {
    /// Tells `done` the first row of each block, and its tally, which it may change.
    ///
    /// `rows` must be rows of `width` features, at least as many as the forest looks at.
    pub(super) fn run<X: Feature<T>>(
        &self,
        rows: &[X],
        width: usize,
        aggregate: Aggregate,
        done: &mut dyn FnMut(usize, &mut Tally),
    ) {
        match self.mode {
            Some(Mode::Leq) if !self.has_missing => {
                // By far the most common; the plain loop is worth its own code.
                self.blocks(rows, width, aggregate, done, |x, node, _| x.common() <= X::threshold(node.threshold));
            }
            Some(Mode::Leq) => self.blocks(rows, width, aggregate, done, missing(|x, t| x <= t)),
            Some(Mode::Lt) => self.blocks(rows, width, aggregate, done, missing(|x, t| x < t)),
            Some(Mode::Gte) => self.blocks(rows, width, aggregate, done, missing(|x, t| x >= t)),
            Some(Mode::Gt) => self.blocks(rows, width, aggregate, done, missing(|x, t| x > t)),
            Some(Mode::Eq) => self.blocks(rows, width, aggregate, done, missing(|x, t| x == t)),
            Some(Mode::Neq) => self.blocks(rows, width, aggregate, done, missing(|x, t| x != t)),
            None => self.blocks(rows, width, aggregate, done, |x: X, node, at| {
                let (value, threshold) = (x.common(), X::threshold(node.threshold));
                let holds = match self.modes[at] {
                    Mode::Leq => value <= threshold,
                    Mode::Lt => value < threshold,
                    Mode::Gte => value >= threshold,
                    Mode::Gt => value > threshold,
                    Mode::Eq => value == threshold,
                    Mode::Neq => value != threshold,
                };
                holds || (node.missing_is_true() && x.is_missing())
            }),
        }
    }

    fn blocks<X: Feature<T>>(
        &self,
        rows: &[X],
        width: usize,
        aggregate: Aggregate,
        done: &mut dyn FnMut(usize, &mut Tally),
        holds: impl Fn(X, &Node<T>, usize) -> bool + Copy,
    ) {
        let count = rows.len() / width;
        let mut tally = Tally { scores: Vec::new(), has_score: Vec::new() };
        for (block, rows) in rows.chunks(BLOCK * width).enumerate() {
            let size = (rows.len() / width).min(count - block * BLOCK);
            self.start(&mut tally, size, aggregate);
            if size < LANES {
                for (place, row) in rows.chunks_exact(width).enumerate() {
                    self.row(row, |leaf| self.vote(&mut tally, place, leaf, aggregate), holds);
                }
            } else {
                for root in &self.roots {
                    self.tree(*root, rows, width, |place, leaf| self.vote(&mut tally, place, leaf, aggregate), holds);
                }
            }
            done(block * BLOCK, &mut tally);
        }
    }

    /// One row through all trees.
    fn row<X: Feature<T>>(
        &self,
        row: &[X],
        mut leaf: impl FnMut(u32),
        holds: impl Fn(X, &Node<T>, usize) -> bool + Copy,
    ) {
        let (groups, rest) = self.roots.as_chunks::<LANES>();
        for roots in groups {
            self.descend(*roots, [row; LANES], holds).into_iter().for_each(&mut leaf);
        }
        for root in rest {
            self.descend([*root], [row], holds).into_iter().for_each(&mut leaf);
        }
    }

    /// Rows through one tree.
    fn tree<X: Feature<T>>(
        &self,
        root: u32,
        rows: &[X],
        width: usize,
        mut leaf: impl FnMut(usize, u32),
        holds: impl Fn(X, &Node<T>, usize) -> bool + Copy,
    ) {
        let groups = rows.chunks_exact(LANES * width);
        let rest = groups.remainder();
        let mut place = 0;
        for group in groups {
            let lanes = std::array::from_fn(|lane| &group[lane * width..(lane + 1) * width]);
            for found in self.descend([root; LANES], lanes, holds) {
                leaf(place, found);
                place += 1;
            }
        }
        for row in rest.chunks_exact(width) {
            let [found] = self.descend([root], [row], holds);
            leaf(place, found);
            place += 1;
        }
    }

    /// The leaves that walks from `at` end in, each on its row.
    #[inline(always)]
    fn descend<X: Feature<T>, const L: usize>(
        &self,
        mut at: [u32; L],
        rows: [&[X]; L],
        holds: impl Fn(X, &Node<T>, usize) -> bool + Copy,
    ) -> [u32; L] {
        loop {
            let mut moved = 0;
            for lane in 0..L {
                let place = at[lane] as usize;
                let node = &self.nodes[place];
                let next = node.child + u32::from(!holds(rows[lane][node.feature()], node, place));
                moved |= next ^ at[lane];
                at[lane] = next;
            }
            // Leaves lead to themselves.
            if moved == 0 {
                return at.map(|at| self.nodes[at as usize].leaf);
            }
        }
    }

    fn start(&self, tally: &mut Tally, rows: usize, aggregate: Aggregate) {
        let initial = match aggregate {
            Aggregate::Sum => 0.0,
            Aggregate::Min => f64::INFINITY,
            Aggregate::Max => f64::NEG_INFINITY,
        };
        tally.scores.clear();
        tally.scores.resize(rows * self.targets, initial);
        tally.has_score.clear();
        tally.has_score.resize(rows * self.targets, matches!(self.votes, Votes::All { .. }));
        if let Votes::One { target, .. } = self.votes {
            tally.has_score.iter_mut().skip(target).step_by(self.targets).for_each(|has| *has = true);
        }
    }

    #[inline(always)]
    fn vote(&self, tally: &mut Tally, row: usize, leaf: u32, aggregate: Aggregate) {
        let (leaf, from) = (leaf as usize, row * self.targets);
        match &self.votes {
            Votes::One { target, weights } => add(&mut tally.scores[from + target], weights[leaf], aggregate),
            Votes::All { weights } => {
                let weights = &weights[leaf * self.targets..(leaf + 1) * self.targets];
                for (score, weight) in tally.scores[from..from + self.targets].iter_mut().zip(weights) {
                    add(score, *weight, aggregate);
                }
            }
            Votes::Some { starts, targets, weights } => {
                let range = starts[leaf] as usize..starts[leaf + 1] as usize;
                for (target, weight) in targets[range.clone()].iter().zip(&weights[range]) {
                    let place = from + *target as usize;
                    tally.has_score[place] = true;
                    add(&mut tally.scores[place], *weight, aggregate);
                }
            }
        }
    }
}

fn missing<T: Number, X: Feature<T>>(
    compare: impl Fn(X::Common, X::Common) -> bool + Copy,
) -> impl Fn(X, &Node<T>, usize) -> bool + Copy {
    move |x: X, node: &Node<T>, _| {
        compare(x.common(), X::threshold(node.threshold)) || (node.missing_is_true() && x.is_missing())
    }
}

#[inline(always)]
fn add<T: Number>(score: &mut f64, weight: T, aggregate: Aggregate) {
    match aggregate {
        Aggregate::Sum => *score += weight.wide(),
        Aggregate::Min => *score = score.min(weight.wide()),
        Aggregate::Max => *score = score.max(weight.wide()),
    }
}
