-- Events become a chain: each has a place, counted from 1 without gaps (ids have gaps, of transactions that were rolled
-- back), and a hash over the hash before it and all its own fields. Made here and not by whoever inserts, so that
-- events of a control plane from before this migration are links of it too. docs/audit.md says what it proves.
--
-- Two steps: this one is done at once; the next one gives links to the events there are, and keeps writers waiting for
-- that long, but not the renewal of the lease, which reads.
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
