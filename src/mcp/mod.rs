//! The MCP server: agents start runs of one repository, watch them, answer their questions and look at their work.
//!
//! Like the command line, every call uses `app` and returns the views of `--json`. The server keeps no state that git does
//! not have, and every driver is a separate process, so a server may end at any time.

mod arguments;
mod asking;
mod backlog;
mod calls;
mod changes;
mod handler;
mod reply;
mod resources;
mod schemas;
mod scope;
mod server;
mod starting;
mod tasks;
mod tools;
mod waiting;
mod wire;

use std::path::Path;
use std::time::Duration;

use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;
use tokio_util::sync::CancellationToken;

pub use self::server::Server;
use self::wire::Stdio;
use crate::error::{Context as _, Error, Result};

/// Time that calls have to end once the client is gone: hosts send a signal after two seconds.
const LAST_CALLS: Duration = Duration::from_millis(1500);

/// Serves the repository that `dir`, or the current directory, is in, on standard input and output, until the client
/// is gone.
pub fn serve(dir: Option<&Path>) -> Result<()> {
    let closed = CancellationToken::new();
    let server = Server::open(dir, closed.clone())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().context("the runtime cannot be started")?;
    let outcome = runtime.block_on(async {
        let stdio = Stdio::take(closed.clone()).context("the server's threads cannot be started")?;
        let session = async {
            match server.serve(stdio).await {
                Ok(running) => running.waiting().await.map(|_| ()).context("the server died"),
                // A client that leaves before its first request is not an error.
                Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
                Err(error) => Err(Error::failed("the client could not be served").because(error)),
            }
        };
        tokio::select! {
            ended = session => ended,
            () = async { closed.cancelled().await; tokio::time::sleep(LAST_CALLS).await } => Ok(()),
        }
    });
    // Threads may still be blocked; the caller ends the process.
    runtime.shutdown_background();
    outcome
}
