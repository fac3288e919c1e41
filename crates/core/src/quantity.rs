//! Amounts of a resource as Kubernetes writes them: `250m`, `2`, `128Mi`, `1e3`.

use std::str::FromStr;

use crate::names::NameError;

/// An amount of CPU (in cores) or memory (in bytes), exact to a billionth, which is the least that Kubernetes keeps.
/// Compares as the amount that it is: `0.5` equals `500m`.
///
/// The notation is that of `k8s.io/apimachinery/pkg/api/resource.Quantity`: digits with an optional point, and one of
/// the suffixes `n u m k M G T P E` (powers of ten), `Ki Mi Gi Ti Pi Ei` (powers of two) or `e3`, `E-3` (an exponent).
/// What is finer than a billionth is rounded up, as it is there. Unlike there, what is negative, or above 2⁶³ − 1, is
/// refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    /// In billionths.
    nanos: u128,
}

const RULE: &str = "use a number with an optional unit, such as 250m, 2, 128Mi or 1Gi";
/// Billionths of one.
const NANOS: u128 = 1_000_000_000;
const MOST: u128 = i64::MAX as u128 * NANOS;

impl Quantity {
    pub const fn from_millis(thousandths: u64) -> Self {
        Self { nanos: thousandths as u128 * 1_000_000 }
    }

    pub const fn from_units(units: u64) -> Self {
        Self { nanos: units as u128 * NANOS }
    }

    /// How many whole ones that is, rounded down.
    pub fn units(self) -> u64 {
        u64::try_from(self.nanos / NANOS).unwrap_or(u64::MAX)
    }
}

impl FromStr for Quantity {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let nanos = read(s).filter(|nanos| *nanos <= MOST).ok_or_else(|| NameError::new("quantity", s, RULE))?;
        Ok(Self { nanos })
    }
}

fn read(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (twos, tens) = powers(suffix)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{part}").parse().ok()?;
    if digits == 0 {
        return Some(0);
    }
    let scaled = digits.checked_mul(1 << twos)?;
    // Down to billionths, less what the point stands for.
    let tens = tens.checked_add(9)?.checked_sub(i64::try_from(part.len()).ok()?)?;
    let power = u32::try_from(tens.unsigned_abs()).ok().and_then(|exponent| 10_u128.checked_pow(exponent));
    match (tens < 0, power) {
        (false, power) => scaled.checked_mul(power?),
        // Next to nothing is not nothing.
        (true, power) => Some(power.map_or(1, |power| scaled.div_ceil(power))),
    }
}

/// What a suffix stands for: a power of two, and one of ten.
fn powers(suffix: &str) -> Option<(u32, i64)> {
    let tens = |exponent| Some((0, exponent));
    let twos = |exponent| Some((exponent, 0));
    match suffix {
        "n" => tens(-9),
        "u" => tens(-6),
        "m" => tens(-3),
        "" => tens(0),
        "k" => tens(3),
        "M" => tens(6),
        "G" => tens(9),
        "T" => tens(12),
        "P" => tens(15),
        "E" => tens(18),
        "Ki" => twos(10),
        "Mi" => twos(20),
        "Gi" => twos(30),
        "Ti" => twos(40),
        "Pi" => twos(50),
        "Ei" => twos(60),
        _ => tens(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn quantities_are_the_same_however_they_are_written() {
        let same = [
            ("0.5", "500m"),
            ("0.0001", "100u"),
            ("100u", "100000n"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("128M", "128e6"),
            ("128M", "128E6"),
            ("1E", "1e18"),
            ("1k", "1e+3"),
            ("1m", "1e-3"),
            ("1P", "1000T"),
            ("1Pi", "1024Ti"),
            ("1Ei", "1024Pi"),
            (".5", "500m"),
            ("2.", "2"),
            ("+2", "2"),
            ("007", "7"),
            ("0", "0Ei"),
            ("0", "0e99"),
            ("1.0000000000000000000000000", "1"),
        ];
        for (one, other) in same {
            assert_eq!(quantity(one), quantity(other), "{one} and {other}");
        }
        assert!(quantity("501m") > quantity("0.5"));
        assert!(quantity("1Gi") > quantity("1G"));
    }

    #[test]
    fn what_is_finer_than_a_billionth_is_rounded_up() {
        assert_eq!(quantity("0.1n"), quantity("1n"));
        assert_eq!(quantity("1.5n"), quantity("2n"));
        assert_eq!(quantity("1e-99"), quantity("1n"));
    }

    #[test]
    fn whole_ones_are_counted_rounded_down() {
        assert_eq!(quantity("1999m").units(), 1);
        assert_eq!(quantity("9223372036854775807"), Quantity::from_units(u64::MAX >> 1));
        assert_eq!(quantity("9223372036854775807").units(), u64::MAX >> 1);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        let bad = ". m Gi -1 1gi 1KB 1K 1mi 1.2.3Gi 1e 1e1.5 1ee3 0x10 NaN inf + ++1 1Ei1 8Ei 1e19 1e99 99999999999999Ti \
                   9223372036854775808";
        let bad = bad.split(' ').chain(["", " 1", "1 Gi"]);
        for text in bad {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn thousandths_are_exact(millis in 0..=u64::MAX >> 11) {
            let point = format!("{}.{:03}", millis / 1000, millis % 1000);
            prop_assert_eq!(quantity(&format!("{millis}m")), Quantity::from_millis(millis));
            prop_assert_eq!(quantity(&point), Quantity::from_millis(millis));
            prop_assert_eq!(quantity(&format!("{millis}e-3")), Quantity::from_millis(millis));
        }

        #[test]
        fn nothing_makes_it_panic(text in "[+-]?[0-9.]{0,45}([eE][+-]?[0-9]{0,20}|[numkMGTPE]?i?)") {
            let _ = text.parse::<Quantity>();
        }
    }
}
