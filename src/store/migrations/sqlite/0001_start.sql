-- The embedded store. Ids are 16 bytes, times are milliseconds since the Unix epoch, an end that never comes is the
-- largest integer. There are no foreign keys: a session's rows are written by its one owner, in the order it decided.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row, written by the probe that proves that the store commits.
CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    node_id    TEXT    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Accounts.

CREATE TABLE users (
    user_id       BLOB    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    display_name  TEXT,
    password_hash TEXT    NOT NULL,
    public_key    TEXT    NOT NULL,
    fingerprint   TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    closed_at     INTEGER
) STRICT;

-- In the order in which they were given out.
CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE,
    user_id    BLOB    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_by_end ON tokens (expires_at);

-- Sessions. The row that every commit updates is kept small; what is large and changes seldom is in session_heads.

CREATE TABLE sessions (
    session_id        BLOB    NOT NULL PRIMARY KEY,
    creator           BLOB    NOT NULL,
    client_session_id TEXT,
    owner_node        TEXT,
    fence             INTEGER NOT NULL,
    version           INTEGER NOT NULL,
    last_seq          INTEGER NOT NULL,
    last_time         INTEGER NOT NULL,
    key_messages      INTEGER NOT NULL,
    e2ee_on           INTEGER NOT NULL DEFAULT 0,
    key_epoch         INTEGER,
    rotating_since    INTEGER,
    -- Whether members lack the current key, or one is being made.
    wants_keys        INTEGER NOT NULL DEFAULT 0,
    ended_at          INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX sessions_by_client_id ON sessions (creator, client_session_id) WHERE client_session_id IS NOT NULL;
CREATE INDEX sessions_by_owner ON sessions (owner_node) WHERE owner_node IS NOT NULL;
CREATE INDEX sessions_rotating ON sessions (rotating_since) WHERE rotating_since IS NOT NULL;
CREATE INDEX sessions_wanting ON sessions (session_id) WHERE e2ee_on AND (wants_keys OR key_epoch IS NULL);
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE session_heads (
    session_id     BLOB NOT NULL PRIMARY KEY,
    head           TEXT NOT NULL,
    creation_reply TEXT
) STRICT;

-- Events lie in the order in which they came, whatever their session: rows are added at the end and never grow, so no
-- page with texts in it is ever split, and a recalled text leaves no second copy in the slack of a page.
CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    session_id BLOB    NOT NULL,
    seq        INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    json       TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_by_seq ON events (session_id, seq);

-- What stands in for a recalled message, whose row in events is empty.
CREATE TABLE recalled (
    session_id BLOB    NOT NULL,
    seq        INTEGER NOT NULL,
    json       TEXT    NOT NULL,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE recent_msgs (
    session_id    BLOB    NOT NULL,
    sender        BLOB    NOT NULL,
    client_msg_id TEXT    NOT NULL,
    seq           INTEGER NOT NULL,
    time          INTEGER NOT NULL,
    PRIMARY KEY (session_id, sender, client_msg_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    session_id BLOB    NOT NULL,
    user_id    BLOB    NOT NULL,
    role       TEXT    NOT NULL,
    joined_at  INTEGER NOT NULL,
    first_seq  INTEGER NOT NULL,
    acked_seq  INTEGER NOT NULL,
    held       INTEGER,
    sent       INTEGER,
    -- The rest of what they have of the room keys, as JSON; mostly nothing.
    keys       TEXT,
    PRIMARY KEY (session_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user_id);
CREATE INDEX members_by_joining ON members (session_id, first_seq);

CREATE TABLE restrictions (
    session_id   BLOB NOT NULL,
    user_id      BLOB NOT NULL,
    muted_until  INTEGER,
    banned_until INTEGER,
    PRIMARY KEY (session_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE join_requests (
    session_id    BLOB    NOT NULL,
    user_id       BLOB    NOT NULL,
    leave_message TEXT,
    public_key    TEXT    NOT NULL,
    time          INTEGER NOT NULL,
    notices       TEXT    NOT NULL,
    PRIMARY KEY (session_id, user_id)
) STRICT;
CREATE INDEX join_requests_by_user ON join_requests (user_id);

CREATE TABLE invitations (
    session_id BLOB    NOT NULL,
    invitee    BLOB    NOT NULL,
    inviter    BLOB    NOT NULL,
    expires_at INTEGER NOT NULL,
    lapsed     INTEGER NOT NULL,
    notice     TEXT    NOT NULL,
    PRIMARY KEY (session_id, invitee, inviter)
) STRICT, WITHOUT ROWID;
CREATE INDEX invitations_by_invitee ON invitations (invitee);

CREATE TABLE room_keys (
    session_id BLOB    NOT NULL,
    user_id    BLOB    NOT NULL,
    epoch      INTEGER NOT NULL,
    sender     BLOB    NOT NULL,
    room_key   TEXT    NOT NULL,
    key_check  TEXT,
    signature  TEXT,
    PRIMARY KEY (session_id, user_id, epoch)
) STRICT;

-- What a session has to take in from outside.
CREATE TABLE tasks (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id  BLOB NOT NULL,
    user_id     BLOB NOT NULL,
    kind        TEXT NOT NULL,
    fingerprint TEXT
) STRICT;
CREATE INDEX tasks_by_session ON tasks (session_id);

-- Users.

-- In the order in which they came.
CREATE TABLE inbox (
    id         INTEGER PRIMARY KEY,
    user_id    BLOB    NOT NULL,
    inbox_id   TEXT    NOT NULL,
    session_id BLOB    NOT NULL,
    version    INTEGER NOT NULL,
    holds_key  INTEGER NOT NULL,
    expires_at INTEGER,
    json       TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX inbox_by_name ON inbox (user_id, inbox_id);
CREATE INDEX inbox_by_user ON inbox (user_id);
CREATE INDEX inbox_by_end ON inbox (expires_at) WHERE expires_at IS NOT NULL;

-- Sessions that a user was in, and why no longer.
CREATE TABLE departures (
    user_id    BLOB    NOT NULL,
    session_id BLOB    NOT NULL,
    reason     TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (user_id, session_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX departures_by_time ON departures (at);
