//! A graph as a list of steps over numbered slots, checked so that each step finds what it takes.

use std::collections::HashMap;

use modelyard_core::Signature;

use super::limits::Meter;
use super::operators::{self, Inputs, Kernel, Refusal};
use super::proto::{Graph, Node};
use super::value::{Answer, Value};
use crate::error::LoadError;

pub(super) struct Plan {
    steps: Vec<Step>,
    /// What is known before there are inputs, by slot.
    constants: Vec<Option<Value>>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

struct Step {
    kernel: Kernel,
    /// `None` for an optional input that is left out.
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    /// Slots that no later step and no output reads.
    spent: Vec<usize>,
    /// Which node it is, for people.
    node: String,
}

/// Slots by the names of the values in them.
#[derive(Default)]
struct Slots {
    by_name: HashMap<String, usize>,
    constants: Vec<Option<Value>>,
}

impl Slots {
    /// # Errors
    /// If there is a value of that name already.
    fn add(&mut self, name: String, constant: Option<Value>) -> Result<usize, LoadError> {
        let slot = self.constants.len();
        if self.by_name.contains_key(&name) {
            return Err(super::refuse(format!("two values are named `{name}`")));
        }
        self.by_name.insert(name, slot);
        self.constants.push(constant);
        Ok(slot)
    }

    /// The slot of a value that is there by then: nodes come in an order in which they can be run.
    fn find(&self, name: &str, reader: &str) -> Result<usize, LoadError> {
        let slot = self.by_name.get(name).copied();
        slot.ok_or_else(|| super::refuse(format!("{reader} takes `{name}`, which nothing before it gives")))
    }
}

impl Plan {
    pub(super) fn new(graph: Graph, signature: &Signature) -> Result<Self, LoadError> {
        let Graph { nodes, initializers, opset } = graph;
        let mut slots = Slots::default();
        for (name, value) in initializers {
            slots.add(name, Some(value))?;
        }
        let inputs = signature.inputs.iter().map(|spec| slots.add(spec.name.clone(), None));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let mut steps = Vec::with_capacity(nodes.len());
        for (place, node) in nodes.into_iter().enumerate() {
            steps.push(step(node, place, opset, &mut slots)?);
        }
        let find = |spec: &modelyard_core::TensorSpec| slots.find(&spec.name, "the list of outputs");
        let outputs = signature.outputs.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let mut seen = vec![false; slots.constants.len()];
        if let Some(twice) = outputs.iter().position(|slot| std::mem::replace(&mut seen[*slot], true)) {
            return Err(super::refuse(format!("output `{}` is listed twice", signature.outputs[twice].name)));
        }
        for step in steps.iter_mut().rev() {
            let slots = step.inputs.iter().chain(&step.outputs).flatten();
            step.spent = slots.copied().filter(|slot| !std::mem::replace(&mut seen[*slot], true)).collect();
        }
        Ok(Self { steps, constants: slots.constants, inputs, outputs })
    }

    /// The outputs at `places`, in that order.
    pub(super) fn run(&self, inputs: Vec<Value>, places: &[usize]) -> Answer<Vec<Value>> {
        let mut values: Vec<Option<Value>> = vec![None; self.constants.len()];
        let mut meter = Meter::default();
        for (slot, value) in self.inputs.iter().zip(inputs) {
            meter.holds(value.bytes())?;
            values[*slot] = Some(value);
        }
        for step in &self.steps {
            let find = |slot: &Option<usize>| slot.and_then(|s| values[s].as_ref().or(self.constants[s].as_ref()));
            let given: Vec<Option<&Value>> = step.inputs.iter().map(find).collect();
            let of_step = |problem: String| format!("{}: {problem}", step.node);
            meter.moves(given.iter().flatten().map(|value| value.bytes()).sum()).map_err(of_step)?;
            let found = (step.kernel)(&Inputs(&given)).map_err(of_step)?;
            for (slot, value) in step.outputs.iter().zip(found) {
                meter.moves(value.bytes()).map_err(of_step)?;
                if let Some(slot) = slot {
                    meter.holds(value.bytes()).map_err(of_step)?;
                    values[*slot] = Some(value);
                }
            }
            for slot in &step.spent {
                meter.lets_go(values[*slot].take().map_or(0, |value| value.bytes()));
            }
        }
        let take = |place: &usize| {
            let slot = self.outputs[*place];
            values[slot].take().or_else(|| self.constants[slot].clone()).ok_or_else(|| "an output was not given".into())
        };
        places.iter().map(take).collect()
    }
}

fn step(node: Node, place: usize, opset: u64, slots: &mut Slots) -> Result<Step, LoadError> {
    let name = if node.name.is_empty() { format!("node {place}") } else { format!("node `{}`", node.name) };
    let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
    let words = format!("{name} ({domain}{})", node.op);
    let optional = |input: &String| if input.is_empty() { Ok(None) } else { slots.find(input, &words).map(Some) };
    let inputs = node.inputs.iter().map(optional).collect::<Result<Vec<_>, _>>()?;
    let kernel = operators::kernel(&node, opset).map_err(|refusal| match refusal {
        Refusal::Unknown => LoadError::NeedsOnnxRuntime {
            engine: super::NAME,
            reason: format!("it has no operator {domain}{}, which {name} is", node.op),
        },
        Refusal::Lacks(what) => LoadError::NeedsOnnxRuntime { engine: super::NAME, reason: format!("{words}: {what}") },
        Refusal::Invalid(problem) => super::refuse(format!("{words}: {problem}")),
    })?;
    let mut output = |name: String| if name.is_empty() { Ok(None) } else { slots.add(name, None).map(Some) };
    let outputs = node.outputs.into_iter().map(&mut output).collect::<Result<Vec<_>, _>>()?;
    Ok(Step { kernel, inputs, outputs, spent: Vec::new(), node: words })
}
