//! The axis of time: where a moment lies, and which moments are written beneath.

use modelyard_core::{Span, Timestamp};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Distances of ticks that people count by, in milliseconds.
const STEPS: [u64; 28] = [
    SECOND / 10,
    SECOND / 5,
    SECOND / 2,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    28 * DAY,
    91 * DAY,
    182 * DAY,
    364 * DAY,
];
const MOST_TICKS: u64 = 12;

/// From a stretch of time to one of the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    from: Timestamp,
    /// In milliseconds, at least one second.
    length: u64,
    /// Between ticks, in milliseconds.
    step: u64,
    left: f64,
    width: f64,
}

impl Scale {
    pub(super) fn new(from: Timestamp, until: Timestamp, left: f64, width: f64) -> Self {
        let length = until.since(from).as_millis().max(SECOND);
        let step = STEPS.into_iter().find(|step| length / step < MOST_TICKS).unwrap_or(length);
        Self { from, length, step, left, width }
    }

    /// What lies outside is at the edge.
    pub(super) fn x(self, at: Timestamp) -> f64 {
        self.left + self.width * self.share(at.since(self.from).as_millis())
    }

    #[expect(clippy::cast_precision_loss, reason = "a share of a picture's width")]
    fn share(self, ms: u64) -> f64 {
        ms.min(self.length) as f64 / self.length as f64
    }

    /// Moments of which to write how long after the beginning they are, as they lie.
    pub(super) fn ticks(self) -> Vec<Timestamp> {
        (0..=self.length / self.step).map(|n| self.from + Span::from_millis(n * self.step)).collect()
    }

    /// What the axis is labelled in.
    pub(super) fn unit(self) -> &'static str {
        match self.length {
            ..HOUR => "minutes:seconds",
            HOUR..DAY => "hours:minutes:seconds",
            _ => "days and hours:minutes",
        }
    }

    /// How long after the beginning a tick is: `1:05`, `2:01:05`, `3d 02:01`, the same form for all of one picture.
    pub(super) fn label(self, tick: Timestamp) -> String {
        if self.step < SECOND { self.tell(tick) } else { self.whole(tick) }
    }

    /// The same of any moment, to a tenth of a second where that can be seen.
    pub(super) fn tell(self, at: Timestamp) -> String {
        let tenths = at.since(self.from).as_millis() % SECOND / (SECOND / 10);
        if self.length < 10 * MINUTE { format!("{}.{tenths}", self.whole(at)) } else { self.whole(at) }
    }

    fn whole(self, at: Timestamp) -> String {
        let seconds = at.since(self.from).as_millis() / SECOND;
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600, seconds / 60);
        match self.length {
            ..HOUR => format!("{minutes}:{:02}", seconds % 60),
            HOUR..DAY => format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60),
            _ => format!("{days}d {:02}:{:02}", hours % 24, minutes % 60),
        }
    }
}
