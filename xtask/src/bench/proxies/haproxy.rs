//! haproxy: one process, threads, two servers by weight.

use std::path::Path;

use anyhow::Result;

use super::{Setup, write};
use crate::bench::process::Program;

pub(super) fn program(path: &Path, setup: &Setup<'_>) -> Result<Program> {
    let Setup { listen, backends: [stable, canary], threads, .. } = setup;
    let text = format!(
        "global\n    nbthread {threads}\n    maxconn 4096\n\
         defaults\n    mode http\n    timeout connect 2s\n    timeout client 60s\n    timeout server 60s\n    \
         option http-keep-alive\n    http-reuse always\n\
         frontend clients\n    bind {listen}\n    default_backend versions\n\
         backend versions\n    balance roundrobin\n    option forwardfor\n    \
         server stable {stable} weight 90 pool-max-conn 256\n    server canary {canary} weight 10 pool-max-conn 256\n"
    );
    let file = write(setup, "haproxy.cfg", &text)?;
    Ok(Program::new(path, setup.cores).args(["-db", "-q", "-f"]).args([file]))
}
