//! All that there is, and how time passes in it.

use std::collections::BTreeMap;
use std::rc::Rc;

use fastrand::Rng;
use modelyard_core::{DeploymentName, Epoch, EvidenceReport};

use super::check::Watch;
use super::control_plane::{Call, ControlPlane, Halt, Term};
use super::gateway::{Gateway, Published};
use super::runtime::Runtime;
use super::store::Store;
use super::story::Story;
use super::{Broken, check, people};

/// Random steps of a story, before it is left alone.
const STEPS: std::ops::Range<u32> = 130..260;
/// Time passes in bits no longer than this, so that what is due every few seconds happens.
const BIT: u64 = 1_000;
const REPORT_EVERY: u64 = 500;
/// When a gateway takes a control plane that says nothing for gone.
const SILENT_IS_BROKEN: u64 = 5_000;

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) story: Story,
    pub(crate) store: Store,
    pub(crate) runtime: Runtime,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) planes: [ControlPlane; 2],
    /// What is under way, in the order in which it arrives.
    mail: BTreeMap<(u64, u64), Mail>,
    pub(crate) sent: u64,
    pub(crate) names: Vec<DeploymentName>,
    /// Nothing fails any more.
    pub(crate) is_quiet: bool,
    pub(crate) store_gone_until: u64,
    pub(crate) runtime_gone_until: u64,
    pub(crate) watch: Watch,
}

/// Something between two of them.
pub(crate) enum Mail {
    Table {
        gateway: usize,
        published: Rc<Published>,
    },
    Report {
        plane: usize,
        report: Rc<EvidenceReport>,
    },
    /// `followed`: the gateways that its sender had heard of when it was sent.
    Call {
        plane: usize,
        epoch: Epoch,
        call: Call,
        followed: Vec<bool>,
    },
    CallEnds {
        plane: usize,
        epoch: Epoch,
        call: u64,
    },
}

impl World {
    pub(crate) fn new(seed: u64, story: Story) -> Result<Self, Broken> {
        let mut rng = Rng::with_seed(seed);
        let gateways = ["g1", "g2", "g3"].into_iter().take(rng.usize(2..4));
        let gateways = gateways.map(|name| Ok(Gateway::new(name, format!("{name}-0").parse()?)));
        let names = ["linear", "price"].into_iter().take(if rng.u32(..4) == 0 { 2 } else { 1 });
        let names = names.map(|name| Ok(name.parse()?)).collect::<Result<Vec<_>, Broken>>()?;
        let rooms = [1_000, 1_000, 12, 5];
        Ok(Self {
            gateways: gateways.collect::<Result<_, Broken>>()?,
            planes: [ControlPlane::new("A"), ControlPlane::new("B")],
            runtime: Runtime::with_room(rooms[rng.usize(..rooms.len())]),
            store: Store::default(),
            mail: BTreeMap::new(),
            sent: 0,
            names,
            is_quiet: false,
            store_gone_until: 0,
            runtime_gone_until: 0,
            watch: Watch::default(),
            story,
            rng,
        })
    }

    /// From the first manifest to when nothing changes any more.
    pub(crate) fn live(&mut self) -> Result<(), Broken> {
        self.tick();
        for name in self.names.clone() {
            let mut spec = people::spec(&mut self.rng)?;
            // Something that serves comes first, mostly.
            if self.rng.u32(..8) > 0 {
                spec.version = modelyard_core::VersionRef::Exact("1".parse()?);
            }
            self.apply(&name, spec);
        }
        for _ in 0..self.rng.u32(STEPS) {
            self.step()?;
        }
        self.settle()
    }

    fn step(&mut self) -> Result<(), Broken> {
        let passes = match self.rng.u32(..100) {
            0..60 => self.rng.u64(5..400),
            60..92 => self.rng.u64(400..4_000),
            _ => self.rng.u64(4_000..30_000),
        };
        self.pass(passes)?;
        for plane in 0..2 {
            let now = self.now();
            if matches!(self.planes[plane].halt, Some(Halt::Stopped { until, .. }) if until <= now) {
                self.go_on(plane)?;
            }
        }
        match self.rng.u32(..100) {
            0..45 => self.look_somewhere(),
            45..72 => self.serve(),
            72..77 => self.people_act(),
            77..92 => self.fail(),
            _ => Ok(()),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.story.now()
    }

    /// Whether something that happens so many times in a thousand happens now.
    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        !self.is_quiet && self.rng.u32(..1_000) < per_mille
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// Lets time pass: what is due arrives, leases are renewed, workers get ready, gateways report.
    pub(crate) fn pass(&mut self, millis: u64) -> Result<(), Broken> {
        let until = self.now() + millis;
        while self.now() < until {
            let next_mail = self.mail.keys().next().map_or(u64::MAX, |(due, _)| *due);
            let next = (self.now() + BIT).min(until).min(next_mail.max(self.now() + 1));
            self.story.pass(next - self.now());
            self.deliver()?;
            self.tick();
        }
        Ok(())
    }

    fn tick(&mut self) {
        let now = self.now();
        self.runtime.tick(now);
        self.resume_planes();
        self.keep_office();
        for index in 0..self.gateways.len() {
            self.tick_gateway(index);
        }
    }

    fn resume_planes(&mut self) {
        let now = self.now();
        for plane in &mut self.planes {
            if matches!(plane.halt, Some(Halt::Down { until }) if until <= now) {
                plane.halt = None;
                self.story.tell(|| format!("control plane {} starts again", plane.name));
            }
        }
    }

    /// Leases are renewed by those that have one, and taken by those that find it run out.
    fn keep_office(&mut self) {
        let now = self.now();
        if self.store_gone_until > now {
            return;
        }
        for (index, plane) in self.planes.iter_mut().enumerate().filter(|(_, plane)| plane.runs()) {
            if let Some(term) = &mut plane.term {
                if self.store.office.renew(index, term.epoch, now) {
                    term.renewed(now);
                } else {
                    self.story.count("control plane finds itself out of office");
                    self.story
                        .tell(|| format!("control plane {} finds that its epoch {} is over", plane.name, term.epoch));
                    plane.term = None;
                }
            } else if let Some(epoch) = self.store.office.take(index, now) {
                self.story.count("office taken");
                self.story.tell(|| format!("control plane {} takes office, epoch {epoch}", plane.name));
                plane.term = Some(Term::begin(epoch, now));
            }
        }
    }

    fn tick_gateway(&mut self, index: usize) {
        let now = self.now();
        let Some(gateway) = self.gateways.get_mut(index) else { return };
        gateway.tick(now);
        if !gateway.is_reachable(now) {
            gateway.link = None;
            return;
        }
        let linked = gateway.link.and_then(|plane| self.planes.get(plane)).filter(|p| p.runs() && p.term.is_some());
        let is_sure = linked.is_some_and(|plane| plane.is_in_office(now));
        if linked.is_some() {
            gateway.heard = now;
        }
        let is_silent = linked.is_none() && now >= gateway.heard + SILENT_IS_BROKEN;
        if gateway.link.is_none() || is_silent || !is_sure {
            self.find_plane(index);
        }
        self.send_report(index);
    }

    /// Follows a control plane that is in office, or else one whose lease has lapsed.
    fn find_plane(&mut self, index: usize) {
        let now = self.now();
        let in_office = |plane: &ControlPlane| plane.is_in_office(now);
        let lapsed = |plane: &ControlPlane| plane.runs() && plane.term.is_some();
        let found = self.planes.iter().position(in_office).or_else(|| self.planes.iter().position(lapsed));
        let Some(gateway) = self.gateways.get_mut(index).filter(|g| g.looks_at <= now) else { return };
        gateway.looks_at = now + 500;
        if found.is_none() || gateway.link == found {
            return;
        }
        (gateway.link, gateway.heard, gateway.reported) = (found, now, 0);
        let published = found.and_then(|plane| self.planes.get(plane)?.term.as_ref()).map(|t| t.published.clone());
        if let Some(published) = published.filter(|p| p.table.version.sequence > 0) {
            self.send_table(index, &published);
        }
    }

    fn send_report(&mut self, index: usize) {
        let now = self.now();
        let Some(gateway) = self.gateways.get_mut(index).filter(|g| now >= g.reported + REPORT_EVERY) else { return };
        let Some(plane) = gateway.link else { return };
        gateway.reported = now;
        let (name, report) = (gateway.name, Rc::new(gateway.report()));
        if self.chance(20) {
            self.story.count("fault: report lost");
            return self.story.tell(|| format!("a report of {name} is lost"));
        }
        let mut after = self.rng.u64(1..20);
        if self.chance(15) {
            after += self.rng.u64(500..8_000);
            self.story.count("fault: report delayed");
            self.story.tell(|| format!("a report of {name} takes {after} ms"));
        }
        if self.chance(15) {
            let again = after + self.rng.u64(100..3_000);
            self.story.count("fault: report duplicated");
            self.story.tell(|| format!("a report of {name} comes twice, again after {again} ms"));
            self.post(again, Mail::Report { plane, report: report.clone() });
        }
        self.post(after, Mail::Report { plane, report });
    }

    // ---- mail --------------------------------------------------------------------------------------------------

    pub(crate) fn post(&mut self, after: u64, mail: Mail) {
        self.sent += 1;
        self.mail.insert((self.now() + after, self.sent), mail);
    }

    pub(crate) fn send_table(&mut self, gateway: usize, published: &Rc<Published>) {
        let Some(name) = self.gateways.get(gateway).map(|gateway| gateway.name) else { return };
        let version = published.table.version;
        let mut after = self.rng.u64(1..30);
        if self.chance(40) {
            self.story.count("fault: table lost");
            self.story.tell(|| format!("table {version} does not reach {name}: the stream breaks"));
            if let Some(gateway) = self.gateways.get_mut(gateway) {
                (gateway.link, gateway.looks_at) = (None, self.story.now() + SILENT_IS_BROKEN);
            }
            return;
        }
        if self.chance(60) {
            after += self.rng.u64(200..9_000);
            self.story.count("fault: table late");
            self.story.tell(|| format!("table {version} is on its way to {name} for {after} ms"));
        }
        self.post(after, Mail::Table { gateway, published: published.clone() });
    }

    fn deliver(&mut self) -> Result<(), Broken> {
        while let Some(mail) = self.next_due() {
            self.arrive(mail)?;
        }
        Ok(())
    }

    fn next_due(&mut self) -> Option<Mail> {
        let now = self.now();
        self.mail.first_entry().filter(|first| first.key().0 <= now).map(|first| first.remove())
    }

    fn arrive(&mut self, mail: Mail) -> Result<(), Broken> {
        let now = self.now();
        match mail {
            Mail::Table { gateway, published } => self.take_table(gateway, &published),
            Mail::Report { plane, report } => {
                // One that is stopped, or stands by, takes none; the next one comes soon.
                let plane = self.planes.get_mut(plane).filter(|plane| plane.runs());
                if let Some(term) = plane.and_then(|plane| plane.term.as_mut()) {
                    term.report(&report, now);
                }
                Ok(())
            }
            Mail::Call { plane, epoch, call, followed } => self.take_effect(plane, epoch, &call, &followed),
            Mail::CallEnds { plane, epoch, call } => {
                let plane = self.planes.get_mut(plane).and_then(|plane| plane.term.as_mut());
                if let Some(term) = plane.filter(|term| term.epoch == epoch) {
                    term.calls.retain(|_, under_way| under_way.number != call);
                }
                Ok(())
            }
        }
    }

    fn take_table(&mut self, index: usize, published: &Rc<Published>) -> Result<(), Broken> {
        let now = self.now();
        let Some(gateway) = self.gateways.get_mut(index).filter(|gateway| gateway.is_reachable(now)) else {
            return Ok(());
        };
        let (name, version, before) = (gateway.name, published.table.version, gateway.following.table.version);
        if gateway.take(published, now) {
            gateway.reported = 0;
            self.watch.found(index);
            self.story.tell(|| format!("{name} follows table {version}"));
        } else {
            self.story.count("gateway refuses an older table");
            self.story.tell(|| format!("{name} refuses table {version}: it follows {before}"));
        }
        let after = gateway.following.table.version;
        if after == version && self.chance(15) {
            let millis = self.rng.u64(1_000..25_000);
            self.story.count("fault: gateway cut off with a table that it has not told of");
            self.story.tell(|| format!("gateway {name} is cut off for {millis} ms before it can say so"));
            self.gateways[index].cut_until = now + millis;
        }
        check::holds(after >= before, || {
            format!("tables of a gateway are monotone: {name} went from {before} to {after}")
        })
    }

    /// A call reaches the runtime.
    fn take_effect(&mut self, plane: usize, epoch: Epoch, call: &Call, followed: &[bool]) -> Result<(), Broken> {
        let now = self.now();
        let (name, fence) = (self.planes.get(plane).map_or("", |plane| plane.name), self.runtime.fence);
        let (verb, id) = (call.verb(), call.id().clone());
        let done = match call {
            Call::Ensure(workload) => self.runtime.ensure(workload, epoch, now).map(|()| true),
            Call::Remove(id) => self.runtime.remove(id, epoch, now),
        };
        match done {
            Err(_) => {
                self.story.count("runtime refuses an earlier epoch");
                self.story
                    .tell(|| format!("the runtime refuses {verb}({id}) of {name}, epoch {epoch}: {fence} was here"));
            }
            Ok(is_new) => {
                self.story.tell(|| format!("the runtime takes {verb}({id}) of {name}, epoch {epoch}"));
                check::holds(epoch >= fence, || {
                    format!("older writers are refused: the runtime takes {verb}({id}) of epoch {epoch} after {fence}")
                })?;
                if is_new && matches!(call, Call::Remove(_)) {
                    self.check_removal(&id, epoch, followed)?;
                }
            }
        }
        check::holds(self.runtime.fence >= fence, || "the runtime's epoch is monotone".into())
    }

    // ---- requests ----------------------------------------------------------------------------------------------

    fn serve(&mut self) -> Result<(), Broken> {
        let requests = self.rng.u64(1..150);
        self.serve_so_many(requests)
    }

    pub(crate) fn serve_so_many(&mut self, requests: u64) -> Result<(), Broken> {
        let now = self.now();
        for (index, gateway) in self.gateways.iter_mut().enumerate().filter(|(_, gateway)| gateway.is_up(now)) {
            let is_followed = !self.watch.is_lost(index);
            gateway.serve(requests, is_followed, &self.runtime, &mut self.rng, &self.story)?;
        }
        Ok(())
    }
}
