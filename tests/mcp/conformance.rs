//! The protocol's conformance suite, against the same handlers over HTTP on loopback.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use git_agentloop::mcp::Server;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::foreign::{clients, run};
use crate::support::Repo;

/// Serves `repo` on a port of its own, which it returns, until the runtime goes.
fn serve(runtime: &tokio::runtime::Runtime, repo: PathBuf) -> u16 {
    let closed = CancellationToken::new();
    let open = move || Server::open(Some(&repo), closed.clone()).map_err(std::io::Error::other);
    let service: StreamableHttpService<Server, LocalSessionManager> =
        StreamableHttpService::new(open, Arc::default(), StreamableHttpServerConfig::default());
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
        }
    });
    port
}

#[test]
fn the_conformance_suite_fails_where_it_is_known_to_and_nowhere_else() {
    let Some(dir) = clients() else { return };
    let repo = Repo::new();
    repo.mock_run("something to read", &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("http://127.0.0.1:{}/mcp", serve(&runtime, repo.path().to_owned()));
    let suite = dir.join("conformance").canonicalize().unwrap();
    let expected = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/conformance.yml");
    let arguments = [suite.to_str().unwrap(), "server", "--url", &url, "--expected-failures", expected];
    let ran = run(&repo, &dir.join("node").canonicalize().unwrap(), &arguments);
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    runtime.shutdown_background();
}
