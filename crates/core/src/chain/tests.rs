use proptest::prelude::*;

use super::*;

fn event(n: i64) -> ChainedEvent {
    ChainedEvent {
        position: n,
        hash: String::new(),
        // Ids have gaps.
        id: n * 3,
        at_ms: 1_764_000_000_000 + n,
        kind: "WeightsChanged".into(),
        actor: "system".into(),
        model: None,
        deployment: Some("linear".into()),
        message: format!("weights changed, {n}"),
        data: r#"{"weights": []}"#.into(),
    }
}

/// Gives each event the hash that it has after the one before it, from `from` on.
fn link(events: &mut [ChainedEvent], from: usize) {
    for n in from..events.len() {
        let previous = n.checked_sub(1).map_or(ChainHead::BEGIN.hash, |p| events[p].hash.parse().unwrap());
        events[n].hash = events[n].hash_after(&previous).to_string();
    }
}

fn chain(length: i64) -> Vec<ChainedEvent> {
    let mut events: Vec<_> = (1..=length).map(event).collect();
    link(&mut events, 0);
    events
}

fn head(event: &ChainedEvent) -> ChainHead {
    ChainHead { position: event.position, hash: event.hash.parse().unwrap() }
}

fn verify(mut verifier: Verifier, events: &[ChainedEvent]) -> Result<(ChainHead, u64), Broken> {
    let after = verifier.read_after().unwrap_or(i64::MIN);
    events.iter().filter(|e| e.position > after).try_for_each(|e| verifier.next(e))?;
    verifier.finish()
}

fn verify_all(events: &[ChainedEvent], expected: &[ChainHead]) -> Result<(ChainHead, u64), Broken> {
    verify(Verifier::new(ChainHead::BEGIN, expected.iter().copied()), events)
}

#[test]
fn a_chain_as_it_was_written_holds() {
    let events = chain(5);
    let last = head(&events[4]);
    assert_eq!(verify_all(&events, &[]), Ok((last, 5)));
    assert_eq!(verify_all(&events, &[last, head(&events[1]), head(&events[1]), ChainHead::BEGIN]), Ok((last, 5)));
    assert_eq!(verify_all(&[], &[ChainHead::BEGIN]), Ok((ChainHead::BEGIN, 0)));
}

#[test]
fn the_form_that_is_hashed_is_fixed() {
    // Computed outside: what is written must be verifiable by what comes after this program.
    assert_eq!(
        event(1).hash_after(&ChainHead::BEGIN.hash).to_string(),
        "654343e2faed8f59b4aebec175c2e352b63f6ec1c1aff4e97f53bf7e3d95628f"
    );
}

#[test]
fn what_was_removed_reordered_or_put_in_is_named() {
    let events = chain(5);
    let mut removed = events.clone();
    removed.remove(2);
    assert_eq!(verify_all(&removed, &[]), Err(Broken::Missing { id: 12, position: 4, due: 3 }));
    let mut reordered = events.clone();
    reordered.swap(1, 2);
    assert_eq!(verify_all(&reordered, &[]), Err(Broken::Missing { id: 9, position: 3, due: 2 }));
    (reordered[1].position, reordered[2].position) = (2, 3);
    assert_eq!(verify_all(&reordered, &[]), Err(Broken::Changed { id: 9, position: 2 }));
    let mut hidden = events.clone();
    hidden.insert(0, ChainedEvent { position: -7, id: 99, ..event(1) });
    assert_eq!(verify_all(&hidden, &[]), Err(Broken::Misplaced { id: 99, position: -7, due: 1 }));
}

#[test]
fn a_truncated_or_rewritten_end_is_found_by_a_head_that_was_kept() {
    let events = chain(5);
    let kept = head(&events[4]);
    assert!(verify_all(&events[..3], &[]).is_ok(), "by itself a shorter chain is a chain");
    assert_eq!(verify_all(&events[..3], &[kept]), Err(Broken::Truncated { head: kept, last: 3 }));
    let mut forged = events.clone();
    forged[3].actor = "nobody".into();
    link(&mut forged, 3);
    assert!(verify_all(&forged, &[]).is_ok(), "who owns the database can compute hashes too");
    assert_eq!(verify_all(&forged, &[kept]), Err(Broken::Rewritten { id: 15, head: kept }));
}

#[test]
fn one_goes_on_from_a_head_that_was_verified_before() {
    let events = chain(5);
    let (middle, last) = (head(&events[2]), head(&events[4]));
    let from = |head, expected: Option<ChainHead>| Verifier::new(head, expected);
    assert_eq!(verify(from(middle, Some(last)), &events), Ok((last, 2)));
    assert_eq!(verify(from(last, None), &events), Ok((last, 0)));
    assert_eq!(verify(from(last, None), &events[..4]), Err(Broken::Truncated { head: last, last: 4 }));
    let mut forged = events.clone();
    forged[0].message.push('!');
    link(&mut forged, 0);
    assert_eq!(verify(from(middle, None), &forged), Err(Broken::Rewritten { id: 9, head: middle }));
    let elsewhere = ChainHead { position: 2, hash: Digest::of(b"x") };
    let unreachable = verify(from(middle, Some(elsewhere)), &events);
    assert_eq!(unreachable, Err(Broken::Rewritten { id: 9, head: elsewhere }), "it cannot be vouched for");
}

#[test]
fn heads_round_trip() {
    let text = format!("1000000:{}", Digest::of(b"abc"));
    assert_eq!(text.parse::<ChainHead>().unwrap().to_string(), text);
    for bad in ["", "7", "-1:00", "x:00", "7:zz", &Digest::of(b"abc").to_string()] {
        assert!(bad.parse::<ChainHead>().is_err(), "{bad:?}");
    }
}

/// Changes one field of an event.
fn change(event: &mut ChainedEvent, field: usize) {
    let texts = [&mut event.kind, &mut event.actor, &mut event.message, &mut event.data];
    match field {
        0 => event.id += 1,
        1 => event.at_ms -= 1,
        2 => event.model = Some(String::new()),
        3 => event.deployment = None,
        4 => event.hash = Digest::of(event.hash.as_bytes()).to_string(),
        // From one field into its neighbour: the bytes in a row stay the same.
        5 => {
            let last = event.kind.pop().unwrap();
            event.actor.insert(0, last);
        }
        n => texts.into_iter().nth(n - 6).unwrap().push(' '),
    }
}

proptest! {
    #[test]
    fn no_change_of_any_field_goes_unseen(length in 1i64..20, at in 0usize..20, field in 0usize..10) {
        let mut events = chain(length);
        let at = at % events.len();
        change(&mut events[at], field);
        let (id, position) = (events[at].id, events[at].position);
        prop_assert_eq!(verify_all(&events, &[]), Err(Broken::Changed { id, position }));
    }

    #[test]
    fn no_event_can_be_left_out_before_a_head_that_was_kept(length in 1i64..20, at in 0usize..20) {
        let mut events = chain(length);
        let kept = head(&events[events.len() - 1]);
        events.remove(at % events.len());
        prop_assert!(verify_all(&events, &[kept]).is_err());
    }
}
