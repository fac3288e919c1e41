//! Deletes artifacts that were uploaded and never registered, what cut-off uploads left, and tokens long expired.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::app::{App, now};
use crate::artifacts::ArtifactError;

/// An upload is followed by its manifest within seconds; a day is for people who do it by hand.
const UNUSED_FOR: Duration = Duration::from_secs(24 * 3600);
const EVERY: Duration = Duration::from_secs(3600);

/// For as long as the term lasts.
pub(crate) async fn run(app: Arc<App>) -> Infallible {
    loop {
        if let Err(error) = sweep(&app).await {
            tracing::warn!(%error, "unused artifacts could not be swept");
        }
        if let Err(error) = app.store.sweep_tokens(now()).await {
            tracing::warn!(%error, "expired tokens could not be swept");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn sweep(app: &App) -> Result<(), ArtifactError> {
    for (key, digest) in app.artifacts.older_than(UNUSED_FOR).await? {
        match digest {
            Some(digest) => crate::apply::discard_unused(app, vec![digest]).await,
            None => app.artifacts.delete_key(&key).await?,
        }
    }
    Ok(())
}
