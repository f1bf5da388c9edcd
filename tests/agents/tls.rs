//! The way to a model's API: the certificate of who answers, and the proxies of whoever asks.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::model_server::{Brain, LoopRoles, ModelServer};
use crate::support::{PROGRAM, Ran, Repo};

/// A certificate for 127.0.0.1 and model.invalid that nobody vouches for, until 2120, and its key.
const SELF_SIGNED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/self_signed.pem");
/// What a service that is reached says; no other part of the way says that.
const REACHED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A service behind TLS, or (`tunnels`) a proxy that leads to it wherever one wants to go.
struct Tls {
    address: SocketAddr,
    /// The first line of everything that it was asked, outside of TLS and inside.
    asked: mpsc::Receiver<String>,
}

impl Tls {
    fn start(tunnels: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel();
        let certificate = CertificateDer::from_pem_file(SELF_SIGNED).unwrap();
        let key = PrivateKeyDer::from_pem_file(SELF_SIGNED).unwrap();
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
        // It ends with the process: nothing tells when nobody knocks any more.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, tunnels, Arc::clone(&config), &tell); // a client that goes away is none of ours
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

fn serve(
    mut stream: TcpStream,
    tunnels: bool,
    config: Arc<ServerConfig>,
    tell: &mpsc::Sender<String>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    if tunnels {
        let _ = tell.send(head(&mut stream)?);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    }
    let mut inner = StreamOwned::new(ServerConnection::new(config).expect("a sound configuration"), stream);
    let _ = tell.send(head(&mut inner)?);
    inner.write_all(REACHED.as_bytes())?;
    inner.conn.send_close_notify();
    inner.flush()
}

/// Reads the head of a request, and what of its body comes with it; its first line.
fn head(stream: &mut impl Read) -> std::io::Result<String> {
    // A buffer of one byte takes nothing of what comes after the head, which may be TLS.
    let mut reader = BufReader::with_capacity(1, stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok(first.trim_end().to_owned())
}

/// A run whose first call goes to `base`, in this environment.
fn run(repo: &Repo, base: &str, env: &[(&str, &str)]) -> Ran {
    let mut command = repo.command(PROGRAM);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env("ANTHROPIC_API_KEY", "a-key-of-the-test").env("ANTHROPIC_BASE_URL", base).envs(env.iter().copied());
    command.args(["run", "x", "--criteria", "y", "--backend", "claude_api/m", "--json", "--max-agent-calls", "5"]);
    Ran::of(&command.stdin(Stdio::null()).output().unwrap())
}

/// How the first call of the newest run failed.
fn failed(repo: &Repo) -> Value {
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    let call = repo.events(&run).into_iter().find(|event| event["kind"] == "agent_finished").expect("a call");
    call["data"]["error"].clone()
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_at_once() {
    let (repo, server) = (Repo::new(), Tls::start(false));
    let base = format!("https://{}", server.address);
    run(&repo, &base, &[]).expect(2);
    let failure = failed(&repo);
    assert_eq!(failure["kind"], "protocol", "{failure:#}");
    assert!(failure["message"].as_str().unwrap().contains("certificate"), "{failure:#}");
    assert!(failure["hint"].as_str().unwrap().contains("SSL_CERT_FILE"), "{failure:#}");
    assert_eq!(failure["retry_at"], Value::Null, "no waiting mends it");
    assert_eq!(server.asked(), Vec::<String>::new(), "nothing was said, least of all the key");

    // Whoever trusts it says so, and the same server is reached.
    run(&repo, &base, &[("SSL_CERT_FILE", SELF_SIGNED)]).expect(2);
    assert_eq!(failed(&repo)["kind"], "not_logged_in", "{:#}", failed(&repo));
    assert_eq!(server.asked(), ["POST /v1/messages HTTP/1.1"]);
}

#[test]
fn proxies_of_the_environment_are_used() {
    let (repo, proxy) = (Repo::new(), Tls::start(true));
    let through = format!("http://{}", proxy.address);
    run(&repo, "https://model.invalid", &[("HTTPS_PROXY", &through), ("SSL_CERT_FILE", SELF_SIGNED)]).expect(2);
    assert_eq!(failed(&repo)["kind"], "not_logged_in", "{:#}", failed(&repo));
    assert_eq!(proxy.asked(), ["CONNECT model.invalid:443 HTTP/1.1", "POST /v1/messages HTTP/1.1"]);

    // Without TLS the proxy gets the request itself: here it answers as the service would.
    let server = ModelServer::start(Brain::loop_roles(LoopRoles::new()));
    run(&repo, "http://model.invalid", &[("HTTP_PROXY", &server.url())]).expect(0);
    let asked = server.turns().len();
    assert!(asked >= 3, "a whole run went through it");

    // And a host that is to be spared from it is reached directly.
    let nobody = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let dead = [("HTTP_PROXY", nobody.as_str()), ("NO_PROXY", "localhost,127.0.0.1")];
    run(&repo, &server.url(), &dead).expect(0);
    assert_eq!(server.turns().len(), 2 * asked);
    assert!(proxy.asked().is_empty());
}
