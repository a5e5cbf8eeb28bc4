-- migration: 5
-- name: audit_chain
-- oldest-binary: 1
-- transaction: yes
--
-- The audit becomes a chain: every row carries the hash of the one before it, so that whoever holds an
-- export, or only its last hash, can tell whether a row was changed, taken out or put in.

SET LOCAL search_path = muster;

ALTER TABLE audit ALTER id DROP IDENTITY;
ALTER TABLE audit ADD COLUMN prev bytea CHECK (length(prev) = 32), ADD COLUMN hash bytea CHECK (length(hash) = 32);
COMMENT ON COLUMN audit.prev IS 'Hash of the row before it; of the first row ever, 32 zero bytes';
COMMENT ON COLUMN audit.hash IS 'SHA-256 of audit_record of this row';

CREATE TABLE audit_head (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    id   bigint NOT NULL,
    at   timestamptz NOT NULL DEFAULT now(),
    hash bytea NOT NULL CHECK (length(hash) = 32)
);
COMMENT ON TABLE audit_head IS 'One row: the newest row of the audit, so that a cut at the end shows';
COMMENT ON COLUMN audit_head.one IS 'Always true, so that there is one row';
COMMENT ON COLUMN audit_head.id IS 'Its number; numbers have no gaps';
COMMENT ON COLUMN audit_head.at IS 'Its time';
COMMENT ON COLUMN audit_head.hash IS 'Its hash';

CREATE FUNCTION audit_record(prev bytea, id bigint, at timestamptz, actor text, source text, action text, object text, detail jsonb)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT json_build_array(encode(prev, 'hex'), id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), actor, source, action, object, detail)::text
$$;
COMMENT ON FUNCTION audit_record IS 'What is hashed of an audit row: a JSON array as text, UTF-8';

-- Rows there are already are chained in their order.
ALTER TABLE audit DISABLE TRIGGER audit_immutable;
DO $$
DECLARE
    a record;
    h bytea := decode(repeat('00', 32), 'hex');
    n bigint := 0;
BEGIN
    FOR a IN SELECT * FROM muster.audit ORDER BY id LOOP
        n := n + 1;
        UPDATE muster.audit u SET id = n, prev = h, hash = sha256(convert_to(muster.audit_record(h, n, a.at, a.actor, a.source, a.action, a.object, a.detail), 'UTF8'))
            WHERE u.at = a.at AND u.id = a.id RETURNING u.hash INTO h;
    END LOOP;
    INSERT INTO muster.audit_head (id, hash) VALUES (n, h);
END $$;
ALTER TABLE audit ENABLE TRIGGER audit_immutable;
ALTER TABLE audit ALTER prev SET NOT NULL, ALTER hash SET NOT NULL;

-- Changes follow one another at the head: its lock is the last that a change takes.
CREATE FUNCTION audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    head muster.audit_head;
BEGIN
    SELECT * INTO head FROM muster.audit_head FOR UPDATE;
    NEW.id := head.id + 1;
    NEW.prev := head.hash;
    NEW.hash := sha256(convert_to(muster.audit_record(NEW.prev, NEW.id, NEW.at, NEW.actor, NEW.source, NEW.action, NEW.object, NEW.detail), 'UTF8'));
    UPDATE muster.audit_head SET id = NEW.id, at = NEW.at, hash = NEW.hash;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION audit_chain IS 'Numbers an audit row and chains it to the one before';
CREATE TRIGGER audit_chain BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_chain();

-- Old months go with retention: the chain then begins at the first row that is left.
CREATE FUNCTION desk_audit_verify(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    head muster.audit_head;
    total bigint;
    first_id bigint;
    last_id bigint;
    last_hash bytea;
    bad record;
BEGIN
    PERFORM muster.desk_unscoped(op);
    SELECT * INTO head FROM muster.audit_head;
    SELECT count(*), min(u.id), max(u.id) INTO total, first_id, last_id FROM muster.audit u;
    SELECT u.hash INTO last_hash FROM muster.audit u WHERE u.id = last_id;
    SELECT c.id, c.why INTO bad FROM (
        SELECT u.id, CASE
            WHEN u.hash <> sha256(convert_to(muster.audit_record(u.prev, u.id, u.at, u.actor, u.source, u.action, u.object, u.detail), 'UTF8')) THEN 'the row was changed'
            WHEN u.id <> first_id AND (lag(u.id) OVER w IS DISTINCT FROM u.id - 1) THEN 'rows before it are missing'
            WHEN u.id <> first_id AND (lag(u.hash) OVER w IS DISTINCT FROM u.prev) THEN 'it does not follow the row before it'
            WHEN u.id = 1 AND u.prev <> decode(repeat('00', 32), 'hex') THEN 'it is not the first row that ever was' END AS why
        FROM muster.audit u WINDOW w AS (ORDER BY u.id)) c
        WHERE c.why IS NOT NULL ORDER BY c.id LIMIT 1;
    -- retention keeps at least 31 days, but after that may leave nothing
    IF bad.id IS NULL AND head.id > 0 AND (total > 0 OR head.at > now() - interval '31 days')
        AND (last_id IS DISTINCT FROM head.id OR last_hash IS DISTINCT FROM head.hash) THEN
        SELECT head.id AS id, 'the newest rows are missing' AS why INTO bad;
    END IF;
    RETURN json_build_object('intact', bad.id IS NULL, 'rows', total, 'first', first_id, 'last', last_id,
        'hash', encode(head.hash, 'hex'), 'broken', bad.id, 'reason', bad.why);
END $$;
COMMENT ON FUNCTION desk_audit_verify IS 'GET /audit:verify';
