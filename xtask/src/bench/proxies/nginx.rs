//! nginx: a worker process a core, `split_clients` by the request's own id.

use std::path::Path;

use anyhow::Result;

use super::{Setup, write};
use crate::bench::process::Program;

pub(super) fn program(path: &Path, setup: &Setup<'_>) -> Result<Program> {
    let Setup { listen, backends: [stable, canary], threads, dir, .. } = setup;
    let dir = dir.display();
    let text = format!(
        "daemon off;\nworker_processes {threads};\npid {dir}/nginx.pid;\nerror_log {dir}/nginx.error.log error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {dir}/body;\n  proxy_temp_path {dir}/proxy;\n  \
         fastcgi_temp_path {dir}/fastcgi;\n  uwsgi_temp_path {dir}/uwsgi;\n  scgi_temp_path {dir}/scgi;\n  \
         keepalive_requests 1000000000;\n  client_max_body_size 64m;\n  client_body_buffer_size 2m;\n  \
         upstream stable {{ server {stable}; keepalive 256; keepalive_requests 1000000000; }}\n  \
         upstream canary {{ server {canary}; keepalive 256; keepalive_requests 1000000000; }}\n  \
         split_clients $request_id $version {{ 90% stable; * canary; }}\n  \
         server {{\n    listen {listen} reuseport;\n    location / {{\n      proxy_pass http://$version;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
         proxy_set_header X-Forwarded-For $remote_addr;\n      proxy_set_header X-Request-Id $request_id;\n    }}\n  }}\n}}\n"
    );
    let file = write(setup, "nginx.conf", &text)?;
    Ok(Program::new(path, setup.cores).args(["-p"]).args([setup.dir]).args(["-c"]).args([file]))
}
