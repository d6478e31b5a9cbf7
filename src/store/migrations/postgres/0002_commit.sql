-- What a batch of commits changes.

-- One step of a commit. The rows are lists; ids and texts in somebody else's words stand in them as hexadecimal digits.
-- Where a row of the same key comes twice, the last one counts.
CREATE FUNCTION conclave_step(step text, given jsonb) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    CASE step
    WHEN 'recall' THEN
        UPDATE events AS e SET json = v->>2 FROM jsonb_array_elements(given) AS r (v)
        WHERE e.session_id = (v->>0)::uuid AND e.seq = (v->>1)::bigint;
    WHEN 'put_room_key' THEN
        INSERT INTO room_keys (session_id, user_id, epoch, sender, room_key, key_check, signature)
        SELECT DISTINCT ON (v->>0, v->>1, v->>2) (v->>0)::uuid, (v->>1)::uuid, (v->>2)::bigint, (v->>3)::uuid, v->>4,
            v->>5, v->>6
        FROM jsonb_array_elements(given) WITH ORDINALITY AS r (v, place) ORDER BY v->>0, v->>1, v->>2, place DESC
        ON CONFLICT (session_id, user_id, epoch) DO UPDATE SET sender = excluded.sender,
            room_key = excluded.room_key, key_check = excluded.key_check, signature = excluded.signature;
    WHEN 'drop_epoch' THEN
        DELETE FROM room_keys AS k USING jsonb_array_elements(given) AS r (v)
        WHERE k.session_id = (v->>0)::uuid AND k.epoch = (v->>1)::bigint;
    WHEN 'drop_room_key' THEN
        DELETE FROM room_keys AS k USING jsonb_array_elements(given) AS r (v)
        WHERE k.session_id = (v->>0)::uuid AND k.user_id = (v->>1)::uuid AND k.epoch = (v->>2)::bigint;
    WHEN 'drop_keys_of' THEN
        DELETE FROM room_keys AS k USING jsonb_array_elements(given) AS r (v)
        WHERE k.session_id = (v->>0)::uuid AND k.user_id = (v->>1)::uuid;
        DELETE FROM inbox AS i USING jsonb_array_elements(given) AS r (v)
        WHERE i.user_id = (v->>1)::uuid AND i.session_id = (v->>0)::uuid AND i.holds_key;
    WHEN 'put_inbox' THEN
        INSERT INTO inbox (user_id, inbox_id, session_id, version, holds_key, expires_at, json)
        SELECT (v->>0)::uuid, v->>1, (v->>2)::uuid, (v->>3)::bigint, (v->>4)::boolean, (v->>5)::bigint, v->>6
        FROM jsonb_array_elements(given) WITH ORDINALITY AS r (v, place) ORDER BY place;
    WHEN 'remove_inbox' THEN
        DELETE FROM inbox AS i USING jsonb_array_elements(given) AS r (v)
        WHERE i.user_id = (v->>0)::uuid AND i.inbox_id = v->>1;
    WHEN 'put_member' THEN
        INSERT INTO members AS m (session_id, user_id, role, joined_at, first_seq, acked_seq, held, sent, keys)
        SELECT DISTINCT ON (v->>0, v->>1) (v->>0)::uuid, (v->>1)::uuid, v->>2, (v->>3)::bigint, (v->>4)::bigint,
            (v->>4)::bigint - 1, (v->>5)::bigint, (v->>6)::bigint, v->>7
        FROM jsonb_array_elements(given) WITH ORDINALITY AS r (v, place) ORDER BY v->>0, v->>1, place DESC
        ON CONFLICT (session_id, user_id) DO UPDATE SET role = excluded.role, joined_at = excluded.joined_at,
            held = excluded.held, sent = excluded.sent, keys = excluded.keys, first_seq = excluded.first_seq,
            acked_seq = CASE WHEN excluded.first_seq = m.first_seq THEN m.acked_seq ELSE excluded.acked_seq END;
    WHEN 'remove_member' THEN
        DELETE FROM members AS m USING jsonb_array_elements(given) AS r (v)
        WHERE m.session_id = (v->>0)::uuid AND m.user_id = (v->>1)::uuid;
        INSERT INTO departures (user_id, session_id, reason, at)
        SELECT DISTINCT ON (v->>0, v->>1) (v->>1)::uuid, (v->>0)::uuid, v->>2, (v->>3)::bigint
        FROM jsonb_array_elements(given) WITH ORDINALITY AS r (v, place) ORDER BY v->>0, v->>1, place DESC
        ON CONFLICT (user_id, session_id) DO UPDATE SET reason = excluded.reason, at = excluded.at;
    WHEN 'put_restriction' THEN
        INSERT INTO restrictions (session_id, user_id, muted_until, banned_until)
        SELECT DISTINCT ON (v->>0, v->>1) (v->>0)::uuid, (v->>1)::uuid, (v->>2)::bigint, (v->>3)::bigint
        FROM jsonb_array_elements(given) WITH ORDINALITY AS r (v, place) ORDER BY v->>0, v->>1, place DESC
        ON CONFLICT (session_id, user_id) DO UPDATE SET muted_until = excluded.muted_until,
            banned_until = excluded.banned_until;
    WHEN 'remove_restriction' THEN
        DELETE FROM restrictions AS x USING jsonb_array_elements(given) AS r (v)
        WHERE x.session_id = (v->>0)::uuid AND x.user_id = (v->>1)::uuid;
    WHEN 'put_join_request' THEN
        INSERT INTO join_requests (session_id, user_id, leave_message, public_key, time, notices)
        SELECT DISTINCT ON (v->>0, v->>1) (v->>0)::uuid, (v->>1)::uuid, decode(v->>2, 'hex'), v->>3, (v->>4)::bigint,
            v->>5
        FROM jsonb_array_elements(given) WITH ORDINALITY AS r (v, place) ORDER BY v->>0, v->>1, place DESC
        ON CONFLICT (session_id, user_id) DO UPDATE SET leave_message = excluded.leave_message,
            public_key = excluded.public_key, time = excluded.time, notices = excluded.notices;
    WHEN 'remove_join_request' THEN
        DELETE FROM join_requests AS x USING jsonb_array_elements(given) AS r (v)
        WHERE x.session_id = (v->>0)::uuid AND x.user_id = (v->>1)::uuid;
    WHEN 'put_invitation' THEN
        INSERT INTO invitations (session_id, invitee, inviter, expires_at, lapsed, notice)
        SELECT DISTINCT ON (v->>0, v->>1, v->>2) (v->>0)::uuid, (v->>1)::uuid, (v->>2)::uuid, (v->>3)::bigint,
            (v->>4)::boolean, v->>5
        FROM jsonb_array_elements(given) WITH ORDINALITY AS r (v, place) ORDER BY v->>0, v->>1, v->>2, place DESC
        ON CONFLICT (session_id, invitee, inviter) DO UPDATE SET expires_at = excluded.expires_at,
            lapsed = excluded.lapsed, notice = excluded.notice;
    WHEN 'remove_invitation' THEN
        DELETE FROM invitations AS x USING jsonb_array_elements(given) AS r (v)
        WHERE x.session_id = (v->>0)::uuid AND x.invitee = (v->>1)::uuid AND x.inviter = (v->>2)::uuid;
    WHEN 'put_head' THEN
        INSERT INTO session_heads AS h (session_id, name, head, creation_reply)
        SELECT (v->>0)::uuid, decode(v->>1, 'hex'), v->>2, v->>3 FROM jsonb_array_elements(given) AS r (v)
        ON CONFLICT (session_id) DO UPDATE SET name = excluded.name, head = excluded.head,
            creation_reply = coalesce(excluded.creation_reply, h.creation_reply);
        UPDATE sessions AS s SET e2ee_on = (v->>4)::boolean, key_epoch = (v->>5)::bigint,
            rotating_since = (v->>6)::bigint
        FROM jsonb_array_elements(given) AS r (v)
        WHERE s.session_id = (v->>0)::uuid AND (s.e2ee_on, s.key_epoch, s.rotating_since)
            IS DISTINCT FROM ((v->>4)::boolean, (v->>5)::bigint, (v->>6)::bigint);
    WHEN 'remove_task' THEN
        DELETE FROM tasks AS t USING jsonb_array_elements(given) AS r (v)
        WHERE t.session_id = (v->>0)::uuid AND t.id = (v->>1)::bigint;
    WHEN 'end_keys' THEN
        DELETE FROM room_keys AS k USING jsonb_array_elements(given) AS r (v) WHERE k.session_id = (v->>0)::uuid;
        DELETE FROM inbox AS i USING jsonb_array_elements(given) AS r (v), members AS m
        WHERE m.session_id = (v->>0)::uuid AND i.user_id = m.user_id AND i.session_id = m.session_id AND i.holds_key;
    WHEN 'end_people' THEN
        INSERT INTO departures (user_id, session_id, reason, at)
        SELECT m.user_id, m.session_id, v->>2, (v->>1)::bigint
        FROM jsonb_array_elements(given) AS r (v) JOIN members AS m ON m.session_id = (v->>0)::uuid
        ON CONFLICT (user_id, session_id) DO UPDATE SET reason = excluded.reason, at = excluded.at;
        DELETE FROM members AS x USING jsonb_array_elements(given) AS r (v) WHERE x.session_id = (v->>0)::uuid;
        DELETE FROM restrictions AS x USING jsonb_array_elements(given) AS r (v) WHERE x.session_id = (v->>0)::uuid;
        DELETE FROM join_requests AS x USING jsonb_array_elements(given) AS r (v) WHERE x.session_id = (v->>0)::uuid;
        DELETE FROM invitations AS x USING jsonb_array_elements(given) AS r (v) WHERE x.session_id = (v->>0)::uuid;
    WHEN 'end_session' THEN
        DELETE FROM recent_msgs AS x USING jsonb_array_elements(given) AS r (v) WHERE x.session_id = (v->>0)::uuid;
        DELETE FROM tasks AS x USING jsonb_array_elements(given) AS r (v) WHERE x.session_id = (v->>0)::uuid;
        UPDATE sessions AS s SET ended_at = (v->>1)::bigint, wants_keys = false, rotating_since = NULL
        FROM jsonb_array_elements(given) AS r (v) WHERE s.session_id = (v->>0)::uuid;
    END CASE;
END $$;

-- A batch of commits in one call, and so in one round trip and one transaction.
--
-- Every row of the batch comes in arrays: one element per session, event, id to remember or to forget. Whatever
-- messages do not need comes as steps, each with its rows as one JSON list, in the order in which it was decided.
-- The answer has the sessions that this node may not write: 1, not its own with this fence and version; 2, made
-- before. Where there is one, nothing at all is written, and the rest of the batch comes again without it. What the
-- database refuses ends the call with an error, and nothing is written either.
CREATE FUNCTION conclave_commit(
    node uuid,
    -- Sessions that there are.
    c_session uuid[], c_fence bigint[], c_previous bigint[], c_version bigint[], c_seq bigint[], c_time bigint[],
    c_key_messages bigint[], c_wants_keys boolean[],
    -- Sessions to be made.
    n_session uuid[], n_creator uuid[], n_client_id bytea[], n_fence bigint[], n_version bigint[], n_seq bigint[],
    n_time bigint[], n_key_messages bigint[], n_wants_keys boolean[],
    e_session uuid[], e_seq bigint[], e_version bigint[], e_json text[],
    f_session uuid[], f_sender uuid[], f_id bytea[],
    r_session uuid[], r_sender uuid[], r_id bytea[], r_seq bigint[], r_time bigint[],
    s_step text[], s_rows text[],
    -- Everybody whom a row is written for: if their account is closed or disabled, the session is told.
    p_session uuid[], p_user uuid[]
) RETURNS TABLE (refused_session uuid, reason integer) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    mine uuid[];
    refused boolean := false;
BEGIN
    -- Locked in the order of ids, whoever else locks some of them.
    IF cardinality(c_session) > 0 THEN
        SELECT coalesce(array_agg(locked.session_id), '{}') INTO mine FROM (
            SELECT s.session_id
            FROM unnest(c_session, c_fence, c_previous) AS c (session_id, fence, previous)
            JOIN sessions AS s ON s.session_id = c.session_id AND s.owner_node = node AND s.fence = c.fence
                AND s.version = c.previous AND s.ended_at IS NULL
            ORDER BY s.session_id FOR NO KEY UPDATE OF s) AS locked;
        IF cardinality(mine) < cardinality(c_session) THEN
            RETURN QUERY SELECT c.session_id, 1 FROM unnest(c_session) AS c (session_id)
                WHERE c.session_id <> ALL (mine);
            refused := true;
        END IF;
    END IF;
    IF cardinality(n_session) > 0 THEN
        RETURN QUERY SELECT n.session_id, CASE WHEN before.session_id IS NULL THEN 1 ELSE 2 END
            FROM unnest(n_session, n_creator, n_client_id) AS n (session_id, creator, client_id)
            LEFT JOIN sessions AS same ON same.session_id = n.session_id
            LEFT JOIN sessions AS before ON before.creator = n.creator AND before.client_session_id = n.client_id
            WHERE same.session_id IS NOT NULL OR before.session_id IS NOT NULL;
        refused := refused OR FOUND;
    END IF;
    IF refused THEN
        RETURN;
    END IF;

    IF cardinality(c_session) > 0 THEN
        UPDATE sessions AS s SET version = c.version, last_seq = c.seq, last_time = c.at,
            key_messages = c.messages, wants_keys = c.wants
        FROM unnest(c_session, c_version, c_seq, c_time, c_key_messages, c_wants_keys)
            AS c (session_id, version, seq, at, messages, wants)
        WHERE s.session_id = c.session_id;
    END IF;
    IF cardinality(n_session) > 0 THEN
        INSERT INTO sessions (session_id, creator, client_session_id, owner_node, fence, version, last_seq, last_time,
            key_messages, wants_keys)
        SELECT n.session_id, n.creator, n.client_id, node, n.fence, n.version, n.seq, n.at, n.messages, n.wants
        FROM unnest(n_session, n_creator, n_client_id, n_fence, n_version, n_seq, n_time, n_key_messages, n_wants_keys)
            AS n (session_id, creator, client_id, fence, version, seq, at, messages, wants);
    END IF;
    IF cardinality(e_session) > 0 THEN
        INSERT INTO events (session_id, seq, version, json) SELECT * FROM unnest(e_session, e_seq, e_version, e_json);
    END IF;
    IF cardinality(f_session) > 0 THEN
        DELETE FROM recent_msgs AS r USING unnest(f_session, f_sender, f_id) AS f (session_id, sender, id)
        WHERE r.session_id = f.session_id AND r.sender = f.sender AND r.client_msg_id = f.id;
    END IF;
    IF cardinality(r_session) > 0 THEN
        INSERT INTO recent_msgs (session_id, sender, client_msg_id, seq, time)
        SELECT * FROM unnest(r_session, r_sender, r_id, r_seq, r_time);
    END IF;

    FOR i IN 1 .. cardinality(s_step) LOOP
        PERFORM conclave_step(s_step[i], s_rows[i]::jsonb);
    END LOOP;

    -- A lock that the closing of an account waits for, and waits for its end: one of both sees the other.
    IF cardinality(p_session) > 0 THEN
        PERFORM 1 FROM users WHERE user_id = ANY (p_user) ORDER BY user_id FOR KEY SHARE;
        INSERT INTO tasks (session_id, user_id, kind)
        SELECT p.session_id, p.user_id, 'closed'
        FROM (SELECT DISTINCT * FROM unnest(p_session, p_user)) AS p (session_id, user_id)
        JOIN users AS u ON u.user_id = p.user_id
        WHERE (u.closed_at IS NOT NULL OR u.disabled_at IS NOT NULL)
            AND NOT EXISTS (SELECT 1 FROM tasks AS t
                WHERE t.session_id = p.session_id AND t.user_id = p.user_id AND t.kind = 'closed')
            AND (EXISTS (SELECT 1 FROM members AS m WHERE m.session_id = p.session_id AND m.user_id = p.user_id)
                OR EXISTS (SELECT 1 FROM join_requests AS r
                    WHERE r.session_id = p.session_id AND r.user_id = p.user_id)
                OR EXISTS (SELECT 1 FROM invitations AS i
                    WHERE i.session_id = p.session_id AND i.invitee = p.user_id));
    END IF;
END $$;
