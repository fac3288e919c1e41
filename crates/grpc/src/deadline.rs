//! How long a caller waits: `grpc-timeout`, at most eight digits and a unit (gRPC over HTTP/2, "Requests").

use std::time::Duration;

use http::HeaderMap;
use tokio::time::timeout;
use tonic::Status;

/// `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Duration>);

impl Deadline {
    /// # Errors
    /// If it is not understood.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let Some(value) = headers.get("grpc-timeout") else { return Ok(Self(None)) };
        let parsed = value.to_str().ok().and_then(parse);
        let wrong =
            || Status::invalid_argument("grpc-timeout must be at most eight digits and one of H, M, S, m, u, n");
        parsed.map(|after| Self(Some(after))).ok_or_else(wrong)
    }

    /// # Errors
    /// What `call` says, or that its time is over.
    pub(crate) async fn bound<T>(self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match self.0 {
            None => call.await,
            Some(after) => {
                let over = |_| Status::deadline_exceeded("the time that the caller gave is over");
                timeout(after, call).await.map_err(over)?
            }
        }
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 60 * 60),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_of_the_specification_are_read_and_nothing_else() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(parse("99999999M"), Some(Duration::from_secs(5_999_999_940)));
        assert_eq!(parse("15S"), Some(Duration::from_secs(15)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("1u"), Some(Duration::from_micros(1)));
        assert_eq!(parse("1n"), Some(Duration::from_nanos(1)));
        for wrong in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1é", " 1S"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
