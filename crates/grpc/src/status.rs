//! From what HTTP says to what gRPC says: status codes, and headers as metadata.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use modelyard_protocol::ErrorBody;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        413 | 429 => Code::ResourceExhausted,
        400..=499 => Code::InvalidArgument,
        501 => Code::Unimplemented,
        502 | 503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

/// An answer that is an error, in the protocol's words where it has such.
pub(crate) fn refusal(answer: &http::Response<Bytes>) -> Status {
    let status = answer.status();
    let words = serde_json::from_slice(answer.body()).map(|ErrorBody { error }| error);
    let message = words.unwrap_or_else(|_| format!("the server answered {status}"));
    Status::with_metadata(code(status), message, metadata(answer.headers()))
}

/// What a caller is told beside the answer.
pub(crate) fn metadata(headers: &HeaderMap) -> MetadataMap {
    let is_told = |name: &HeaderName| matches!(name.as_str(), "set-cookie" | "retry-after") || is_own(name);
    let told = headers.iter().filter(|(name, _)| is_told(name)).map(|(name, value)| (name.clone(), value.clone()));
    MetadataMap::from_headers(told.collect())
}

/// `x-modelyard-variant`, `x-request-id`, and the like.
pub(crate) fn is_own(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-")
}

/// The headers of a request that a call becomes: its metadata, without what concerns the call itself.
pub(crate) fn request_headers(call: &HeaderMap) -> HeaderMap {
    const OF_THE_CALL: [&str; 8] = [
        "te",
        "host",
        "expect",
        "accept-encoding",
        "content-type",
        "content-length",
        "content-encoding",
        modelyard_protocol::JSON_LENGTH,
    ];
    let is_kept = |name: &HeaderName| !OF_THE_CALL.contains(&name.as_str()) && !name.as_str().starts_with("grpc-");
    // Every value of a name, unlike what collecting pairs would keep.
    let mut headers = HeaderMap::with_capacity(call.len());
    for (name, value) in call.iter().filter(|(name, _)| is_kept(name)) {
        headers.append(name.clone(), value.clone());
    }
    headers
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn errors_keep_their_words_and_what_was_told_beside_them() {
        let mut answer = http::Response::new(Bytes::from_static(br#"{"error":"there is no deployment m"}"#));
        *answer.status_mut() = StatusCode::NOT_FOUND;
        answer.headers_mut().insert("x-request-id", HeaderValue::from_static("7"));
        answer.headers_mut().insert("content-length", HeaderValue::from_static("36"));
        let status = refusal(&answer);
        assert_eq!((status.code(), status.message()), (Code::NotFound, "there is no deployment m"));
        assert_eq!(status.metadata().get("x-request-id").unwrap(), "7");
        assert!(status.metadata().get("content-length").is_none());
    }

    #[test]
    fn an_answer_that_is_no_error_of_the_protocol_is_one_all_the_same() {
        let mut answer = http::Response::new(Bytes::from_static(b"<html>"));
        *answer.status_mut() = StatusCode::BAD_GATEWAY;
        let status = refusal(&answer);
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the server answered 502 Bad Gateway"));
    }

    #[test]
    fn what_concerns_the_call_is_not_passed_on() {
        let mut call = HeaderMap::new();
        for (name, value) in
            [("te", "trailers"), ("grpc-timeout", "1S"), ("content-type", "application/grpc"), ("x-user-id", "7")]
        {
            call.insert(name, HeaderValue::from_static(value));
        }
        call.append("cookie", HeaderValue::from_static("a=1"));
        call.append("cookie", HeaderValue::from_static("b=2"));
        let headers = request_headers(&call);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers.get_all("cookie").iter().count(), 2);
    }
}
