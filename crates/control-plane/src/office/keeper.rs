//! Keeps the lease while a term lasts, and finds out when it does not.

use std::path::Path;
use std::time::Duration;

use modelyard_core::Epoch;
use modelyard_store::{Office, Standing};

use super::term::{Moment, Term};
use super::{TTL, successor};
use crate::wake::Wake;

const RENEW_EVERY: Duration = Duration::from_millis(1500);
/// After an attempt that failed.
const RETRY: Duration = Duration::from_millis(500);

/// Renews until another control plane turns out to be in office; answers with its epoch. While Postgres does not
/// answer, the term lapses, and nothing but a successor's word ends it.
pub(super) async fn keep(office: &Office, term: &Term, wake: &Wake, state_dir: &Path) -> Epoch {
    let mut wait = RENEW_EVERY;
    let mut last_event = None;
    let mut lapsed = false;
    loop {
        tokio::time::sleep(wait).await;
        let asked = Moment::now();
        match office.renew(term.epoch(), TTL).await {
            Ok(Standing::Held { last_event: latest, .. }) => {
                term.renewed(asked, TTL);
                wait = RENEW_EVERY;
                // Whoever was in office until a moment ago may have taken a person's wish since we looked.
                if last_event.replace(latest).is_some_and(|seen| seen != latest) {
                    wake.written();
                }
                if std::mem::take(&mut lapsed) {
                    tracing::info!(epoch = %term.epoch(), "the lease is renewed; going on");
                    wake.look();
                }
            }
            Ok(Standing::Standby(holder)) => return holder.epoch,
            Err(error) => {
                wait = RETRY;
                if !lapsed && term.check().is_err() {
                    lapsed = true;
                    tracing::warn!(%error, epoch = %term.epoch(), "the lease has lapsed: nothing is written until it is renewed");
                }
            }
        }
        if lapsed && let Some(epoch) = successor::of(state_dir, term.epoch()) {
            return epoch;
        }
    }
}
