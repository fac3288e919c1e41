//! Request ids that gateways make. Those of requests that were assigned to a variant say to which, so that an outcome which
//! comes weeks later is joined without a record of each request.

use crate::names::{RevisionNumber, VariantName};

/// 32 hexadecimal digits; within an experiment followed by `-{revision}-{variant}`, as in
/// `0d7e…-12-treatment`.
///
/// The variant is the one that was assigned or drawn, even if another one answered in its place: what is compared is what
/// was assigned. Requests that were not (by a rule, or by a version or variant that was asked for) have the bare form.
/// An id that the caller made is the caller's, and says nothing: its outcomes are joined by unit.
pub fn write(random: u128, assigned: Option<(RevisionNumber, &VariantName)>) -> String {
    match assigned {
        None => format!("{random:032x}"),
        Some((revision, variant)) => format!("{random:032x}-{revision}-{variant}"),
    }
}

/// What an id says of the variant that its request was assigned to.
pub fn assigned(id: &str) -> Option<(RevisionNumber, VariantName)> {
    let (random, rest) = id.split_at_checked(32)?;
    if !random.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let (revision, variant) = rest.strip_prefix('-')?.split_once('-')?;
    Some((revision.parse().ok()?, variant.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_which_variant_its_request_was_assigned_to() {
        let variant: VariantName = "treatment-b".parse().unwrap();
        let id = write(7, Some((RevisionNumber(12), &variant)));
        assert_eq!(id, "00000000000000000000000000000007-12-treatment-b");
        assert_eq!(assigned(&id), Some((RevisionNumber(12), variant)));
    }

    #[test]
    fn other_ids_say_nothing() {
        let bare = write(u128::MAX, None);
        assert_eq!(bare.len(), 32);
        for id in [bare.as_str(), "", "order-12-treatment", &format!("{bare}-x-a"), &format!("{bare}-1-"), "é"] {
            assert_eq!(assigned(id), None, "{id}");
        }
    }
}
