//! A backend that costs as little as a socket does: reads each request, and writes the same answer.

use std::rc::Rc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::cli::BackendArgs;
use crate::wire::Reader;

pub(crate) async fn serve(args: &BackendArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", args.body_bytes);
    let answer: Rc<[u8]> = [head.into_bytes(), vec![b'x'; args.body_bytes]].concat().into();
    loop {
        let (stream, _) = listener.accept().await?;
        spawn_local(answers(stream, answer.clone()));
    }
}

/// A connection that breaks is its client's affair.
async fn answers(stream: TcpStream, answer: Rc<[u8]>) {
    stream.set_nodelay(true).ok();
    let (read, mut write) = stream.into_split();
    let mut requests = Reader::new(read);
    while let Ok(Some(_)) = requests.request().await {
        if write.write_all(&answer).await.is_err() {
            return;
        }
    }
}
