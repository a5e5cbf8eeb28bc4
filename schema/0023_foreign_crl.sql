-- migration: 23
-- name: foreign_crl
-- oldest-binary: 1
-- transaction: yes
--
-- CRLs of registered CAs, as their holders publish them and operators upload them.

SET LOCAL search_path = muster;

ALTER TABLE ca ADD COLUMN crl_mode text NOT NULL DEFAULT 'use' CHECK (crl_mode IN ('off', 'use', 'require'));
COMMENT ON COLUMN ca.crl_mode IS 'What its CRL counts for: off: nothing; use: what is on it is refused; require: and without one that is in date, everything';
ALTER TABLE ca ADD COLUMN closed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ca.closed IS 'A CRL is required and none is in date: its devices'' own certificates are refused at the broker';

CREATE TABLE ca_crl (
    ca_id       bigint PRIMARY KEY REFERENCES ca,
    der         bytea NOT NULL,
    number      bytea NOT NULL,
    this_update timestamptz NOT NULL,
    next_update timestamptz NOT NULL CHECK (next_update > this_update),
    entries     bigint NOT NULL,
    uploaded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    uploaded_by text NOT NULL,
    apply_until timestamptz NOT NULL DEFAULT clock_timestamp() + interval '5 minutes'
);
COMMENT ON TABLE ca_crl IS 'The latest CRL of a registered CA or helper';
COMMENT ON COLUMN ca_crl.ca_id IS 'The CA that signed it';
COMMENT ON COLUMN ca_crl.der IS 'CertificateList, DER';
COMMENT ON COLUMN ca_crl.number IS 'cRLNumber, big endian; empty: it has none';
COMMENT ON COLUMN ca_crl.this_update IS 'thisUpdate';
COMMENT ON COLUMN ca_crl.next_update IS 'nextUpdate';
COMMENT ON COLUMN ca_crl.entries IS 'How many certificates are on it';
COMMENT ON COLUMN ca_crl.uploaded_at IS 'When it was uploaded';
COMMENT ON COLUMN ca_crl.uploaded_by IS 'The operator';
COMMENT ON COLUMN ca_crl.apply_until IS 'Until when devices that registered themselves meanwhile are compared with it';
CREATE TRIGGER ca_crl_epoch AFTER INSERT OR UPDATE OR DELETE ON ca_crl FOR EACH STATEMENT EXECUTE FUNCTION epoch_raise();

-- Whether a serial number is one of a device's own certificate.
CREATE INDEX certificate_foreign_number_idx ON certificate (serial_number) WHERE origin = 'registered' AND status IN ('pending', 'current');

CREATE OR REPLACE FUNCTION gate_state_now(c certificate, d device) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN c.origin = 'registered' AND EXISTS (SELECT 1 FROM muster.ca a WHERE a.id = c.issuer_id AND (NOT a.active OR a.closed)) THEN 0
        ELSE muster.gate_state(c, d) END
$$;
DROP TRIGGER ca_gate_changed ON ca;
CREATE TRIGGER ca_gate_changed AFTER UPDATE ON ca FOR EACH ROW
    WHEN (NEW.kind = 'registered' AND (OLD.active <> NEW.active OR OLD.closed <> NEW.closed)) EXECUTE FUNCTION gate_ca_changed();

CREATE FUNCTION ca_crl_lacks(c ca) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT c.crl_mode = 'require' AND NOT EXISTS (SELECT 1 FROM muster.ca_crl x WHERE x.ca_id = c.id AND x.next_update > clock_timestamp())
$$;
COMMENT ON FUNCTION ca_crl_lacks IS 'A CRL is required and none is in date';

CREATE FUNCTION ca_crl_close() RETURNS integer LANGUAGE sql AS $$
    WITH moved AS (UPDATE muster.ca c SET closed = NOT c.closed WHERE c.closed <> muster.ca_crl_lacks(c) RETURNING 1) SELECT count(*)::integer FROM moved
$$;
COMMENT ON FUNCTION ca_crl_close IS 'Closes CAs whose required CRL is overdue, opens others; how many';

CREATE FUNCTION ca_crl_json(ca bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('number', encode(x.number, 'hex'), 'this_update', muster.utc(x.this_update), 'next_update', muster.utc(x.next_update),
        'entries', x.entries, 'uploaded_at', muster.utc(x.uploaded_at), 'uploaded_by', x.uploaded_by) FROM muster.ca_crl x WHERE x.ca_id = ca
$$;
COMMENT ON FUNCTION ca_crl_json IS 'The CRL of a CA as the API shows it';

CREATE OR REPLACE FUNCTION ca_json(c ca) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', c.id, 'name', c.name, 'kind', c.kind, 'active', c.active, 'subject', c.subject,
        'fingerprint', encode(c.fingerprint, 'hex'), 'template', (SELECT t.name FROM muster.template t WHERE t.id = c.template_id),
        'auto_registration', c.auto_registration, 'jit', CASE WHEN c.kind = 'registered' THEN c.jit END, 'proof', c.proof,
        'crl_mode', CASE WHEN c.kind IN ('registered', 'helper') THEN c.crl_mode END, 'crl', muster.ca_crl_json(c.id),
        'not_after', muster.utc(c.not_after), 'created_at', muster.utc(c.created_at))
$$;

-- As before, and: crl_mode, which helpers have as well.
CREATE OR REPLACE FUNCTION desk_ca_update(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.ca;
    t bigint;
BEGIN
    PERFORM muster.desk_unscoped(op);
    SELECT * INTO c FROM muster.ca x WHERE x.name = a->>'name' FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no CA %s', a->>'name'));
    ELSIF c.kind <> 'registered' AND (c.kind <> 'helper' OR a ?| ARRAY['template', 'auto_registration', 'jit']) THEN
        PERFORM muster.refuse('request.conflict', format('%s is of kind %s; only registered CAs register devices', c.name, c.kind));
    END IF;
    IF a->>'template' IS NOT NULL THEN
        SELECT x.id INTO t FROM muster.desk_template(op, a->>'template') x;
        c.template_id := t;
    END IF;
    c.auto_registration := COALESCE((a->>'auto_registration')::boolean, c.auto_registration);
    c.jit := COALESCE(a->>'jit', c.jit);
    c.crl_mode := COALESCE(a->>'crl_mode', c.crl_mode);
    PERFORM muster.ca_jit_check(c.auto_registration, c.jit, c.template_id);
    IF a->>'crl_mode' IS NOT NULL THEN
        UPDATE muster.ca_crl SET apply_until = clock_timestamp() + interval '5 minutes' WHERE ca_id = c.id;
    END IF;
    UPDATE muster.ca SET template_id = c.template_id, auto_registration = c.auto_registration, jit = c.jit, crl_mode = c.crl_mode,
        closed = muster.ca_crl_lacks(c) WHERE id = c.id RETURNING * INTO c;
    PERFORM muster.desk_audit(op, 'ca.update', c.name, jsonb_build_object('template', a->>'template', 'auto_registration', c.auto_registration, 'jit', c.jit,
        'crl_mode', c.crl_mode));
    RETURN muster.ca_json(c)::json;
END $$;

-- a: name, der, number (hexadecimal), this_update, next_update (seconds since 1970), entries. An older one than that which is there is refused: it
-- would give back what was taken.
CREATE FUNCTION desk_ca_crl(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.ca;
    x muster.ca_crl;
    num bytea := decode(a->>'number', 'hex');
BEGIN
    PERFORM muster.desk_unscoped(op);
    SELECT * INTO c FROM muster.ca y WHERE y.name = a->>'name' FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no CA %s', a->>'name'));
    ELSIF c.kind NOT IN ('registered', 'helper') THEN
        PERFORM muster.refuse('request.conflict', format('%s is our own; its CRL is signed here', c.name));
    END IF;
    SELECT * INTO x FROM muster.ca_crl y WHERE y.ca_id = c.id;
    IF x.this_update > to_timestamp((a->>'this_update')::bigint) OR (length(num), num) < (length(x.number), x.number) THEN
        PERFORM muster.refuse('request.conflict', format('the CRL that is there is newer: number %s of %s', encode(x.number, 'hex'), muster.utc(x.this_update)));
    END IF;
    INSERT INTO muster.ca_crl VALUES (c.id, decode(a->>'der', 'hex'), num, to_timestamp((a->>'this_update')::bigint), to_timestamp((a->>'next_update')::bigint),
            (a->>'entries')::bigint, clock_timestamp(), op->>'actor')
        ON CONFLICT (ca_id) DO UPDATE SET der = excluded.der, number = excluded.number, this_update = excluded.this_update, next_update = excluded.next_update,
            entries = excluded.entries, uploaded_at = excluded.uploaded_at, uploaded_by = excluded.uploaded_by, apply_until = excluded.apply_until;
    UPDATE muster.ca SET closed = muster.ca_crl_lacks(c) WHERE id = c.id;
    PERFORM muster.desk_audit(op, 'ca.crl', c.name, jsonb_build_object('number', a->>'number', 'entries', (a->>'entries')::bigint, 'next_update', (a->>'next_update')::bigint));
    RETURN muster.ca_json(c)::json;
END $$;
COMMENT ON FUNCTION desk_ca_crl IS 'POST /cas/{name}/crl';

-- Devices' own certificates with one of these serial numbers; whose CA they are of is for the caller to see.
CREATE FUNCTION foreign_listed(numbers text[]) RETURNS TABLE (id bigint, der bytea) LANGUAGE sql STABLE AS $$
    SELECT c.id, x.der FROM unnest(numbers) n JOIN muster.certificate c ON c.serial_number = decode(n, 'hex') AND c.origin = 'registered' AND c.status IN ('pending', 'current')
    JOIN muster.certificate_der x ON x.certificate_id = c.id
$$;
COMMENT ON FUNCTION foreign_listed IS 'Live certificates of registered CAs by serial number, hexadecimal';

CREATE FUNCTION foreign_revoke(cert bigint, why text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c muster.certificate;
    d muster.device;
BEGIN
    SELECT y.* INTO d FROM muster.device y JOIN muster.certificate x ON x.device_id = y.id WHERE x.id = cert FOR UPDATE OF y;
    SELECT * INTO c FROM muster.certificate x WHERE x.id = cert FOR UPDATE;
    IF c.status = 'revoked' THEN
        RETURN false;
    END IF;
    PERFORM muster.certificate_revoke(cert, why);
    INSERT INTO muster.outbox (event, payload) VALUES ('certificate.revoked', jsonb_build_object('serial', d.serial, 'fingerprint', encode(c.fingerprint, 'hex'),
        'reason', why, 'crl_of', (SELECT a.name FROM muster.ca a WHERE a.id = c.issuer_id)));
    RETURN true;
END $$;
COMMENT ON FUNCTION foreign_revoke IS 'Revokes a device''s own certificate that is on its CA''s CRL';

-- The doctor, and: CRLs of registered CAs.
CREATE OR REPLACE FUNCTION doctor_crls() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE((SELECT jsonb_agg(muster.doctor_row('CRL of ' || q.name, q.late, CASE WHEN q.ends < now() THEN 'error' ELSE 'warning' END,
            format('nextUpdate is %s', muster.utc(q.ends)), 'a replica with the issuing key signs it: read its log for crl.not_signed'))
        FROM (SELECT a.name, min(c.next_update) AS ends, bool_or(now() > c.next_update - (c.next_update - c.this_update) / 4) AS late
            FROM muster.crl c JOIN muster.ca a ON a.id = c.issuer_id WHERE a.not_after > now() GROUP BY 1) q), '[]')
        || COALESCE((SELECT jsonb_agg(muster.doctor_row('CRL of ' || a.name, c.next_update IS NULL OR c.next_update < now() + interval '1 day',
            CASE WHEN a.crl_mode = 'require' AND (c.next_update IS NULL OR c.next_update < now()) THEN 'error' ELSE 'warning' END,
            CASE WHEN c.next_update IS NULL THEN 'it is required and was never uploaded: nobody with a certificate of this CA gets in'
                ELSE format('nextUpdate is %s', muster.utc(c.next_update)) END, 'muster ca crl ' || a.name || ' FILE') ORDER BY a.name)
        FROM muster.ca a LEFT JOIN muster.ca_crl c ON c.ca_id = a.id
        WHERE a.kind IN ('registered', 'helper') AND a.active AND a.crl_mode <> 'off' AND (c.ca_id IS NOT NULL OR a.crl_mode = 'require')), '[]')
$$;

-- As before, and: CRLs of registered CAs.
CREATE OR REPLACE FUNCTION expiry_tell_crls() RETURNS SETOF jsonb LANGUAGE sql AS $$
    WITH all_of AS (
        SELECT format('crl:%s:%s:%s:%s', c.issuer_id, c.shards, c.shard, c.is_delta) AS subject, c.issuer_id AS ca_id, c.this_update, c.next_update,
            CASE WHEN c.is_delta THEN 'delta' ELSE 'full' END AS kind, c.shards, c.shard FROM muster.crl c
        UNION ALL SELECT format('crl:%s', c.ca_id), c.ca_id, c.this_update, c.next_update, 'uploaded', 1, 0 FROM muster.ca_crl c
            JOIN muster.ca a ON a.id = c.ca_id WHERE a.active AND a.crl_mode <> 'off'),
    late AS (SELECT x.*, a.name FROM all_of x JOIN muster.ca a ON a.id = x.ca_id
        WHERE a.not_after > clock_timestamp() AND clock_timestamp() > x.next_update - (x.next_update - x.this_update) / 4),
    made AS (INSERT INTO muster.expiry_told (subject, ends, threshold) SELECT l.subject, l.next_update, 0 FROM late l ON CONFLICT DO NOTHING RETURNING subject),
    told AS (SELECT jsonb_build_object('ca', l.name, 'kind', l.kind, 'shards', l.shards, 'shard', l.shard, 'ends', muster.utc(l.next_update)) AS j
        FROM late l JOIN made m ON m.subject = l.subject),
    written AS (INSERT INTO muster.outbox (event, payload) SELECT 'crl.expiring', j FROM told)
    SELECT j || '{"event": "crl.expiring"}' FROM told
$$;
