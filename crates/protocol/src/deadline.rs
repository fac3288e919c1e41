//! How long a caller waits for an answer, as requests say it. No clock: these are lengths of time from when a request came.

use std::time::Duration;

use crate::{Parameter, Parameters};

/// The header that says it, to a gateway and, with what is left of it, to a worker: `250ms`.
pub const TIMEOUT: &str = "x-modelyard-timeout";
/// The header of gRPC (gRPC over HTTP/2, "Requests").
pub const GRPC_TIMEOUT: &str = "grpc-timeout";
/// The parameter of a request that says it in microseconds, as Triton has it.
const PARAMETER: &str = "timeout";

/// Longer is no limit that anybody meets; sums of times and this do not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
const UNITS: [(&str, u64); 5] = [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeoutError {
    #[error("{TIMEOUT} must be a whole number and a unit: 500us, 250ms, 30s, 2m or 1h")]
    Own,
    #[error("{GRPC_TIMEOUT} must be at most eight digits and one of H, M, S, m, u, n")]
    Grpc,
    #[error("the parameter `{PARAMETER}` must be a whole number of microseconds")]
    Parameter,
}

/// Reads a value of [`TIMEOUT`].
///
/// # Errors
/// If it is none.
pub fn parse_timeout(text: &str) -> Result<Duration, TimeoutError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(TimeoutError::Own)?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(TimeoutError::Own)?;
    let number: u64 = number.parse().map_err(|_| TimeoutError::Own)?;
    Ok(Duration::from_micros(number.saturating_mul(factor)).min(LONGEST))
}

/// Writes one, in whole microseconds: what is less is no time.
pub fn format_timeout(left: Duration) -> String {
    format!("{}us", left.as_micros())
}

/// Reads a value of [`GRPC_TIMEOUT`].
///
/// # Errors
/// If it is none.
pub fn parse_grpc_timeout(text: &str) -> Result<Duration, TimeoutError> {
    let (number, unit) =
        text.len().checked_sub(1).and_then(|last| text.split_at_checked(last)).ok_or(TimeoutError::Grpc)?;
    if !(1..=8).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TimeoutError::Grpc);
    }
    let number: u64 = number.parse().map_err(|_| TimeoutError::Grpc)?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 60 * 60),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(TimeoutError::Grpc),
    };
    Ok(timeout.min(LONGEST))
}

/// The sooner of the two headers' values.
///
/// # Errors
/// If one is not understood.
pub fn header_timeout(own: Option<&str>, grpc: Option<&str>) -> Result<Option<Duration>, TimeoutError> {
    let own = own.map(parse_timeout).transpose()?;
    let grpc = grpc.map(parse_grpc_timeout).transpose()?;
    Ok([own, grpc].into_iter().flatten().min())
}

/// What the parameters of a request say. As Triton has it, 0 is no limit.
///
/// # Errors
/// If it is no number of microseconds.
pub fn parameter_timeout(parameters: &Parameters) -> Result<Option<Duration>, TimeoutError> {
    let micros = match parameters.get(PARAMETER) {
        None => return Ok(None),
        Some(Parameter::Int(micros)) => u64::try_from(*micros).ok(),
        Some(Parameter::Uint(micros)) => Some(*micros),
        Some(Parameter::String(text)) => text.trim().parse().ok(),
        Some(Parameter::Bool(_) | Parameter::Float(_)) => None,
    };
    let micros = micros.ok_or(TimeoutError::Parameter)?;
    Ok((micros > 0).then(|| Duration::from_micros(micros).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_with_their_units() {
        for (text, micros) in [
            ("500us", 500),
            ("250ms", 250_000),
            ("30s", 30_000_000),
            ("2m", 120_000_000),
            ("1h", 3_600_000_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_timeout(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for wrong in ["", "5", "ms", "-1s", "1.5s", "1 s", "1d", "99999999999999999999s"] {
            assert_eq!(parse_timeout(wrong), Err(TimeoutError::Own), "{wrong}");
        }
        assert_eq!(parse_timeout("18446744073709551615h"), Ok(LONGEST));
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for micros in [0, 1, 249_312, 3_600_000_000] {
            let timeout = Duration::from_micros(micros);
            assert_eq!(parse_timeout(&format_timeout(timeout)), Ok(timeout));
        }
    }

    #[test]
    fn the_units_of_grpc_are_read_and_nothing_else() {
        assert_eq!(parse_grpc_timeout("2H"), Ok(Duration::from_secs(7_200)));
        assert_eq!(parse_grpc_timeout("15S"), Ok(Duration::from_secs(15)));
        assert_eq!(parse_grpc_timeout("250m"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_grpc_timeout("1u"), Ok(Duration::from_micros(1)));
        assert_eq!(parse_grpc_timeout("1n"), Ok(Duration::from_nanos(1)));
        assert_eq!(parse_grpc_timeout("99999999M"), Ok(LONGEST.min(Duration::from_secs(5_999_999_940))));
        for wrong in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1é", " 1S"] {
            assert_eq!(parse_grpc_timeout(wrong), Err(TimeoutError::Grpc), "{wrong}");
        }
    }

    #[test]
    fn the_sooner_header_counts_and_a_parameter_is_in_microseconds() {
        let ms = Duration::from_millis;
        assert_eq!(header_timeout(Some("250ms"), Some("1S")), Ok(Some(ms(250))));
        assert_eq!(header_timeout(None, Some("100m")), Ok(Some(ms(100))));
        assert_eq!(header_timeout(None, None), Ok(None));
        let with = |value| Parameters::from([("timeout".to_owned(), value)]);
        assert_eq!(parameter_timeout(&with(Parameter::Int(2_000))), Ok(Some(ms(2))));
        assert_eq!(parameter_timeout(&with(Parameter::Uint(0))), Ok(None));
        assert_eq!(parameter_timeout(&with(Parameter::Int(-1))), Err(TimeoutError::Parameter));
        assert_eq!(parameter_timeout(&with(Parameter::Bool(true))), Err(TimeoutError::Parameter));
        assert_eq!(parameter_timeout(&Parameters::new()), Ok(None));
    }
}
