//! An HTTP/1.1 client that shows what a library would hide: how an answer ended.
#![allow(dead_code, reason = "every test binary that takes this module in uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it said it would.
    Complete,
    /// The connection closed before that.
    Cut,
    /// Nothing more came within the limit, and the connection stayed open.
    Silent,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status; `None` where not even a head came.
    pub status: Option<u16>,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, its chunks put together.
    pub body: String,
    /// How it ended.
    pub end: End,
}

impl Answer {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// The data of its server-sent events that are JSON.
    pub fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter_map(|data| serde_json::from_str(data).ok()).collect()
    }
}

/// Sends one request on a connection of its own and reads until it ends or stays silent for `limit`.
pub fn send(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str, limit: Duration) -> Answer {
    let mut stream = TcpStream::connect(to).expect("a listening server");
    stream.set_read_timeout(Some(limit)).expect("a limit that is not zero");
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n{}content-length: {}\r\n\r\n{body}",
        headers.concat(),
        body.len(),
    );
    stream.write_all(request.as_bytes()).expect("a server that reads");

    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 << 10]);
    let silent = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break false,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) => break matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    };
    parse(&bytes, silent)
}

fn parse(bytes: &[u8], silent: bool) -> Answer {
    let unfinished = if silent { End::Silent } else { End::Cut };
    let Some(split) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer { status: None, headers: Vec::new(), body: String::new(), end: unfinished };
    };
    let head = String::from_utf8_lossy(&bytes[..split]);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let body = &bytes[split + 4..];
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let (body, complete) = if chunked { unchunk(body) } else { (body.to_vec(), !silent) };
    let body = String::from_utf8(body).expect("a body of text");
    Answer { status, headers, body, end: if complete { End::Complete } else { unfinished } }
}

/// Puts chunks together (RFC 9112, section 7.1) and tells whether the last one, of size 0, was there.
fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        match size {
            Some(0) => return (body, true),
            Some(size) if rest.len() >= line + 4 + size => {
                body.extend_from_slice(&rest[line + 2..line + 2 + size]);
                rest = &rest[line + 4 + size..];
            }
            _ => break,
        }
    }
    (body, false)
}
