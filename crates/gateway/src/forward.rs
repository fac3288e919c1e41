//! One request, from picking a variant to the answer. Read [`forward`] first.
//!
//! Inference is idempotent, so a request whose body is held whole can be asked again:
//! - of another backend of the variant, where no answer came, or is long in coming and its backend was taken out of the routes;
//! - of the fallback (the stable version), where a version on trial answered with an error. The stable version is the
//!   judge: if it can answer, the version on trial was wrong; if it refuses the request too, the caller was.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use modelyard_core::request_id;
use modelyard_protocol::{AnyPath, OfModel, V2Path};

use crate::answer::{self, Answer, REQUEST_ID};
use crate::ask::{Ask, Outcome, ask_variant};
use crate::choose::{Assigned, Wanted, choose};
use crate::mirror::Copied;
use crate::own;
use crate::shared::Worker;
use crate::table::{CompiledRoute, CompiledVariant};
use crate::v1;

/// The body of a request as it comes.
pub(crate) enum Sent {
    Streamed(Incoming),
    Whole(Bytes),
}

pub(crate) async fn forward(worker: &Worker, request: Request<Sent>, client: IpAddr) -> Answer {
    let (mut parts, body) = request.into_parts();
    let mut request_id = callers_id(&parts);
    let mut copied = None;
    let table = worker.shared.table.load_full();
    let unknown_label = v1::resolve_label(&mut parts, &table);
    let path = AnyPath::parse(parts.uri.path());
    let of_model = path.and_then(|path| path.model()).filter(|_| !path.is_some_and(v1::is_told_here));
    let mut answer = match (unknown_label, of_model, path) {
        (Some(refusal), _, _) => refusal,
        (None, Some(of), _) => match table.routes.get(of.name) {
            Some(route) if allows(of, &parts.method) => match hold(worker, body).await {
                Ok((body, rest)) => {
                    let asked = Asked { of, parts: &parts, body, rest, client };
                    let (answer, copy) = ask_route(worker, route, asked, &mut request_id).await;
                    copied = copy;
                    answer
                }
                Err(refusal) => refusal,
            },
            Some(_) => answer::error(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} is not for {}", parts.method, parts.uri.path()),
            ),
            None if table.version.sequence == 0 => {
                answer::error(StatusCode::SERVICE_UNAVAILABLE, "the gateway has no route table yet")
            }
            None => answer::error(StatusCode::NOT_FOUND, format!("there is no deployment {}", of.name)),
        },
        (None, None, Some(AnyPath::OpenInference(V2Path::RepositoryIndex))) if parts.method == Method::POST => {
            match hold(worker, body).await {
                Ok((body, _)) => own::index(&table, &body.unwrap_or_default()),
                Err(refusal) => refusal,
            }
        }
        (None, None, Some(AnyPath::OpenInference(V2Path::RepositoryIndex))) => {
            answer::error(StatusCode::METHOD_NOT_ALLOWED, format!("{} is not for {}", parts.method, parts.uri.path()))
        }
        (None, None, Some(AnyPath::OpenInference(other))) => own::protocol_answer(&other, &worker.shared),
        (None, None, Some(AnyPath::TfServing(other))) => v1::tf_answer(other, &parts, &table),
        (None, None, Some(AnyPath::TorchServe(_))) => v1::ping(&worker.shared),
        (None, None, None) => own::other_answer(parts.uri.path(), &worker.shared, &table).await,
    };
    answer::say_in(path.map(|path| path.protocol()).unwrap_or_default(), &mut answer);
    if worker.shared.is_stopping() {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let request_id = request_id.unwrap_or_else(|| new_id(None));
    if let Some(copied) = copied {
        copied.follow(&mut answer, parts, client, request_id.clone(), &worker.shared.mirror);
    }
    answer.headers_mut().insert(REQUEST_ID, request_id);
    answer
}

/// A request to a deployment.
struct Asked<'a> {
    of: OfModel<'a>,
    parts: &'a Parts,
    body: Option<Bytes>,
    rest: Option<Incoming>,
    client: IpAddr,
}

fn allows(of: OfModel<'_>, method: &Method) -> bool {
    match of.is_inference {
        true => method == Method::POST || (of.may_put && method == Method::PUT),
        false => method == Method::GET || method == Method::HEAD,
    }
}

/// The answer, and what is to be mirrored once it is written.
async fn ask_route(
    worker: &Worker,
    route: &CompiledRoute,
    asked: Asked<'_>,
    request_id: &mut Option<HeaderValue>,
) -> (Answer, Option<Copied>) {
    let Asked { of: OfModel { name, version, is_inference, .. }, parts, body, rest, client } = asked;
    let is_secure = worker.shared.tls.is_some();
    let wanted = Wanted { version, headers: &parts.headers, client, is_secure };
    let new_unit = || fastrand::u128(..);
    let choice = match choose(route, &wanted, worker.shared.now_ms(), worker.dice_weight(), new_unit) {
        Ok(choice) => choice,
        Err(refusal) => return (refusal.into_answer(route), None),
    };
    let request_id = request_id.get_or_insert_with(|| new_id(choice.assigned.as_ref())).clone();
    if let Some(Assigned { variant, unit: Some(unit), .. }) = &choice.assigned
        && is_inference
    {
        variant.counters.exposed.count(*unit);
    }
    let is_copied = is_inference && version.is_none() && rest.is_none();
    let mirror = route.mirror.as_ref().filter(|mirror| is_copied && mirror.takes(worker.dice_weight()));
    let copied_body = mirror.and_then(|_| body.clone());
    let ask = Ask { parts, body, rest, client, request_id };
    let is_other = |v: &&CompiledVariant| v.fallback && choice.may_fall_back && !std::ptr::eq(*v, choice.variant);
    let fallback = route.variants.iter().find(is_other).filter(|_| ask.is_replayable());
    let (outcome, variant) = match fallback {
        Some(fallback) => ask_on_trial(worker, choice.variant, fallback, ask).await,
        None => {
            let outcome = ask_variant(worker, choice.variant, ask).await;
            if outcome.status().is_server_error() {
                choice.variant.counters.errors.fetch_add(1, Relaxed);
            }
            (outcome, choice.variant)
        }
    };
    let mut answer = outcome.into_answer(variant);
    if let Some(cookie) = choice.assigned.and_then(|assigned| assigned.set_cookie) {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    let copied = mirror.zip(copied_body).and_then(|(mirror, body)| mirror.copy(name, route, variant, body, &answer));
    (answer, copied)
}

/// Asks a version on trial; where it fails, the fallback answers, and so tells whose fault it was.
async fn ask_on_trial<'r>(
    worker: &Worker,
    variant: &'r CompiledVariant,
    fallback: &'r CompiledVariant,
    ask: Ask<'_>,
) -> (Outcome, &'r CompiledVariant) {
    let again = Ask { body: ask.body.clone(), rest: None, request_id: ask.request_id.clone(), ..ask };
    let first = ask_variant(worker, variant, ask).await;
    if first.is_good() {
        return (first, variant);
    }
    let second = ask_variant(worker, fallback, again).await;
    let callers_fault = first.status().is_client_error() && second.status().is_client_error();
    if !callers_fault {
        variant.counters.errors.fetch_add(1, Relaxed);
    }
    if second.is_good() {
        variant.counters.rescued.fetch_add(1, Relaxed);
    } else if second.status().is_server_error() {
        fallback.counters.errors.fetch_add(1, Relaxed);
    }
    (second, fallback)
}

/// Reads the body as far as it is held; the rest of a longer one is left to stream.
async fn hold(worker: &Worker, body: Sent) -> Result<(Option<Bytes>, Option<Incoming>), Answer> {
    let too_long = || {
        answer::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {} bytes", worker.shared.max_body),
        )
    };
    let mut body = match body {
        Sent::Streamed(body) => body,
        // A message may have been shorter than what it means.
        Sent::Whole(bytes) if bytes.len() as u64 > worker.shared.max_body => return Err(too_long()),
        Sent::Whole(bytes) => return Ok((Some(bytes).filter(|bytes| !bytes.is_empty()), None)),
    };
    if body.size_hint().lower() > worker.shared.max_body {
        return Err(too_long());
    }
    if body.is_end_stream() {
        return Ok((None, None));
    }
    let mut held = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(answer::error(StatusCode::BAD_REQUEST, "the body ended early"));
        };
        if let Ok(data) = frame.into_data() {
            // The usual body comes in one piece, and is not copied.
            if held.is_empty() && body.is_end_stream() {
                return Ok((Some(data), None));
            }
            held.extend_from_slice(&data);
        }
        if held.len() > worker.shared.replay_limit {
            return Ok((Some(held.freeze()), Some(body)));
        }
    }
    Ok((Some(held.freeze()), None))
}

/// The caller's own, if it is fit for a log.
fn callers_id(parts: &Parts) -> Option<HeaderValue> {
    let fit =
        |value: &&HeaderValue| (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    parts.headers.get(&REQUEST_ID).filter(fit).cloned()
}

/// One that says which variant the request was assigned to, within an experiment.
fn new_id(assigned: Option<&Assigned<'_>>) -> HeaderValue {
    let assigned = assigned.map(|assigned| (assigned.variant.revision, &assigned.variant.series.variant));
    let id = request_id::write(fastrand::u128(..), assigned);
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
}
