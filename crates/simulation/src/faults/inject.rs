//! What goes wrong by itself, and what people do.

use modelyard_core::{Actor, DeploymentName, DeploymentSpec};

use super::Broken;
use super::control_plane::{Halt, Term};
use super::people::{self, Act};
use super::world::World;

impl World {
    /// One thing fails, or one that was stopped goes on.
    pub(crate) fn fail(&mut self) -> Result<(), Broken> {
        let now = self.now();
        match self.rng.u32(..100) {
            0..24 => self.crash_worker(),
            24..34 => self.restart_gateway()?,
            34..48 => {
                let millis = self.rng.u64(500..24_000);
                self.cut_gateway("fault: gateway cut off", millis);
            }
            48..50 => {
                let millis = self.rng.u64(31_000..90_000);
                self.cut_gateway("fault: gateway cut off for longer than it is waited for", millis);
            }
            50..56 => self.stop_plane(),
            56..62 => self.end_plane(),
            62..67 => self.lose_office(),
            67..77 => self.step_clock(),
            77..87 => {
                self.store_gone_until = now + self.rng.u64(200..15_000);
                self.story.count("fault: store gone");
                self.story.tell(|| "the store does not answer for a while".into());
            }
            87..94 => {
                self.runtime_gone_until = now + self.rng.u64(200..10_000);
                self.story.count("fault: runtime gone");
                self.story.tell(|| "the runtime does not answer for a while".into());
            }
            _ => {
                let rooms = [3, 6, 12, 1_000];
                self.runtime.room = rooms[self.rng.usize(..rooms.len())];
                self.story.count("fault: room for other numbers of workers");
                self.story.tell(|| format!("there is room for {} workers", self.runtime.room));
            }
        }
        Ok(())
    }

    fn crash_worker(&mut self) {
        let now = self.now();
        if let Some(id) = self.runtime.crash(&mut self.rng, now) {
            self.story.count("fault: worker crashes");
            self.story.tell(|| format!("a worker of {id} crashes"));
        }
    }

    fn restart_gateway(&mut self) -> Result<(), Broken> {
        let until = self.now() + self.rng.u64(100..6_000);
        let index = self.rng.usize(..self.gateways.len());
        let gateway = &mut self.gateways[index];
        let id = format!("{}-{}", gateway.name, gateway.ids.len()).parse()?;
        gateway.restart(id, until);
        self.story.count("fault: gateway restarts");
        self.story.tell(|| format!("gateway {} restarts", gateway.name));
        Ok(())
    }

    fn cut_gateway(&mut self, what: &'static str, millis: u64) {
        let until = self.now() + millis;
        let index = self.rng.usize(..self.gateways.len());
        let gateway = &mut self.gateways[index];
        gateway.cut_until = gateway.cut_until.max(until);
        self.story.count(what);
        self.story.tell(|| format!("gateway {} is cut off from control planes for {millis} ms", gateway.name));
    }

    fn stop_plane(&mut self) {
        let until = self.now() + self.rng.u64(500..20_000);
        let plane = &mut self.planes[self.rng.usize(..2)];
        if plane.runs() {
            plane.halt = Some(Halt::Stopped { until, about: None });
            self.story.count("fault: control plane stopped");
            self.story.tell(|| format!("control plane {} is stopped", plane.name));
        }
    }

    fn end_plane(&mut self) {
        let until = self.now() + self.rng.u64(500..15_000);
        let plane = &mut self.planes[self.rng.usize(..2)];
        if plane.runs() {
            plane.halt = Some(Halt::Down { until });
            plane.term = None;
            self.story.count("fault: control plane dies");
            self.story.tell(|| format!("control plane {} dies", plane.name));
        }
    }

    /// The store's clock jumps: the lease runs out while its holder believes in it.
    fn lose_office(&mut self) {
        let now = self.now();
        let holder = self.store.office.holder;
        let standby = (0..2).find(|plane| Some(*plane) != holder && self.planes[*plane].runs());
        let Some(standby) = standby.filter(|_| self.store_gone_until <= now) else { return };
        self.store.office.expires = now;
        if let Some(epoch) = self.store.office.take(standby, now) {
            self.planes[standby].term = Some(Term::begin(epoch, now));
            self.story.count("fault: lease runs out early");
            let name = self.planes[standby].name;
            self.story.tell(|| format!("the store's clock jumps: control plane {name} takes office, epoch {epoch}"));
        }
    }

    fn step_clock(&mut self) {
        let index = self.rng.usize(..2);
        let step = if self.rng.bool() {
            self.story.count("fault: clock steps forward");
            self.rng.i64(60_000..6 * 3_600_000)
        } else {
            self.story.count("fault: clock steps backward");
            -self.rng.i64(1_000..10 * 60_000)
        };
        let plane = &mut self.planes[index];
        plane.clock_off += step;
        self.story.tell(|| format!("the clock of control plane {} steps by {} s", plane.name, step / 1_000));
    }

    // ---- people ------------------------------------------------------------------------------------------------

    pub(crate) fn people_act(&mut self) -> Result<(), Broken> {
        let name = self.names[self.rng.usize(..self.names.len())].clone();
        let act = people::act(&mut self.rng)?;
        self.do_act(&name, act)
    }

    pub(crate) fn do_act(&mut self, name: &DeploymentName, act: Act) -> Result<(), Broken> {
        let who: Actor = "ann".parse()?;
        // People's writes are stamped by the control plane that takes them.
        let wall = self.planes[0].wall(self.now());
        let is_done = match act {
            Act::Apply(spec) => {
                self.apply(name, *spec);
                return Ok(());
            }
            Act::RollBack { to } => {
                let history = self.store.history(name);
                let to = to.and_then(|to| history.get(to % history.len().max(1)).copied());
                let made = self.store.roll_back(name, to, who, wall);
                if let Some((number, to)) = made {
                    self.story.count("people roll back");
                    self.story.tell(|| format!("ann rolls {name} back to revision {to}, as revision {number}"));
                }
                return Ok(());
            }
            Act::Abort => {
                if self.store.is_rolling(name)
                    && let Some((number, to)) = self.store.roll_back(name, None, who, wall)
                {
                    self.story.count("people abort");
                    self.story.tell(|| format!("ann aborts {name}: back to revision {to}, as revision {number}"));
                }
                return Ok(());
            }
            Act::Pause => ("people pause", self.store.control(name, |c| c.paused_by = Some(who))),
            Act::Resume => ("people resume", self.store.control(name, |c| c.paused_by = None)),
            Act::Promote => {
                let promote = |c: &mut modelyard_core::state::Control| (c.paused_by, c.promoted_by) = (None, Some(who));
                ("people promote", self.store.control(name, promote))
            }
            Act::Delete => ("people delete", self.store.delete(name).then_some(())),
        };
        if let (what, Some(())) = is_done {
            self.story.count(what);
            self.story.tell(|| format!("{what} {name}"));
        }
        Ok(())
    }

    pub(crate) fn apply(&mut self, name: &DeploymentName, spec: DeploymentSpec) {
        let words = people::words(name, &spec);
        let strategy = match &spec.strategy {
            modelyard_core::Strategy::Rolling { .. } => "strategy: rolling",
            modelyard_core::Strategy::Canary(_) => "strategy: canary",
            modelyard_core::Strategy::BlueGreen(_) => "strategy: blue/green",
            modelyard_core::Strategy::Shadow(_) => "strategy: shadow",
            modelyard_core::Strategy::AbTest(_) => "strategy: A/B test",
        };
        let wall = self.planes[0].wall(self.now());
        let (Some(asked), Ok(ann)) = (people::asked(spec), "ann".parse()) else { return };
        let number = self.store.apply(name, asked, ann, wall);
        self.story.count(strategy);
        self.story.tell(|| format!("ann applies revision {number}: {words}"));
    }
}
