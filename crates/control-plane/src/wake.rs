//! Wakes: "look", never "what changed". Any number of them before a look count as one.

use tokio::sync::{Notify, watch};

#[derive(Default)]
pub struct Wake {
    reconciler: Notify,
    urgent: Notify,
    /// Counts what may have been written, for those who follow the events.
    writes: watch::Sender<u64>,
}

impl Wake {
    /// People wrote something: the reconciler should look at once, and so should all who follow events.
    pub fn written(&self) {
        self.writes.send_modify(|n| *n += 1);
        self.urgent.notify_one();
    }

    /// The reconciler wrote something itself.
    pub fn decided(&self) {
        self.writes.send_modify(|n| *n += 1);
        self.reconciler.notify_one();
    }

    /// Something else changed that the reconciler should look at.
    pub fn look(&self) {
        self.reconciler.notify_one();
    }

    /// Ends with a wake that may be looked at a little later, together with others.
    pub async fn wanted(&self) {
        self.reconciler.notified().await;
    }

    /// Ends with a wake that is to be looked at now.
    pub async fn urgent(&self) {
        self.urgent.notified().await;
    }

    pub fn follow_writes(&self) -> watch::Receiver<u64> {
        self.writes.subscribe()
    }
}
