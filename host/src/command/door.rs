//! Knocks at the running host's door: the Unix socket in its data folder.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Failure;
use crate::admin::{REQUEST_TIME, socket_path};

/// The host answers late before we give up on it.
const PATIENCE: Duration = REQUEST_TIME.saturating_add(Duration::from_secs(5));
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why nobody opened.
pub(super) enum Closed {
    /// No host runs there.
    Nobody(Failure),
    /// Somebody may, but it did not work.
    Failed(Failure),
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Nobody(failure) | Closed::Failed(failure) => failure,
        }
    }
}

/// One request, one answer; an answer that is no success is a failure in the host's words.
pub(super) async fn ask(data: &Path, method: Method, path: &str) -> Result<Bytes, Closed> {
    let exchange = converse(data, method, path, async |response| whole(data, response).await);
    let late = |_| Err(Closed::Failed(silent(data, PATIENCE)));
    timeout(PATIENCE, exchange).await.unwrap_or_else(late)
}

/// One request, and lines for as long as the host has some to say, each at most `patience` after the one before.
pub(super) async fn listen(
    data: &Path,
    method: Method,
    path: &str,
    patience: Duration,
    mut heard: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Closed> {
    let mut lines = async |mut response: Response<Incoming>| {
        let mut unread = Vec::new();
        loop {
            let frame = timeout(patience, response.frame()).await;
            let Some(frame) = frame.map_err(|_| Closed::Failed(silent(data, patience)))? else {
                return Ok(());
            };
            let frame = frame.map_err(|error| ended(&error))?;
            unread.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                heard(&line[..end]).map_err(Closed::Failed)?;
            }
            if unread.len() > ANSWER_BYTES_MAX {
                return Err(Closed::Failed(Failure::new("the host's answer has no end")));
            }
        }
    };
    converse(data, method, path, async |response| match response.status() {
        StatusCode::OK => lines(response).await,
        _ => whole(data, response).await.map(|_| ()),
    })
    .await
}

async fn whole(data: &Path, response: Response<Incoming>) -> Result<Bytes, Closed> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| broken(data, &error))?.to_bytes();
    match status {
        StatusCode::OK => Ok(body),
        _ => Err(Closed::Failed(Failure::new(String::from_utf8_lossy(&body)))),
    }
}

async fn converse<T>(
    data: &Path,
    method: Method,
    path: &str,
    hear: impl AsyncFnOnce(Response<Incoming>) -> Result<T, Closed>,
) -> Result<T, Closed> {
    let stream = UnixStream::connect(socket_path(data))
        .await
        .map_err(|error| unreachable(data, &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(data, &error))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "hookline")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(data, &error))?;
    let exchange = async {
        let response = sender.send_request(request).await;
        hear(response.map_err(|error| broken(data, &error))?).await
    };
    let mut exchange = pin!(exchange);
    // The connection carries the exchange; its own error shows up there.
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        _ = connection => {}
    }
    exchange.await
}

fn broken(data: &Path, error: &dyn std::fmt::Display) -> Closed {
    Closed::Failed(Failure::new(format!("{}: {error}", socket_path(data).display())))
}

fn ended(error: &dyn std::fmt::Display) -> Closed {
    Closed::Failed(Failure::new(format!(
        "the host ended before it was done ({error}): see its log"
    )))
}

fn silent(data: &Path, patience: Duration) -> Failure {
    Failure::new(format!(
        "the hookline on {} did not answer within {patience:?}",
        data.display()
    ))
}

fn unreachable(data: &Path, error: &io::Error) -> Closed {
    let folder = data.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Closed::Nobody(Failure::new(format!(
            "no hookline runs on {folder}: start it with `hookline start --data {folder}`"
        ))),
        io::ErrorKind::PermissionDenied => Closed::Failed(Failure::new(format!(
            "{}: only the user that hookline runs as may do this",
            socket_path(data).display()
        ))),
        _ => broken(data, error),
    }
}

/// A value for a query, or one segment of a path (RFC 3986): whatever is not surely harmless is written as its bytes.
/// A dot is, too: a segment of dots means another path.
pub(super) fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    let byte = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_query_and_a_segment_of_a_path_are_escaped() {
        assert_eq!(escape("sensor-1_a~"), "sensor-1_a~");
        assert_eq!(escape("../a?"), "%2E%2E%2Fa%3F");
        assert_eq!(escape("a b&c=d%é\n"), "a%20b%26c%3Dd%25%C3%A9%0A");
    }
}
