-- The office becomes a lease: whoever holds it renews it, and whoever finds it run out takes it, with the next epoch.
-- The clock is Postgres' own. A control plane from before this migration takes office by counting the epoch up; the
-- lease it leaves has run out, as it should.
alter table office
    -- Who is in office, unique among the control planes that run.
    add column holder  text not null default '',
    -- Where its API is reached by the others.
    add column address text not null default '',
    add column expires timestamptz not null default 'epoch';
