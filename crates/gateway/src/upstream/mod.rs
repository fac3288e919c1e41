//! HTTP/1.1 to backends: one request at a time over a connection that the caller owns.
//!
//! A client of hyper's runs each connection as a task of its own; the two wake-ups that a request then costs, and what
//! goes with them, are a fifth of what the gateway uses. So this is done here, by `httparse`, in the task of the request.

mod answer;
mod request;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::response::Parts;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;

use crate::answer::AnswerBody;
pub(crate) use answer::Streamed;
pub(crate) use request::Head;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read at a time, at least.
const READ: usize = 8 << 10;
/// A body up to this is copied behind its head, which costs less than two buffers do.
const COPIED: usize = 16 << 10;
/// Answers up to this length are held until they are whole, so that one that breaks off can be asked again.
const HELD_ANSWER: u64 = 1 << 20;

/// A request's body on its way to a backend.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it; can be sent again.
    Whole(Option<Bytes>),
    /// What was read of it, and the rest as it comes in.
    Streamed { read: Option<Bytes>, rest: Incoming },
}

impl Body {
    /// In bytes; `None` if the client does not say.
    fn length(&self) -> Option<u64> {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match self {
            Self::Whole(bytes) => Some(length(bytes)),
            Self::Streamed { read, rest } => rest.size_hint().exact().map(|rest| rest + length(read)),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection had been closed by the time that the request came: nothing was answered, and nothing is known to
    /// have been taken.
    Stale,
    /// The exchange ended before the answer did, or the answer was none.
    Broken,
}

/// An open connection on which no exchange is under way.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Read, and not used yet.
    read: BytesMut,
    /// Whether it has answered before.
    is_used: bool,
}

impl Connection {
    /// # Errors
    /// If nobody listens there, or nobody answers in time.
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: BytesMut::with_capacity(READ), is_used: false })
    }

    /// Whether the other side has closed it, or said something unasked, as far as is known without asking.
    pub(crate) fn is_stale(&self) -> bool {
        let mut byte = [0];
        !matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends the request and reads its answer; the connection too, if it can be used again and the answer is whole.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(crate) async fn exchange(
        mut self,
        head: &Head<'_>,
        body: Body,
    ) -> Result<(Parts, AnswerBody, Option<Self>), Failure> {
        let bytes = head.write(body.length());
        let parsed = match body {
            Body::Whole(body) => {
                // One that closes has perhaps said why.
                self.send(bytes, body.unwrap_or_default()).await.ok();
                answer_head(&mut self.stream, &mut self.read, self.is_used).await?
            }
            Body::Streamed { read, rest } => self.send_streamed(bytes, read, rest).await?,
        };
        let framing = parsed.framing(head.method());
        let is_kept = parsed.is_kept && !parsed.is_early;
        let length = match framing {
            answer::Framing::Length(length) if length <= HELD_ANSWER => usize::try_from(length).unwrap_or(usize::MAX),
            _ => return Ok((parsed.parts, AnswerBody::Streamed(Box::new(Streamed::new(self, framing))), None)),
        };
        self.read_until(length).await?;
        let whole = self.read.split_to(length).freeze();
        self.is_used = true;
        Ok((parsed.parts, AnswerBody::whole(whole), is_kept.then_some(self)))
    }

    async fn send(&mut self, mut head: Vec<u8>, body: Bytes) -> std::io::Result<()> {
        if body.len() <= COPIED {
            head.extend_from_slice(&body);
            return self.stream.write_all(&head).await;
        }
        self.stream.write_all_buf(&mut Bytes::from(head).chain(body)).await
    }

    /// Reads the head of the answer while the body is on its way: a backend may refuse it before it has all of it.
    async fn send_streamed(
        &mut self,
        head: Vec<u8>,
        first: Option<Bytes>,
        rest: Incoming,
    ) -> Result<answer::Parsed, Failure> {
        let Self { stream, read, .. } = self;
        let (mut reading, writing) = stream.split();
        let sending = upload(writing, head, first, rest);
        let answered = answer_head(&mut reading, read, false);
        let (mut sending, mut answered) = (std::pin::pin!(sending), std::pin::pin!(answered));
        tokio::select! {
            early = &mut answered => early.map(answer::Parsed::early),
            sent = &mut sending => match sent {
                // A backend that closed has perhaps said why.
                Ok(()) | Err(Upload::Backend) => answered.await,
                Err(Upload::Client) => Err(Failure::Broken),
            },
        }
    }

    /// Reads until so many bytes are there.
    async fn read_until(&mut self, length: usize) -> Result<(), Failure> {
        self.read.reserve(length.saturating_sub(self.read.len()));
        while self.read.len() < length {
            read_more(&mut self.stream, &mut self.read).await.map_err(|_| Failure::Broken)?;
        }
        Ok(())
    }
}

/// Who broke an upload off.
enum Upload {
    Client,
    Backend,
}

async fn upload(
    mut stream: WriteHalf<'_>,
    head: Vec<u8>,
    first: Option<Bytes>,
    mut rest: Incoming,
) -> Result<(), Upload> {
    let is_chunked = rest.size_hint().exact().is_none();
    stream.write_all(&head).await.map_err(|_| Upload::Backend)?;
    let mut next = first;
    loop {
        if let Some(bytes) = next.filter(|bytes| !bytes.is_empty()) {
            let written = if is_chunked {
                let size = Bytes::from(format!("{:x}\r\n", bytes.len()));
                stream.write_all_buf(&mut size.chain(bytes).chain(&b"\r\n"[..])).await
            } else {
                stream.write_all(&bytes).await
            };
            written.map_err(|_| Upload::Backend)?;
        }
        next = match rest.frame().await {
            Some(frame) => frame.map_err(|_| Upload::Client)?.into_data().ok(),
            None if is_chunked => return stream.write_all(b"0\r\n\r\n").await.map_err(|_| Upload::Backend),
            None => return Ok(()),
        };
    }
}

/// Reads on until the head of an answer is there.
async fn answer_head(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut BytesMut,
    may_be_stale: bool,
) -> Result<answer::Parsed, Failure> {
    loop {
        if let Some(parsed) = answer::parse(read).map_err(|_| Failure::Broken)? {
            return Ok(parsed);
        }
        let is_nothing = read.is_empty() && may_be_stale;
        read_more(stream, read).await.map_err(|_| if is_nothing { Failure::Stale } else { Failure::Broken })?;
    }
}

async fn read_more(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> std::io::Result<()> {
    if read.capacity() == read.len() {
        read.reserve(READ);
    }
    if stream.read_buf(read).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
