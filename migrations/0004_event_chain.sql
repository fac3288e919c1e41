-- Events become a chain: each has a place, counted from 1 without gaps (ids have gaps, of transactions that were rolled
-- back), and a hash over the hash before it and all its own fields. Made here and not by whoever inserts, so that
-- events of a control plane from before this migration are links of it too. docs/audit.md says what it proves.
--
-- Every event there is gets its link now, in order of id; nobody reads or writes events meanwhile.
alter table events
    add column position bigint,
    add column hash     bytea;

-- A field as the hash takes it: its length in bytes, then its text in UTF-8. Nothing: the length -1.
create function event_field(field text) returns bytea language sql stable as
    $$ select case when field is null then int4send(-1)
                   else int4send(length(convert_to(field, 'UTF8'))) || convert_to(field, 'UTF8') end $$;

-- SHA-256. `modelyard_core::chain` computes the same, for those who do not trust this database.
create function event_hash(previous bytea, e events) returns bytea language plpgsql stable as $$
begin
    return sha256(
        convert_to('modelyard.event.v1', 'UTF8') || previous
        || int8send(e.position) || int8send(e.id) || int8send(e.at_ms)
        || event_field(e.kind) || event_field(e.actor) || event_field(e.model) || event_field(e.deployment)
        || event_field(e.message) || event_field(e.data::text));
end $$;

-- What the first event follows.
create function event_chain_begin() returns bytea language sql immutable as
    $$ select decode(repeat('00', 32), 'hex') $$;

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

alter table events
    alter column position set not null,
    alter column hash set not null,
    -- Two events cannot follow the same one: the chain never forks.
    add constraint event_has_its_own_place unique (position);

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
drop index events_by_time;
create index events_by_time on events using brin (at_ms) with (autosummarize = on);
