//! The two tasks of a connection: one writes what is queued, one reads frames and says to whom they belong.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::End;
use super::pending::Pending;
use crate::client::dial::Stream;
use crate::protocol::{ServerFrame, SessionId, decode_server_frame};

/// How long a peer has to answer a close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Where the reader puts what it reads.
pub(super) struct Inward {
    pub(super) events: mpsc::Sender<ServerFrame>,
    pub(super) pending: Arc<Pending>,
    pub(super) tell_end: watch::Sender<Option<End>>,
}

pub(super) fn start(
    socket: WebSocketStream<Stream>,
    to_send: mpsc::Receiver<Message>,
    inward: Inward,
    silence: Duration,
) {
    let (sink, stream) = socket.split();
    let (said_goodbye, goodbye) = watch::channel(false);
    let writer = tokio::spawn(write(sink, to_send, said_goodbye));
    tokio::spawn(async move {
        let end = read(stream, &inward, silence, goodbye).await;
        writer.abort();
        inward.pending.end(end.code);
        inward.tell_end.send_replace(Some(end));
    });
}

/// Writes until the queue's senders are gone or the socket is. What is queued together leaves together.
async fn write(
    mut sink: SplitSink<WebSocketStream<Stream>, Message>,
    mut to_send: mpsc::Receiver<Message>,
    said_goodbye: watch::Sender<bool>,
) {
    while let Some(message) = to_send.recv().await {
        let mut last = matches!(message, Message::Close(_));
        if sink.feed(message).await.is_err() {
            break;
        }
        while !last && let Ok(message) = to_send.try_recv() {
            last = matches!(message, Message::Close(_));
            if sink.feed(message).await.is_err() {
                break;
            }
        }
        if sink.flush().await.is_err() || last {
            break;
        }
    }
    let _ = sink.close().await;
    said_goodbye.send_replace(true);
}

async fn read(
    mut stream: SplitStream<WebSocketStream<Stream>>,
    inward: &Inward,
    silence: Duration,
    mut goodbye: watch::Receiver<bool>,
) -> End {
    let mut end = End::default();
    loop {
        let closing = *goodbye.borrow_and_update();
        let patience = if closing { CLOSE_WITHIN } else { silence };
        let next = tokio::select! {
            next = tokio::time::timeout(patience, stream.next()) => next,
            Ok(()) = goodbye.changed(), if !closing => continue,
        };
        match next {
            Ok(Some(Ok(Message::Text(text)))) => match understand(&text) {
                ServerFrame::Reply { reply_to: Some(id), outcome } => {
                    inward.pending.answer(id, outcome.map_err(super::ClientError::Refused));
                }
                ServerFrame::Reply { reply_to: None, .. } => tracing::warn!("the server could not read a request"),
                ServerFrame::GoingAway { reconnect_after_ms } => {
                    end.reconnect_after = Some(Duration::from_millis(reconnect_after_ms));
                }
                ServerFrame::Unknown => {}
                // Nobody listens: requests still work.
                other => drop(inward.events.send(other).await),
            },
            Ok(Some(Ok(Message::Close(frame)))) => end.code = frame.map(|frame| frame.code.into()),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_)))) => {}
            Ok(Some(Err(_)) | None) | Err(_) => return end,
        }
    }
}

/// Reads a frame. One of a known type that this version cannot read still counts with its `seq`.
fn understand(text: &str) -> ServerFrame {
    #[derive(Deserialize)]
    struct Loose {
        body: Placed,
    }
    #[derive(Deserialize)]
    struct Placed {
        session_id: SessionId,
        seq: u64,
    }
    decode_server_frame(text).unwrap_or_else(|error| {
        tracing::warn!(bytes = text.len(), "a frame is not as the contract says: {error}");
        match serde_json::from_str(text) {
            Ok(Loose { body: Placed { session_id, seq } }) => ServerFrame::UnknownEvent { session_id, seq },
            Err(_) => ServerFrame::Unknown,
        }
    })
}
