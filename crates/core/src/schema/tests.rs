use proptest::prelude::*;

use super::*;

fn tensor(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

/// Takes `x` and gives `y`.
fn signature(x: TensorSpec, y: TensorSpec) -> Signature {
    Signature { inputs: vec![x], outputs: vec![y] }
}

fn linear() -> Signature {
    signature(tensor("x", Datatype::Fp32, &[-1, 2]), tensor("y", Datatype::Fp32, &[-1, 1]))
}

fn told(new: &Signature) -> Vec<String> {
    differences(&linear(), new).iter().map(ToString::to_string).collect()
}

#[test]
fn each_difference_is_told_in_words() {
    let (x, y) = (linear().inputs.remove(0), linear().outputs.remove(0));
    let fp32 = Datatype::Fp32;
    let cases: [(Signature, &[&str]); 8] = [
        (linear(), &[]),
        (Signature { outputs: vec![], ..linear() }, &["output y FP32 [-1, 1] is gone"]),
        (
            signature(tensor("features", fp32, &[-1, 2]), y.clone()),
            &["input x FP32 [-1, 2] is gone", "input features FP32 [-1, 2] is new, and callers do not send it"],
        ),
        (signature(tensor("x", Datatype::Int64, &[-1, 2]), y.clone()), &["input x is INT64, not FP32"]),
        (signature(tensor("x", fp32, &[2]), y.clone()), &["input x has 1 dimensions [2], not 2 [-1, 2]"]),
        (signature(tensor("x", fp32, &[8, 2]), y.clone()), &["dimension 0 of input x is 8, not any size"]),
        (signature(tensor("x", fp32, &[-1, 3]), y), &["dimension 1 of input x is 3, not 2"]),
        (signature(x, tensor("y", fp32, &[-1, -1])), &["dimension 1 of output y is any size, not 1"]),
    ];
    for (new, words) in cases {
        assert_eq!(told(&new), words);
    }
}

#[test]
fn a_version_may_take_more_and_promise_more() {
    let mut new = signature(tensor("x", Datatype::Fp32, &[-1, -1]), tensor("y", Datatype::Fp32, &[4, 1]));
    new.outputs.insert(0, tensor("confidence", Datatype::Fp64, &[]));
    assert_eq!(told(&new), [""; 0]);
    assert!(!differences(&new, &linear()).is_empty(), "and there is no way back without telling the callers");
}

fn tensors() -> impl Strategy<Value = Vec<TensorSpec>> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let datatype = prop_oneof![Just(Datatype::Fp32), Just(Datatype::Int64)];
    let shape = prop::collection::vec(prop_oneof![Just(-1i64), 1i64..3], 0..3);
    let one = (name, datatype, shape).prop_map(|(name, datatype, shape)| tensor(name, datatype, &shape));
    prop::collection::vec(one, 0..4).prop_map(|mut tensors| {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors.dedup_by(|a, b| a.name == b.name);
        tensors
    })
}

fn signatures() -> impl Strategy<Value = Signature> {
    (tensors(), tensors()).prop_map(|(inputs, outputs)| Signature { inputs, outputs })
}

/// A signature that differs little from another: random ones are almost never compatible.
fn near(signature: Signature) -> impl Strategy<Value = Signature> {
    (Just(signature), prop::collection::vec((any::<prop::sample::Index>(), 0usize..4), 0..3)).prop_map(
        |(mut s, edits)| {
            for (index, edit) in edits {
                let tensors = if edit % 2 == 0 { &mut s.inputs } else { &mut s.outputs };
                if tensors.is_empty() {
                    continue;
                }
                let index = index.index(tensors.len());
                let tensor = &mut tensors[index];
                if let Some(size) = tensor.shape.first_mut() {
                    *size = if edit < 2 { -1 } else { 2 };
                }
            }
            s
        },
    )
}

fn triples() -> impl Strategy<Value = (Signature, Signature, Signature)> {
    signatures()
        .prop_flat_map(|a| (Just(a.clone()), near(a)))
        .prop_flat_map(|(a, b)| (Just(a), Just(b.clone()), near(b)))
}

/// Whether a call is one that a signature describes: the tensors of each side, with sizes.
fn describes(tensors: &[TensorSpec], call: &[TensorSpec]) -> bool {
    let fits = |spec: &TensorSpec, given: &TensorSpec| {
        let sizes = spec.shape.iter().zip(&given.shape).all(|(s, g)| *s == FREE || s == g);
        spec.datatype == given.datatype && spec.shape.len() == given.shape.len() && sizes
    };
    tensors.iter().all(|spec| by_name(call, &spec.name).is_some_and(|given| fits(spec, given)))
}

/// A call of the signature, with this size for whatever is free.
fn call(tensors: &[TensorSpec], size: i64) -> Vec<TensorSpec> {
    let fixed = |t: &TensorSpec| t.shape.iter().map(|d| if *d == FREE { size } else { *d }).collect::<Vec<_>>();
    tensors.iter().map(|t| tensor(&t.name, t.datatype, &fixed(t))).collect()
}

proptest! {
    #[test]
    fn every_signature_is_compatible_with_itself(a in signatures()) {
        prop_assert_eq!(differences(&a, &a), vec![]);
    }

    #[test]
    fn compatibility_is_transitive((a, b, c) in triples()) {
        prop_assume!(differences(&a, &b).is_empty() && differences(&b, &c).is_empty());
        prop_assert_eq!(differences(&a, &c), vec![]);
    }

    #[test]
    fn whoever_can_call_the_old_can_call_the_new((old, new, _) in triples(), size in 5i64..9) {
        prop_assume!(differences(&old, &new).is_empty());
        let sent = call(&old.inputs, size);
        prop_assert!(describes(&new.inputs, &sent) && sent.len() == new.inputs.len(), "the new one takes what is sent");
        prop_assert!(describes(&old.outputs, &call(&new.outputs, size)), "and gives what is expected");
    }

    #[test]
    fn what_differs_is_found_whatever_the_order_of_tensors((old, new, _) in triples()) {
        let turned = |s: &Signature| {
            let mut s = s.clone();
            s.inputs.reverse();
            s.outputs.reverse();
            s
        };
        prop_assert_eq!(differences(&old, &new).len(), differences(&turned(&old), &turned(&new)).len());
    }
}
