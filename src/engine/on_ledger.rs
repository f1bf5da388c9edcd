//! Calls of the ledger, off the thread that waits for agents.

use std::sync::Arc;

use crate::error::{Context as _, Result};
use crate::ledger::Ledger;

/// Runs git's work where it does not hold up agents and checks.
pub(super) async fn on_ledger<T: Send + 'static>(
    ledger: &Arc<dyn Ledger>,
    work: impl FnOnce(&dyn Ledger) -> Result<T> + Send + 'static,
) -> Result<T> {
    let ledger = Arc::clone(ledger);
    tokio::task::spawn_blocking(move || work(&*ledger)).await.context("the ledger's thread died")?
}
