-- Every event there is gets its link, in order of id. A million of them take one or two minutes.

-- The lock of all writers, `WRITE_LOCK` of crates/store: nobody is in the middle of a transaction that has read events
-- and is about to append one. Readers go on until the last statements.
select pg_advisory_xact_lock(120325193165945);
lock table events in share row exclusive mode;

do $$
declare
    e        events;
    previous bytea  := event_chain_begin();
    n        bigint := 0;
begin
    for e in select * from events order by id loop
        n := n + 1;
        e.position := n;
        previous := event_hash(previous, e);
        update events set position = n, hash = previous where id = e.id;
    end loop;
end $$;

-- Whoever appends is the only writer, as all transactions of the store are. For those who are not the store's: the same
-- lock, `WRITE_LOCK` of crates/store.
create function lock_event_chain() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(120325193165945);
    return null;
end $$;
create trigger events_are_appended_one_by_one before insert on events
    for each statement execute function lock_event_chain();

create function chain_event() returns trigger language plpgsql as $$
declare
    last record;
begin
    -- Sees the rows before this one of the same statement, and what was committed before the lock was had.
    select e.position, e.hash into last from events e order by e.position desc limit 1;
    new.position := coalesce(last.position, 0) + 1;
    new.hash := event_hash(coalesce(last.hash, event_chain_begin()), new);
    return new;
end $$;
create trigger events_are_chained before insert on events
    for each row execute function chain_event();

-- A tripwire for mistakes, not the proof: whoever owns the table can drop it. The proof is the chain.
create function refuse_to_change_events() returns trigger language plpgsql as $$
begin
    raise exception 'events are append-only: % is refused', lower(tg_op) using errcode = 'restrict_violation';
end $$;
create trigger events_are_append_only before update or delete or truncate on events
    for each statement execute function refuse_to_change_events();

-- What `served?at=` looks up: the last of these at or before a time.
create index events_served on events (deployment, at_ms, id) where kind in ('WeightsChanged', 'DeploymentDeleted');

-- In the order of time there must be no other index: Postgres would walk that one back through the events of all others
-- for a deployment that was busy once and is quiet now. Events since a time are found by ranges of pages instead, as
-- they lie in that order.
create index events_since on events using brin (at_ms) with (autosummarize = on);
-- Two events cannot follow the same one: the chain never forks.
create unique index event_has_its_own_place on events (position);

-- From here on readers wait too, for a moment.
drop index events_by_time;
alter table events
    alter column position set not null,
    alter column hash set not null,
    add constraint event_has_its_own_place unique using index event_has_its_own_place;
