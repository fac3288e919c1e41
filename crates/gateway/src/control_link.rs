//! The link to the control plane: route tables in, evidence out. Its loss stops nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use modelyard_core::{EvidenceReport, GatewayId, RouteTable};
use tokio::time::Instant;

use crate::config::Config;
use crate::control_planes::ControlPlanes;
use crate::shared::Shared;
use crate::table::Compiler;

/// The control plane sends a heartbeat every 2 s.
const SILENT_IS_BROKEN: Duration = Duration::from_secs(5);
/// How often another control plane is looked for while the lease of the one that is followed has lapsed.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// Even if nothing was counted: it says that we live, and by which table.
const REPORT_AT_LEAST_EVERY: Duration = Duration::from_secs(2);
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);
/// For the last report to be taken.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// A line of the stream that is longer is not a route table.
const LONGEST_LINE: usize = 256 << 20;

pub(crate) struct ControlLink {
    shared: Arc<Shared>,
    compiler: Compiler,
    gateway: GatewayId,
    control_planes: ControlPlanes,
    last_table: Option<PathBuf>,
    reported: Option<(EvidenceReport, Instant)>,
    /// While the lease of the control plane that is followed has lapsed: when another was last looked for.
    lapsed: Option<Option<Instant>>,
}

impl ControlLink {
    pub(crate) fn new(config: &Config, shared: Arc<Shared>) -> anyhow::Result<Self> {
        if let Some(dir) = &config.state_dir {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make the state directory {}", dir.display()))?;
        }
        let gateway: GatewayId = format!("gateway-{:016x}", fastrand::u64(..)).parse()?;
        Ok(Self {
            shared,
            compiler: Compiler::default(),
            control_planes: ControlPlanes::new(config, gateway.clone())?,
            gateway,
            last_table: config.state_dir.as_ref().map(|dir| dir.join("routes.json")),
            reported: None,
            lapsed: None,
        })
    }

    /// Goes on by the table of an earlier run, until the control plane has a newer one.
    pub(crate) fn load_last_table(&mut self) {
        let Some(Ok(bytes)) = self.last_table.as_ref().map(std::fs::read) else { return };
        match serde_json::from_slice::<RouteTable>(&bytes) {
            Ok(table) => self.apply(&table),
            Err(error) => tracing::warn!(%error, "the last route table cannot be read; waiting for a new one"),
        }
    }

    /// Follows the control planes for ever.
    pub(crate) async fn run(&mut self) {
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let began = Instant::now();
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, table = %self.shared.table.load().version, "no control plane; serving by the last table");
            }
            self.control_planes.give_up_current();
            if began.elapsed() > SILENT_IS_BROKEN {
                back_off = FIRST_BACK_OFF;
            }
            let jittered = back_off.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::time::sleep(jittered).await;
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// Reads tables and reports evidence until the stream ends.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut stream = self.control_planes.follow().await?;
        let mut line = Vec::new();
        let mut heard = Instant::now();
        let mut report = tokio::time::interval(REPORT_EVERY);
        self.reported = None;
        self.lapsed = None;
        loop {
            if let Some(other) = self.look_around().await {
                tracing::info!(control_plane = self.control_planes.current(), "following another control plane");
                (stream, heard) = (other, Instant::now());
                line.clear();
                self.reported = None;
            }
            tokio::select! {
                chunk = stream.chunk() => {
                    let chunk = chunk?.context("the control plane ended the stream")?;
                    heard = Instant::now();
                    if self.take(&mut line, &chunk)? {
                        self.report().await?;
                    }
                }
                _ = report.tick() => self.report_news().await?,
                () = tokio::time::sleep_until(heard + SILENT_IS_BROKEN) => {
                    anyhow::bail!("the control plane has been silent for {} s", SILENT_IS_BROKEN.as_secs());
                }
            }
        }
    }

    /// Takes the next bytes of the stream, and the tables that they complete. True if one was applied.
    fn take(&mut self, line: &mut Vec<u8>, chunk: &[u8]) -> anyhow::Result<bool> {
        let mut news = false;
        for part in chunk.split_inclusive(|b| *b == b'\n') {
            line.extend_from_slice(part);
            anyhow::ensure!(line.len() <= LONGEST_LINE, "the control plane sent a line without end");
            if line.ends_with(b"\n") {
                news |= self.take_line(line)?;
                line.clear();
            }
        }
        Ok(news)
    }

    fn take_line(&mut self, line: &[u8]) -> anyhow::Result<bool> {
        if line.trim_ascii().is_empty() {
            return Ok(false);
        }
        let table: RouteTable = serde_json::from_slice(line).context("not a route table")?;
        // One as old as ours is ours; an older one comes from a control plane that is out of office.
        if table.version <= self.shared.table.load().version {
            return Ok(false);
        }
        self.apply(&table);
        if let Some(Err(error)) = self.last_table.as_ref().map(|path| keep(path, line)) {
            tracing::warn!(%error, "the route table could not be kept for the next start");
        }
        Ok(true)
    }

    fn apply(&mut self, table: &RouteTable) {
        let compiled = self.compiler.compile(table, &self.shared.counters);
        self.shared.table.store(Arc::new(compiled));
        tracing::debug!(version = %table.version, "route table applied");
    }

    async fn report_news(&mut self) -> anyhow::Result<()> {
        let report = self.make_report();
        let is_due = match &self.reported {
            Some((last, at)) => *last != report || at.elapsed() >= REPORT_AT_LEAST_EVERY,
            None => true,
        };
        if is_due { self.send(report).await } else { Ok(()) }
    }

    /// Says at once which table is applied: workloads end when no gateway uses them.
    async fn report(&mut self) -> anyhow::Result<()> {
        let report = self.make_report();
        self.send(report).await
    }

    /// The last report: all that was counted, and that nothing is used any more. Nobody then waits for this gateway
    /// before workers are ended.
    pub(crate) async fn take_leave(&mut self) {
        let report = EvidenceReport { in_use: BTreeSet::new(), ..self.make_report() };
        if !matches!(tokio::time::timeout(LEAVE_WITHIN, self.send(report)).await, Ok(Ok(()))) {
            tracing::debug!("no control plane took the last report");
        }
    }

    fn make_report(&self) -> EvidenceReport {
        let table = self.shared.table.load();
        let mut in_use = table.workloads.clone();
        in_use.extend(self.compiler.busy());
        EvidenceReport {
            gateway: self.gateway.clone(),
            applied: table.version,
            in_use,
            variants: self.shared.counters.report(),
        }
    }

    async fn send(&mut self, report: EvidenceReport) -> anyhow::Result<()> {
        let has_lapsed = self.control_planes.send(&report).await?;
        // The first look around is due at once.
        self.lapsed = if has_lapsed { self.lapsed.or(Some(None)) } else { None };
        self.reported = Some((report, Instant::now()));
        Ok(())
    }

    /// While the lease of the one that is followed has lapsed: another one, if it is in office. The one that has lapsed
    /// does not know, and its tables would keep us from the other's.
    async fn look_around(&mut self) -> Option<reqwest::Response> {
        let last = self.lapsed?;
        if last.is_some_and(|last| last.elapsed() < LOOK_AROUND_EVERY) {
            return None;
        }
        let other = self.control_planes.follow_another().await;
        self.lapsed = other.is_none().then(|| Some(Instant::now()));
        other
    }
}

fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, path)
}
