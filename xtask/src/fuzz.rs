//! `fuzz`: runs the fuzz targets of `crates/fuzz-targets` by libFuzzer, with the stable compiler.
//!
//! What is found is kept in `fuzz/artifacts`, and what was learnt in `fuzz/target/corpus`; `fuzz/README.md` says what
//! becomes of either.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::console::Console;
use crate::workspace;

/// Pinned, since newer versions build in ways of their own.
const VERSION: &str = "0.13.2";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One of `fuzz/fuzz_targets`; all, one after the other, if none is named
    target: Option<String>,
    /// How long each is run
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let console = Console::new(false);
    let known = targets()?;
    let wanted = match &args.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no target {target}; there are {}", known.join(", ")),
    };
    install(console)?;
    let mut findings = Vec::new();
    for target in wanted {
        console.say(format_args!("fuzz: {target}, {} min", args.minutes));
        if !fuzz(&target, args.minutes)? {
            findings.push(target);
        }
    }
    ensure!(findings.is_empty(), "found something in {}: see above, and fuzz/artifacts", findings.join(", "));
    console.say("fuzz: nothing found");
    Ok(())
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let dir = workspace::root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn install(console: Console) -> Result<()> {
    let installed = workspace::cargo().args(["fuzz", "--version"]).output();
    if installed.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    console.say(format_args!("installing cargo-fuzz {VERSION} (once, some minutes)"));
    let mut install = workspace::cargo();
    install.args(["install", "cargo-fuzz", "--locked", "--version", VERSION]);
    let status = install.status().context("cannot run cargo install")?;
    ensure!(status.success(), "cargo-fuzz could not be installed ({status})");
    Ok(())
}

/// Whether it went by without a finding.
fn fuzz(target: &str, minutes: u64) -> Result<bool> {
    // What is learnt goes into the first directory; the corpus that is kept is the second, and stays small.
    let learnt = workspace::root().join("fuzz/target/corpus").join(target);
    std::fs::create_dir_all(&learnt).with_context(|| format!("cannot make {}", learnt.display()))?;
    let mut command = workspace::cargo();
    // No sanitizer: they need a nightly compiler, and there is no unsafe code of ours for them to look at.
    command.args(["fuzz", "run", "--sanitizer", "none", target]).arg(&learnt).arg(format!("fuzz/corpus/{target}"));
    command.args(["--", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={}", minutes * 60));
    // Engines read files: in memory, where that is to be had.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        command.env("TMPDIR", memory);
    }
    Ok(command.status().context("cannot run cargo fuzz")?.success())
}
