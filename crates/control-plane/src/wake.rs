//! Wakes: "look", never "what changed". Any number of them before a look count as one.

use tokio::sync::{Notify, watch};

#[derive(Default)]
pub struct Wake {
    reconciler: Notify,
    /// Counts what may have been written, for those who follow the events.
    writes: watch::Sender<u64>,
}

impl Wake {
    /// Something was written: the reconciler and all who follow events should look.
    pub fn written(&self) {
        self.writes.send_modify(|n| *n += 1);
        self.reconciler.notify_one();
    }

    /// Something else changed that the reconciler should look at.
    pub fn look(&self) {
        self.reconciler.notify_one();
    }

    pub async fn wanted(&self) {
        self.reconciler.notified().await;
    }

    pub fn follow_writes(&self) -> watch::Receiver<u64> {
        self.writes.subscribe()
    }
}
