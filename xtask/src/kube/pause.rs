//! The image of the program that keeps a pod's network alive. No registry is asked: it is compiled here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::command::output;
use super::state::write;
use crate::image::{Image, Tree};

pub(super) const REFERENCE: &str = "modelyard.dev/pause:1";

/// Waits for ever, reaps orphans, ends when asked to.
const SOURCE: &str = r"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
    signal(SIGINT, leave);
    signal(SIGTERM, leave);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
";

/// Compiles the program and writes its image to `archive`.
pub(super) fn write_image(scratch: &Path, archive: &Path) -> Result<()> {
    let (source, program) = (scratch.join("pause.c"), scratch.join("pause"));
    write(&source, SOURCE)?;
    output(Command::new("cc").args(["-Os", "-static", "-s", "-o"]).arg(&program).arg(&source))
        .context("cannot compile the pause program: a C compiler that links statically is needed (gcc, libc6-dev)")?;
    let mut files = Tree::default();
    files.program("/pause", &program)?;
    let (name, tag) = REFERENCE.split_once(':').context("the reference has a tag")?;
    let image = Image {
        name: name.to_owned(),
        tag: tag.to_owned(),
        files,
        entrypoint: vec!["/pause".to_owned()],
        env: Vec::new(),
        user: "65535:65535".to_owned(),
    };
    write(archive, image.archive()?.tar)
}
