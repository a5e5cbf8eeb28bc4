-- migration: 26
-- name: recovery
-- oldest-binary: 1
-- transaction: yes
--
-- Journals beside the registry: what they begin with, and what is due to be written there. Issuances are written by the
-- replica that made them; what ends is written by whoever comes first, so it waits here in the transaction that ended it.

SET LOCAL search_path = muster;

CREATE TABLE journal_writer (
    replica    text PRIMARY KEY CHECK (replica ~ '^[0-9a-f]{32}$'),
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE journal_writer IS 'Replicas that keep a journal; without one that was seen within a week nothing becomes due';
COMMENT ON COLUMN journal_writer.replica IS 'Name of its journal''s files';
COMMENT ON COLUMN journal_writer.first_seen IS 'When it was first';
COMMENT ON COLUMN journal_writer.last_seen IS 'When it was last, to within an hour';

CREATE TABLE journal_due (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry jsonb NOT NULL
);
COMMENT ON TABLE journal_due IS 'What a journal has to have and has not yet; a row goes in the transaction that has written it';
COMMENT ON COLUMN journal_due.id IS 'Order';
COMMENT ON COLUMN journal_due.entry IS 'The line''s members but for number, hash and time of writing';

CREATE FUNCTION journal_writer_seen(name text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.journal_writer AS w (replica) VALUES (name)
        ON CONFLICT (replica) DO UPDATE SET last_seen = clock_timestamp() WHERE w.last_seen < clock_timestamp() - interval '1 hour'
$$;
COMMENT ON FUNCTION journal_writer_seen IS 'A replica keeps a journal';

CREATE FUNCTION journal_kept() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM muster.journal_writer WHERE last_seen > clock_timestamp() - interval '7 days')
$$;
COMMENT ON FUNCTION journal_kept IS 'Whether anybody keeps a journal';

CREATE FUNCTION journal_due_take(most integer) RETURNS SETOF jsonb LANGUAGE sql AS $$
    WITH taken AS (
        DELETE FROM muster.journal_due WHERE id IN (SELECT id FROM muster.journal_due ORDER BY id FOR UPDATE LIMIT most) RETURNING id, entry)
    SELECT entry FROM taken ORDER BY id
$$;
COMMENT ON FUNCTION journal_due_take IS 'What is due, oldest first; the caller commits when it is in a journal';

CREATE FUNCTION micros(at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT (extract(epoch FROM at) * 1000000)::bigint
$$;
COMMENT ON FUNCTION micros IS 'Microseconds since 1970, as lines of journals have times';

CREATE FUNCTION journal_device(d device) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('product', p.name, 'serial', d.serial, 'canonical', d.serial_canonical,
        'template', t.name || '@' || d.template_version)
    FROM muster.product p, muster.template t WHERE p.id = d.product_id AND t.id = d.template_id
$$;
COMMENT ON FUNCTION journal_device IS 'Which device a line is about';

CREATE FUNCTION base64(data bytea) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT translate(encode(data, 'base64'), E'\n', '')
$$;
COMMENT ON FUNCTION base64 IS 'Base64 on one line';

-- Products first, then templates and their versions, then CAs: none names what stands behind it.
CREATE FUNCTION journal_configuration() RETURNS SETOF jsonb LANGUAGE sql STABLE AS $$
    SELECT q.e FROM (
        SELECT 1 AS rank, p.id, 0 AS version, jsonb_build_object('kind', 'configuration', 'of', 'product', 'name', p.name, 'serial_case', p.serial_case,
            'strip_separators', p.strip_separators) AS e FROM muster.product p
        UNION ALL
        SELECT 2, t.id, 0, jsonb_build_object('kind', 'configuration', 'of', 'template', 'name', t.name, 'product', p.name,
            'default_version', t.default_version, 'enabled', t.enabled) FROM muster.template t JOIN muster.product p ON p.id = t.product_id
        UNION ALL
        SELECT 3, t.id, v.version, jsonb_build_object('kind', 'configuration', 'of', 'version', 'template', t.name, 'version', v.version,
            'body', v.body, 'created_by', v.created_by) FROM muster.template_version v JOIN muster.template t ON t.id = v.template_id
        UNION ALL
        SELECT 4, c.id, 0, jsonb_build_object('kind', 'configuration', 'of', 'ca', 'name', c.name, 'ca_kind', c.kind, 'certificate', muster.base64(c.certificate),
            'key_reference', c.key_reference, 'active', c.active, 'template', (SELECT t.name FROM muster.template t WHERE t.id = c.template_id),
            'auto_registration', c.auto_registration, 'jit', c.jit, 'has_devices', c.has_devices, 'proof', c.proof, 'crl_mode', c.crl_mode, 'closed', c.closed)
            FROM muster.ca c) q
    ORDER BY q.rank, q.id, q.version
$$;
COMMENT ON FUNCTION journal_configuration IS 'What devices and certificates of a journal refer to, a line each';

-- A registration that was answered before is answered again without being judged anew.
CREATE FUNCTION journal_issued(fp bytea, ownership bytea) RETURNS jsonb LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT muster.journal_device(d) || jsonb_build_object('kind', 'issued', 'request', c.request_id, 'fingerprint', encode(c.fingerprint, 'hex'),
        'purpose', c.purpose, 'origin', c.origin, 'issuer', a.name, 'certificate', muster.base64(x.der), 'inactive', NOT c.active,
        'template', t.name || '@' || c.template_version, 'verify', d.verify_mode, 'thing_name', d.thing_name, 'thing_type', d.thing_type,
        'billing_group', d.billing_group, 'attributes', d.attributes, 'configuration', d.configuration,
        'groups', (SELECT COALESCE(jsonb_agg(g.name ORDER BY g.name), '[]') FROM muster.device_group m JOIN muster.thing_group g ON g.id = m.group_id WHERE m.device_id = d.id),
        'policies', (SELECT COALESCE(jsonb_agg(jsonb_build_object('name', p.name, 'document', p.document) ORDER BY p.name), '[]')
            FROM muster.certificate_policy m JOIN muster.policy p ON p.id = m.policy_id WHERE m.certificate_id = c.id))
    FROM muster.certificate c JOIN muster.device d ON d.id = c.device_id JOIN muster.certificate_der x ON x.certificate_id = c.id
        JOIN muster.ca a ON a.id = c.issuer_id JOIN muster.template t ON t.id = c.template_id
    WHERE c.fingerprint = COALESCE((SELECT o.fingerprint FROM muster.claim_certificate o WHERE o.token_hash = ownership), fp)
        AND c.purpose = 'operational'
$$;
COMMENT ON FUNCTION journal_issued IS 'The line of a certificate that was recorded before, by its fingerprint or its ownership token''s hash';

CREATE FUNCTION journal_certificate_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF muster.journal_kept() THEN
        INSERT INTO muster.journal_due (entry)
            SELECT muster.journal_device(d) || jsonb_build_object('kind', 'revoked', 'when', muster.micros(NEW.ended_at), 'fingerprint', encode(NEW.fingerprint, 'hex'),
                'number', encode(NEW.serial_number, 'hex'), 'issuer', a.name, 'reason', NEW.revoke_reason)
            FROM muster.device d, muster.ca a WHERE d.id = NEW.device_id AND a.id = NEW.issuer_id;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION journal_certificate_ended IS 'A certificate was revoked';
CREATE TRIGGER certificate_journal AFTER UPDATE OF status ON certificate FOR EACH ROW
    WHEN (NEW.status = 'revoked' AND OLD.status <> 'revoked') EXECUTE FUNCTION journal_certificate_ended();

CREATE FUNCTION journal_device_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF muster.journal_kept() THEN
        INSERT INTO muster.journal_due (entry)
            SELECT muster.journal_device(NEW) || jsonb_build_object('when', muster.micros(clock_timestamp()), 'kind', q.kind, 'reason', q.reason)
            FROM (VALUES ('quarantined', NEW.quarantine_reason, NEW.state = 'QUARANTINE' AND OLD.state <> 'QUARANTINE'),
                         ('released', NULL, OLD.state = 'QUARANTINE' AND NEW.state <> 'QUARANTINE'),
                         ('retired', NULL, NEW.retired_at IS NOT NULL AND OLD.retired_at IS NULL)) q(kind, reason, so) WHERE q.so;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION journal_device_moved IS 'A device came into quarantine or out of it, or was retired';
CREATE TRIGGER device_journal AFTER UPDATE ON device FOR EACH ROW
    WHEN ((OLD.state = 'QUARANTINE') <> (NEW.state = 'QUARANTINE') OR (OLD.retired_at IS NULL) <> (NEW.retired_at IS NULL))
    EXECUTE FUNCTION journal_device_moved();
