-- The shared store. Times are milliseconds since the Unix epoch by the database's clock, an end that never comes is
-- the largest integer. There are no foreign keys: a session's rows are written by its one owner, in the order it
-- decided. The key of every table that grows with use starts with session_id or user_id, so that it can be partitioned
-- by it. Texts in somebody else's words are bytea, in UTF-8: a text column refuses U+0000, the contract does not.
--
-- A node of the version before this schema's must still work on it: a later migration adds columns with defaults,
-- tables and functions, and takes nothing away that the version before it uses. Functions are replaced only by ones
-- that answer the same.

CREATE TABLE meta (
    name  text NOT NULL PRIMARY KEY,
    value text NOT NULL
);

-- One row for each node that probes.
CREATE TABLE probes (
    probe_id uuid   NOT NULL PRIMARY KEY,
    at       bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE nodes (
    node_id     uuid    NOT NULL PRIMARY KEY,
    started_at  bigint  NOT NULL,
    expires_at  bigint  NOT NULL,
    bus_ok_at   bigint,
    drain       boolean NOT NULL DEFAULT false,
    program     text    NOT NULL,
    wire_oldest bigint  NOT NULL,
    wire_newest bigint  NOT NULL,
    connections bigint  NOT NULL,
    sessions    bigint  NOT NULL,
    bus_ok      boolean NOT NULL
) WITH (fillfactor = 50);

-- Accounts.

CREATE TABLE users (
    user_id       uuid   NOT NULL PRIMARY KEY,
    name          text   NOT NULL UNIQUE,
    display_name  text,
    password_hash text   NOT NULL,
    public_key    text   NOT NULL,
    fingerprint   text   NOT NULL,
    created_at    bigint NOT NULL,
    closed_at     bigint,
    disabled_at   bigint
);

CREATE TABLE tokens (
    hash       bytea  NOT NULL PRIMARY KEY,
    -- The order in which they were given out.
    id         bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    user_id    uuid   NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX tokens_by_user ON tokens (user_id, id);
CREATE INDEX tokens_by_end ON tokens (expires_at);

-- Sessions. The row that every commit updates is kept small, with room beside it for its next version; what is large
-- and changes seldom is in session_heads.

CREATE TABLE sessions (
    session_id        uuid    NOT NULL PRIMARY KEY,
    creator           uuid    NOT NULL,
    client_session_id bytea,
    owner_node        uuid,
    fence             bigint  NOT NULL,
    version           bigint  NOT NULL,
    last_seq          bigint  NOT NULL,
    last_time         bigint  NOT NULL,
    key_messages      bigint  NOT NULL,
    e2ee_on           boolean NOT NULL DEFAULT false,
    key_epoch         bigint,
    rotating_since    bigint,
    -- Whether members lack the current key, or one is being made.
    wants_keys        boolean NOT NULL DEFAULT false,
    ended_at          bigint
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX sessions_by_client_id ON sessions (creator, client_session_id) WHERE client_session_id IS NOT NULL;
CREATE INDEX sessions_by_owner ON sessions (owner_node) WHERE owner_node IS NOT NULL;
CREATE INDEX sessions_rotating ON sessions (rotating_since) WHERE rotating_since IS NOT NULL;
CREATE INDEX sessions_wanting ON sessions (session_id) WHERE e2ee_on AND (wants_keys OR key_epoch IS NULL);
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE session_heads (
    session_id     uuid NOT NULL PRIMARY KEY,
    -- As the head has it, for lists of sessions.
    name           bytea,
    head           text NOT NULL,
    creation_reply text
);

CREATE TABLE events (
    session_id uuid   NOT NULL,
    seq        bigint NOT NULL,
    version    bigint NOT NULL,
    json       text   NOT NULL,
    PRIMARY KEY (session_id, seq)
);

CREATE TABLE recent_msgs (
    session_id    uuid   NOT NULL,
    sender        uuid   NOT NULL,
    client_msg_id bytea  NOT NULL,
    seq           bigint NOT NULL,
    time          bigint NOT NULL,
    PRIMARY KEY (session_id, sender, client_msg_id)
);

CREATE TABLE members (
    session_id uuid   NOT NULL,
    user_id    uuid   NOT NULL,
    role       text   NOT NULL,
    joined_at  bigint NOT NULL,
    first_seq  bigint NOT NULL,
    acked_seq  bigint NOT NULL,
    held       bigint,
    sent       bigint,
    -- The rest of what they have of the room keys, as JSON; mostly nothing.
    keys       text,
    PRIMARY KEY (session_id, user_id)
) WITH (fillfactor = 80);
CREATE INDEX members_by_user ON members (user_id, session_id);
CREATE INDEX members_by_joining ON members (session_id, first_seq);

CREATE TABLE restrictions (
    session_id   uuid NOT NULL,
    user_id      uuid NOT NULL,
    muted_until  bigint,
    banned_until bigint,
    PRIMARY KEY (session_id, user_id)
);

CREATE TABLE join_requests (
    session_id    uuid   NOT NULL,
    user_id       uuid   NOT NULL,
    leave_message bytea,
    public_key    text   NOT NULL,
    time          bigint NOT NULL,
    notices       text   NOT NULL,
    PRIMARY KEY (session_id, user_id)
);
CREATE INDEX join_requests_by_user ON join_requests (user_id);

CREATE TABLE invitations (
    session_id uuid    NOT NULL,
    invitee    uuid    NOT NULL,
    inviter    uuid    NOT NULL,
    expires_at bigint  NOT NULL,
    lapsed     boolean NOT NULL,
    notice     text    NOT NULL,
    PRIMARY KEY (session_id, invitee, inviter)
);
CREATE INDEX invitations_by_invitee ON invitations (invitee);

CREATE TABLE room_keys (
    session_id uuid   NOT NULL,
    user_id    uuid   NOT NULL,
    epoch      bigint NOT NULL,
    sender     uuid   NOT NULL,
    room_key   text   NOT NULL,
    key_check  text,
    signature  text,
    PRIMARY KEY (session_id, user_id, epoch)
);

-- What a session has to take in from outside.
CREATE TABLE tasks (
    session_id  uuid   NOT NULL,
    id          bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    user_id     uuid   NOT NULL,
    kind        text   NOT NULL,
    fingerprint text,
    PRIMARY KEY (session_id, id)
);

-- Users.

CREATE TABLE inbox (
    user_id    uuid    NOT NULL,
    -- The order in which they came.
    id         bigint  NOT NULL GENERATED ALWAYS AS IDENTITY,
    inbox_id   text    NOT NULL,
    session_id uuid    NOT NULL,
    version    bigint  NOT NULL,
    holds_key  boolean NOT NULL,
    expires_at bigint,
    json       text    NOT NULL,
    PRIMARY KEY (user_id, id)
);
CREATE UNIQUE INDEX inbox_by_name ON inbox (user_id, inbox_id);
CREATE INDEX inbox_by_end ON inbox (expires_at) WHERE expires_at IS NOT NULL;

-- Sessions that a user was in, and why no longer.
CREATE TABLE departures (
    user_id    uuid   NOT NULL,
    session_id uuid   NOT NULL,
    reason     text   NOT NULL,
    at         bigint NOT NULL,
    PRIMARY KEY (user_id, session_id)
);
CREATE INDEX departures_by_time ON departures (at);

-- The store's clock, in milliseconds: the moment itself and not the transaction's beginning.
CREATE FUNCTION conclave_now() RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- The name of the history that sequence numbers are of. A database that came out of a backup, or goes on where a
-- standby left off, is another one: its numbers may be given out a second time.
CREATE FUNCTION conclave_history() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    identity text;
    known text;
BEGIN
    SELECT s.system_identifier || '/' || c.timeline_id || '/' || d.oid INTO identity
        FROM pg_control_system() AS s, pg_control_checkpoint() AS c, pg_database AS d
        WHERE d.datname = current_database();
    SELECT value INTO known FROM meta WHERE name = 'identity';
    IF known IS DISTINCT FROM identity THEN
        INSERT INTO meta (name, value) VALUES ('identity', '') ON CONFLICT DO NOTHING;
        -- Whoever waited here finds what the first one wrote.
        SELECT value INTO known FROM meta WHERE name = 'identity' FOR UPDATE;
        IF known IS DISTINCT FROM identity THEN
            UPDATE meta SET value = identity WHERE name = 'identity';
            INSERT INTO meta (name, value) VALUES ('history', replace(gen_random_uuid()::text, '-', ''))
                ON CONFLICT (name) DO UPDATE SET value = excluded.value;
        END IF;
    END IF;
    RETURN (SELECT value FROM meta WHERE name = 'history');
END $$;

-- Writes down for each session of a user what happened to the account. Called behind the change of the account, in
-- its transaction: a commit that brings the user in either saw that change or is seen here.
CREATE FUNCTION conclave_tell_sessions(who uuid, what text, print text, members_only boolean) RETURNS SETOF uuid
LANGUAGE sql VOLATILE AS $$
    INSERT INTO tasks (session_id, user_id, kind, fingerprint)
    SELECT session_id, who, what, print FROM (
        SELECT session_id FROM members WHERE user_id = who
        UNION SELECT session_id FROM join_requests WHERE user_id = who AND NOT members_only
        UNION SELECT session_id FROM invitations WHERE invitee = who AND NOT members_only) AS s
    RETURNING session_id
$$;

CREATE FUNCTION conclave_set_public_key(who uuid, new_key text, print text) RETURNS SETOF uuid
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET public_key = new_key, fingerprint = print
        WHERE user_id = who AND closed_at IS NULL AND disabled_at IS NULL;
    IF FOUND THEN
        RETURN QUERY SELECT * FROM conclave_tell_sessions(who, 'public_key_changed', print, true);
    END IF;
END $$;

CREATE FUNCTION conclave_close_account(who uuid, at bigint) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE user_id = who FOR UPDATE;
    UPDATE users SET closed_at = at, password_hash = '', display_name = NULL
        WHERE user_id = who AND closed_at IS NULL;
    IF FOUND THEN
        DELETE FROM tokens WHERE user_id = who;
        DELETE FROM inbox WHERE user_id = who;
        RETURN QUERY SELECT * FROM conclave_tell_sessions(who, 'closed', NULL, false);
    END IF;
END $$;

CREATE FUNCTION conclave_disable_user(who uuid, at bigint) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE user_id = who FOR UPDATE;
    UPDATE users SET disabled_at = at WHERE user_id = who AND closed_at IS NULL AND disabled_at IS NULL;
    IF FOUND THEN
        DELETE FROM tokens WHERE user_id = who;
        RETURN QUERY SELECT * FROM conclave_tell_sessions(who, 'closed', NULL, false);
    END IF;
END $$;
