//! JSON-RPC over standard input and output, one message a line.
//!
//! Two threads read and write, so that a slow client delays no call. A line that is not a message is answered as JSON-RPC
//! demands, and the server goes on. Requests of a client that does not read its answers are not accepted until it does: see
//! [`Backlog`].

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ErrorCode, ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Waiting};
use crate::run::sanitize;

/// Longest line that is read, in bytes: a goal and criteria of 1 MiB each, however they are escaped.
const LONGEST_LINE: usize = 16 * 1024 * 1024;
/// Size above which a line's buffer is freed, in bytes.
const USUAL_LINE: usize = 64 * 1024;
/// Number of queued messages in either direction above which the sender waits.
const QUEUE: usize = 64;
/// Number of requests that are read ahead while none is accepted, for the sake of notifications behind them.
const AHEAD: usize = 64;
/// Interval at which a blocked reader checks whether the client is gone.
const LOOK: Duration = Duration::from_millis(100);

/// The process's standard streams.
pub struct Stdio {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    /// Requests that were read ahead.
    ahead: VecDeque<ClientJsonRpcMessage>,
    backlog: Arc<Backlog>,
    lines: mpsc::Sender<Line>,
    written: Option<oneshot::Receiver<()>>,
    closed: CancellationToken,
    opened: bool,
}

/// Message to the writer.
enum Line {
    Text(Vec<u8>, Option<Waiting>),
    /// No more lines follow.
    End,
}

impl Stdio {
    /// Takes over the standard streams; cancels `closed` once the client is gone.
    pub fn take(closed: CancellationToken) -> std::io::Result<Self> {
        let (to_server, messages) = mpsc::channel(QUEUE);
        let (lines, to_client) = mpsc::channel(QUEUE);
        let (done, written) = oneshot::channel();
        let backlog = Arc::new(Backlog::default());
        let (answers, gone, behind) = (lines.clone(), closed.clone(), Arc::clone(&backlog));
        std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            read(&to_server, &answers, &behind);
            gone.cancel();
        })?;
        let (gone, behind) = (closed.clone(), Arc::clone(&backlog));
        std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            write(to_client, &behind);
            gone.cancel();
            let _ = done.send(()); // no task may be waiting for it
        })?;
        let (ahead, written) = (VecDeque::new(), Some(written));
        Ok(Self { messages, ahead, backlog, lines, written, closed, opened: false })
    }

    /// Returns the next message. While answers pile up no request is returned, but a notification that cancels one is.
    async fn next(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            let may_read = self.ahead.len() < AHEAD;
            let message = tokio::select! {
                biased;
                () = self.backlog.drained(), if !self.ahead.is_empty() => return self.ahead.pop_front(),
                message = self.messages.recv(), if may_read => message?,
                () = self.closed.cancelled(), if self.messages.is_empty() => return None,
            };
            match &message {
                JsonRpcMessage::Request(_) => self.ahead.push_back(message),
                // The cancelled request may still be waiting here.
                JsonRpcMessage::Notification(notification) => {
                    if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                        && let Some(id) = &cancelled.params.request_id
                    {
                        self.ahead.retain(|ahead| !matches!(ahead, JsonRpcMessage::Request(it) if it.id == *id));
                        self.backlog.answered(id);
                    }
                    return Some(message);
                }
                _ => return Some(message),
            }
        }
    }
}

impl Transport<RoleServer> for Stdio {
    type Error = std::io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        let (lines, backlog) = (self.lines.clone(), Arc::clone(&self.backlog));
        match &message {
            JsonRpcMessage::Response(answer) => backlog.answered(&answer.id),
            JsonRpcMessage::Error(answer) => answer.id.iter().for_each(|id| backlog.answered(id)),
            _ => {}
        }
        let waiting = backlog.waiting();
        async move {
            let line = encode(&message)?;
            drop(message);
            lines.send(Line::Text(line, Some(waiting))).await.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let message = self.next().await?;
            // Before the first request there is nothing that a notification or response could belong to.
            if self.opened || matches!(message, JsonRpcMessage::Request(_)) {
                self.opened = true;
                if let JsonRpcMessage::Request(request) = &message {
                    self.backlog.taken(&request.id);
                }
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> std::io::Result<()> {
        let _ = self.lines.send(Line::End).await; // fails only if the writer has ended
        if let Some(written) = self.written.take() {
            let _ = written.await;
        }
        Ok(())
    }
}

fn encode(message: &ServerJsonRpcMessage) -> std::io::Result<Vec<u8>> {
    let line = sanitize::json(serde_json::to_string(message)?);
    Ok((line + "\n").into_bytes())
}

/// Reads until the end of standard input, or until the receiver is gone.
fn read(messages: &mpsc::Sender<ClientJsonRpcMessage>, answers: &mpsc::Sender<Line>, backlog: &Backlog) {
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut line = Vec::new();
    loop {
        line.clear();
        line.shrink_to(USUAL_LINE);
        let most = LONGEST_LINE as u64 + 1;
        match input.by_ref().take(most).read_until(b'\n', &mut line) {
            Ok(0) => return,
            // An incomplete last line is not a message.
            Ok(_) if line.last() != Some(&b'\n') && line.len() <= LONGEST_LINE => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "standard input cannot be read");
                return;
            }
        }
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        let taken = if whole {
            match parse(&line) {
                Ok(Some(message)) => hand_in(messages, message, backlog),
                Ok(None) => true,
                Err(refusal) => refuse(answers, refusal, backlog),
            }
        } else {
            let rest = skip_line(&mut input);
            rest.is_ok() && refuse(answers, too_long(), backlog)
        };
        if !taken {
            return;
        }
    }
}

fn refuse(answers: &mpsc::Sender<Line>, (id, error): Refusal, backlog: &Backlog) -> bool {
    let line = encode(&ServerJsonRpcMessage::error(error, id));
    line.is_ok_and(|line| hand_in(answers, Line::Text(line, None), backlog))
}

/// Queues `message` once there is room; returns `false` if the receiver is gone. A client that neither reads nor writes is
/// taken for gone, and its last messages are dropped.
fn hand_in<T>(queue: &mpsc::Sender<T>, mut message: T, backlog: &Backlog) -> bool {
    loop {
        match queue.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(back)) => message = back,
        }
        if has_hung_up() && backlog.is_stuck() {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Reports whether the other end of standard input is closed; input may still be unread.
fn has_hung_up() -> bool {
    let look = || -> std::io::Result<bool> {
        let (mut poll, mut events) = (mio::Poll::new()?, mio::Events::with_capacity(1));
        let stdin = std::io::stdin().as_raw_fd();
        poll.registry().register(&mut SourceFd(&stdin), mio::Token(0), mio::Interest::READABLE)?;
        poll.poll(&mut events, Some(Duration::ZERO))?;
        Ok(events.iter().any(mio::event::Event::is_read_closed))
    };
    // A file cannot be polled, and ends by itself.
    look().unwrap_or(false)
}

fn skip_line(input: &mut impl std::io::BufRead) -> std::io::Result<()> {
    loop {
        let available = input.fill_buf()?;
        let (length, found) = match available.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (available.len(), available.is_empty()),
        };
        input.consume(length);
        if found {
            return Ok(());
        }
    }
}

/// Writes until [`Line::End`], or until the client closes the stream.
fn write(mut lines: mpsc::Receiver<Line>, backlog: &Backlog) {
    let mut output = std::io::stdout().lock();
    while let Some(Line::Text(line, waiting)) = lines.blocking_recv() {
        if output.write_all(&line).and_then(|()| output.flush()).is_err() {
            return;
        }
        backlog.moved();
        drop(waiting);
    }
}

/// The error about an invalid line, and the id of the request if it can be read.
type Refusal = (Option<RequestId>, ErrorData);

fn too_long() -> Refusal {
    let mib = LONGEST_LINE / (1024 * 1024);
    (None, ErrorData::new(ErrorCode::INVALID_REQUEST, format!("a message is at most {mib} MiB long"), None))
}

/// Parses a line; `None` for an empty line or an invalid notification, which must not be answered.
fn parse(line: &[u8]) -> Result<Option<ClientJsonRpcMessage>, Refusal> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let error = match serde_json::from_slice(line) {
        Ok(message) => return Ok(Some(message)),
        Err(error) => error,
    };
    let invalid = |id, why: String| (id, ErrorData::new(ErrorCode::INVALID_REQUEST, why, None));
    match serde_json::from_slice(line) {
        Err(_) => Err((None, ErrorData::new(ErrorCode::PARSE_ERROR, format!("this is not JSON: {error}"), None))),
        Ok(Value::Object(fields)) => {
            let id = fields.get("id").and_then(|id| serde_json::from_value::<RequestId>(id.clone()).ok());
            let why = if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
                "a message says \"jsonrpc\": \"2.0\""
            } else if fields.contains_key("id") && id.is_none() {
                "an id is a text or a whole number"
            } else if let Some(method) = fields.get("method").and_then(Value::as_str) {
                let Some(id) = id else { return Ok(None) };
                let why = format!("the params of {method} are not as the protocol wants them");
                return Err((Some(id), ErrorData::invalid_params(why, None)));
            } else {
                "this is neither a request, nor a notification, nor a response"
            };
            Err(invalid(id, why.to_owned()))
        }
        Ok(Value::Array(_)) => Err(invalid(None, "messages come one by one, not in an array".to_owned())),
        Ok(_) => Err(invalid(None, "a message is a JSON object".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> (Option<RequestId>, i32) {
        let (id, error) = parse(line.as_bytes()).unwrap_err();
        (id, error.code.0)
    }

    #[test]
    fn what_is_no_message_is_answered_as_json_rpc_says() {
        assert_eq!(refusal("{"), (None, -32700));
        assert_eq!(refusal("no"), (None, -32700));
        assert_eq!(refusal("[]"), (None, -32600));
        assert_eq!(refusal("3"), (None, -32600));
        assert_eq!(refusal("{}"), (None, -32600));
        assert_eq!(refusal(r#"{"id":7,"method":"ping"}"#), (Some(RequestId::Number(7)), -32600));
        assert_eq!(refusal(r#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#).1, -32600);
        assert_eq!(refusal(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#), (None, -32600));
        assert_eq!(refusal(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":[]}"#).1, -32602);
        assert_eq!(refusal(r#"{"jsonrpc":"2.0","id":7}"#), (Some(RequestId::Number(7)), -32600));
        assert!(parse("\"\u{0}".as_bytes()).is_err() && parse(b"\xff").is_err());
    }

    #[test]
    fn what_is_a_message_is_taken() {
        for line in [
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":"x","method":"no/such","params":{"a":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        ] {
            assert!(parse(line.as_bytes()).unwrap().is_some(), "{line}");
        }
        assert!(parse(b" \t").unwrap().is_none());
    }
}
