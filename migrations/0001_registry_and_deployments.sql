-- Modelyard's whole state. Times are milliseconds since the Unix epoch (`*_ms`). JSON columns hold values of the
-- crate `modelyard-core`, in their serde form.

-- The control plane's term of office. Whoever starts takes the next; commits of an earlier one are refused.
create table office (
    only_row boolean primary key default true constraint office_has_one_row check (only_row),
    epoch    bigint not null
);
insert into office (epoch) values (0);

create table models (
    name        text primary key,
    generation  bigint not null default 1,
    labels      jsonb  not null,
    description text,
    owner       text,
    created_ms  bigint not null
);

-- Immutable but for labels and metadata.
create table model_versions (
    model      text   not null constraint version_has_model references models (name),
    version    text   not null,
    format     text   not null,
    digest     text   not null,
    size       bigint not null,
    signature  jsonb  not null,
    labels     jsonb  not null,
    metadata   jsonb  not null,
    actor      text   not null,
    created_ms bigint not null,
    primary key (model, version)
);
create index model_versions_by_digest on model_versions (digest);

create table aliases (
    model      text   not null,
    alias      text   not null,
    version    text   not null,
    updated_ms bigint not null,
    primary key (model, alias),
    constraint alias_has_version foreign key (model, version) references model_versions (model, version)
);

-- Append-only. A move to no version is a drop.
create table alias_moves (
    id      bigint generated always as identity primary key,
    model   text   not null,
    alias   text   not null,
    version text,
    actor   text   not null,
    at_ms   bigint not null
);
create index alias_moves_by_model on alias_moves (model, alias, id);

create table deployments (
    name          text primary key,
    labels        jsonb  not null,
    -- The latest revision.
    target        bigint not null,
    -- What people ask of the rollout: written by the API alone.
    control       jsonb  not null,
    -- How far the rollout has come: written by the reconciler's commits alone.
    state         jsonb  not null,
    -- Grows with every write to this row: what a commit compares and sets.
    state_version bigint not null,
    created_ms    bigint not null
);

-- Numbers of revisions are never used twice, not even by a deployment of the same name made later.
create table revision_numbers (
    deployment text primary key,
    last       bigint not null
);

create table revisions (
    deployment text   not null constraint revision_has_deployment references deployments (name) on delete cascade,
    number     bigint not null,
    model      text   not null,
    version    text   not null,
    spec       jsonb  not null,
    cause      jsonb  not null,
    actor      text   not null,
    created_ms bigint not null,
    outcome    jsonb  not null,
    -- When it came to serve all traffic, if it did.
    served_ms  bigint,
    primary key (deployment, number),
    constraint revision_has_version foreign key (model, version) references model_versions (model, version)
);
create index revisions_by_version on revisions (model, version);

-- Append-only, and kept when what they tell of is deleted.
create table events (
    id         bigint generated always as identity primary key,
    at_ms      bigint not null,
    kind       text   not null,
    actor      text   not null,
    model      text,
    deployment text,
    message    text   not null,
    data       jsonb  not null
);
create index events_by_deployment on events (deployment, id);
create index events_by_kind on events (deployment, kind, at_ms);
create index events_by_time on events (at_ms);
