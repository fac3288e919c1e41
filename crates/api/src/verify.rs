//! Verifies the chain of events by what the server sends of it, and computes every hash here.

use modelyard_core::ChainHead;
use modelyard_core::chain::{Broken, Verifier};

use crate::client::{Client, ClientError};

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Events per request; the most that the server gives.
const PAGE: u32 = 1000;

impl Client {
    /// Reads all events that the verifier asks for, in memory for one page. `progress` is told the position after each.
    ///
    /// # Errors
    /// [`VerifyError::Broken`] names the first event that is not as it was written.
    pub async fn verify_events(
        &self,
        mut verifier: Verifier,
        mut progress: impl FnMut(i64),
    ) -> Result<(ChainHead, u64), VerifyError> {
        let mut after = verifier.read_after();
        loop {
            let page = self.chained_events(after, PAGE).await?;
            page.items.iter().try_for_each(|event| verifier.next(event))?;
            // Where to go on is read off the events: a server that skips some is found out.
            let Some(last) = page.items.last().filter(|_| page.next.is_some()) else {
                return Ok(verifier.finish()?);
            };
            after = Some(last.position);
            progress(last.position);
        }
    }
}
