//! The control plane of a gateway under load: one route table, sent once or again and again, and evidence taken and dropped.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use modelyard_core::{
    Backend, Epoch, RevisionNumber, Route, RouteTable, TableVersion, Variant, VariantName, Weight, Window,
};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::cli::ControlArgs;

/// As the control plane does, so that the stream does not look broken.
const HEARTBEAT: Duration = Duration::from_secs(2);

pub(crate) async fn serve(args: &ControlArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    let source = Rc::new(Source {
        table: table(&args.deployment, &args.backends)?,
        every: args.swap_every.map(|e| e.as_duration()),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        let source = source.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let source = source.clone();
            async move { Ok::<_, Infallible>(answer(&source, request).await) }
        });
        spawn_local(async move {
            // The gateway connects again.
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

struct Source {
    table: RouteTable,
    every: Option<Duration>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(source: &Source, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::GET {
        let (table, every) = (source.table.clone(), source.every);
        let lines = futures::stream::unfold((0_u64, table), move |(sent, mut table)| async move {
            if sent > 0 {
                tokio::time::sleep(every.unwrap_or(HEARTBEAT)).await;
            }
            let is_news = sent == 0 || every.is_some();
            if is_news && sent > 0 {
                table.version.sequence += 1;
            }
            let mut line = if is_news { serde_json::to_vec(&table).unwrap_or_default() } else { Vec::new() };
            line.push(b'\n');
            Some((Ok(Frame::data(Bytes::from(line))), (sent + 1, table)))
        });
        return Response::new(StreamBody::new(lines.boxed()).boxed_unsync());
    }
    request.into_body().collect().await.ok();
    Response::new(http_body_util::Empty::new().boxed_unsync())
}

/// A canary of 10 %.
fn table(deployment: &str, backends: &[SocketAddr]) -> anyhow::Result<RouteTable> {
    let parts = backends.iter().zip(["stable", "canary"]).zip([(1, 90.0), (2, 10.0)]);
    let variants = parts.map(|((address, name), (number, percent))| {
        anyhow::Ok(Variant {
            name: name.parse::<VariantName>()?,
            revision: RevisionNumber(number),
            version: number.to_string().parse()?,
            workload: format!("{deployment}-{number:010}").parse()?,
            weight: Weight::from_percent(percent)?,
            fallback: number == 1,
            backends: vec![Backend { id: format!("{number}").parse()?, address: *address }],
        })
    });
    let route = Route {
        window: Window { revision: RevisionNumber(2), step: 0 },
        variants: variants.collect::<Result<_, _>>()?,
        ..Route::default()
    };
    let version = TableVersion { epoch: Epoch(1), sequence: 1 };
    Ok(RouteTable { version, deployments: [(deployment.parse()?, route)].into() })
}
