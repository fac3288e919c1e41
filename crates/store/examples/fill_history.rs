//! Writes years of history into a database, by the commits that a reconciler makes; `cargo xtask bench history` runs it.
//!
//! `DATABASE_URL=… fill_history EVENTS`: a thousand deployments whose weights move, spread over five years up to now, and are deleted
//! at the end. Prints, as JSON, how many events there are, how long the commits took in seconds, and the time between
//! two of them in milliseconds.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::manifest::{DeploymentManifest, ModelManifest};
use modelyard_core::plan::Commit;
use modelyard_core::{
    Actor, DeploymentName, DeploymentSpec, Digest, Epoch, Format, ModelVersion, Resources, Signature, Strategy,
    Timestamp,
};
use modelyard_store::{ApplyBatch, Candidate, Claim, Standing, Store};
use serde_json::json;

const DEPLOYMENTS: u32 = 1000;
const YEARS_MS: i64 = 5 * 365 * 24 * 3600 * 1000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let events: u32 = std::env::args().nth(1).context("say how many events")?.parse()?;
    let store = Store::connect(&std::env::var("DATABASE_URL").context("DATABASE_URL is not set")?)?;
    store.migrate().await?;
    let epoch = take_office(&store).await?;
    let now = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
    let begin = now - YEARS_MS;
    let actor: Actor = "bench".parse()?;
    store.apply(batch()?, false, &actor, Timestamp::from_millis(begin - 1)).await?;

    let rounds = events / DEPLOYMENTS;
    let pause = YEARS_MS / i64::from(rounds.max(1));
    let mut desired = store.desired(epoch).await?;
    let began = Instant::now();
    for round in 0..rounds {
        let at = Timestamp::from_millis(begin + i64::from(round) * pause);
        let commits = desired.iter().map(|(name, d)| {
            let events = vec![weights_changed(name, round)];
            let commit =
                Commit { parent: d.parent, state: d.state.clone(), rollback: None, outcomes: BTreeMap::new(), events };
            (name.clone(), commit)
        });
        let commits: BTreeMap<_, _> = commits.collect();
        let refused = store.commit_all(&commits.iter().collect(), epoch, at).await?;
        ensure!(refused.is_empty(), "{refused:?}");
        desired.values_mut().for_each(|d| d.parent = d.parent.next());
    }
    let seconds = began.elapsed().as_secs_f64();
    // A control plane that starts on this database is to find nothing to run.
    for name in desired.keys() {
        store.delete_deployment(name, None, &actor, Timestamp::from_millis(now)).await?;
    }
    let told = json!({"events": rounds * DEPLOYMENTS, "seconds": seconds, "pause_ms": pause, "begin_ms": begin});
    writeln!(std::io::stdout(), "{told}")?;
    Ok(())
}

async fn take_office(store: &Store) -> anyhow::Result<Epoch> {
    let office = store.office(Candidate { identity: "bench".into(), address: "http://bench".into() });
    // Longer than this takes; whoever comes next is told to be the same, and need not wait.
    match office.claim(Claim::Inherited, Duration::from_secs(1)).await? {
        Standing::Held { epoch, .. } => Ok(epoch),
        Standing::Standby(holder) => anyhow::bail!("{holder:?} is in office"),
    }
}

fn batch() -> anyhow::Result<ApplyBatch> {
    let mut batch = ApplyBatch::default();
    let name = "linear";
    batch.add_model(0, ModelManifest { name: name.parse()?, labels: BTreeMap::new(), description: None, owner: None });
    batch.add_version(
        1,
        ModelVersion {
            model: name.parse()?,
            version: "1".parse()?,
            format: Format::Dense,
            digest: Digest::of(b"no artifact: nothing is run"),
            size: 0,
            signature: Signature::default(),
            labels: BTreeMap::new(),
            metadata: BTreeMap::new(),
        },
    );
    for n in 0..DEPLOYMENTS {
        let spec = DeploymentSpec {
            model: name.parse()?,
            version: "1".parse()?,
            replicas: 0,
            resources: Resources::default(),
            batching: None,
            engine: modelyard_core::EngineSpec::default(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            autoscaling: None,
            disruption_budget: None,
            rollback_window: DeploymentSpec::DEFAULT_ROLLBACK_WINDOW,
            allow_schema_change: false,
            strategy: Strategy::rolling(),
        };
        let manifest = DeploymentManifest { name: format!("d{n}").parse()?, labels: BTreeMap::new(), spec };
        batch.add_deployment(usize::try_from(n)? + 2, manifest, None);
    }
    Ok(batch)
}

/// As the planner words it. The weights tell the round, so that an answer can be checked.
fn weights_changed(name: &DeploymentName, round: u32) -> EventDraft {
    let weights = json!([{"variant": "stable", "revision": round + 1, "version": "1", "weight": 100}]);
    EventDraft {
        kind: EventKind::WeightsChanged,
        actor: Actor::system(),
        model: None,
        deployment: Some(name.clone()),
        message: format!("traffic: version 1 (revision {}) 100 %", round + 1),
        data: json!({"weights": weights}),
    }
}
