use super::*;
use proptest::prelude::*;

fn name(index: usize) -> VariantName {
    format!("v{index}").parse().unwrap()
}

fn weights(parts: &[u16]) -> Vec<(VariantName, Weight)> {
    let weight = |(i, bp): (usize, &u16)| (name(i), Weight::from_basis_points(*bp).unwrap());
    parts.iter().enumerate().map(weight).collect()
}

/// Weights of two to six variants, some of them 0, that sum to 10,000.
fn any_weights() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(0u16..=WHOLE, 5).prop_map(|mut cuts| {
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([WHOLE]);
        let mut start = 0;
        ends.map(|end| end - std::mem::replace(&mut start, end)).collect()
    })
}

fn at(slots: &Slots) -> Vec<VariantName> {
    (0..WHOLE).map(|point| slots.variant_at(point).clone()).collect()
}

fn salt() -> Salt {
    "linear/3".parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn only_the_moved_share_changes_hands_and_only_towards_what_grew(walk in prop::collection::vec(any_weights(), 2..8)) {
        let mut slots = Slots::of(&weights(&walk[0])).unwrap();
        for step in walk.windows(2) {
            let next = slots.reweighted(&weights(&step[1])).unwrap();
            let moved: Vec<_> = at(&slots).into_iter().zip(at(&next)).filter(|(old, new)| old != new).collect();
            let grown: u16 = step[0].iter().zip(&step[1]).map(|(old, new)| new.saturating_sub(*old)).sum();
            prop_assert_eq!(moved.len(), usize::from(grown), "the least that the weights allow");
            for (i, (old, new)) in step[0].iter().zip(&step[1]).enumerate() {
                prop_assert_eq!(next.points_of(&name(i)), *new);
                prop_assert!(new <= old || moved.iter().all(|(from, _)| *from != name(i)), "one that grew lost a unit");
                prop_assert!(new > old || moved.iter().all(|(_, to)| *to != name(i)), "one that shrank got a unit");
            }
            slots = next;
        }
    }

    #[test]
    fn layouts_survive_the_wire(parts in any_weights(), next in any_weights()) {
        let slots = Slots::of(&weights(&parts)).unwrap().reweighted(&weights(&next)).unwrap();
        let text = serde_json::to_string(&slots).unwrap();
        prop_assert_eq!(serde_json::from_str::<Slots>(&text).unwrap(), slots);
    }
}

#[test]
fn units_spread_by_weight_and_experiments_split_them_independently() {
    let slots = Slots::of(&weights(&[5_000, 3_000, 2_000])).unwrap();
    let of =
        |salt: &str| Assignment { sticky_by: StickyBy::ClientIp, salt: salt.parse().unwrap(), slots: slots.clone() };
    let (one, other) = (of("linear/3"), of("linear/9"));
    let mut counts = [[0u32; 3]; 3];
    for unit in 0..20_000 {
        let unit = format!("user-{unit}");
        let index = |a: &Assignment| (0..3).find(|i| name(*i) == *a.variant_of(&unit)).unwrap();
        counts[index(&one)][index(&other)] += 1;
    }
    let mut chi_square = 0.0;
    for (row, p) in counts.iter().zip([0.5, 0.3, 0.2]) {
        for (count, q) in row.iter().zip([0.5, 0.3, 0.2]) {
            let expected = 20_000.0 * p * q;
            chi_square += (f64::from(*count) - expected).powi(2) / expected;
        }
    }
    // 8 degrees of freedom; above 33 with a probability of 6e-5, and the hash is fixed.
    assert!(chi_square < 33.0, "{chi_square}: {counts:?}");
}

#[test]
fn a_units_point_is_what_the_documentation_says() {
    // python3: int.from_bytes(hashlib.sha256(b"linear/3\0user-42").digest()[:8], "big") * 10000 >> 64
    let hash = UnitHash::of(&salt(), "user-42");
    assert_eq!((hash.point(), hash.rank()), (8625, 45_145_575_838_080));
}

#[test]
fn slots_that_do_not_make_the_whole_are_refused() {
    assert_eq!(Slots::of(&weights(&[5_000, 4_000])), Err(SlotsError::Sum(9_000)));
    assert_eq!(Slots::of(&[]), Err(SlotsError::Sum(0)));
    let twice = [(name(0), Weight::FULL), (name(0), Weight::ZERO)];
    assert_eq!(Slots::of(&twice), Err(SlotsError::Twice(name(0))));
    let error = serde_json::from_str::<Slots>(r#"[{"variant":"a","width":60},{"variant":"b","width":60}]"#);
    assert!(error.unwrap_err().to_string().contains("12000 basis points"));
}
