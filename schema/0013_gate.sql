-- migration: 13
-- name: gate
-- oldest-binary: 1
-- transaction: yes
--
-- What the broker's table of admitted certificates is fed from. Whatever changes what a certificate may do
-- at the broker leaves a row in gate_change; the feed reads the present state of those certificates. It
-- follows transaction numbers, not the order of rows: every transaction below the oldest one under way is
-- finished, so what was read up to there is complete, however late somebody commits.

SET LOCAL search_path = muster;

CREATE TABLE gate_change (
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    fingerprint sha256 NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (xid, seq)
);
COMMENT ON TABLE gate_change IS 'Certificates whose standing at the broker has changed, in the order of transactions; kept for days';
COMMENT ON COLUMN gate_change.xid IS 'The transaction that changed it: a reader''s position';
COMMENT ON COLUMN gate_change.seq IS 'Tells the rows of a transaction apart';
COMMENT ON COLUMN gate_change.fingerprint IS 'SHA-256 of the certificate''s DER';
COMMENT ON COLUMN gate_change.at IS 'When';

CREATE TABLE gate_head (
    one            boolean PRIMARY KEY DEFAULT true CHECK (one),
    pruned_through xid8 NOT NULL DEFAULT '0'
);
COMMENT ON TABLE gate_head IS 'One row: from where on gate_change is complete';
COMMENT ON COLUMN gate_head.one IS 'Always true, so that there is one row';
COMMENT ON COLUMN gate_head.pruned_through IS 'The last transaction of which rows were dropped; older positions must load everything';
INSERT INTO gate_head DEFAULT VALUES;

-- Certificates are written in batches, a statement each; the rest is rare.
CREATE FUNCTION gate_certificates_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.gate_change (fingerprint) SELECT m.fingerprint FROM made m WHERE m.purpose = 'operational';
    RETURN NULL;
END $$;
COMMENT ON FUNCTION gate_certificates_made IS 'Trigger: notes new operational certificates for the broker';
CREATE TRIGGER certificate_gate_made AFTER INSERT ON certificate REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION gate_certificates_made();

CREATE FUNCTION gate_row_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.gate_change (fingerprint) VALUES (NEW.fingerprint);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION gate_row_changed IS 'Trigger: notes a changed certificate or claim for the broker';
CREATE TRIGGER certificate_gate_changed AFTER UPDATE ON certificate FOR EACH ROW
    WHEN (NEW.purpose = 'operational' AND (OLD.status <> NEW.status OR OLD.active <> NEW.active))
    EXECUTE FUNCTION gate_row_changed();
CREATE TRIGGER claim_gate_made AFTER INSERT ON claim FOR EACH ROW EXECUTE FUNCTION gate_row_changed();
CREATE TRIGGER claim_gate_changed AFTER UPDATE ON claim FOR EACH ROW
    WHEN (OLD.revoke_mode IS DISTINCT FROM NEW.revoke_mode) EXECUTE FUNCTION gate_row_changed();

CREATE FUNCTION gate_device_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.gate_change (fingerprint) SELECT c.fingerprint FROM muster.certificate c
        WHERE c.device_id = NEW.id AND c.purpose = 'operational' AND c.status IN ('pending', 'current');
    RETURN NULL;
END $$;
COMMENT ON FUNCTION gate_device_changed IS 'Trigger: notes the live certificates of a changed device for the broker';
CREATE TRIGGER device_gate_changed AFTER UPDATE ON device FOR EACH ROW
    WHEN ((OLD.state = 'QUARANTINE') <> (NEW.state = 'QUARANTINE')
          OR (OLD.retired_at IS NULL) <> (NEW.retired_at IS NULL)
          OR OLD.thing_name IS DISTINCT FROM NEW.thing_name
          OR OLD.verify_mode <> NEW.verify_mode)
    EXECUTE FUNCTION gate_device_changed();

-- The numbers are those of enum wire_state in server/model/broker_wire.h.
CREATE FUNCTION gate_state(c certificate, d device) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN (c.purpose = 'operational' AND c.status IN ('pending', 'current') AND c.active
              AND d.state <> 'QUARANTINE' AND d.retired_at IS NULL) IS NOT TRUE THEN 0
        WHEN c.status = 'pending' AND d.verify_mode IN ('broker', 'call') THEN 3
        ELSE 2 END
$$;
COMMENT ON FUNCTION gate_state IS 'What an operational certificate may do at the broker: 0 nothing, 2 all a device may, 3 likewise and its first use is awaited';

CREATE FUNCTION gate_now() RETURNS TABLE (stable bigint, newest bigint, snapshot text, pruned_through bigint) LANGUAGE sql STABLE AS $$
    SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint, s::text, h.pruned_through::text::bigint
    FROM pg_current_snapshot() s, muster.gate_head h
$$;
COMMENT ON FUNCTION gate_now IS 'stable: every transaction below it is finished; newest: none above it has begun';

-- What is to be told to a table whose position is base: all rows of finished transactions from base up to stable, and
-- early those of later ones that snapshot seen did not show. after_xid and after_seq end the page before.
CREATE FUNCTION gate_changes(base bigint, stable bigint, seen text, after_xid bigint, after_seq bigint, most integer)
RETURNS TABLE (xid bigint, seq bigint, fingerprint bytea, state integer, thing text) LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT g.xid::text::bigint, g.seq, g.fingerprint,
        CASE WHEN k.id IS NULL THEN COALESCE(muster.gate_state(c, d), 0) WHEN k.revoke_mode = 'hard' THEN 0 ELSE 1 END,
        CASE WHEN k.id IS NULL AND muster.gate_state(c, d) > 0 THEN d.thing_name END
    FROM (SELECT x.xid, x.seq, x.fingerprint FROM muster.gate_change x
          WHERE x.xid >= base::text::xid8 AND (x.xid, x.seq) > (after_xid::text::xid8, after_seq)
            AND (x.xid < stable::text::xid8 OR seen IS NULL OR NOT pg_visible_in_snapshot(x.xid, seen::pg_snapshot))
          ORDER BY x.xid, x.seq LIMIT most) g
    LEFT JOIN muster.claim k ON k.fingerprint = g.fingerprint
    LEFT JOIN muster.certificate c ON c.fingerprint = g.fingerprint
    LEFT JOIN muster.device d ON d.id = c.device_id
    ORDER BY g.xid, g.seq
$$;
COMMENT ON FUNCTION gate_changes IS 'The present state of certificates that changed, for the broker''s table, page by page';

CREATE FUNCTION gate_certificates(after bigint, most integer) RETURNS TABLE (id bigint, fingerprint bytea, state integer, thing text)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT c.id, c.fingerprint, muster.gate_state(c, d), d.thing_name
    FROM muster.certificate c JOIN muster.device d ON d.id = c.device_id
    WHERE c.id > after AND muster.gate_state(c, d) > 0 ORDER BY c.id LIMIT most
$$;
COMMENT ON FUNCTION gate_certificates IS 'All operational certificates the broker may admit, page by page';

CREATE FUNCTION gate_claims(after bigint, most integer) RETURNS TABLE (id bigint, fingerprint bytea, state integer, thing text)
LANGUAGE sql STABLE AS $$
    SELECT k.id, k.fingerprint, 1, NULL FROM muster.claim k
    WHERE k.id > after AND k.revoke_mode IS DISTINCT FROM 'hard' ORDER BY k.id LIMIT most
$$;
COMMENT ON FUNCTION gate_claims IS 'All claims the broker may admit, page by page';

-- At most 200,000 rows a time, so that it is soon over; what is left is for the next hour.
CREATE FUNCTION gate_prune(days integer DEFAULT 2, spare integer DEFAULT 100000) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    cut xid8;
    last xid8;
    n bigint;
BEGIN
    SELECT g.xid INTO cut FROM muster.gate_change g ORDER BY g.xid DESC, g.seq DESC OFFSET spare LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH gone AS (
        DELETE FROM muster.gate_change x USING (SELECT g.xid, g.seq, g.at FROM muster.gate_change g
                WHERE g.xid < cut AND g.xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY g.xid, g.seq LIMIT 200000) o
            WHERE x.xid = o.xid AND x.seq = o.seq AND o.at < clock_timestamp() - make_interval(days => days)
            RETURNING x.xid)
    SELECT count(*), max(g.xid::text::bigint)::text::xid8 INTO n, last FROM gone g;
    UPDATE muster.gate_head SET pruned_through = last WHERE pruned_through < last;
    RETURN n;
END $$;
COMMENT ON FUNCTION gate_prune IS 'Drops old rows of gate_change; returns how many';

-- As before, and: what the broker saw was shown by the device.
CREATE OR REPLACE FUNCTION certificate_seen(fp bytea, how text, request text, source_text text) RETURNS TABLE (code text, detail text, serial text, thing text, configuration jsonb, state text)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    d muster.device;
    c muster.certificate;
BEGIN
    SELECT x.* INTO d FROM muster.device x JOIN muster.certificate y ON y.device_id = x.id
        WHERE y.fingerprint = fp FOR UPDATE OF x;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'cert.unknown', 'our CA signed the certificate, the registry does not have it', NULL, NULL, NULL::jsonb, NULL;
        RETURN;
    END IF;
    SELECT * INTO c FROM muster.certificate y WHERE y.fingerprint = fp;
    code := CASE
        WHEN c.status = 'revoked' THEN 'cert.revoked'
        WHEN c.purpose <> 'operational' THEN 'cert.wrong_purpose'
        WHEN d.retired_at IS NOT NULL THEN 'device.retired'
        WHEN d.state = 'QUARANTINE' THEN 'device.quarantined'
        WHEN c.status = 'superseded' THEN 'cert.superseded'
        ELSE 'ok' END;
    IF code = 'ok' AND muster.certificate_used(c.id) THEN
        INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, source, outcome, reached, state, fingerprint)
            SELECT request, d.product_id, d.id, d.serial, how, 'verify', CASE WHEN how IN ('config', 'broker') THEN 'device' ELSE 'operator' END, source_text,
                'ok', 'VERIFY', x.state, fp FROM muster.device x WHERE x.id = d.id;
    END IF;
    RETURN QUERY SELECT code, CASE WHEN c.ended_at IS NOT NULL THEN format('since %s', c.ended_at) ELSE d.quarantine_reason END,
        x.serial::text, x.thing_name::text, x.configuration, x.state::text FROM muster.device x WHERE x.id = d.id;
END $$;
