//! What people ask for, at random: revisions by any strategy, rollbacks, pauses, promotions, deletions.

use fastrand::Rng;
use modelyard_core::state::Cause;
use modelyard_core::{
    AbTest, AbVariant, Analysis, BlueGreen, Canary, DeploymentName, DeploymentSpec, Digest, Format, Mirroring,
    ModelName, ModelVersion, NameError, OnInconclusive, Rate, Resources, RevisionVariant, Shadow, ShadowStep,
    Signature, Span, Step, StickyBy, Strategy, VersionName, VersionRef, Weight,
};

use super::store::Asked;

/// Of one deployment.
#[derive(Debug)]
pub(crate) enum Act {
    Apply(Box<DeploymentSpec>),
    RollBack { to: Option<usize> },
    Pause,
    Resume,
    Promote,
    Abort,
    Delete,
}

pub(crate) fn act(rng: &mut Rng) -> Result<Act, NameError> {
    Ok(match rng.u32(..100) {
        0..48 => Act::Apply(Box::new(spec(rng)?)),
        48..56 => Act::RollBack { to: None },
        56..64 => Act::RollBack { to: Some(rng.usize(..100)) },
        64..72 => Act::Pause,
        72..80 => Act::Resume,
        80..90 => Act::Promote,
        90..97 => Act::Abort,
        _ => Act::Delete,
    })
}

/// Version 5 never gets ready, 3 fails, 4 is slow; 1 and 2 are as they should be.
pub(crate) fn spec(rng: &mut Rng) -> Result<DeploymentSpec, NameError> {
    let version = match rng.u32(..20) {
        0..7 => "1",
        7..14 => "2",
        14..17 => "3",
        17..19 => "4",
        _ => "5",
    };
    let strategy = strategy(rng)?;
    let windows = [0, 60, 600];
    Ok(DeploymentSpec {
        model: "linear".parse()?,
        version: VersionRef::Exact(version.parse()?),
        replicas: rng.u32(1..4),
        resources: Resources::default(),
        node_selector: std::collections::BTreeMap::new(),
        tolerations: Vec::new(),
        autoscaling: None,
        disruption_budget: None,
        batching: None,
        engine: modelyard_core::EngineSpec::default(),
        rollback_window: Span::from_secs(windows[rng.usize(..windows.len())]),
        allow_schema_change: false,
        strategy,
    })
}

fn strategy(rng: &mut Rng) -> Result<Strategy, NameError> {
    let surge = [None, None, Some(0), Some(1), Some(2)];
    let max_surge = surge[rng.usize(..surge.len())];
    let hold = Span::from_secs([0, 5, 30][rng.usize(..3)]);
    let choices = [OnInconclusive::Hold, OnInconclusive::Hold, OnInconclusive::Rollback, OnInconclusive::Promote];
    let on_inconclusive = choices[rng.usize(..choices.len())];
    let progress_deadline = Span::from_secs([20, 600][rng.usize(..2)]);
    let analysis = (rng.u32(..5) > 0).then(|| analysis(rng)).transpose()?;
    let mirror = Mirroring::of(Weight::FULL);
    Ok(match rng.u32(..10) {
        0..2 => Strategy::Rolling { max_surge },
        2..6 => {
            let shadow = (rng.u32(..5) == 0).then_some(ShadowStep { mirror, hold });
            let steps = [10.0, 50.0].into_iter().map(|w| Ok(Step { weight: Weight::from_percent(w)?, hold }));
            let steps = steps.collect::<Result<_, NameError>>()?;
            let max_surge = max_surge.filter(|_| shadow.is_none());
            Strategy::Canary(Canary { shadow, steps, max_surge, analysis, on_inconclusive, progress_deadline })
        }
        6..8 => {
            let (auto_promote, mirror) = (rng.bool(), rng.bool().then_some(mirror));
            Strategy::BlueGreen(BlueGreen { hold, auto_promote, mirror, analysis, on_inconclusive, progress_deadline })
        }
        8 => {
            let (step, auto_promote) = (ShadowStep { mirror, hold }, rng.bool());
            Strategy::Shadow(Shadow { step, auto_promote, analysis, on_inconclusive, progress_deadline })
        }
        _ => Strategy::AbTest(ab_test(rng)?),
    })
}

fn analysis(rng: &mut Rng) -> Result<Analysis, NameError> {
    Ok(Analysis {
        min_requests: [30, 30, 200][rng.usize(..3)],
        warmup: [0, 0, 10][rng.usize(..3)],
        max_error_rate: Some(Rate::from_share(0.05)?),
        max_latency_p50: rng.bool().then(|| Span::from_millis(50)),
        ..Analysis::default()
    })
}

fn ab_test(rng: &mut Rng) -> Result<AbTest, NameError> {
    let weight = Weight::from_percent([50.0, 20.0, 100.0][rng.usize(..3)])?;
    let versions = ["1", "2", "3"];
    let variant = |name: &str, version: &str, weight| -> Result<_, NameError> {
        Ok(AbVariant { name: name.parse()?, model: None, version: version.parse()?, weight })
    };
    let variants =
        vec![variant("a", versions[rng.usize(..3)], weight)?, variant("b", versions[rng.usize(..3)], weight.rest())?];
    Ok(AbTest {
        variants,
        sticky_by: StickyBy::ClientIp,
        rules: Vec::new(),
        holdout: (rng.u32(..4) == 0).then(|| Weight::from_percent(10.0)).transpose()?,
        salt: None,
        metrics: Vec::new(),
    })
}

/// What a store makes of a spec.
pub(crate) fn asked(spec: DeploymentSpec) -> Option<Asked> {
    let VersionRef::Exact(version) = &spec.version else { return None };
    let version = model_version(&spec.model, version);
    let test = spec.strategy.ab_test();
    let versions = test.map(|test| test.versions(&spec.model, &version.version)).unwrap_or_default();
    let shares = test.map(AbTest::shares).unwrap_or_default().into_iter();
    let variants = shares.zip(versions).map(|((name, weight), (model, version))| RevisionVariant {
        name,
        version: model_version(&model, &version),
        weight,
    });
    Some(Asked { variants: variants.collect(), version, spec, cause: Cause::Applied })
}

fn model_version(model: &ModelName, version: &VersionName) -> ModelVersion {
    ModelVersion {
        model: model.clone(),
        version: version.clone(),
        format: Format::Onnx,
        digest: Digest::of(version.as_str().as_bytes()),
        size: 1,
        signature: Signature::default(),
        labels: std::collections::BTreeMap::new(),
        metadata: std::collections::BTreeMap::new(),
    }
}

/// `revision of version 2, canary` in a few words.
pub(crate) fn words(name: &DeploymentName, spec: &DeploymentSpec) -> String {
    let surge = spec.strategy.max_surge().map(|surge| format!(", maxSurge {surge}")).unwrap_or_default();
    format!("{name} version {} ({}{surge}, {} workers)", version(spec), spec.strategy, spec.replicas)
}

fn version(spec: &DeploymentSpec) -> String {
    match &spec.version {
        VersionRef::Exact(version) => version.to_string(),
        VersionRef::Alias(alias) => alias.to_string(),
    }
}
