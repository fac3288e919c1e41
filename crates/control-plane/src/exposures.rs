//! Keeps what gateways counted of who was assigned to which variant: experiments last for weeks, and a gateway that
//! starts counts anew. Nothing is decided on it; the reconciler takes what gateways report.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use modelyard_core::{DeploymentName, GatewayId, RevisionNumber, VariantName, Window};
use modelyard_store::{ExposureRow, StoreError};
use tokio::sync::Mutex;

use crate::app::App;

/// A gateway that ends takes what it counted since with it.
const EVERY: Duration = Duration::from_secs(10);

/// How many requests of each count are kept by now.
#[derive(Debug, Default)]
pub struct Kept(Mutex<HashMap<Key, u64>>);

type Key = (DeploymentName, RevisionNumber, VariantName, GatewayId, Window);

fn key(row: &ExposureRow) -> Key {
    (row.deployment.clone(), row.revision, row.variant.clone(), row.gateway.clone(), row.window)
}

/// For as long as the term lasts.
pub(crate) async fn run(app: Arc<App>) -> Infallible {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = keep(&app).await {
            tracing::warn!(%error, "who was assigned to which variant could not be kept; trying again");
        }
    }
}

/// Writes what is not written yet.
///
/// # Errors
/// A database that fails; it is written the next time.
pub(crate) async fn keep(app: &App) -> Result<(), StoreError> {
    let mut kept = app.exposures_kept.0.lock().await;
    let seen: HashMap<Key, ExposureRow> = app.gateways.exposures().into_iter().map(|row| (key(&row), row)).collect();
    kept.retain(|key, _| seen.contains_key(key));
    let news = seen.iter().filter(|(key, row)| kept.get(key).is_none_or(|n| *n < row.exposure.requests));
    let news: Vec<_> = news.map(|(_, row)| row.clone()).collect();
    if !news.is_empty() {
        app.store.record_exposures(&news).await?;
        kept.extend(news.iter().map(|row| (key(row), row.exposure.requests)));
    }
    Ok(())
}
