//! Times as people write them on a command line, and as tables show them.

use std::str::FromStr;

use modelyard_core::{Span, Timestamp};

/// A point in time: absolute, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Ago(Span),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("use a time such as 2026-11-24T12:00:00Z or \"2026-11-24 12:00\" (UTC), or -5m for five minutes ago")]
pub(super) struct WhenError;

impl FromStr for When {
    type Err = WhenError;

    fn from_str(s: &str) -> Result<Self, WhenError> {
        if let Some(ago) = s.strip_prefix('-') {
            return ago.parse().map(Self::Ago).map_err(|_| WhenError);
        }
        if let Ok(at) = s.parse() {
            return Ok(Self::At(at));
        }
        // Without an offset: UTC, as in everything that the commands print.
        let utc = s.parse::<jiff::civil::DateTime>().and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC));
        utc.map(|t| Self::At(Timestamp::from_millis(t.timestamp().as_millisecond()))).map_err(|_| WhenError)
    }
}

impl When {
    pub(super) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => {
                let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(ms))
            }
        }
    }
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// `45s`, `12m`, `3h`, `9d`: whole units of the largest that fits.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at).as_millis() / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// To the second, in UTC.
pub(super) fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_are_read_in_every_form() {
        let noon = at("2026-11-24T12:00:00Z");
        for text in ["2026-11-24T12:00:00Z", "2026-11-24 12:00", "2026-11-24T12:00", "2026-11-24T13:00:00+01:00"] {
            assert_eq!(text.parse(), Ok(When::At(noon)), "{text}");
        }
        assert_eq!("-5m".parse::<When>().map(|w| w.resolve(noon)), Ok(at("2026-11-24T11:55:00Z")));
        for bad in ["", "noon", "-", "-5", "5m", "2026-13-01 12:00"] {
            assert_eq!(bad.parse::<When>(), Err(WhenError), "{bad:?}");
        }
    }

    #[test]
    fn ages_are_short() {
        let then = at("2026-11-24T12:00:00Z");
        let shown = [5, 119, 120, 7_199, 7_200, 172_800].map(|s| age(then, then + Span::from_secs(s)));
        assert_eq!(shown, ["5s", "119s", "2m", "119m", "2h", "2d"]);
        assert_eq!(clock(at("2026-11-24T12:00:00.250Z")), "2026-11-24T12:00:00Z");
    }
}
