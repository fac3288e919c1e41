//! Anything may happen at any time: the invariants hold through all of it, and it ends when it is left alone.

use modelyard_core::state::{Outcome, Phase};
use modelyard_core::{
    AbTest, Autoscaling, BlueGreen, Canary, Mirroring, Observed, OnInconclusive, ReplicaPhase, Shadow, ShadowStep,
    Span, Step, Strategy, Weight, WorkloadId,
};
use modelyard_planner::plan;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Strategy as Generator;

use crate::invariants::check_invariants;
use crate::world::{World, ab_test, canary, spec};

#[derive(Debug, Clone)]
struct Manifest {
    version: u8,
    replicas: u32,
    canary: Option<Trial>,
    window_s: u64,
    max_surge: Option<u32>,
    /// Whether the cluster chooses the number, up to twice as many.
    is_scaled: bool,
    /// In place of `canary`.
    test: Option<Test>,
}

/// An A/B test of the version and another, or of the version and itself.
#[derive(Debug, Clone)]
struct Test {
    other: u8,
    basis_points: u16,
    holdout: bool,
}

#[derive(Debug, Clone)]
struct Trial {
    hold_s: u64,
    is_judged: bool,
    on_inconclusive: OnInconclusive,
    course: Course,
}

/// What is walked before all traffic moves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Course {
    Canary,
    ShadowedCanary,
    BlueGreen { auto_promote: bool },
    Shadow { auto_promote: bool },
}

/// What people do.
#[derive(Debug, Clone)]
enum Act {
    Apply(Manifest),
    RollBack { to: u8 },
    Pause,
    Resume,
    Promote,
}

/// What happens.
#[derive(Debug, Clone)]
enum Event {
    People(Act),
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
    Crash {
        workload: u8,
    },
    Unknown {
        workload: u8,
    },
    SeenAgain,
    Gone {
        workload: u8,
    },
    GatewaysSilent,
    GatewaysReport,
    /// A new control plane takes office.
    Restart,
    Reconcile,
    /// Planned, and not done: the control plane died in between.
    Lost,
    /// Someone acts between plan and commit: the store refuses the plan's decisions.
    Refused(Act),
}

/// How it is left alone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Promoted,
    GoodEvidence,
    TimeAlone,
}

fn manifest() -> impl Generator<Value = Manifest> {
    let choices = select(vec![OnInconclusive::Hold, OnInconclusive::Rollback, OnInconclusive::Promote]);
    let courses = prop_oneof![
        4 => Just(Course::Canary),
        1 => Just(Course::ShadowedCanary),
        1 => any::<bool>().prop_map(|auto_promote| Course::BlueGreen { auto_promote }),
        1 => any::<bool>().prop_map(|auto_promote| Course::Shadow { auto_promote }),
    ];
    let trial = (select(vec![0u64, 30]), prop::bool::weighted(0.8), choices, courses)
        .prop_map(|(hold_s, is_judged, on_inconclusive, course)| Trial { hold_s, is_judged, on_inconclusive, course });
    let max_surge = prop::option::weighted(0.5, 0u32..3);
    let test = (1u8..5, prop_oneof![Just(5_000u16), 0u16..=10_000], prop::bool::weighted(0.3))
        .prop_map(|(other, basis_points, holdout)| Test { other, basis_points, holdout });
    (
        1u8..5,
        1u32..5,
        prop::option::weighted(0.7, trial),
        select(vec![0u64, 60, 600]),
        max_surge,
        prop::bool::weighted(0.1),
        prop::option::weighted(0.25, test),
    )
        .prop_map(|(version, replicas, canary, window_s, max_surge, is_scaled, test)| Manifest {
            version,
            replicas,
            canary,
            window_s,
            max_surge,
            is_scaled,
            test,
        })
}

fn act() -> impl Generator<Value = Act> {
    prop_oneof![
        3 => manifest().prop_map(Act::Apply),
        3 => any::<u8>().prop_map(|to| Act::RollBack { to }),
        1 => Just(Act::Pause),
        1 => Just(Act::Resume),
        1 => Just(Act::Promote),
    ]
}

fn event() -> impl Generator<Value = Event> {
    prop_oneof![
        4 => act().prop_map(Event::People),
        3 => (0u64..60).prop_map(|seconds| Event::Time { seconds }),
        1 => (60u64..1000).prop_map(|seconds| Event::Time { seconds }),
        4 => (0u64..300, 0u64..4, 1u64..60).prop_map(|(requests, errors, latency_ms)| Event::Evidence {
            requests,
            errors: errors.min(requests),
            latency_ms
        }),
        6 => Just(Event::AllReady),
        2 => (any::<u8>(), 0u32..3).prop_map(|(workload, count)| Event::Ready { workload, count }),
        1 => any::<u8>().prop_map(|workload| Event::Crash { workload }),
        1 => any::<u8>().prop_map(|workload| Event::Unknown { workload }),
        1 => Just(Event::SeenAgain),
        1 => any::<u8>().prop_map(|workload| Event::Gone { workload }),
        1 => Just(Event::GatewaysSilent),
        2 => Just(Event::GatewaysReport),
        1 => Just(Event::Restart),
        10 => Just(Event::Reconcile),
        1 => Just(Event::Lost),
        2 => act().prop_map(Event::Refused),
    ]
}

fn strategy(trial: &Trial, max_surge: Option<u32>) -> Strategy {
    let hold = Span::from_secs(trial.hold_s);
    let Canary { analysis, progress_deadline, steps, .. } = canary();
    let analysis = analysis.filter(|_| trial.is_judged);
    let on_inconclusive = trial.on_inconclusive;
    let step = ShadowStep { mirror: Mirroring::of(Weight::FULL), hold };
    match trial.course {
        Course::Canary | Course::ShadowedCanary => {
            let is_shadowed = trial.course == Course::ShadowedCanary;
            Strategy::Canary(Canary {
                shadow: is_shadowed.then_some(step),
                steps: steps.into_iter().map(|step| Step { hold, ..step }).collect(),
                max_surge: max_surge.filter(|_| !is_shadowed),
                analysis,
                on_inconclusive,
                progress_deadline,
            })
        }
        Course::BlueGreen { auto_promote } => Strategy::BlueGreen(BlueGreen {
            hold,
            auto_promote,
            mirror: None,
            analysis,
            on_inconclusive,
            progress_deadline,
        }),
        Course::Shadow { auto_promote } => {
            Strategy::Shadow(Shadow { step, auto_promote, analysis, on_inconclusive, progress_deadline })
        }
    }
}

fn tested(version: u8, test: &Test) -> Strategy {
    let (version, other) = (version.to_string(), test.other.to_string());
    let weight = Weight::from_basis_points(test.basis_points).unwrap();
    let two = ab_test(&[("a", &version, weight.percent()), ("b", &other, weight.rest().percent())]);
    match two {
        Strategy::AbTest(two) => {
            let holdout = test.holdout.then(|| Weight::from_basis_points(1_000).unwrap());
            Strategy::AbTest(AbTest { holdout, ..two })
        }
        other => other,
    }
}

fn act_on(world: &mut World, act: &Act) {
    match act {
        Act::Apply(manifest) => {
            let strategy = match &manifest.canary {
                _ if manifest.test.is_some() => {
                    manifest.test.as_ref().map(|test| tested(manifest.version, test)).unwrap()
                }
                None => Strategy::Rolling { max_surge: manifest.max_surge },
                Some(trial) => strategy(trial, manifest.max_surge),
            };
            let mut spec = spec(&manifest.version.to_string(), strategy);
            spec.replicas = manifest.replicas;
            spec.autoscaling = manifest.is_scaled.then_some(Autoscaling {
                min_replicas: manifest.replicas,
                max_replicas: manifest.replicas * 2,
                target_cpu_utilization: 80,
            });
            spec.rollback_window = Span::from_secs(manifest.window_s);
            world.apply(spec);
        }
        Act::RollBack { to } => {
            let revisions: Vec<_> = world.history.keys().copied().collect();
            world.roll_back(revisions[usize::from(*to) % revisions.len()].0);
        }
        Act::Pause => world.pause(),
        Act::Resume => world.resume(),
        Act::Promote => world.promote(),
    }
}

fn pick(world: &World, n: u8) -> Option<WorkloadId> {
    let ids: Vec<_> = world.inputs.observation.workloads.keys().cloned().collect();
    (!ids.is_empty()).then(|| ids[usize::from(n) % ids.len()].clone())
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::People(act) => act_on(world, act),
        Event::Time { seconds } => world.pass_time(*seconds),
        Event::Evidence { requests, errors, latency_ms } => {
            if world.desired().state.rollout.is_some() {
                world.evidence(*requests, *errors, *latency_ms);
            }
        }
        Event::AllReady => world.all_ready(),
        Event::Ready { workload, count } => {
            if let Some(id) = pick(world, *workload) {
                world.set_ready(&id, *count);
            }
        }
        Event::Crash { workload } => {
            let id = pick(world, *workload);
            if let Some(Observed::Known(status)) = id.and_then(|id| world.inputs.observation.workloads.get_mut(&id))
                && let Some(replica) = status.replicas.first_mut()
            {
                replica.phase = ReplicaPhase::BackOff { until: world.inputs.now + Span::from_secs(10) };
                replica.restarts += 1;
            }
        }
        Event::Unknown { workload } => {
            if let Some(id) = pick(world, *workload) {
                world.inputs.observation.workloads.insert(id, Observed::Unknown { reason: "lost".into() });
            }
        }
        Event::SeenAgain => see_clearly(world),
        Event::Gone { workload } => {
            if let Some(id) = pick(world, *workload) {
                world.inputs.observation.workloads.insert(id, Observed::Absent);
            }
        }
        Event::GatewaysSilent => world.inputs.in_use = Observed::Unknown { reason: "silent".into() },
        Event::GatewaysReport => world.gateways_report(),
        Event::Restart => world.inputs.epoch = world.inputs.epoch.next(),
        Event::Reconcile => {
            let plan = plan(&world.inputs);
            check_invariants(&world.inputs, &plan);
            world.execute(&plan);
        }
        Event::Lost => check_invariants(&world.inputs, &plan(&world.inputs)),
        Event::Refused(act) => {
            let plan = plan(&world.inputs);
            check_invariants(&world.inputs, &plan);
            act_on(world, act);
            world.execute_refused(&plan);
        }
    }
}

/// Unknown workloads turn out to be gone.
fn see_clearly(world: &mut World) {
    world.inputs.observation.workloads.retain(|_, observed| observed.known().is_some());
}

/// People let it go on, workers come up, time passes.
fn leave_alone(world: &mut World, ending: Ending) {
    see_clearly(world);
    match ending {
        Ending::Promoted => world.promote(),
        Ending::GoodEvidence | Ending::TimeAlone => world.resume(),
    }
    for _ in 0..40 {
        world.all_ready();
        happen(world, &Event::Reconcile);
        world.gateways_report();
        if ending == Ending::GoodEvidence {
            world.evidence(1000, 0, 5);
        }
        world.pass_time(400);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_through_anything(
        events in prop::collection::vec(event(), 1..60),
        ending in select(vec![Ending::Promoted, Ending::GoodEvidence, Ending::TimeAlone]),
    ) {
        let mut world = World::new();
        world.apply(spec("1", Strategy::rolling()));
        for event in &events {
            happen(&mut world, event);
        }
        leave_alone(&mut world, ending);

        let report = world.report();
        if report.phase != Phase::Completed {
            prop_assert_ne!(ending, Ending::Promoted, "{:?}", report);
            let waits_for_people = report.waiting_on[0].contains("somebody to promote");
            let waits_for_requests = report.waiting_on[0].contains("more requests");
            prop_assert!(waits_for_people || (ending == Ending::TimeAlone && waits_for_requests), "{:?}", report);
            return Ok(());
        }
        prop_assert!(plan(&world.inputs).is_settled());
        let running: Vec<_> = world.inputs.observation.workloads.keys().cloned().collect();
        let wanted: Vec<_> = world.workloads(world.desired().target.0).into_iter().collect();
        prop_assert_eq!(running, wanted, "by now nothing else is wanted");
        for number in world.history.keys() {
            let outcome = world.outcomes.get(number);
            prop_assert!(outcome.is_some_and(|o| *o != Outcome::Pending), "{}: {:?}", number, outcome);
        }
    }
}
