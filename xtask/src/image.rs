//! `image`: the three programs in one container image, written without Docker, and loaded into the cluster on request.

mod archive;
mod libraries;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) use archive::{Archive, Image};
pub(crate) use tree::Tree;

use crate::build::{self, Profile};
use crate::console::Console;
use crate::{kube, workspace};

const NAME: &str = "modelyard.dev/modelyard";
const PROGRAMS: [&str; 3] = ["modelyard-control-plane", "modelyard-gateway", "modelyard-worker"];
/// Where distributions keep the certificates of public authorities, in one file.
const CERTIFICATES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
const USER: u32 = 65532;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pack the programs of the development build instead of a release build
    #[arg(long)]
    debug: bool,
    /// Build nothing: pack the programs in this directory
    #[arg(long, value_name = "DIR", conflicts_with = "debug")]
    from: Option<PathBuf>,
    /// Load the image into the cluster that `kube up` started
    #[arg(long)]
    load: bool,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let console = Console::new(false);
    let programs = match args.from {
        Some(dir) => dir,
        None => build::binaries(if args.debug { Profile::Dev } else { Profile::Release }, console).await?,
    };
    let (path, archive) = write(&programs)?;
    console.say(format_args!("{} ({} MiB)", path.display(), archive.tar.len() / (1024 * 1024)));
    for reference in &archive.references {
        console.say(reference);
    }
    if args.load {
        kube::load_image(kube::made_here()?.as_ref(), &path, console)?;
    }
    Ok(())
}

/// Packs the programs in a directory; returns the archive and where it was written.
pub(crate) fn write(programs: &Path) -> Result<(PathBuf, Archive)> {
    let dir = workspace::target_directory()?.join("image");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let archive = assemble(programs, &dir)?.archive()?;
    let path = dir.join("modelyard.tar");
    fs::write(&path, &archive.tar).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((path, archive))
}

/// The image; `scratch` is where programs are stripped.
fn assemble(programs: &Path, scratch: &Path) -> Result<Image> {
    let mut files = Tree::default();
    for program in PROGRAMS {
        let stripped = scratch.join(program);
        strip(&programs.join(program), &stripped)?;
        files.program(&format!("/usr/local/bin/{program}"), &stripped)?;
        fs::remove_file(&stripped).with_context(|| format!("cannot delete {}", stripped.display()))?;
    }
    let mut env = vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()];
    if let Some(library) = std::env::var_os("MODELYARD_ONNXRUNTIME").filter(|value| !value.is_empty()) {
        files.program("/usr/local/lib/libonnxruntime.so", Path::new(&library)).context("MODELYARD_ONNXRUNTIME")?;
        env.push("MODELYARD_ONNXRUNTIME=/usr/local/lib/libonnxruntime.so".to_owned());
    }
    files.file("/etc/ssl/certs/ca-certificates.crt", 0o644, certificates()?);
    files.file(
        "/etc/passwd",
        0o644,
        format!("root:x:0:0:root:/:/sbin/nologin\nmodelyard:x:{USER}:{USER}::/tmp:/sbin/nologin\n"),
    );
    files.file("/etc/group", 0o644, format!("root:x:0:\nmodelyard:x:{USER}:\n"));
    files.file("/etc/nsswitch.conf", 0o644, "hosts: files dns\n");
    files.directory("/tmp", 0o1777);
    Ok(Image {
        name: NAME.to_owned(),
        tag: env!("CARGO_PKG_VERSION").to_owned(),
        files,
        entrypoint: Vec::new(),
        env,
        user: format!("{USER}:{USER}"),
    })
}

/// Without debug information, a tenth remains; names of functions do, for backtraces.
fn strip(program: &Path, to: &Path) -> Result<()> {
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(to).arg(program);
    let output = strip.output().context("cannot run strip, which comes with the C compiler (binutils)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot strip {}: {}", program.display(), said.trim());
    Ok(())
}

fn certificates() -> Result<Vec<u8>> {
    let found = CERTIFICATES.iter().find_map(|path| fs::read(path).ok());
    found.with_context(|| {
        format!("no certificates of public authorities in {}: install ca-certificates", CERTIFICATES[0])
    })
}
