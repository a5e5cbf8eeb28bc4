-- migration: 21
-- name: revocation
-- oldest-binary: 1
-- transaction: yes
--
-- What of our own issuing CAs is revoked, for CRLs (RFC 5280 section 5) and OCSP (RFC 6960), and the CRLs as they were signed.

SET LOCAL search_path = muster;

CREATE TABLE revocation (
    issuer_id     bigint NOT NULL,
    serial_number certificate_number NOT NULL,
    part          smallint NOT NULL CHECK (part BETWEEN 0 AND 255),
    reason        text NOT NULL CHECK (reason IN ('unspecified', 'keyCompromise', 'cACompromise', 'affiliationChanged', 'superseded', 'cessationOfOperation', 'privilegeWithdrawn')),
    revoked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    told_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    not_after     timestamptz NOT NULL,
    PRIMARY KEY (issuer_id, serial_number)
);
COMMENT ON TABLE revocation IS 'Certificates that we signed and that relying parties shall not believe; CRLs are made from it alone';
COMMENT ON COLUMN revocation.issuer_id IS 'The issuing CA; no foreign key, as CAs are never deleted';
COMMENT ON COLUMN revocation.serial_number IS 'Serial number, big endian';
COMMENT ON COLUMN revocation.part IS 'First byte of the key''s fingerprint: a shard of the CRL is a range of it';
COMMENT ON COLUMN revocation.reason IS 'RFC 5280 5.3.1 reason';
COMMENT ON COLUMN revocation.revoked_at IS 'When it was revoked first';
COMMENT ON COLUMN revocation.told_at IS 'When the row last changed: a delta CRL has what is younger than its base';
COMMENT ON COLUMN revocation.not_after IS 'End of the certificate''s validity; a while after it the row goes';
CREATE INDEX revocation_part_idx ON revocation (issuer_id, part, told_at);

-- Whatever revokes a certificate, this writes it down in the same transaction. A reason may get worse: superseded is what a renewal
-- says, which an operator may find to have been a theft.
CREATE FUNCTION revocation_add(issuer bigint, number bytea, spki bytea, why text, ends timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.revocation AS r (issuer_id, serial_number, part, reason, not_after)
        SELECT issuer, number, get_byte(spki, 0), why, ends FROM muster.ca WHERE id = issuer AND kind = 'issuing'
        ON CONFLICT (issuer_id, serial_number) DO UPDATE SET reason = excluded.reason, told_at = clock_timestamp()
        WHERE r.reason = 'superseded' AND excluded.reason <> 'superseded'
$$;
COMMENT ON FUNCTION revocation_add IS 'Notes a revoked certificate of one of our issuing CAs; of others nothing';

-- What an ordinary renewal retires is denied by the registry; the CRL has it only where the template says so.
CREATE FUNCTION revocation_of_certificate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'revoked' OR EXISTS (SELECT 1 FROM muster.template_version v WHERE v.template_id = NEW.template_id AND v.version = NEW.template_version
            AND v.body LIKE '%CrlSuperseded%' AND v.body::jsonb->'Muster'->'CrlSuperseded' = 'true'::jsonb) THEN
        PERFORM muster.revocation_add(NEW.issuer_id, NEW.serial_number, NEW.spki_sha256, COALESCE(NEW.revoke_reason, 'superseded'), NEW.not_after);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION revocation_of_certificate IS 'Notes certificates that end before their time';
CREATE TRIGGER certificate_revocation AFTER UPDATE OF status ON certificate FOR EACH ROW
    WHEN (NEW.purpose = 'operational' AND NEW.origin = 'issued' AND NEW.status IN ('revoked', 'superseded') AND NEW.status <> OLD.status)
    EXECUTE FUNCTION revocation_of_certificate();

CREATE FUNCTION revocation_of_claim_certificate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM muster.revocation_add(NEW.issuer_id, NEW.serial_number, NEW.spki_sha256, 'cessationOfOperation', NEW.not_after);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION revocation_of_claim_certificate IS 'Notes certificates that nobody registered, and claims';
CREATE TRIGGER claim_certificate_revocation AFTER UPDATE OF status ON claim_certificate FOR EACH ROW
    WHEN (NEW.status = 'revoked' AND OLD.status <> 'revoked') EXECUTE FUNCTION revocation_of_claim_certificate();
CREATE TRIGGER claim_revocation AFTER UPDATE OF revoke_mode ON claim FOR EACH ROW
    WHEN (NEW.revoke_mode = 'hard' AND OLD.revoke_mode IS DISTINCT FROM 'hard') EXECUTE FUNCTION revocation_of_claim_certificate();

-- What was revoked before there was this table.
SELECT muster.revocation_add(issuer_id, serial_number, spki_sha256, revoke_reason, not_after) FROM certificate
    WHERE status = 'revoked' AND purpose = 'operational' AND origin = 'issued' AND not_after > clock_timestamp();
SELECT muster.revocation_add(issuer_id, serial_number, spki_sha256, 'cessationOfOperation', not_after) FROM claim_certificate
    WHERE status = 'revoked' AND not_after > clock_timestamp();
SELECT muster.revocation_add(issuer_id, serial_number, spki_sha256, 'cessationOfOperation', not_after) FROM claim
    WHERE revoke_mode = 'hard' AND not_after > clock_timestamp();

-- The CRLs

CREATE TABLE crl (
    issuer_id   bigint NOT NULL,
    shards      smallint NOT NULL CHECK (shards IN (1, 2, 4, 8, 16, 32, 64, 128, 256)),
    shard       smallint NOT NULL CHECK (shard >= 0 AND shard < shards),
    is_delta    boolean NOT NULL,
    number      bigint NOT NULL,
    this_update timestamptz NOT NULL,
    next_update timestamptz NOT NULL CHECK (next_update > this_update),
    entries     bigint NOT NULL,
    stamp       text NOT NULL,
    der         bytea NOT NULL,
    due         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (issuer_id, shards, shard, is_delta)
);
COMMENT ON TABLE crl IS 'The latest CRLs as signed; every replica serves them';
COMMENT ON COLUMN crl.issuer_id IS 'The issuing CA that signed it';
COMMENT ON COLUMN crl.shards IS 'In how many shards its CRL is divided; certificates name it, so one that was used is kept up';
COMMENT ON COLUMN crl.shard IS 'Which of them this is';
COMMENT ON COLUMN crl.is_delta IS 'Whether it has only what is younger than the full one';
COMMENT ON COLUMN crl.number IS 'cRLNumber; at least the second it was made in, so that it grows even where the registry was restored from a backup';
COMMENT ON COLUMN crl.this_update IS 'thisUpdate';
COMMENT ON COLUMN crl.next_update IS 'nextUpdate';
COMMENT ON COLUMN crl.entries IS 'How many certificates are on it';
COMMENT ON COLUMN crl.stamp IS 'What of table revocation it was made from';
COMMENT ON COLUMN crl.der IS 'CertificateList, DER';
COMMENT ON COLUMN crl.due IS 'An operator wants another one now';

-- A shard is a range of the key's first byte.
CREATE FUNCTION crl_stamp(issuer bigint, shard_count integer, number integer) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT format('%s %s', count(*), max(told_at)) FROM muster.revocation
    WHERE issuer_id = issuer AND part >= number * (256 / shard_count) AND part < (number + 1) * (256 / shard_count)
$$;
COMMENT ON FUNCTION crl_stamp IS 'Differs when what is to be on a CRL differs';

-- A full one is made anew when half of its time is over, or when something was revoked and it is older than `every`. A delta one
-- when something was revoked, and with each full one.
CREATE FUNCTION crl_due(issuers bigint[], shard_count integer, every interval, url text)
RETURNS TABLE (issuer_id bigint, shards integer, shard integer, is_full boolean, number bigint, base_number bigint, base_at bigint, stamp text)
LANGUAGE sql STABLE AS $$
    WITH wanted AS (
        SELECT i AS issuer_id, shard_count AS shards, s AS shard FROM unnest(issuers) i, generate_series(0, shard_count - 1) s
        UNION SELECT c.issuer_id, c.shards, c.shard FROM muster.crl c WHERE c.issuer_id = ANY (issuers) AND NOT c.is_delta),
    looked AS (
        SELECT w.*, muster.crl_stamp(w.issuer_id, w.shards, w.shard) || ' ' || url AS stamp, f.number AS full_number, f.this_update AS full_at,
            f.stamp AS full_stamp, d.stamp AS delta_stamp, GREATEST(f.number, d.number) AS last_number,
            f.number IS NULL OR f.due OR clock_timestamp() > f.this_update + (f.next_update - f.this_update) / 2 AS full_is_old,
            d.number IS NULL OR clock_timestamp() > d.this_update + (d.next_update - d.this_update) / 2 AS delta_is_old
        FROM wanted w
        LEFT JOIN muster.crl f ON (f.issuer_id, f.shards, f.shard, f.is_delta) = (w.issuer_id, w.shards, w.shard, false)
        LEFT JOIN muster.crl d ON (d.issuer_id, d.shards, d.shard, d.is_delta) = (w.issuer_id, w.shards, w.shard, true)),
    judged AS (
        SELECT l.*, l.full_is_old OR (l.stamp <> l.full_stamp AND clock_timestamp() > l.full_at + every) AS full_due FROM looked l)
    SELECT j.issuer_id, j.shards, j.shard, j.full_due,
        GREATEST(j.last_number + 1, extract(epoch FROM clock_timestamp())::bigint), j.full_number, extract(epoch FROM j.full_at)::bigint, j.stamp
    FROM judged j WHERE j.full_due OR j.delta_is_old OR j.stamp <> j.delta_stamp
    ORDER BY 1, 2, 3
$$;
COMMENT ON FUNCTION crl_due IS 'Which CRLs are to be signed now, under which number; base: the full one that a delta one goes with; url: where they are served, which is in them';

-- An expired certificate stays until a CRL that was signed after its end has had it (RFC 5280 3.3).
CREATE FUNCTION crl_entries(issuer bigint, shard_count integer, number integer, life interval, since timestamptz)
RETURNS TABLE (serial_number bytea, revoked_s bigint, reason text) LANGUAGE sql STABLE AS $$
    SELECT r.serial_number, extract(epoch FROM r.revoked_at)::bigint, r.reason FROM muster.revocation r
    WHERE r.issuer_id = issuer AND r.part >= number * (256 / shard_count) AND r.part < (number + 1) * (256 / shard_count)
        AND r.not_after > clock_timestamp() - life AND (since IS NULL OR r.told_at > since)
    ORDER BY r.revoked_at, r.serial_number
$$;
COMMENT ON FUNCTION crl_entries IS 'What is on a CRL; since: only what has changed since then';

CREATE FUNCTION crl_store(issuer bigint, shard_count integer, which integer, delta boolean, num bigint, this_s bigint, next_s bigint, count bigint, stamped text, signed bytea)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.crl AS c VALUES (issuer, shard_count, which, delta, num, to_timestamp(this_s), to_timestamp(next_s), count, stamped, signed)
    ON CONFLICT (issuer_id, shards, shard, is_delta) DO UPDATE SET number = excluded.number, this_update = excluded.this_update,
        next_update = excluded.next_update, entries = excluded.entries, stamp = excluded.stamp, der = excluded.der, due = false
        WHERE c.number < excluded.number
$$;
COMMENT ON FUNCTION crl_store IS 'Keeps a CRL that was signed, unless a later one is there';

-- OCSP: what we signed, and nothing else, is good until it is revoked.
CREATE FUNCTION ocsp_status(issuer bigint, number bytea) RETURNS TABLE (status text, revoked_s bigint, reason text) LANGUAGE sql STABLE AS $$
    SELECT 'revoked', extract(epoch FROM r.revoked_at)::bigint, r.reason FROM muster.revocation r WHERE r.issuer_id = issuer AND r.serial_number = number
    UNION ALL
    SELECT 'good', NULL, NULL WHERE NOT EXISTS (SELECT 1 FROM muster.revocation r WHERE r.issuer_id = issuer AND r.serial_number = number)
        AND (EXISTS (SELECT 1 FROM muster.certificate c WHERE c.issuer_id = issuer AND c.serial_number = number AND c.purpose = 'operational' AND c.origin = 'issued')
          OR EXISTS (SELECT 1 FROM muster.claim_certificate c WHERE c.issuer_id = issuer AND c.serial_number = number)
          OR EXISTS (SELECT 1 FROM muster.claim c WHERE c.issuer_id = issuer AND c.serial_number = number))
$$;
COMMENT ON FUNCTION ocsp_status IS 'good or revoked; no row: nobody knows it';
CREATE INDEX claim_certificate_number_idx ON claim_certificate (issuer_id, serial_number);

-- Rows whose certificate ended a month ago are on no CRL any more, whatever its life.
CREATE FUNCTION revocation_prune() RETURNS integer LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM muster.revocation WHERE not_after < clock_timestamp() - interval '60 days' RETURNING 1) SELECT count(*)::integer FROM gone
$$;
COMMENT ON FUNCTION revocation_prune IS 'Forgets revocations of certificates that ended long ago; how many';

-- The desk

CREATE FUNCTION crl_json(c crl) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('issuer', (SELECT a.name FROM muster.ca a WHERE a.id = c.issuer_id), 'shards', c.shards, 'shard', c.shard,
        'kind', CASE WHEN c.is_delta THEN 'delta' ELSE 'full' END, 'number', c.number, 'this_update', muster.utc(c.this_update),
        'next_update', muster.utc(c.next_update), 'entries', c.entries, 'bytes', length(c.der))
$$;
COMMENT ON FUNCTION crl_json IS 'A CRL as the API lists it';

CREATE FUNCTION desk_crl_sign(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    n integer;
BEGIN
    PERFORM muster.desk_unscoped(op);
    UPDATE muster.crl SET due = true WHERE NOT is_delta;
    GET DIAGNOSTICS n = ROW_COUNT;
    PERFORM muster.desk_audit(op, 'crl.sign', 'all', jsonb_build_object('crls', n));
    RETURN json_build_object('crls', n);
END $$;
COMMENT ON FUNCTION desk_crl_sign IS 'POST /crls:sign: full CRLs are signed at once, not when they are due';

CREATE FUNCTION doctor_crls() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_agg(muster.doctor_row('CRL of ' || q.name, q.late, CASE WHEN q.ends < now() THEN 'error' ELSE 'warning' END,
        format('nextUpdate is %s', muster.utc(q.ends)), 'a replica with the issuing key signs it: read its log for crl.not_signed')), '[]')
    FROM (SELECT a.name, min(c.next_update) AS ends, bool_or(now() > c.next_update - (c.next_update - c.this_update) / 4) AS late
        FROM muster.crl c JOIN muster.ca a ON a.id = c.issuer_id WHERE a.not_after > now() GROUP BY 1) q
$$;
COMMENT ON FUNCTION doctor_crls IS 'The doctor''s findings about CRLs';
ALTER FUNCTION desk_doctor(jsonb, jsonb) RENAME TO doctor_before_crls;
COMMENT ON FUNCTION doctor_before_crls IS 'The doctor''s findings about everything but CRLs';
CREATE FUNCTION desk_doctor(op jsonb, a jsonb) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT (muster.doctor_before_crls(op, a)::jsonb || muster.doctor_crls())::json
$$;
COMMENT ON FUNCTION desk_doctor IS 'GET /doctor';
