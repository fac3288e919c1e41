//! Until when a caller waits: by `grpc-timeout`, or the header that the REST form has for it, whichever is sooner.

use std::time::Instant;

use http::{HeaderMap, HeaderValue};
use modelyard_protocol::{GRPC_TIMEOUT, TIMEOUT, format_timeout, header_timeout};
use tokio::time::timeout_at;
use tonic::Status;

/// `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Of a call that came now.
    ///
    /// # Errors
    /// If it is not understood.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let timeout = header_timeout(text(TIMEOUT), text(GRPC_TIMEOUT));
        let timeout = timeout.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Self(timeout.map(|timeout| Instant::now() + timeout)))
    }

    /// Tells whoever answers the REST form what is left.
    pub(crate) fn pass_on(self, headers: &mut HeaderMap) {
        let Some(at) = self.0 else { return };
        let left = format_timeout(at.saturating_duration_since(Instant::now()));
        if let Ok(left) = HeaderValue::try_from(left) {
            headers.insert(TIMEOUT, left);
        }
    }

    /// # Errors
    /// What `call` says, or that its time is over.
    pub(crate) async fn bound<T>(self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match self.0 {
            None => call.await,
            Some(at) => {
                let over = |_| Status::deadline_exceeded("the time that the caller gave is over");
                timeout_at(at.into(), call).await.map_err(over)?
            }
        }
    }
}
