//! How a story ends: faults stop, people let it go on, and everything comes to an end or to a hold that has a name.

use std::collections::BTreeSet;

use modelyard_core::plan::Plan;
use modelyard_core::state::{Outcome, Phase};
use modelyard_core::{DeploymentName, Span};

use super::control_plane::Halt;
use super::people::Act;
use super::runtime::DOOMED;
use super::world::World;
use super::{Broken, check};

/// Looks until everything must have come to its end.
const ROUNDS: u32 = 150;
/// Looks in a row that find nothing to do.
const STILL: u32 = 3;

impl World {
    /// # Errors
    /// If something goes on for ever, or waits without saying on what.
    pub(crate) fn settle(&mut self) -> Result<(), Broken> {
        self.story.tell(|| "---- nothing fails any more ----".into());
        self.heal()?;
        let is_used = self.rng.u32(..4) > 0;
        let mut promoted = BTreeSet::new();
        for name in self.names.clone() {
            match self.rng.u32(..4) {
                0 => {}
                1 => {
                    promoted.insert(name.clone());
                    self.do_act(&name, Act::Promote)?;
                }
                _ => self.do_act(&name, Act::Resume)?,
            }
        }
        let mut still = 0;
        for _ in 0..ROUNDS {
            self.pass(800)?;
            if is_used {
                self.serve_so_many(60)?;
            }
            if still == STILL - 1 {
                // By now nobody waits for a gateway that is gone, or for a request of long ago.
                self.pass(35_000)?;
            }
            let Some((plane, plan)) = self.look_in_office()? else { continue };
            still = if plan.is_settled() { still + 1 } else { 0 };
            let Some(wake_at) = plan.wake_at.filter(|_| still > 0) else {
                if still >= STILL && !(is_used && awaits_requests(&plan)) {
                    return self.check_end(&plan, &promoted);
                }
                continue;
            };
            // Nobody waits in here: the clock goes on to when there is something to do.
            let wall = self.planes[plane].wall(self.now());
            let ahead = i64::try_from(wake_at.since(wall).as_millis()).unwrap_or(0);
            self.planes[plane].clock_off += ahead + 1;
            still = 0;
        }
        let Some((_, plan)) = self.look_in_office()? else {
            return Err(Broken("somebody is in office once nothing fails any more".into()));
        };
        if plan.is_settled() {
            // Waits for requests that come too slowly.
            return self.check_end(&plan, &promoted);
        }
        Err(Broken(format!("constant evidence comes to an end: there is still to do\n{plan}")))
    }

    fn heal(&mut self) -> Result<(), Broken> {
        self.is_quiet = true;
        (self.store_gone_until, self.runtime_gone_until, self.runtime.room) = (0, 0, 1_000);
        for gateway in &mut self.gateways {
            gateway.cut_until = 0;
        }
        for plane in 0..2 {
            if let Some(Halt::Stopped { .. }) = self.planes[plane].halt {
                self.go_on(plane)?;
            }
        }
        // What is under way arrives, and terms that are over are known to be.
        self.pass(45_000)
    }

    fn look_in_office(&mut self) -> Result<Option<(usize, Plan)>, Broken> {
        let now = self.now();
        let Some(plane) = (0..2).find(|plane| self.planes[*plane].is_in_office(now)) else { return Ok(None) };
        Ok(self.look(plane)?.map(|plan| (plane, plan)))
    }

    fn check_end(&mut self, plan: &Plan, promoted: &BTreeSet<DeploymentName>) -> Result<(), Broken> {
        let mut wanted = BTreeSet::new();
        for (name, report) in &plan.reports {
            let Some(desired) = self.store.row(name) else { continue };
            let revision = desired.revisions.get(&desired.target);
            let workloads = revision.map(|r| r.workloads(name)).unwrap_or_default();
            let is_doomed = workloads.iter().any(|workload| workload.version.as_str() == DOOMED);
            let word = end(report.phase, &report.waiting_on);
            self.story.tell(|| format!("{name} ends: {:?} {:?}", report.phase, report.waiting_on));
            let Some(word) = word else {
                return Err(Broken(format!("a hold has a name: {name}, {:?}", report.waiting_on)));
            };
            self.story.count(word);
            let is_done = report.phase == Phase::Completed;
            check::holds(is_done || is_doomed || !promoted.contains(name), || {
                format!("what is promoted comes to serve: {name}, {:?}", report.waiting_on)
            })?;
            let lives = [desired.state.stable, desired.state.rollout.as_ref().map(|r| r.revision)];
            let lives = lives.into_iter().flatten().chain(desired.state.warm.iter().map(|w| w.revision));
            for number in lives.filter_map(|number| desired.revisions.get(&number)) {
                wanted.extend(number.workloads(name).into_iter().map(|workload| workload.id));
            }
            if is_done {
                let pending = |n| self.store.outcome(name, n).is_none_or(|outcome| *outcome == Outcome::Pending);
                let open: Vec<_> = self.store.history(name).into_iter().filter(|n| pending(*n)).collect();
                check::holds(open.is_empty(), || format!("every revision has an outcome: {name}, {open:?}"))?;
            }
        }
        if plan.reports.is_empty() {
            self.story.count("ending: deleted");
        }
        let running: BTreeSet<_> = self.runtime.ids().into_iter().collect();
        check::holds(running == wanted, || format!("what runs is what is wanted: {running:?}, {wanted:?}"))?;
        self.pass(2_000)?;
        let shown: Vec<_> = self.gateways.iter().map(|g| &g.following.table.deployments).collect();
        check::holds(shown.iter().all(|routes| **routes == plan.routes), || {
            "every gateway follows the last table once nothing fails".into()
        })?;
        let Some((plane, again)) = self.look_in_office()? else { return Ok(()) };
        check::holds(again.is_settled(), || format!("planning right after yields nothing: {again}"))?;
        // Nor does time alone, until the plan says so.
        let now = self.planes[plane].wall(self.now());
        let quiet = again.wake_at.map_or(Span::from_secs(60), |at| at.since(now).min(Span::from_secs(60)));
        let quiet = i64::try_from(quiet.as_millis()).unwrap_or(0) - 1;
        self.planes[plane].clock_off += quiet.max(0);
        let Some((_, later)) = self.look_in_office()? else { return Ok(()) };
        check::holds(later.is_settled(), || format!("time alone starts nothing more: {later}"))
    }
}

fn awaits_requests(plan: &Plan) -> bool {
    plan.reports.values().any(|report| {
        report.waiting_on.iter().any(|words| words.contains("more requests") || words.contains("warm-up requests"))
            && report.variants.iter().any(|v| v.revision == report.observed_revision && !v.weight.is_zero())
    })
}

/// What it came to; `None` for a hold that nobody knows.
fn end(phase: Phase, waiting_on: &[String]) -> Option<&'static str> {
    if phase == Phase::Completed {
        return Some("ending: completed");
    }
    let says = |what: &str| waiting_on.iter().any(|words| words.contains(what));
    let holds = [
        ("paused by", "ending: hold, paused"),
        ("somebody to promote", "ending: hold, to be promoted"),
        ("there is no earlier one", "ending: hold, nothing to go back to"),
        ("more requests", "ending: hold, more requests"),
        ("warm-up requests", "ending: hold, more requests"),
        ("are ready", "ending: hold, workers"),
        ("is ready", "ending: hold, workers"),
    ];
    holds.iter().find(|(words, _)| says(words)).map(|(_, word)| *word)
}
