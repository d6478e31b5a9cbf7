-- What nodes tell of themselves and are asked for; accounts that an operator disabled.

DROP TABLE nodes;
CREATE TABLE nodes (
    node_id     TEXT    NOT NULL PRIMARY KEY,
    started_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    bus_ok_at   INTEGER,
    drain       INTEGER NOT NULL DEFAULT 0,
    program     TEXT    NOT NULL,
    wire_oldest INTEGER NOT NULL,
    wire_newest INTEGER NOT NULL,
    connections INTEGER NOT NULL,
    sessions    INTEGER NOT NULL,
    bus_ok      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE users ADD COLUMN disabled_at INTEGER;
