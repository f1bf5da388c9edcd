//! Calls of the ledger on threads of their own.

use std::sync::Arc;

use crate::error::{Context as _, Result};
use crate::ledger::Ledger;

/// Runs blocking work of the ledger on a thread of its own, so that agents and checks are not held up.
pub(super) async fn on_ledger<T: Send + 'static>(
    ledger: &Arc<dyn Ledger>,
    work: impl FnOnce(&dyn Ledger) -> Result<T> + Send + 'static,
) -> Result<T> {
    let ledger = Arc::clone(ledger);
    tokio::task::spawn_blocking(move || work(&*ledger)).await.context("the ledger's thread died")?
}
