-- A/B tests: the variants of revisions, what comes of requests, and who was assigned to what.

-- Of an A/B test: what serves side by side, each with its whole version. Else none.
alter table revisions add column variants jsonb not null default '[]';

-- Each once, however often it is posted. Units are hashes.
create table outcomes (
    deployment text   not null constraint outcome_has_deployment references deployments (name) on delete cascade,
    -- The revision that began the experiment.
    experiment bigint not null,
    -- The first revision with the weights that the unit was assigned by.
    layout     bigint not null,
    metric     text   not null,
    -- Of the request, or else of the unit.
    key        text   not null,
    variant    text   not null,
    unit       text   not null,
    value      double precision not null,
    at_ms      bigint not null,
    primary key (deployment, experiment, metric, key)
);
create index outcomes_by_layout on outcomes (deployment, experiment, layout);

-- What each gateway process counted of who was assigned to a variant, in one window: gateways begin anew when they
-- start, and experiments last for weeks.
create table exposures (
    deployment      text   not null constraint exposure_has_deployment references deployments (name) on delete cascade,
    revision        bigint not null,
    variant         text   not null,
    gateway         text   not null,
    window_revision bigint not null,
    window_step     bigint not null,
    requests        bigint not null,
    -- A sample of units, as ranks.
    units           jsonb  not null,
    primary key (deployment, revision, variant, gateway, window_revision, window_step)
);
