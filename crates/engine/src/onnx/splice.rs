//! Puts parts into the bytes of a Protocol Buffers message, or takes parts out, and leaves the rest as it is.

use std::ops::Range;

/// What comes in the place of a part of the file.
pub(super) type Edit = (Range<u64>, Vec<u8>);

/// `bytes` within `range`, with edits, which are in order and do not overlap.
pub(super) fn spliced(bytes: &[u8], range: &Range<u64>, edits: &[Edit]) -> Vec<u8> {
    // A file that changed since it was examined gives less than it said, and is refused by who reads on.
    let part = |from: u64, to: u64| {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        bytes.get(place(from)..place(to)).unwrap_or_default()
    };
    let mut out = Vec::new();
    let mut at = range.start;
    for (place, new) in edits {
        out.extend_from_slice(part(at, place.start));
        out.extend_from_slice(new);
        at = place.end;
    }
    out.extend_from_slice(part(at, range.end));
    out
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(super) fn write_varint(out: &mut Vec<u8>, field: u64, number: u64) {
    write_number(out, field << 3);
    write_number(out, number);
}

pub(super) fn write_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    write_number(out, (field << 3) | 2);
    write_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
