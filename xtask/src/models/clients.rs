//! Installs the clients that users run, each into an environment of its own: what they pull in does not go together.
//!
//! Everything is pinned, by the files beside the scripts that use it. Nothing of this is ever committed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::console::Console;
use crate::models::{make_venv, run};
use crate::workspace;

/// What tests are given: a Python for each.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) kserve: PathBuf,
    pub(crate) mlserver: PathBuf,
}

/// Installs what is missing; does nothing when all is there.
pub(crate) fn prepare(console: Console) -> Result<Clients> {
    let dir = workspace::target_directory()?.join("modelyard-clients");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let lock = File::create(dir.join("lock")).context("cannot create the lock of the clients")?;
    lock.lock().context("cannot lock the clients")?;
    Ok(Clients {
        kserve: install(&dir, "kserve", include_str!("../../../tests/tests/models/kserve.txt"), console)?,
        mlserver: install(&dir, "mlserver", include_str!("../../../tests/tests/models/mlserver.txt"), console)?,
    })
}

fn install(dir: &Path, name: &str, pins: &str, console: Console) -> Result<PathBuf> {
    let (venv, stamp) = (dir.join(name), dir.join(format!("{name}.stamp")));
    let python = venv.join("bin/python");
    // The Python that the environment was made from may have been upgraded away since.
    let is_made = fs::read_to_string(&stamp).is_ok_and(|made| made == pins)
        && run(Command::new(&python).args(["-c", "import grpc, numpy"])).is_ok();
    if !is_made {
        console.say(format_args!("fetching the client of {name} with pip (once, some 100 MB)"));
        make_venv(&venv, console)?;
        let wanted = dir.join(format!("{name}.txt"));
        fs::write(&wanted, pins).with_context(|| format!("cannot write {}", wanted.display()))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]);
        // All that is needed is listed.
        run(pip.args(["--no-deps", "--requirement"]).arg(&wanted))?;
        fs::write(&stamp, pins).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(python)
}
