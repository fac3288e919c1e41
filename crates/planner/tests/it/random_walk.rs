//! Anything may happen at any time: the invariants hold through all of it, and it ends when it is left alone.

use modelyard_core::{Observed, OnInconclusive, Strategy};
use modelyard_planner::plan;
use proptest::prelude::*;

use crate::invariants::{check, check_idempotent};
use crate::world::{World, canary, spec};

#[derive(Debug, Clone)]
enum Step {
    Apply {
        version: u8,
        canary: bool,
        on_inconclusive: u8,
    },
    RollBack {
        to: u8,
    },
    Pause,
    Resume,
    Promote,
    Time {
        seconds: u64,
    },
    Evidence {
        requests: u64,
        errors: u64,
        latency_ms: u64,
    },
    AllReady,
    Ready {
        workload: u8,
        count: u32,
    },
    Unknown {
        workload: u8,
    },
    Gone {
        workload: u8,
    },
    GatewaysSilent,
    Restart,
    Reconcile,
    /// Planned, and not done: the control plane died in between.
    Lost,
}

fn step() -> impl Strategy_<Value = Step> {
    prop_oneof![
        (1u8..5, any::<bool>(), 0u8..3).prop_map(|(version, canary, on_inconclusive)| Step::Apply {
            version,
            canary,
            on_inconclusive
        }),
        any::<u8>().prop_map(|to| Step::RollBack { to }),
        Just(Step::Pause),
        Just(Step::Resume),
        Just(Step::Promote),
        (0u64..1000).prop_map(|seconds| Step::Time { seconds }),
        (0u64..300, 0u64..4, 1u64..60).prop_map(|(requests, errors, latency_ms)| Step::Evidence {
            requests,
            errors: errors.min(requests),
            latency_ms
        }),
        Just(Step::AllReady),
        Just(Step::AllReady),
        (any::<u8>(), 0u32..3).prop_map(|(workload, count)| Step::Ready { workload, count }),
        any::<u8>().prop_map(|workload| Step::Unknown { workload }),
        any::<u8>().prop_map(|workload| Step::Gone { workload }),
        Just(Step::GatewaysSilent),
        Just(Step::Restart),
        Just(Step::Reconcile),
        Just(Step::Reconcile),
        Just(Step::Reconcile),
        Just(Step::Lost),
    ]
}

use proptest::strategy::Strategy as Strategy_;

fn take(world: &mut World, step: &Step) {
    let workload = |world: &World, n: u8| {
        let ids: Vec<_> = world.inputs.observation.workloads.keys().cloned().collect();
        (!ids.is_empty()).then(|| ids[usize::from(n) % ids.len()].clone())
    };
    match step {
        Step::Apply { version, canary: with_canary, on_inconclusive } => {
            let choices = [OnInconclusive::Hold, OnInconclusive::Rollback, OnInconclusive::Promote];
            let on_inconclusive = choices[usize::from(*on_inconclusive)];
            let canary = modelyard_core::Canary { on_inconclusive, ..canary() };
            let strategy = if *with_canary { Strategy::Canary(canary) } else { Strategy::Rolling {} };
            world.apply(spec(&version.to_string(), strategy));
        }
        Step::RollBack { to } => {
            let revisions: Vec<_> = world.desired().revisions.keys().copied().collect();
            world.roll_back(revisions[usize::from(*to) % revisions.len()].0);
        }
        Step::Pause => world.control(|c| c.paused_by = Some("ann".parse().unwrap())),
        Step::Resume => world.control(|c| c.paused_by = None),
        Step::Promote => world.control(|c| c.promoted_by = Some("ann".parse().unwrap())),
        Step::Time { seconds } => world.pass_time(*seconds),
        Step::Evidence { requests, errors, latency_ms } => {
            if world.desired().state.rollout.is_some() {
                world.evidence(*requests, *errors, *latency_ms);
            }
        }
        Step::AllReady => world.all_ready(),
        Step::Ready { workload: n, count } => {
            if let Some(id) = workload(world, *n) {
                world.set_ready(&id, *count);
            }
        }
        Step::Unknown { workload: n } => {
            if let Some(id) = workload(world, *n) {
                world.inputs.observation.workloads.insert(id, Observed::Unknown { reason: "lost".into() });
            }
        }
        Step::Gone { workload: n } => {
            if let Some(id) = workload(world, *n) {
                world.inputs.observation.workloads.remove(&id);
            }
        }
        Step::GatewaysSilent => world.inputs.in_use = Observed::Unknown { reason: "silent".into() },
        Step::Restart => world.inputs.epoch = world.inputs.epoch.next(),
        Step::Reconcile => {
            let before = world.inputs.clone();
            check(&before, &world.run());
        }
        Step::Lost => check(&world.inputs, &plan(&world.inputs)),
    }
}

/// Unknown workloads are seen again.
fn see_clearly(world: &mut World) {
    world.inputs.observation.workloads.retain(|_, observed| observed.known().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_through_anything(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        world.apply(spec("1", Strategy::Rolling {}));
        for step in &steps {
            take(&mut world, step);
        }
        // Left alone, with workers coming up and people letting it go on, it ends.
        see_clearly(&mut world);
        world.control(|c| { c.paused_by = None; c.promoted_by = Some("ann".parse().unwrap()); });
        world.settle();
        let before = world.inputs.clone();
        check(&before, &plan(&before));
        prop_assert_eq!(world.report().phase, modelyard_core::state::Phase::Completed);
        check_idempotent(world);
    }
}
