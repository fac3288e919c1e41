//! This process among the control planes: in office, or standing by for the one that is. What the HTTP side goes by.

use std::sync::{Arc, OnceLock};

use modelyard_core::Epoch;
use modelyard_store::{Holder, Store, StoreError};
use tokio::sync::watch;

use crate::access::Access;
use crate::app::App;
use crate::http::Api;
use crate::peers::Peers;

/// Where this process stands.
#[derive(Clone)]
pub enum Place {
    /// Neither: what it waits for, in words.
    Waiting(Arc<str>),
    Standby(Arc<Holder>),
    InOffice(Arc<Api>),
}

pub struct Node {
    identity: String,
    advertised: String,
    /// Of no term: for reading, and to ask whether Postgres answers.
    pub(crate) store: Store,
    /// For requests that another control plane is to answer.
    pub(crate) peers: Peers,
    place: watch::Sender<Place>,
    /// Once Postgres has told who may do what.
    access: OnceLock<Arc<Access>>,
}

impl Node {
    pub fn new(identity: String, advertised: String, store: Store, peers: Peers) -> Self {
        let place = watch::Sender::new(Place::Waiting("this control plane has just started".into()));
        Self { identity, advertised, store, peers, place, access: OnceLock::new() }
    }

    pub(crate) fn admit_by(&self, access: Arc<Access>) {
        self.access.set(access).ok();
    }

    pub(crate) fn access(&self) -> Option<&Arc<Access>> {
        self.access.get()
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Where the others reach it.
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    pub fn place(&self) -> Place {
        self.place.borrow().clone()
    }

    /// Resolves when the control plane of that term is no longer the one to ask.
    pub(crate) async fn moved_on(&self, from: Epoch) {
        let still = |place: &Place| matches!(place, Place::Standby(holder) if holder.epoch == from);
        let _node_is_gone = self.place.subscribe().wait_for(|place| !still(place)).await.is_err();
    }

    pub(crate) fn enter(&self, app: Arc<App>) {
        self.place.send_replace(Place::InOffice(Arc::new(Api::new(app))));
    }

    pub(crate) fn wait(&self, what: &str) {
        self.place.send_if_modified(|place| {
            let news = !matches!(place, Place::Waiting(known) if **known == *what);
            if news {
                tracing::info!("{what}");
                *place = Place::Waiting(what.into());
            }
            news
        });
    }

    pub(crate) fn stand_by(&self, holder: Holder) {
        if holder.expires_in.is_zero() {
            return self.wait("no control plane is in office");
        }
        self.place.send_if_modified(|place| {
            let news = !matches!(place, Place::Standby(known) if known.epoch == holder.epoch);
            if news {
                tracing::info!(holder = holder.identity, address = holder.address, epoch = %holder.epoch, "standing by");
                *place = Place::Standby(Arc::new(holder));
            }
            news
        });
    }

    /// Whoever was in office last is asked on: it may well answer.
    pub(crate) fn database_is_silent(&self, error: &StoreError) {
        tracing::warn!(%error, "waiting for the database");
        if matches!(*self.place.borrow(), Place::Waiting(_)) {
            self.wait("the database does not answer");
        }
    }
}
