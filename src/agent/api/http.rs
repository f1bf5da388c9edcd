//! One request to a model and its streamed answer, over HTTP.

use std::error::Error as _;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use serde_json::Value;

use super::dialect::Dialect;
use super::turn::Answer;
use crate::agent::explain::{self, EXCERPT};
use crate::agent::reset;
use crate::error::Error;
use crate::run::event::{Timestamp, clip};
use crate::run::work::{Failure, FailureKind};

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(30);
/// How long nothing may come on an open connection before it counts as dead. Services send pings, and a model on a small
/// machine takes minutes to load.
const SILENCE: Duration = Duration::from_mins(5);
/// Bytes of an error's body that are read.
const ERROR_BODY: usize = 64 << 10;
/// Longest part of an address's path that is shown, in bytes.
const LONGEST_PART: usize = 20;
/// The longest line of a stream, and the longest answer, in bytes: nothing that is meant is longer.
const LONGEST: usize = 16 << 20;

/// Address of a model's API, with the key for it.
#[derive(Debug)]
pub(super) struct Endpoint {
    dialect: Dialect,
    base: String,
    own_place: bool,
    key: Option<String>,
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl Endpoint {
    pub(super) fn new(dialect: Dialect, url: Option<String>) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let named = url.or_else(|| variable(dialect.url_variable()));
        let own_place = named.is_none();
        let base = named.unwrap_or_else(|| {
            match dialect {
                Dialect::Anthropic => "https://api.anthropic.com",
                Dialect::OpenAi => "https://api.openai.com/v1",
            }
            .to_owned()
        });
        let key = variable(dialect.key_variable());
        Self { dialect, base: base.trim().trim_end_matches('/').to_owned(), own_place, key, client: OnceLock::new() }
    }

    fn url(&self) -> String {
        match self.dialect {
            Dialect::Anthropic => format!("{}/v1/messages", self.base),
            Dialect::OpenAi => format!("{}/chat/completions", self.base),
        }
    }

    /// Sends `body` and puts the answer together.
    pub(super) async fn ask(&self, body: &Value) -> Result<Answer, Failure> {
        let client = self.client.get_or_init(client).as_ref();
        let client = client.map_err(|why| Failure::new(FailureKind::Crashed, why.clone()))?;
        let sent = client.post(self.url()).headers(self.headers()?).json(body).send().await;
        let mut response = sent.map_err(|error| self.broken(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(&mut response).await);
        }
        let media = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !media.starts_with("text/event-stream") {
            let message =
                format!("{} answered with '{}', not with a stream of events", self.shown_url(), clip(media, 200));
            return Err(Failure::new(FailureKind::Protocol, message).hint(self.url_hint()));
        }
        let mut answer = Answer::default();
        let mut events = Events::default();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
            for data in events.feed(&chunk)? {
                if let Ok(event) = serde_json::from_str(&data) {
                    self.dialect.hear(&event, &mut answer);
                }
            }
            if let Some(failure) = answer.failure.take() {
                return Err(failure);
            }
        }
        match answer.stop {
            Some(_) => Ok(answer),
            None => Err(Failure::new(FailureKind::Network, format!("the answer of {} broke off", self.shown_url()))),
        }
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        if self.dialect == Dialect::Anthropic {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        let variable = self.dialect.key_variable();
        let Some(key) = &self.key else {
            // A model on one's own machine wants none.
            return if self.own_place { Err(no_key(format!("{variable} is not set"), variable)) } else { Ok(headers) };
        };
        let header = key_header(self.dialect, key);
        let (name, value) = header.map_err(|why| no_key(format!("{variable} {why}"), variable))?;
        headers.insert(name, value);
        Ok(headers)
    }

    fn url_hint(&self) -> String {
        format!("see that {} is the address of a model's API", self.dialect.url_variable())
    }

    /// The address as it may be shown: without a name, a password or a query, and without parts of its path that are long
    /// enough for a key.
    fn shown_url(&self) -> String {
        let Ok(url) = reqwest::Url::parse(&self.url()) else { return "the base URL".to_owned() };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let path = url.path().split('/').map(|part| if part.len() > LONGEST_PART { "…" } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        clip(&format!("{}://{}{port}{path}", url.scheme(), url.host_str().unwrap_or_default()), 200)
    }

    /// The failure of a request that got no answer, or whose answer broke off.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        let causes = causes(error);
        let words = clip(&format!("{} cannot be reached: {causes}", self.shown_url()), EXCERPT);
        // A retry does not help with an untrusted certificate, a bad address, or a port without TLS.
        if causes.contains("certificate") {
            return Failure::new(FailureKind::Protocol, words).hint(
                "see that the base URL is right; SSL_CERT_FILE names the certificates of an authority of your own",
            );
        }
        if error.is_builder() || causes.contains("corrupt message") {
            return Failure::new(FailureKind::Protocol, words).hint("see that the base URL and its scheme are right");
        }
        Failure::new(FailureKind::Network, words)
    }

    /// The failure that a service answers with.
    async fn refused(&self, response: &mut reqwest::Response) -> Failure {
        let (dialect, url) = (self.dialect, self.shown_url());
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let message = format!("{url} redirects to {}, and a key is not sent after a redirect", clip(to, 200));
            return Failure::new(FailureKind::Protocol, message)
                .hint(format!("set {} to where it moved, if you trust it", dialect.url_variable()));
        }
        let after = retry_after(response.headers());
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() >= ERROR_BODY {
                break;
            }
        }
        let text = String::from_utf8_lossy(&body);
        let told: Value = serde_json::from_str(&text).unwrap_or_default();
        let words = told["error"]["message"].as_str().or(told["message"].as_str()).or(told["error"].as_str());
        let said = words.map_or_else(|| clip(text.trim(), 200), |words| clip(words, EXCERPT));
        let message = format!("{url} answered {status}: {said}");
        let message = message.trim_end_matches(": ").to_owned();
        // A spent account answers as a limit does, and no waiting mends it.
        if told["error"]["code"] == "insufficient_quota" {
            return Failure::new(FailureKind::NotLoggedIn, message).hint("see the account's plan and billing");
        }
        let mut failure = Failure::new(explain::kind(Some(status.as_u16().into()), &said), message);
        match failure.kind {
            FailureKind::NotLoggedIn => {
                let variable = dialect.key_variable();
                return failure.hint(format!("see that {variable} is a key of this service that may use the model"));
            }
            FailureKind::UnknownModel => {
                return failure.hint("see that the service has this model, and that its base URL is right");
            }
            kind if kind.is_transient() => failure.reset_at = after.or_else(|| explain::reset(kind, &said)),
            _ => {}
        }
        failure
    }
}

/// The header that carries the account's key, or why the key fits in none.
pub(super) fn key_header(dialect: Dialect, key: &str) -> Result<(&'static str, HeaderValue), &'static str> {
    let key = key.trim();
    let (name, value) = match dialect {
        Dialect::Anthropic => ("x-api-key", key.to_owned()),
        Dialect::OpenAi => ("authorization", format!("Bearer {key}")),
    };
    let unfit = if key.contains(['\n', '\r']) { "contains a newline" } else { "contains a control character" };
    let mut value = HeaderValue::from_str(&value).map_err(|_| unfit)?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Checks that requests can be sent to `url`, which the setting `name` gives.
pub(super) fn check_address(name: &str, url: &str) -> crate::error::Result<()> {
    // An address may hold a password before an `@`.
    let shown = if url.contains('@') { String::new() } else { format!(" (got '{}')", clip(url, 200)) };
    let is_http = ["http://", "https://"].iter().any(|scheme| url.to_ascii_lowercase().starts_with(scheme));
    let hint = "for a server on this machine: http://localhost:11434/v1";
    if !is_http {
        return Err(Error::usage(format!("{name} must start with http:// or https://{shown}")).hint(hint));
    }
    match reqwest::Url::parse(url) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::usage(format!("{name} is not a valid URL{shown}")).because(error).hint(hint)),
    }
}

fn client() -> Result<reqwest::Client, String> {
    // Fails where it was done before, by somebody who uses this library: theirs then holds.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        // A key is for one host: wherever a redirect leads, it would be sent there too.
        .redirect(Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("git-agentloop/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| format!("no HTTP client can be made: {error}: {}", causes(&error)))
}

fn no_key(message: String, variable: &str) -> Failure {
    Failure::new(FailureKind::NotLoggedIn, message).hint(format!("set {variable} to the key of your account"))
}

/// The words of what caused an error, without the address, which may hold more than a host.
fn causes(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut cause = error.source();
    while let Some(below) = cause {
        words.push(below.to_string());
        cause = below.source();
    }
    words.join(": ")
}

/// When to come back, where the service says so.
fn retry_after(headers: &HeaderMap) -> Option<Timestamp> {
    reset::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, explain::now())
}

/// Server-sent events out of chunks that end anywhere (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
#[derive(Default)]
struct Events {
    pending: Vec<u8>,
    data: String,
    total: usize,
}

impl Events {
    /// The data of the events that `chunk` completes.
    fn feed(&mut self, chunk: &[u8]) -> Result<Vec<String>, Failure> {
        self.total += chunk.len();
        if self.total > LONGEST {
            return Err(Failure::new(FailureKind::Protocol, "the model's answer has no end"));
        }
        let mut complete = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                break;
            }
            let line = String::from_utf8_lossy(&self.pending).trim_end().to_owned();
            self.pending.clear();
            if let Some(data) = line.strip_prefix("data:") {
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            } else if line.is_empty() && !self.data.is_empty() {
                complete.push(std::mem::take(&mut self.data));
            }
        }
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_wherever_they_are_cut() {
        let stream = "event: x\r\ndata: {\"a\":\ndata: \"ü\"}\n\n: ping\n\ndata: [DONE]\n\n".as_bytes();
        for cut in 0..stream.len() {
            let mut events = Events::default();
            let mut all = events.feed(&stream[..cut]).unwrap();
            all.extend(events.feed(&stream[cut..]).unwrap());
            assert_eq!(all, ["{\"a\":\"ü\"}", "[DONE]"], "cut at {cut}");
        }
    }

    #[test]
    fn a_reset_is_in_seconds() {
        let told = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert!(told("30").unwrap() > told("1").unwrap());
        assert!(told("soon").is_none() && told("-1").is_none() && told("NaN").is_none());
    }
}
