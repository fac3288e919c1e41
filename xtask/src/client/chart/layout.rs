//! Where words and badges go, so that none lies on another. Widths of text are estimates: no font is asked.

/// Of a character, as a share of the font's size: somewhat more than most fonts need.
const CHARACTER: f64 = 0.58;

pub(super) fn width(text: &str, size: f64) -> f64 {
    let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    f64::from(characters) * size * CHARACTER
}

/// The first of the texts that fits, from the most telling to the shortest.
pub(super) fn fitting<const N: usize>(texts: [String; N], size: f64, room: f64) -> Option<String> {
    texts.into_iter().find(|text| width(text, size) <= room)
}

/// Cuts a sentence into at most `most` lines, between words; what is left over becomes an ellipsis.
pub(super) fn wrap(text: &str, size: f64, room: f64, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let is_last = lines.len() == most;
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size) <= room => *line += &format!(" {word}"),
            Some(line) if is_last => {
                *line += " …";
                return lines;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Moves places, in ascending order, as little apart as `gap` asks for, to between `low` and `high`.
pub(super) fn spread(places: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut spread = Vec::with_capacity(places.len());
    let mut least = low;
    for place in places {
        spread.push(place.max(least));
        least = place.max(least) + gap;
    }
    let mut most = high;
    for place in spread.iter_mut().rev() {
        *place = place.min(most);
        most = *place - gap;
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sentences_are_cut_between_words() {
        assert_eq!(wrap("one two three", 10.0, 50.0, 2), ["one two", "three"]);
        assert_eq!(wrap("one two three four", 10.0, 50.0, 2), ["one two", "three …"]);
        assert_eq!(wrap("indivisible", 10.0, 20.0, 2), ["indivisible"]);
        assert!(wrap("", 10.0, 20.0, 2).is_empty());
    }

    #[test]
    fn badges_keep_apart_and_within() {
        assert_eq!(spread(&[10.0, 10.0, 60.0], 20.0, 0.0, 100.0), [10.0, 30.0, 60.0]);
        assert_eq!(spread(&[90.0, 100.0, 100.0], 20.0, 0.0, 100.0), [60.0, 80.0, 100.0]);
        assert!(spread(&[], 20.0, 0.0, 100.0).is_empty());
    }
}
