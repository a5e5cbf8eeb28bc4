-- migration: 28
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
            SELECT muster.journal_device(d) || jsonb_build_object('kind', q.kind, 'when', muster.micros(q.at), 'fingerprint', encode(NEW.fingerprint, 'hex'),
                'number', encode(NEW.serial_number, 'hex'), 'issuer', a.name, 'reason', NEW.revoke_reason)
            FROM (VALUES (NEW.status::text, NEW.ended_at, NEW.status <> OLD.status AND NEW.status IN ('revoked', 'superseded')),
                         (CASE WHEN NEW.active THEN 'activated' ELSE 'deactivated' END, clock_timestamp(), NEW.active <> OLD.active)) q(kind, at, so),
                muster.device d, muster.ca a WHERE q.so AND d.id = NEW.device_id AND a.id = NEW.issuer_id;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION journal_certificate_ended IS 'A certificate was revoked, replaced, switched off or on';
CREATE TRIGGER certificate_journal AFTER UPDATE OF status, active ON certificate FOR EACH ROW
    WHEN (NEW.purpose = 'operational' AND (NEW.status IN ('revoked', 'superseded') AND NEW.status <> OLD.status OR NEW.active <> OLD.active))
    EXECUTE FUNCTION journal_certificate_ended();

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

-- Rebuilding. What a journal says is staged and then applied in one transaction: a registry is made again whole, or
-- stays as it was, and a dry run says exactly what a real one does.

ALTER TABLE device ADD recovered_at timestamptz;
COMMENT ON COLUMN device.recovered_at IS 'When it was made again from a journal or certificates, or taken over by its certificate alone; NULL: it enrolled here';
ALTER TABLE certificate ADD recovered_at timestamptz;
COMMENT ON COLUMN certificate.recovered_at IS 'Likewise';
ALTER TABLE ca ADD crl_floor bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ca.crl_floor IS 'The greatest number of a CRL that is known to have been out before a rebuild';
ALTER TABLE revocation ALTER part DROP NOT NULL;
COMMENT ON COLUMN revocation.part IS 'First byte of the SHA-256 of its key, which says on which shard of the CRL it is; NULL: the certificate is not known, and it is on all';

CREATE OR REPLACE FUNCTION crl_stamp(issuer bigint, shard_count integer, number integer) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT format('%s %s', sum(q.n), max(q.told)) FROM (
        SELECT count(*) AS n, max(told_at) AS told FROM muster.revocation
            WHERE issuer_id = issuer AND part >= number * (256 / shard_count) AND part < (number + 1) * (256 / shard_count)
        UNION ALL SELECT count(*), max(told_at) FROM muster.revocation WHERE issuer_id = issuer AND part IS NULL) q
$$;

CREATE OR REPLACE FUNCTION crl_entries(issuer bigint, shard_count integer, number integer, life interval, since timestamptz)
RETURNS TABLE (serial_number bytea, revoked_s bigint, reason text) LANGUAGE sql STABLE AS $$
    SELECT r.serial_number, extract(epoch FROM r.revoked_at)::bigint, r.reason FROM muster.revocation r
    WHERE r.issuer_id = issuer AND (r.part IS NULL OR r.part >= number * (256 / shard_count) AND r.part < (number + 1) * (256 / shard_count))
        AND r.not_after > clock_timestamp() - life AND (since IS NULL OR r.told_at > since)
    ORDER BY r.revoked_at, r.serial_number
$$;

ALTER FUNCTION crl_due(bigint[], integer, interval, text) RENAME TO crl_due_by_last;
CREATE FUNCTION crl_due(issuers bigint[], shard_count integer, every interval, url text)
RETURNS TABLE (issuer_id bigint, shards integer, shard integer, is_full boolean, number bigint, base_number bigint, base_at bigint, stamp text) LANGUAGE sql STABLE AS $$
    SELECT q.issuer_id, q.shards, q.shard, q.is_full, GREATEST(q.number, a.crl_floor + 1), q.base_number, q.base_at, q.stamp
    FROM muster.crl_due_by_last(issuers, shard_count, every, url) q JOIN muster.ca a ON a.id = q.issuer_id ORDER BY 1, 2, 3
$$;
COMMENT ON FUNCTION crl_due IS 'Which CRLs are to be signed now, above every number that was ever out';

CREATE OR REPLACE FUNCTION device_json(d device) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('serial', d.serial, 'product', p.name, 'thing_name', d.thing_name, 'state', d.state,
        'state_since', muster.utc(d.state_since), 'template', t.name, 'template_version', d.template_version, 'last_seen', muster.utc(d.last_seen),
        'recovered_at', muster.utc(d.recovered_at))
    FROM muster.product p, muster.template t WHERE p.id = d.product_id AND t.id = d.template_id
$$;

CREATE OR REPLACE FUNCTION certificate_json(c certificate) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('fingerprint', encode(c.fingerprint, 'hex'), 'serial', d.serial, 'product', p.name, 'purpose', c.purpose,
        'origin', c.origin, 'status', c.status, 'active', c.active, 'issuer', i.name, 'serial_number', encode(c.serial_number, 'hex'),
        'not_before', muster.utc(c.not_before), 'not_after', muster.utc(c.not_after), 'issued_at', muster.utc(c.issued_at),
        'recovered_at', muster.utc(c.recovered_at))
    FROM muster.device d, muster.product p, muster.ca i WHERE d.id = c.device_id AND p.id = d.product_id AND i.id = c.issuer_id
$$;

CREATE OR REPLACE FUNCTION certificates_json(device bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_agg(jsonb_build_object('fingerprint', encode(c.fingerprint, 'hex'), 'purpose', c.purpose, 'origin', c.origin, 'status', c.status,
            'active', c.active, 'not_before', muster.utc(c.not_before), 'not_after', muster.utc(c.not_after), 'issued_at', muster.utc(c.issued_at),
            'verified_at', muster.utc(c.verified_at), 'ended_at', muster.utc(c.ended_at), 'revoke_reason', c.revoke_reason,
            'recovered_at', muster.utc(c.recovered_at), 'claim', k.name, 'in_grace', k.in_grace,
            'policies', (SELECT COALESCE(jsonb_agg(p.name ORDER BY p.name), '[]') FROM muster.certificate_policy x JOIN muster.policy p ON p.id = x.policy_id
                WHERE x.certificate_id = c.id)) ORDER BY c.id DESC), '[]')
    FROM (SELECT * FROM muster.certificate k WHERE k.device_id = device ORDER BY k.id DESC LIMIT 50) c
        LEFT JOIN LATERAL muster.certificate_claim(device, c.id) k ON true
$$;

CREATE FUNCTION recover_begin() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE muster.device, muster.certificate IN SHARE ROW EXCLUSIVE MODE;
    CREATE TEMP TABLE recovery_line (seq bigint GENERATED ALWAYS AS IDENTITY, kind text NOT NULL, at timestamptz NOT NULL, e jsonb NOT NULL)
        WITH (toast_tuple_target = 8160) ON COMMIT DROP;
    ALTER TABLE pg_temp.recovery_line ALTER e SET STORAGE EXTERNAL; -- it is looked into often
    CREATE TEMP TABLE recovery_gap (kind text NOT NULL, detail text NOT NULL) ON COMMIT DROP;
END $$;
COMMENT ON FUNCTION recover_begin IS 'Begins a rebuild: what is read is staged, and nobody enrols meanwhile';

CREATE FUNCTION recover_lines(lines jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pg_temp.recovery_line (kind, at, e)
        SELECT x->>'kind', 'epoch'::timestamptz + COALESCE((x->>'when')::bigint, (x->>'at')::bigint, 0) * interval '1 microsecond', x
        FROM jsonb_array_elements(lines) WITH ORDINALITY q(x, n) ORDER BY n;
END $$;
COMMENT ON FUNCTION recover_lines IS 'Stages lines, in their order';

-- The newest line of each thing: a later one replaces what an earlier one said.
CREATE FUNCTION recover_configuration() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    clash text;
BEGIN
    CREATE TEMP TABLE recovery_thing ON COMMIT DROP AS
        SELECT DISTINCT ON (l.e->>'of', l.e->>'name', l.e->>'template', l.e->>'version') l.e->>'of' AS of, l.e
        FROM pg_temp.recovery_line l WHERE l.kind = 'configuration'
        ORDER BY l.e->>'of', l.e->>'name', l.e->>'template', l.e->>'version', l.at DESC, l.seq DESC;
    INSERT INTO muster.product (name, serial_case, strip_separators)
        SELECT e->>'name', e->>'serial_case', (e->>'strip_separators')::boolean FROM pg_temp.recovery_thing WHERE of = 'product' ON CONFLICT DO NOTHING;
    INSERT INTO muster.template (product_id, name, default_version, enabled)
        SELECT p.id, e->>'name', (e->>'default_version')::integer, (e->>'enabled')::boolean
        FROM pg_temp.recovery_thing JOIN muster.product p ON p.name = e->>'product' WHERE of = 'template' ON CONFLICT DO NOTHING;
    INSERT INTO muster.template_version (template_id, version, body, created_by)
        SELECT t.id, (e->>'version')::integer, e->>'body', e->>'created_by'
        FROM pg_temp.recovery_thing JOIN muster.template t ON t.name = e->>'template' WHERE of = 'version' ON CONFLICT DO NOTHING;
    SELECT string_agg(a.name, ', ') INTO clash FROM pg_temp.recovery_thing x JOIN muster.ca a ON a.name = x.e->>'name'
        WHERE x.of = 'ca' AND a.fingerprint <> decode(x.e->'info'->>'fingerprint', 'hex');
    IF clash IS NOT NULL THEN
        PERFORM muster.refuse('request.conflict', format('the registry has other CAs of these names: %s; rebuild into an empty one, without musterd init', clash));
    END IF;
    WITH made AS (
        INSERT INTO muster.ca (kind, name, certificate, fingerprint, spki_sha256, subject, key_reference, active, template_id, not_after,
                auto_registration, jit, has_devices, proof, crl_mode, closed)
            SELECT e->>'ca_kind', e->>'name', decode(e->>'certificate', 'base64'), decode(e->'info'->>'fingerprint', 'hex'), decode(e->'info'->>'spki', 'hex'),
                e->'info'->>'subject', e->>'key_reference', (e->>'active')::boolean, t.id, to_timestamp((e->'info'->>'not_after')::bigint),
                (e->>'auto_registration')::boolean, e->>'jit', (e->>'has_devices')::boolean, e->>'proof', e->>'crl_mode', (e->>'closed')::boolean
            FROM pg_temp.recovery_thing LEFT JOIN muster.template t ON t.name = e->>'template' WHERE of = 'ca'
            ON CONFLICT DO NOTHING RETURNING kind, spki_sha256)
    INSERT INTO muster.key_owner (spki_sha256, kind) SELECT DISTINCT spki_sha256, 'ca' FROM made WHERE kind <> 'rollover' ON CONFLICT DO NOTHING;
END $$;
COMMENT ON FUNCTION recover_configuration IS 'Products, templates and CAs of the staged lines; what is there already stays';

-- One row a certificate: what its first line says, and what of it ended. The serial of a bundle's certificate stands in
-- its name; its template is its product's only one, or named with the bundle.
CREATE FUNCTION recover_stage_certificates() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE recovery_cert ON COMMIT DROP AS
        SELECT DISTINCT ON (fp) decode(l.e->'info'->>'fingerprint', 'hex') AS fp, p.id AS product_id, l.e->>'serial' AS serial,
            COALESCE(l.e->>'canonical', muster.serial_canonical(p, l.e->>'serial')) AS canonical, t.id AS template_id,
            COALESCE(NULLIF(split_part(l.e->>'template', '@', 2), '')::integer, t.default_version) AS template_version,
            decode(l.e->'info'->>'spki', 'hex') AS spki, decode(l.e->'info'->>'number', 'hex') AS number,
            to_timestamp((l.e->'info'->>'not_before')::bigint) AS nb, to_timestamp((l.e->'info'->>'not_after')::bigint) AS na,
            a.id AS issuer_id, decode(l.e->>'certificate', 'base64') AS der, COALESCE(l.e->>'origin', 'issued') AS origin,
            COALESCE((l.e->>'inactive')::boolean, false) AS inactive, decode(l.e->>'supersedes', 'hex') AS supersedes,
            COALESCE(l.e->>'request', 'recovered') AS request, COALESCE(l.e->>'verify', 'call') AS verify, l.at, l.seq, l.e->'policies' AS policies,
            c.id AS known_id, NULL::bigint AS device_id, NULL::text AS status, NULL::timestamptz AS ended_at, NULL::text AS reason
        FROM pg_temp.recovery_line l JOIN muster.ca a ON a.fingerprint = decode(l.e->'info'->>'issuer', 'hex')
            JOIN muster.product p ON p.name = l.e->>'product'
            JOIN muster.template t ON t.product_id = p.id AND (t.name = split_part(l.e->>'template', '@', 1)
                OR l.e->>'template' IS NULL AND (SELECT count(*) FROM muster.template o WHERE o.product_id = p.id) = 1)
            LEFT JOIN muster.certificate c ON c.fingerprint = decode(l.e->'info'->>'fingerprint', 'hex')
        WHERE l.kind = 'issued' ORDER BY fp, (l.e ? 'template') DESC, l.at, l.seq;
    CREATE UNIQUE INDEX ON pg_temp.recovery_cert (fp);
    CREATE INDEX ON pg_temp.recovery_cert (product_id, canonical);
    CREATE INDEX ON pg_temp.recovery_cert (issuer_id, number);
    ANALYZE pg_temp.recovery_cert;
    INSERT INTO pg_temp.recovery_gap SELECT 'certificate.homeless', format('certificate %s of %s: there is no product %s with the template %s',
            l.e->'info'->>'fingerprint', l.e->>'serial', l.e->>'product', COALESCE(l.e->>'template', '(name one)'))
        FROM pg_temp.recovery_line l WHERE l.kind = 'issued' AND NOT EXISTS (SELECT 1 FROM pg_temp.recovery_cert c WHERE c.fp = decode(l.e->'info'->>'fingerprint', 'hex'));
    INSERT INTO pg_temp.recovery_gap SELECT 'certificate.elsewhere', format('certificate %s is that of %s here, of %s in the journal', encode(c.fp, 'hex'), d.serial, c.serial)
        FROM pg_temp.recovery_cert c JOIN muster.certificate k ON k.id = c.known_id JOIN muster.device d ON d.id = k.device_id
        WHERE (d.product_id, d.serial_canonical) <> (c.product_id, c.canonical::text);
END $$;
COMMENT ON FUNCTION recover_stage_certificates IS 'The certificates of the staged lines';

-- A journal's revocation goes before a CRL's; an entry for what a newer certificate replaced is no revocation of its key.
CREATE FUNCTION recover_stage_ends() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE recovery_end ON COMMIT DROP AS
        SELECT DISTINCT ON (q.issuer_id, q.number) q.* FROM (
            SELECT a.id AS issuer_id, decode(l.e->>'number', 'hex') AS number, l.at AS ended_at, l.e->>'reason' AS reason, true AS dead, 1 AS rank, l.e->>'serial' AS serial
                FROM pg_temp.recovery_line l JOIN muster.ca a ON a.name = l.e->>'issuer' WHERE l.kind = 'revoked'
            UNION ALL
            SELECT a.id, decode(l.e->>'number', 'hex'), l.at, l.e->>'reason', l.e->>'reason' <> 'superseded', 2, NULL
                FROM pg_temp.recovery_line l JOIN muster.ca a ON a.fingerprint = decode(l.e->>'issuer', 'hex') WHERE l.kind = 'listed'
            UNION ALL
            SELECT a.id, decode(l.e->>'number', 'hex'), l.at, 'superseded', false, 3, l.e->>'serial'
                FROM pg_temp.recovery_line l JOIN muster.ca a ON a.name = l.e->>'issuer' WHERE l.kind = 'superseded') q
        ORDER BY q.issuer_id, q.number, q.dead DESC, q.rank, q.ended_at;
    CREATE UNIQUE INDEX ON pg_temp.recovery_end (issuer_id, number);
    ANALYZE pg_temp.recovery_end;
    UPDATE pg_temp.recovery_cert c SET status = CASE WHEN x.dead THEN 'revoked' ELSE 'superseded' END, ended_at = x.ended_at, reason = CASE WHEN x.dead THEN x.reason END
        FROM pg_temp.recovery_end x WHERE (x.issuer_id, x.number) = (c.issuer_id, c.number);
    UPDATE pg_temp.recovery_cert c SET inactive = q.kind = 'deactivated' FROM (
        SELECT DISTINCT ON (l.e->>'fingerprint') decode(l.e->>'fingerprint', 'hex') AS fp, l.kind FROM pg_temp.recovery_line l
        WHERE l.kind IN ('activated', 'deactivated') ORDER BY l.e->>'fingerprint', l.at DESC, l.seq DESC) q WHERE q.fp = c.fp;
END $$;
COMMENT ON FUNCTION recover_stage_ends IS 'What of the staged certificates ended, by journal and CRL';

-- The newest that has not ended is taken for one that may never have been used, and the one before it for the present
-- one: whichever of the two its device holds, it is let in. A single one was used: nobody else takes its place unasked.
CREATE FUNCTION recover_stage_order() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE recovery_rank ON COMMIT DROP AS
        SELECT c.fp, c.product_id, c.canonical, c.nb, c.supersedes, row_number() OVER (PARTITION BY c.product_id, c.canonical ORDER BY c.nb DESC,
                EXISTS (SELECT 1 FROM pg_temp.recovery_cert y WHERE y.supersedes = c.fp), c.at DESC, c.seq DESC) AS rank
        FROM pg_temp.recovery_cert c WHERE c.status IS NULL;
    CREATE INDEX ON pg_temp.recovery_rank (product_id, canonical, rank);
    CREATE UNIQUE INDEX ON pg_temp.recovery_rank (fp);
    ANALYZE pg_temp.recovery_rank;
    UPDATE pg_temp.recovery_cert c SET status = CASE WHEN q.before IS NULL THEN 'current' ELSE 'pending' END FROM (
        SELECT r.fp, COALESCE((SELECT s.fp FROM pg_temp.recovery_rank s WHERE s.fp = r.supersedes),
            (SELECT s.fp FROM pg_temp.recovery_rank s WHERE (s.product_id, s.canonical, s.rank) = (r.product_id, r.canonical, 2))) AS before
        FROM pg_temp.recovery_rank r WHERE r.rank = 1) q WHERE q.fp = c.fp;
    UPDATE pg_temp.recovery_cert c SET status = 'current' FROM pg_temp.recovery_cert n
        LEFT JOIN pg_temp.recovery_rank two ON (two.product_id, two.canonical, two.rank) = (n.product_id, n.canonical, 2)
        WHERE n.status = 'pending' AND c.status IS NULL AND c.fp = COALESCE((SELECT s.fp FROM pg_temp.recovery_rank s WHERE s.fp = n.supersedes), two.fp);
    UPDATE pg_temp.recovery_cert c SET status = 'superseded', ended_at = n.nb FROM pg_temp.recovery_rank n
        WHERE c.status IS NULL AND (n.product_id, n.canonical, n.rank) = (c.product_id, c.canonical, 1);
END $$;
COMMENT ON FUNCTION recover_stage_order IS 'Which of a device''s staged certificates is pending, which current, which superseded';

-- The registration last made, and what an operator or failures did to the device after that.
CREATE FUNCTION recover_devices() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE recovery_device ON COMMIT DROP AS
        SELECT DISTINCT ON (product_id, canonical) product_id, canonical, serial, template_id, template_version, verify, nb AS seen,
            NULL::jsonb AS registration, NULL::text AS quarantine, NULL::timestamptz AS quarantined_at, NULL::timestamptz AS retired_at, NULL::text AS thing, true AS issued
        FROM pg_temp.recovery_cert ORDER BY product_id, canonical, nb DESC, at DESC, seq DESC;
    INSERT INTO pg_temp.recovery_device SELECT DISTINCT ON (p.id, l.e->>'canonical') p.id, l.e->>'canonical', l.e->>'serial', t.id,
            split_part(l.e->>'template', '@', 2)::integer, 'call', l.at, NULL, NULL, NULL, NULL, NULL, false
        FROM pg_temp.recovery_line l JOIN muster.product p ON p.name = l.e->>'product' JOIN muster.template t ON t.name = split_part(l.e->>'template', '@', 1)
        WHERE l.kind IN ('quarantined', 'released', 'retired')
            AND NOT EXISTS (SELECT 1 FROM pg_temp.recovery_device d WHERE (d.product_id, d.canonical) = (p.id, l.e->>'canonical'))
        ORDER BY p.id, l.e->>'canonical', l.at DESC, l.seq DESC;
    CREATE UNIQUE INDEX ON pg_temp.recovery_device (product_id, canonical);
    ANALYZE pg_temp.recovery_device;
    UPDATE pg_temp.recovery_device d SET registration = q.e FROM (
        SELECT DISTINCT ON (p.id, l.e->>'canonical') p.id, l.e->>'canonical' AS canonical, l.e FROM pg_temp.recovery_line l JOIN muster.product p ON p.name = l.e->>'product'
        WHERE l.kind = 'issued' AND l.e ? 'attributes' ORDER BY p.id, l.e->>'canonical', (l.e->'info'->>'not_before')::bigint DESC, l.at DESC, l.seq DESC) q
        WHERE (q.id, q.canonical) = (d.product_id, d.canonical);
    UPDATE pg_temp.recovery_device d SET quarantine = COALESCE(q.reason, 'as the journal says'), quarantined_at = q.at FROM (
        SELECT DISTINCT ON (p.id, l.e->>'canonical') p.id, l.e->>'canonical' AS canonical, l.kind, l.e->>'reason' AS reason, l.at
        FROM pg_temp.recovery_line l JOIN muster.product p ON p.name = l.e->>'product' WHERE l.kind IN ('quarantined', 'released')
        ORDER BY p.id, l.e->>'canonical', l.at DESC, l.seq DESC) q WHERE q.kind = 'quarantined' AND (q.id, q.canonical) = (d.product_id, d.canonical);
    UPDATE pg_temp.recovery_device d SET retired_at = q.at FROM (
        SELECT p.id, l.e->>'canonical' AS canonical, min(l.at) AS at FROM pg_temp.recovery_line l JOIN muster.product p ON p.name = l.e->>'product'
        WHERE l.kind = 'retired' GROUP BY 1, 2) q WHERE (q.id, q.canonical) = (d.product_id, d.canonical);
    INSERT INTO muster.device (product_id, serial, serial_canonical, state, state_since, thing_type, billing_group, attributes, configuration, template_id, template_version,
            verify_mode, quarantine_reason, retired_at, created_at, last_seen, recovered_at)
        SELECT product_id, serial, canonical, CASE WHEN quarantine IS NOT NULL THEN 'QUARANTINE' WHEN issued THEN 'PROVISIONED' ELSE 'UNPROVISIONED' END,
            COALESCE(quarantined_at, clock_timestamp()), registration->>'thing_type', registration->>'billing_group',
            COALESCE(registration->'attributes', '{}'), COALESCE(registration->'configuration', '{}'), template_id, template_version, verify, quarantine, retired_at,
            seen, seen, clock_timestamp()
        FROM pg_temp.recovery_device ON CONFLICT DO NOTHING;
    -- of a registry that was restored from its backup: what came after that
    UPDATE muster.device x SET state = 'QUARANTINE', quarantine_reason = d.quarantine FROM pg_temp.recovery_device d
        WHERE (x.product_id, x.serial_canonical::text) = (d.product_id, d.canonical) AND d.quarantine IS NOT NULL AND x.state <> 'QUARANTINE' AND x.state_since < d.quarantined_at;
    UPDATE muster.device x SET retired_at = d.retired_at, verify_by = NULL, reset_at = NULL FROM pg_temp.recovery_device d
        WHERE (x.product_id, x.serial_canonical::text) = (d.product_id, d.canonical) AND d.retired_at IS NOT NULL AND x.retired_at IS NULL;
    UPDATE pg_temp.recovery_cert c SET device_id = d.id FROM muster.device d WHERE (d.product_id, d.serial_canonical::text) = (c.product_id, c.canonical);
END $$;
COMMENT ON FUNCTION recover_devices IS 'The devices of the staged lines; what is there already stays, but for what ended since';

-- Names ever given belong to their first device; groups and policies are the last registration's.
CREATE FUNCTION recover_members() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.thing (name, device_id)
        SELECT DISTINCT ON (l.e->>'thing_name') l.e->>'thing_name', c.device_id FROM pg_temp.recovery_line l
            JOIN pg_temp.recovery_cert c ON c.fp = decode(l.e->'info'->>'fingerprint', 'hex')
        WHERE l.kind = 'issued' AND l.e->>'thing_name' IS NOT NULL ORDER BY l.e->>'thing_name', l.at, l.seq ON CONFLICT DO NOTHING;
    UPDATE muster.device x SET thing_name = t.name FROM pg_temp.recovery_device d JOIN muster.thing t ON t.name = d.registration->>'thing_name'
        WHERE (x.product_id, x.serial_canonical::text) = (d.product_id, d.canonical) AND t.device_id = x.id AND x.thing_name IS NULL AND x.recovered_at IS NOT NULL;
    INSERT INTO pg_temp.recovery_gap SELECT 'thing.taken', format('thing name %s of %s belongs to another device', d.registration->>'thing_name', d.serial)
        FROM pg_temp.recovery_device d JOIN muster.device x ON (x.product_id, x.serial_canonical::text) = (d.product_id, d.canonical)
        JOIN muster.thing t ON t.name = d.registration->>'thing_name' WHERE t.device_id <> x.id;
    INSERT INTO muster.thing_group (name) SELECT DISTINCT g FROM pg_temp.recovery_device d, jsonb_array_elements_text(d.registration->'groups') g ON CONFLICT DO NOTHING;
    INSERT INTO muster.device_group SELECT DISTINCT x.id, g.id FROM pg_temp.recovery_device d
            JOIN muster.device x ON (x.product_id, x.serial_canonical::text) = (d.product_id, d.canonical), jsonb_array_elements_text(d.registration->'groups') n
            JOIN muster.thing_group g ON g.name = n WHERE x.recovered_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM muster.device_group m WHERE m.device_id = x.id) ON CONFLICT DO NOTHING;
    INSERT INTO muster.policy (product_id, name, document)
        SELECT DISTINCT ON (p.id, q->>'name') p.id, q->>'name', q->'document' FROM pg_temp.recovery_line l JOIN muster.product p ON p.name = l.e->>'product',
            jsonb_array_elements(l.e->'policies') q WHERE l.kind = 'issued' AND q->'document' IS NOT NULL AND q->'document' <> 'null'
        ORDER BY p.id, q->>'name', l.at, l.seq ON CONFLICT DO NOTHING;
END $$;
COMMENT ON FUNCTION recover_members IS 'Thing names, groups and policies of the staged registrations';

-- Into a registry that has the device already only what it lacks is put, below what it holds.
CREATE FUNCTION recover_certificates() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    made integer;
BEGIN
    INSERT INTO muster.key_owner (spki_sha256, kind, device_id, dead_at)
        SELECT spki, 'device', min(device_id), min(ended_at) FILTER (WHERE status = 'revoked') FROM pg_temp.recovery_cert WHERE device_id IS NOT NULL GROUP BY spki ON CONFLICT DO NOTHING;
    INSERT INTO pg_temp.recovery_gap SELECT 'key.elsewhere', format('the key of certificate %s of %s belongs to another device', encode(c.fp, 'hex'), c.serial)
        FROM pg_temp.recovery_cert c JOIN muster.key_owner k ON k.spki_sha256 = c.spki WHERE k.device_id IS DISTINCT FROM c.device_id;
    UPDATE muster.certificate k SET status = 'superseded', ended_at = c.nb FROM pg_temp.recovery_cert c
        WHERE c.known_id IS NULL AND c.status = 'pending' AND k.device_id = c.device_id AND k.purpose = 'operational' AND k.status = 'pending' AND k.not_before <= c.nb;
    UPDATE pg_temp.recovery_cert c SET status = CASE WHEN c.status = 'pending' AND NOT EXISTS (SELECT 1 FROM muster.certificate k WHERE k.device_id = c.device_id
                AND k.purpose = 'operational' AND k.status = 'pending') THEN 'pending' ELSE 'superseded' END, ended_at = c.nb
        WHERE c.known_id IS NULL AND c.status IN ('pending', 'current') AND EXISTS (SELECT 1 FROM muster.certificate k WHERE k.device_id = c.device_id
            AND k.purpose = 'operational' AND k.status IN ('pending', 'current'));
    WITH made AS (
        INSERT INTO muster.certificate (fingerprint, device_id, purpose, status, active, issuer_id, serial_number, spki_sha256, not_before, not_after, issued_at,
                verified_at, ended_at, revoke_reason, template_id, template_version, request_id, origin, recovered_at)
            SELECT fp, device_id, 'operational', status, NOT inactive, issuer_id, number, spki, nb, na, nb, CASE WHEN status <> 'pending' THEN nb END,
                CASE WHEN status IN ('revoked', 'superseded') THEN ended_at END, reason, template_id, template_version, request, origin, clock_timestamp()
            FROM pg_temp.recovery_cert WHERE known_id IS NULL AND device_id IS NOT NULL ORDER BY nb, at, seq RETURNING id, fingerprint),
    written AS (INSERT INTO muster.certificate_der SELECT m.id, c.der FROM made m JOIN pg_temp.recovery_cert c ON c.fp = m.fingerprint RETURNING 1)
    SELECT count(*) INTO made FROM written;
    UPDATE muster.certificate k SET supersedes_id = b.id FROM pg_temp.recovery_cert c JOIN muster.certificate b ON b.fingerprint = c.supersedes
        WHERE c.known_id IS NULL AND k.fingerprint = c.fp;
    INSERT INTO muster.certificate_policy SELECT DISTINCT k.id, p.id FROM pg_temp.recovery_cert c JOIN muster.certificate k ON k.fingerprint = c.fp
            JOIN pg_temp.recovery_device d ON (d.product_id, d.canonical) = (c.product_id, c.canonical),
            jsonb_array_elements(COALESCE(c.policies, d.registration->'policies')) q JOIN muster.policy p ON p.name = q->>'name'
        WHERE c.known_id IS NULL AND p.product_id = c.product_id ON CONFLICT DO NOTHING;
    RETURN made;
END $$;
COMMENT ON FUNCTION recover_certificates IS 'The staged certificates that the registry lacks';

CREATE FUNCTION recover_revocations() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE muster.certificate k SET status = 'revoked', revoke_reason = c.reason, ended_at = c.ended_at FROM pg_temp.recovery_cert c
        WHERE c.status = 'revoked' AND k.id = c.known_id AND k.status <> 'revoked';
    UPDATE muster.certificate k SET status = 'revoked', revoke_reason = x.reason, ended_at = x.ended_at FROM pg_temp.recovery_end x
        WHERE x.dead AND (k.issuer_id, k.serial_number::bytea) = (x.issuer_id, x.number) AND k.status <> 'revoked';
    UPDATE muster.key_owner o SET dead_at = k.ended_at FROM muster.certificate k WHERE k.status = 'revoked' AND o.spki_sha256 = k.spki_sha256 AND o.dead_at IS NULL
        AND EXISTS (SELECT 1 FROM pg_temp.recovery_end x WHERE x.dead AND (x.issuer_id, x.number) = (k.issuer_id, k.serial_number::bytea));
    INSERT INTO muster.revocation (issuer_id, serial_number, part, reason, revoked_at, not_after)
        SELECT c.issuer_id, c.number, get_byte(c.spki, 0), COALESCE(c.reason, 'superseded'), c.ended_at, c.na FROM pg_temp.recovery_cert c JOIN muster.ca a ON a.id = c.issuer_id
        WHERE a.kind = 'issuing' AND c.origin = 'issued' AND (c.status = 'revoked' OR c.status = 'superseded' AND EXISTS (SELECT 1 FROM muster.template_version v
            WHERE v.template_id = c.template_id AND v.version = c.template_version AND v.body::jsonb->'Muster'->'CrlSuperseded' = 'true'::jsonb)) ON CONFLICT DO NOTHING;
    -- made for a claim, with no device named in any journal
    INSERT INTO muster.revocation (issuer_id, serial_number, part, reason, revoked_at, not_after)
        SELECT a.id, decode(l.e->'info'->>'number', 'hex'), get_byte(decode(l.e->'info'->>'spki', 'hex'), 0), 'cessationOfOperation', l.at, to_timestamp((l.e->'info'->>'not_after')::bigint)
        FROM pg_temp.recovery_line l JOIN muster.ca a ON a.fingerprint = decode(l.e->'info'->>'issuer', 'hex') AND a.kind = 'issuing'
        WHERE l.kind = 'created' AND NOT EXISTS (SELECT 1 FROM muster.certificate c WHERE c.fingerprint = decode(l.e->'info'->>'fingerprint', 'hex'))
            AND NOT EXISTS (SELECT 1 FROM muster.claim_certificate c WHERE c.fingerprint = decode(l.e->'info'->>'fingerprint', 'hex')) ON CONFLICT DO NOTHING;
    INSERT INTO muster.revocation (issuer_id, serial_number, part, reason, revoked_at, not_after)
        SELECT x.issuer_id, x.number, NULL, x.reason, x.ended_at, a.not_after FROM pg_temp.recovery_end x JOIN muster.ca a ON a.id = x.issuer_id AND a.kind = 'issuing'
        WHERE NOT EXISTS (SELECT 1 FROM muster.certificate c WHERE (c.issuer_id, c.serial_number::bytea) = (x.issuer_id, x.number)) ON CONFLICT DO NOTHING;
    INSERT INTO pg_temp.recovery_gap SELECT 'revocation.unknown', format('serial number %s of %s is revoked (%s), and no certificate has it%s',
            encode(x.number, 'hex'), a.name, x.reason, COALESCE(': its line for ' || x.serial || ' is missing', ''))
        FROM pg_temp.recovery_end x JOIN muster.ca a ON a.id = x.issuer_id
        WHERE NOT EXISTS (SELECT 1 FROM muster.certificate c WHERE (c.issuer_id, c.serial_number::bytea) = (x.issuer_id, x.number))
            AND NOT EXISTS (SELECT 1 FROM muster.revocation r WHERE (r.issuer_id, r.serial_number::bytea) = (x.issuer_id, x.number) AND r.part IS NOT NULL);
    UPDATE muster.ca a SET crl_floor = q.number FROM (
        SELECT decode(l.e->>'issuer', 'hex') AS fp, max((l.e->>'number')::bigint) AS number FROM pg_temp.recovery_line l WHERE l.kind = 'crl' GROUP BY 1) q
        WHERE a.fingerprint = q.fp AND a.crl_floor < q.number;
END $$;
COMMENT ON FUNCTION recover_revocations IS 'Revocations of the staged lines, also of certificates that nobody knows; the numbers that CRLs go on from';

CREATE FUNCTION recover_strangers() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT count(*) FROM muster.device d WHERE NOT EXISTS (SELECT 1 FROM pg_temp.recovery_line l JOIN muster.product p ON p.name = l.e->>'product'
        WHERE l.kind IN ('issued', 'quarantined', 'released', 'retired') AND p.id = d.product_id AND COALESCE(l.e->>'canonical', muster.serial_canonical(p, l.e->>'serial')) = d.serial_canonical));
END $$;
COMMENT ON FUNCTION recover_strangers IS 'How many devices of the registry no staged line tells of';

CREATE FUNCTION recover_counts() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('products', (SELECT count(*) FROM muster.product), 'templates', (SELECT count(*) FROM muster.template), 'template_versions', (SELECT count(*) FROM muster.template_version),
        'cas', (SELECT count(*) FROM muster.ca), 'devices', (SELECT count(*) FROM muster.device), 'certificates', (SELECT count(*) FROM muster.certificate),
        'revoked', (SELECT count(*) FROM muster.certificate WHERE status = 'revoked'), 'revocations', (SELECT count(*) FROM muster.revocation),
        'quarantined', (SELECT count(*) FROM muster.device WHERE state = 'QUARANTINE'), 'retired', (SELECT count(*) FROM muster.device WHERE retired_at IS NOT NULL))
$$;
COMMENT ON FUNCTION recover_counts IS 'How many of each the registry has';

CREATE FUNCTION recover_apply(onto_existing boolean) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    before jsonb := muster.recover_counts();
    after jsonb;
    strangers bigint;
BEGIN
    ANALYZE pg_temp.recovery_line;
    PERFORM muster.recover_configuration();
    strangers := muster.recover_strangers();
    IF strangers > 0 AND NOT onto_existing THEN
        PERFORM muster.refuse('request.conflict', format('the registry has %s devices that no journal tells of; --onto-existing adds to it what it lacks', strangers));
    END IF;
    PERFORM muster.recover_stage_certificates();
    PERFORM muster.recover_stage_ends();
    PERFORM muster.recover_stage_order();
    PERFORM muster.recover_devices();
    PERFORM muster.recover_members();
    PERFORM muster.recover_certificates();
    PERFORM muster.recover_revocations();
    after := muster.recover_counts();
    IF before <> after THEN
        INSERT INTO muster.audit (actor, source, action, object, detail) VALUES ('musterd', 'local', 'registry.rebuild', 'registry', after);
    END IF;
    RETURN jsonb_build_object('before', before, 'after', after,
        'gaps', (SELECT COALESCE(jsonb_agg(jsonb_build_object('kind', g.kind, 'detail', g.detail) ORDER BY g.kind, g.detail), '[]') FROM pg_temp.recovery_gap g));
END $$;
COMMENT ON FUNCTION recover_apply IS 'Makes the registry from what was staged; adds, and never takes anything back';

-- Trust on reconnect: for a while after a loss a certificate of our own CAs that nobody knows is registered at its first
-- contact.

ALTER TABLE ca ADD trusted_until timestamptz;
ALTER TABLE ca ADD trust_template_id bigint REFERENCES template;
ALTER TABLE ca ADD CHECK (kind = 'issuing' OR trusted_until IS NULL);
COMMENT ON COLUMN ca.trusted_until IS 'Until then a certificate of this CA of ours that the registry lacks is registered at its first contact; NULL: never';
COMMENT ON COLUMN ca.trust_template_id IS 'With which template; NULL: the only one of the product that the certificate names';

ALTER TYPE enrol_request ADD ATTRIBUTE own boolean; -- of jit: the certificate is of a CA of ours

-- Nothing that the registry knows may speak against it: an end of it or of a later one, or that it was never a device's.
CREATE FUNCTION own_trust_check(r enrol_request, d device) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    newer muster.certificate;
    why text;
BEGIN
    PERFORM 1 FROM muster.ca a WHERE a.id = r.issuer_id AND a.kind = 'issuing' AND a.trusted_until > clock_timestamp();
    IF NOT FOUND THEN
        PERFORM muster.refuse('cert.unknown', 'our CA signed the certificate, the registry does not have it');
    END IF;
    SELECT x.reason INTO why FROM muster.revocation x WHERE x.issuer_id = r.issuer_id AND x.serial_number = r.serial_number;
    IF FOUND THEN
        PERFORM muster.refuse('cert.revoked', format('its serial number is revoked (%s)', why));
    ELSIF EXISTS (SELECT 1 FROM muster.claim_certificate c WHERE c.fingerprint = r.fingerprint) THEN
        PERFORM muster.refuse('cert.wrong_purpose', 'it was made for a claim and belongs to no device');
    END IF;
    PERFORM muster.enrol_device_check(d);
    SELECT c.* INTO newer FROM muster.certificate c WHERE c.device_id = d.id AND c.purpose = 'operational' AND c.not_before >= to_timestamp(r.not_before)
        ORDER BY c.not_before DESC LIMIT 1;
    IF FOUND THEN
        PERFORM muster.refuse('cert.superseded', format('the device has one of %s, which is %s', newer.not_before, newer.status));
    END IF;
END $$;
COMMENT ON FUNCTION own_trust_check IS 'Whether a certificate of our own CA that nobody knows may be registered';

-- The device is there and locked before anything is judged, behind its allowlist row as everywhere: two of its
-- certificates that come at once are judged one after the other. A refusal takes the row back.
CREATE FUNCTION enrol_own(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    res muster.enrol_result;
    v muster.token_verdict;
    d muster.device;
    was_there boolean;
BEGIN
    PERFORM 1 FROM muster.allowlist WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical FOR UPDATE;
    INSERT INTO muster.device (product_id, serial, serial_canonical, state, template_id, template_version)
        VALUES (r.product_id, r.serial, r.serial_canonical, 'UNPROVISIONED', r.template_id, r.template_version) ON CONFLICT DO NOTHING;
    was_there := NOT FOUND;
    SELECT * INTO d FROM muster.device WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical FOR UPDATE;
    PERFORM muster.own_trust_check(r, d);
    r.replace := true; -- it was made after whatever the registry has of the device
    res := muster.enrol_first(r, v);
    UPDATE muster.certificate SET origin = 'issued', recovered_at = clock_timestamp() WHERE fingerprint = r.fingerprint;
    UPDATE muster.device SET recovered_at = clock_timestamp()
        WHERE NOT was_there AND product_id = r.product_id AND serial_canonical = r.serial_canonical;
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_own IS 'Registers a certificate of our own CA that the registry lost';

CREATE OR REPLACE FUNCTION enrol_jit(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    c muster.certificate;
    d muster.device;
    v muster.token_verdict;
    res muster.enrol_result;
    code text;
BEGIN
    SELECT * INTO c FROM muster.certificate WHERE fingerprint = r.fingerprint;
    IF FOUND THEN
        SELECT * INTO d FROM muster.device WHERE id = c.device_id FOR UPDATE;
        SELECT * INTO c FROM muster.certificate WHERE id = c.id;
        code := muster.certificate_code(c, d);
        IF code <> 'ok' THEN
            PERFORM muster.refuse(code, format('the certificate is that of %s', d.serial));
        END IF;
        RETURN muster.enrol_replay(r, d, c, true);
    ELSIF r.own THEN
        RETURN muster.enrol_own(r);
    ELSIF r.hearsay AND EXISTS (SELECT 1 FROM muster.device y JOIN muster.certificate x ON x.device_id = y.id AND x.purpose = 'operational'
            WHERE y.product_id = r.product_id AND y.serial_canonical = r.serial_canonical) THEN
        PERFORM muster.refuse('device.key_conflict', 'the device has another certificate, and a journal changes none');
    END IF;
    res := muster.enrol_first(r, v);
    IF res.code = 'ok' THEN
        UPDATE muster.jit_certificate SET status = 'assigned', reason = NULL, request_id = r.request_id,
                device_id = COALESCE(res.device_id, (SELECT y.device_id FROM muster.certificate y WHERE y.fingerprint = r.fingerprint))
            WHERE fingerprint = r.fingerprint AND status <> 'revoked';
    END IF;
    RETURN res;
END $$;

-- a: for_s, template, off
CREATE FUNCTION desk_trust_own(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t bigint;
    until timestamptz;
    names jsonb;
BEGIN
    PERFORM muster.desk_unscoped(op);
    IF COALESCE((a->>'off')::boolean, false) = (a->>'for_s' IS NOT NULL) THEN
        PERFORM muster.refuse('request.malformed', 'say for how long, or off');
    END IF;
    IF a->>'template' IS NOT NULL THEN
        SELECT x.id INTO t FROM muster.desk_template(op, a->>'template') x;
    END IF;
    until := clock_timestamp() + make_interval(secs => (a->>'for_s')::bigint);
    WITH changed AS (UPDATE muster.ca SET trusted_until = until, trust_template_id = CASE WHEN until IS NOT NULL THEN t END WHERE kind = 'issuing' RETURNING name)
    SELECT COALESCE(jsonb_agg(name ORDER BY name), '[]') INTO names FROM changed;
    PERFORM muster.desk_audit(op, CASE WHEN until IS NULL THEN 'registry.trust_own_end' ELSE 'registry.trust_own' END, 'registry',
        jsonb_build_object('until', muster.utc(until), 'template', a->>'template'));
    RETURN json_build_object('trusted_until', muster.utc(until), 'template', CASE WHEN until IS NOT NULL THEN a->>'template' END, 'cas', names);
END $$;
COMMENT ON FUNCTION desk_trust_own IS 'POST /registry:trust-own';

CREATE OR REPLACE FUNCTION ca_json(c ca) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', c.id, 'name', c.name, 'kind', c.kind, 'active', c.active, 'subject', c.subject,
        'fingerprint', encode(c.fingerprint, 'hex'), 'template', (SELECT t.name FROM muster.template t WHERE t.id = c.template_id),
        'auto_registration', c.auto_registration, 'jit', CASE WHEN c.kind = 'registered' THEN c.jit END, 'proof', c.proof,
        'crl_mode', CASE WHEN c.kind IN ('registered', 'helper') THEN c.crl_mode END, 'crl', muster.ca_crl_json(c.id),
        'trusted_until', CASE WHEN c.trusted_until > now() THEN muster.utc(c.trusted_until) END,
        'not_after', muster.utc(c.not_after), 'created_at', muster.utc(c.created_at))
$$;

CREATE FUNCTION doctor_trust() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_agg(muster.doctor_row('trust in lost certificates', true, 'warning', format('certificates that the registry lacks are registered at their first contact until %s', q.until),
        'muster registry trust-own --off, when all have come back')), '[]')
    FROM (SELECT muster.utc(max(trusted_until)) AS until FROM muster.ca WHERE trusted_until > now() HAVING count(*) > 0) q
$$;
COMMENT ON FUNCTION doctor_trust IS 'The doctor''s warning while lost certificates are trusted';

CREATE OR REPLACE FUNCTION desk_doctor(op jsonb, a jsonb) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT (muster.doctor_before_crls(op, a)::jsonb || muster.doctor_crls() || muster.doctor_trust())::json
$$;
