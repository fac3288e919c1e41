-- Who may use the admin API. A token itself is nowhere: only its SHA-256, in hexadecimal digits.
create table tokens (
    id         bigint generated always as identity primary key,
    -- Whom the events name. Not unique: one has an old and a new token while changing them.
    name       text   not null,
    digest     text   not null constraint token_is_unique unique,
    role       text   not null constraint token_has_role
               check (role in ('viewer', 'operator', 'admin', 'gateway', 'worker')),
    created_ms bigint not null,
    expires_ms bigint not null,
    created_by text   not null
);
create index tokens_by_expiry on tokens (expires_ms);
