//! Trees as compact arrays, made from the lists of attributes in which ONNX has them, and checked: they are trees, and
//! every index in them is good.

use std::collections::{HashMap, VecDeque};

use super::number::Number;
use crate::onnx::ml::attributes::Strings;
use crate::onnx::ml::value::Answer;

/// The most nodes of a forest, and the most leaf weights: indices have 32 bits.
const MOST: usize = 1 << 28;
/// The highest feature; the bits above it are flags.
const HIGHEST_FEATURE: i64 = (1 << 24) - 1;
/// In [`Node::feature`]: a missing value (NaN) goes the way of true.
const MISSING_IS_TRUE: u32 = 1 << 31;

/// How a node compares the feature with its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
}

impl Mode {
    /// `None` for a leaf.
    fn of(word: &[u8]) -> Answer<Option<Self>> {
        match word {
            b"LEAF" => Ok(None),
            b"BRANCH_LEQ" => Ok(Some(Self::Leq)),
            b"BRANCH_LT" => Ok(Some(Self::Lt)),
            b"BRANCH_GTE" => Ok(Some(Self::Gte)),
            b"BRANCH_GT" => Ok(Some(Self::Gt)),
            b"BRANCH_EQ" => Ok(Some(Self::Eq)),
            b"BRANCH_NEQ" => Ok(Some(Self::Neq)),
            other => Err(format!("there is no node mode {}", String::from_utf8_lossy(other))),
        }
    }
}

/// A node. The two that follow it lie side by side.
///
/// A leaf leads to itself, whatever the feature: it compares feature 0 with NaN, and goes where that goes. So a walk may
/// go on from it while others are on their way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<T> {
    pub(super) threshold: T,
    feature: u32,
    /// Where to go if the comparison holds; if not, to the one after.
    pub(super) child: u32,
    /// The place of its votes, of a leaf.
    pub(super) leaf: u32,
}

impl<T> Node<T> {
    pub(super) fn feature(&self) -> usize {
        // At most HIGHEST_FEATURE.
        (self.feature & !MISSING_IS_TRUE) as usize
    }

    pub(super) fn missing_is_true(&self) -> bool {
        self.feature & MISSING_IS_TRUE != 0
    }
}

/// What leaves say.
#[derive(Debug)]
pub(super) enum Votes<T> {
    /// All leaves say one number, for the same target.
    One { target: usize, weights: Vec<T> },
    /// Each says a number for each target, in order.
    All { weights: Vec<T> },
    /// Each says what it will: its votes are those from its place in `ends`, less one, to that of the next.
    Some { starts: Vec<u32>, targets: Vec<u32>, weights: Vec<T> },
}

#[derive(Debug)]
pub(super) struct Forest<T> {
    /// The first is none: a leaf's child may be the node before it.
    pub(super) nodes: Vec<Node<T>>,
    pub(super) roots: Vec<u32>,
    /// `None` if nodes differ; then theirs are in `modes`.
    pub(super) mode: Option<Mode>,
    pub(super) modes: Vec<Mode>,
    pub(super) votes: Votes<T>,
    pub(super) targets: usize,
    /// How many features a row must have.
    pub(super) features: usize,
    pub(super) has_missing: bool,
}

/// The lists, as attributes of either operator have them.
pub(super) struct Lists<'a, T> {
    pub(super) tree_ids: &'a [i64],
    pub(super) node_ids: &'a [i64],
    pub(super) features: &'a [i64],
    pub(super) modes: Option<&'a Strings>,
    pub(super) thresholds: &'a [T],
    pub(super) true_ids: &'a [i64],
    pub(super) false_ids: &'a [i64],
    /// Empty, or one for each node.
    pub(super) missing_is_true: &'a [i64],
    pub(super) vote_trees: &'a [i64],
    pub(super) vote_nodes: &'a [i64],
    pub(super) vote_targets: &'a [i64],
    pub(super) vote_weights: &'a [T],
}

impl<T: Number> Forest<T> {
    pub(super) fn new(lists: &Lists<'_, T>, targets: usize) -> Answer<Self> {
        let count = lists.node_ids.len();
        let modes = lists.modes.map_or(0, Strings::len);
        let lengths = [
            lists.tree_ids.len(),
            lists.features.len(),
            modes,
            lists.thresholds.len(),
            lists.true_ids.len(),
            lists.false_ids.len(),
        ];
        if count == 0 || lengths.iter().any(|length| *length != count) {
            return Err(format!("its lists of nodes are empty or differ in length: {count}, {lengths:?}"));
        }
        if !lists.missing_is_true.is_empty() && lists.missing_is_true.len() != count {
            return Err("nodes_missing_value_tracks_true is not one for each node".into());
        }
        if count > MOST || lists.vote_nodes.len() > MOST {
            return Err(format!("it has more than {MOST} nodes or leaf weights"));
        }
        let modes = lists.modes.into_iter().flat_map(Strings::iter).map(Mode::of).collect::<Answer<Vec<_>>>()?;
        let places = places(lists)?;
        let mut votes = votes(lists, &places, targets)?;
        let mut used = modes.iter().flatten();
        let first = used.next().copied().unwrap_or(Mode::Leq);
        let mode = Some(first).filter(|first| used.all(|mode| mode == first));

        let mut grower = Grower { lists, modes: &modes, places: &places, mode, ..Grower::new(lists, &modes, &places) };
        let mut roots = Vec::new();
        let mut trees = std::collections::HashSet::new();
        for place in 0..count {
            if place > 0 && lists.tree_ids[place] == lists.tree_ids[place - 1] {
                continue;
            }
            if !trees.insert(lists.tree_ids[place]) {
                return Err(format!("the nodes of tree {} are not together", lists.tree_ids[place]));
            }
            roots.push(grower.tree(place, &mut votes)?);
        }
        let Grower { nodes, node_modes, leaves, features, .. } = grower;
        Ok(Self {
            nodes,
            roots,
            mode,
            modes: if mode.is_some() { Vec::new() } else { node_modes },
            votes: flat_votes(&leaves, targets)?,
            targets,
            features,
            has_missing: lists.missing_is_true.iter().any(|flag| *flag != 0),
        })
    }
}

impl<T: Number> Forest<T> {
    /// Whether no vote is negative.
    pub(super) fn is_all_positive(&self) -> bool {
        let (Votes::One { weights, .. } | Votes::All { weights } | Votes::Some { weights, .. }) = &self.votes;
        // NaN is not negative.
        !weights.iter().any(|weight| weight.wide() < 0.0)
    }
}

/// The place in the lists of each (tree, node).
fn places<T>(lists: &Lists<'_, T>) -> Answer<HashMap<(i64, i64), usize>> {
    let mut places = HashMap::with_capacity(lists.node_ids.len());
    for (place, id) in lists.tree_ids.iter().copied().zip(lists.node_ids.iter().copied()).enumerate() {
        if places.insert(id, place).is_some() {
            return Err(format!("tree {} has node {} twice", id.0, id.1));
        }
    }
    Ok(places)
}

/// The (target, weight) pairs of each node that has some, by place.
type ByNode<T> = HashMap<usize, Vec<(u32, T)>>;

fn votes<T: Number>(lists: &Lists<'_, T>, places: &HashMap<(i64, i64), usize>, targets: usize) -> Answer<ByNode<T>> {
    let count = lists.vote_nodes.len();
    let lengths = [lists.vote_trees.len(), lists.vote_targets.len(), lists.vote_weights.len()];
    if lengths.iter().any(|length| *length != count) {
        return Err(format!("its lists of leaf weights differ in length: {count}, {lengths:?}"));
    }
    let mut votes = ByNode::new();
    for vote in 0..count {
        let id = (lists.vote_trees[vote], lists.vote_nodes[vote]);
        let place =
            places.get(&id).ok_or_else(|| format!("a weight is for node {} of tree {}, which is not", id.1, id.0))?;
        let target = u32::try_from(lists.vote_targets[vote]).ok().filter(|t| (*t as usize) < targets);
        let target = target.ok_or_else(|| {
            format!("a weight is for target or class {}, but there are {targets}", lists.vote_targets[vote])
        })?;
        votes.entry(*place).or_default().push((target, lists.vote_weights[vote]));
    }
    Ok(votes)
}

/// Lays trees out, each from its root down, level by level: what all rows pass lies together.
struct Grower<'a, T> {
    lists: &'a Lists<'a, T>,
    modes: &'a [Option<Mode>],
    places: &'a HashMap<(i64, i64), usize>,
    mode: Option<Mode>,
    nodes: Vec<Node<T>>,
    node_modes: Vec<Mode>,
    leaves: Vec<Vec<(u32, T)>>,
    is_placed: Vec<bool>,
    features: usize,
}

impl<'a, T: Number> Grower<'a, T> {
    fn new(lists: &'a Lists<'a, T>, modes: &'a [Option<Mode>], places: &'a HashMap<(i64, i64), usize>) -> Self {
        let mut grower = Self {
            lists,
            modes,
            places,
            mode: None,
            nodes: Vec::with_capacity(modes.len() + 1),
            node_modes: Vec::new(),
            leaves: Vec::new(),
            is_placed: vec![false; modes.len()],
            // A leaf looks at feature 0.
            features: 1,
        };
        grower.blank();
        grower
    }

    /// Makes room for a node.
    fn blank(&mut self) -> usize {
        self.nodes.push(Node { threshold: T::NAN, feature: 0, child: 0, leaf: 0 });
        self.node_modes.push(Mode::Leq);
        self.nodes.len() - 1
    }

    /// Where the root is, whose place in the lists is `root`.
    fn tree(&mut self, root: usize, votes: &mut ByNode<T>) -> Answer<u32> {
        let start = self.blank();
        let mut waiting = VecDeque::from([(root, start)]);
        while let Some((place, at)) = waiting.pop_front() {
            if std::mem::replace(&mut self.is_placed[place], true) {
                let (tree, node) = (self.lists.tree_ids[place], self.lists.node_ids[place]);
                return Err(format!("two ways or a circle lead to node {node} of tree {tree}: it is no tree"));
            }
            match self.modes[place] {
                None => self.leaf(place, at, votes)?,
                Some(mode) => {
                    let child = self.branch(place, at, mode)?;
                    waiting.push_back((self.follower(place, self.lists.true_ids[place])?, child));
                    waiting.push_back((self.follower(place, self.lists.false_ids[place])?, child + 1));
                }
            }
        }
        small(start)
    }

    fn follower(&self, place: usize, node: i64) -> Answer<usize> {
        let tree = self.lists.tree_ids[place];
        let found = self.places.get(&(tree, node)).copied();
        found.ok_or_else(|| {
            format!("node {} of tree {tree} leads to node {node}, which is not", self.lists.node_ids[place])
        })
    }

    fn branch(&mut self, place: usize, at: usize, mode: Mode) -> Answer<usize> {
        let feature = self.lists.features[place];
        if !(0..=HIGHEST_FEATURE).contains(&feature) {
            return Err(format!("feature {feature} is out of range"));
        }
        let child = self.blank();
        self.blank();
        let missing = if self.lists.missing_is_true.get(place) == Some(&1) { MISSING_IS_TRUE } else { 0 };
        let feature = small(usize::try_from(feature).unwrap_or(0))?;
        self.features = self.features.max(feature as usize + 1);
        let threshold = self.lists.thresholds[place];
        self.nodes[at] = Node { threshold, feature: feature | missing, child: small(child)?, leaf: 0 };
        self.node_modes[at] = mode;
        Ok(child)
    }

    fn leaf(&mut self, place: usize, at: usize, votes: &mut ByNode<T>) -> Answer<()> {
        let said = votes.remove(&place).ok_or_else(|| {
            let (tree, node) = (self.lists.tree_ids[place], self.lists.node_ids[place]);
            format!("leaf {node} of tree {tree} has no weight")
        })?;
        // Nothing compares with NaN, but for "not equal", which always holds.
        let child = if self.mode == Some(Mode::Neq) { at } else { at - 1 };
        self.nodes[at] = Node { threshold: T::NAN, feature: 0, child: small(child)?, leaf: small(self.leaves.len())? };
        self.leaves.push(said);
        Ok(())
    }
}

fn small(index: usize) -> Answer<u32> {
    u32::try_from(index).map_err(|_| "it has too many nodes".into())
}

fn flat_votes<T: Number>(leaves: &[Vec<(u32, T)>], targets: usize) -> Answer<Votes<T>> {
    let target = leaves.first().and_then(|leaf| leaf.first()).map_or(0, |(target, _)| *target);
    let weights = || leaves.iter().flatten().map(|(_, weight)| *weight).collect();
    if leaves.iter().all(|leaf| matches!(leaf.as_slice(), [(one, _)] if *one == target)) {
        return Ok(Votes::One { target: target as usize, weights: weights() });
    }
    if leaves.iter().all(|leaf| leaf.len() == targets && leaf.iter().zip(0..).all(|((t, _), place)| *t == place)) {
        return Ok(Votes::All { weights: weights() });
    }
    let mut starts = vec![0];
    for leaf in leaves {
        starts.push(small(starts[starts.len() - 1] as usize + leaf.len())?);
    }
    let targets = leaves.iter().flatten().map(|(target, _)| *target).collect();
    Ok(Votes::Some { starts, targets, weights: weights() })
}
