//! What a worker writes down for others: where it listens. That it is ready is asked over HTTP, that it lives is told
//! by its lock.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    /// Where it serves gRPC, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc_address: Option<SocketAddr>,
    pub(crate) started_at: jiff::Timestamp,
}

impl Status {
    /// Writes `status.json` in `dir`; a reader sees the former content or this, whole.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join("status.json.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, dir.join("status.json"))
    }
}
