-- migration: 14
-- name: claim_desk
-- oldest-binary: 1
-- transaction: yes
--
-- The operator's side of claims: making, listing, rotating and revoking them, what is left of a
-- line's serials, and alerts before a claim or its budget ends.

SET LOCAL search_path = muster;

-- A claim has one successor: whoever rotates it again means that one.
CREATE UNIQUE INDEX claim_successor_idx ON claim (supersedes_id) WHERE supersedes_id IS NOT NULL;
CREATE INDEX claim_use_grace_idx ON claim_use (claim_id) WHERE in_grace;

CREATE TABLE claim_alert (
    claim_id  bigint NOT NULL REFERENCES claim,
    kind      text NOT NULL CHECK (kind IN ('expiring', 'budget')),
    threshold integer NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (claim_id, kind, threshold)
);
COMMENT ON TABLE claim_alert IS 'The thresholds that claims have passed, so that each is told once';
COMMENT ON COLUMN claim_alert.claim_id IS 'The claim';
COMMENT ON COLUMN claim_alert.kind IS 'expiring: days before the end of enrolment; budget: percent of the budget';
COMMENT ON COLUMN claim_alert.threshold IS 'The days or the percent';
COMMENT ON COLUMN claim_alert.at IS 'When it was found passed';

CREATE FUNCTION claim_state(c claim) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN c.revoked_at IS NOT NULL THEN 'revoked'
        WHEN c.enrol_until + make_interval(secs => c.grace_s) <= clock_timestamp() THEN 'expired'
        WHEN c.devices >= c.budget THEN 'exhausted'
        WHEN c.enrol_until <= clock_timestamp() THEN 'grace' ELSE 'active' END
$$;
COMMENT ON FUNCTION claim_state IS 'active, grace (enrolment has ended, its grace has not), exhausted, expired or revoked';

CREATE FUNCTION claim_days_left(c claim) RETURNS integer LANGUAGE sql VOLATILE AS $$
    SELECT ceil(extract(epoch FROM c.enrol_until - clock_timestamp()) / 86400)::integer
$$;
COMMENT ON FUNCTION claim_days_left IS 'Days to the end of enrolment, a day begun counted; below zero: since when';

CREATE FUNCTION claim_superseded(c claim) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM muster.claim n WHERE n.supersedes_id = c.id)
$$;
COMMENT ON FUNCTION claim_superseded IS 'Whether a successor was made';

CREATE FUNCTION claim_json(c claim) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_build_object('name', c.name, 'product', p.name, 'template', t.name,
        'templates', (SELECT COALESCE(jsonb_agg(x.name ORDER BY x.name), '[]') FROM muster.claim_template s JOIN muster.template x ON x.id = s.template_id
            WHERE s.claim_id = c.id),
        'kind', c.kind, 'state', muster.claim_state(c), 'fingerprint', encode(c.fingerprint, 'hex'), 'issuer', i.name,
        'serial_number', encode(c.serial_number, 'hex'), 'not_before', muster.utc(c.not_before), 'not_after', muster.utc(c.not_after), 'batch', c.batch,
        'budget', c.budget, 'devices', c.devices,
        'pending', (SELECT count(*) FROM muster.claim_certificate w WHERE w.claim_id = c.id AND w.ended_at IS NULL),
        'failures', c.failures, 'rate_per_second', c.rate_per_second, 'rate_burst', c.rate_burst, 'max_pending', c.max_pending,
        'enrol_until', muster.utc(c.enrol_until), 'days_left', muster.claim_days_left(c), 'grace_s', c.grace_s,
        'revoked_at', muster.utc(c.revoked_at), 'revoke_mode', c.revoke_mode,
        'supersedes', (SELECT o.name FROM muster.claim o WHERE o.id = c.supersedes_id),
        'superseded_by', (SELECT n.name FROM muster.claim n WHERE n.supersedes_id = c.id),
        'note', c.note, 'created_at', muster.utc(c.created_at), 'created_by', c.created_by)
    FROM muster.product p, muster.template t, muster.ca i WHERE p.id = c.product_id AND t.id = c.template_id AND i.id = c.issuer_id
$$;
COMMENT ON FUNCTION claim_json IS 'A claim as the API lists it';

-- Locked where it is to be changed: devices that use it wait for the row.
CREATE FUNCTION desk_claim(op jsonb, name text, lock boolean) RETURNS claim LANGUAGE plpgsql AS $$
DECLARE
    c muster.claim;
BEGIN
    IF lock THEN
        SELECT * INTO c FROM muster.claim x WHERE x.name = desk_claim.name AND muster.desk_sees(op, x.product_id) FOR UPDATE;
    ELSE
        SELECT * INTO c FROM muster.claim x WHERE x.name = desk_claim.name AND muster.desk_sees(op, x.product_id);
    END IF;
    IF c.id IS NULL THEN
        PERFORM muster.refuse('object.not_found', format('there is no claim %s', name));
    END IF;
    RETURN c;
END $$;
COMMENT ON FUNCTION desk_claim IS 'The claim of a name';

-- A registered CA that vouches for a claim is one whose certificates replicas look up from now on.
CREATE FUNCTION claim_issuer_check(op jsonb, issuer bigint, product bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ca muster.ca;
BEGIN
    SELECT * INTO ca FROM muster.ca x WHERE x.id = issuer;
    IF ca.kind <> 'registered' THEN
        RETURN;
    ELSIF ca.template_id IS NULL THEN
        PERFORM muster.desk_unscoped(op);
    ELSIF (SELECT t.product_id FROM muster.template t WHERE t.id = ca.template_id) <> product THEN
        PERFORM muster.refuse('request.conflict', format('the CA %s vouches for another product', ca.name));
    END IF;
    UPDATE muster.ca x SET has_claims = true WHERE x.id = ca.id AND NOT x.has_claims;
END $$;
COMMENT ON FUNCTION claim_issuer_check IS 'Refuses a claim below another product''s CA; notes that the CA has claims';

CREATE FUNCTION claim_key_check(spki bytea) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    k muster.key_owner;
BEGIN
    SELECT * INTO k FROM muster.key_owner x WHERE x.spki_sha256 = spki;
    IF FOUND THEN
        PERFORM muster.refuse('key.reused', CASE WHEN k.kind = 'claim' THEN 'the key is another claim''s: a successor needs a key of its own'
            ELSE format('the key is known already, of kind %s', k.kind) END);
    END IF;
END $$;
COMMENT ON FUNCTION claim_key_check IS 'Refuses a key that was ever seen';

-- a: name, templates (more than t), kind, enrol_for_s (null: life_s, or as long as the certificate if that is shorter), grace_s,
-- budget, rate_per_second, rate_burst, max_pending, batch, note; of the certificate: der, fingerprint, spki, serial_number (hex),
-- issuer, not_before, not_after
CREATE FUNCTION claim_make(op jsonb, a jsonb, t template, life_s bigint, predecessor bigint) RETURNS claim LANGUAGE plpgsql AS $$
DECLARE
    c muster.claim;
    ends timestamptz := to_timestamp((a->>'not_after')::bigint);
    until timestamptz := clock_timestamp() + make_interval(secs => COALESCE((a->>'enrol_for_s')::bigint, life_s));
BEGIN
    IF EXISTS (SELECT 1 FROM muster.claim x WHERE x.name = a->>'name' OR x.fingerprint = decode(a->>'fingerprint', 'hex')) THEN
        PERFORM muster.refuse('request.exists', format('a claim of the name %s or with this certificate', a->>'name'));
    ELSIF a->>'enrol_for_s' IS NOT NULL AND until > ends THEN
        PERFORM muster.refuse('request.malformed', format('enrolment would end at %s, behind its certificate at %s', muster.utc(until), muster.utc(ends)));
    END IF;
    PERFORM muster.claim_issuer_check(op, (a->>'issuer')::bigint, t.product_id);
    PERFORM muster.claim_key_check(decode(a->>'spki', 'hex'));
    INSERT INTO muster.claim (name, product_id, template_id, kind, fingerprint, spki_sha256, certificate, issuer_id, serial_number, not_before, not_after,
            batch, budget, rate_per_second, rate_burst, max_pending, enrol_until, grace_s, supersedes_id, note, created_by)
        VALUES (a->>'name', t.product_id, t.id, a->>'kind', decode(a->>'fingerprint', 'hex'), decode(a->>'spki', 'hex'), decode(a->>'der', 'hex'),
            (a->>'issuer')::bigint, decode(a->>'serial_number', 'hex'), to_timestamp((a->>'not_before')::bigint), ends, a->>'batch', (a->>'budget')::integer,
            (a->>'rate_per_second')::integer, (a->>'rate_burst')::integer, (a->>'max_pending')::integer, LEAST(until, ends), (a->>'grace_s')::bigint,
            predecessor, a->>'note', op->>'actor') RETURNING * INTO c;
    INSERT INTO muster.claim_template (claim_id, template_id) VALUES (c.id, t.id);
    INSERT INTO muster.claim_template (claim_id, template_id)
        SELECT c.id, x.id FROM jsonb_array_elements_text(COALESCE(a->'templates', '[]')) n CROSS JOIN LATERAL muster.desk_template(op, n) x
            WHERE x.product_id = t.product_id ON CONFLICT DO NOTHING;
    RETURN c;
END $$;
COMMENT ON FUNCTION claim_make IS 'The rows of a new claim';

CREATE FUNCTION claim_announce(op jsonb, c claim, action text, detail jsonb) RETURNS void LANGUAGE sql AS $$
    SELECT muster.desk_audit(op, 'claim.' || action, c.name, detail);
    INSERT INTO muster.outbox (event, payload) SELECT 'claim.' || action,
        jsonb_build_object('claim', c.name, 'product', p.name, 'fingerprint', encode(c.fingerprint, 'hex'), 'by', op->>'actor') || detail
        FROM muster.product p WHERE p.id = c.product_id;
$$;
COMMENT ON FUNCTION claim_announce IS 'Audit and outbox of what an operator did to a claim';

-- a: as claim_make, and template
CREATE FUNCTION desk_claim_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.claim := muster.claim_make(op, a, muster.desk_template(op, a->>'template'), 10 * 365 * 86400, NULL);
BEGIN
    PERFORM muster.claim_announce(op, c, 'create', jsonb_build_object('kind', c.kind, 'template', a->>'template', 'templates', a->'templates',
        'enrol_until', muster.utc(c.enrol_until), 'budget', c.budget, 'batch', c.batch));
    RETURN muster.claim_json(c)::json;
END $$;
COMMENT ON FUNCTION desk_claim_create IS 'POST /claims; the server adds certificate and key to the answer';

CREATE FUNCTION desk_claim_show(op jsonb, a jsonb) RETURNS json LANGUAGE sql AS $$
    SELECT (muster.claim_json(c) || jsonb_build_object(
        'uses_in_grace', (SELECT count(*) FROM muster.claim_use u WHERE u.claim_id = c.id AND u.in_grace),
        'last_uses', COALESCE((SELECT jsonb_agg(u.j) FROM (SELECT jsonb_build_object('serial', d.serial, 'fingerprint', encode(x.fingerprint, 'hex'),
                'used_at', muster.utc(u.used_at), 'in_grace', u.in_grace) AS j
            FROM muster.claim_use u JOIN muster.device d ON d.id = u.device_id JOIN muster.certificate x ON x.id = u.certificate_id
            WHERE u.claim_id = c.id ORDER BY u.used_at DESC LIMIT 20) u), '[]'),
        'pem', muster.pem(c.certificate)))::json
    FROM muster.desk_claim(op, a->>'name', false) c
$$;
COMMENT ON FUNCTION desk_claim_show IS 'GET /claims/{name}';

-- a: old, old_enrol_for_s, and as claim_make, where what is not said is the old one's
CREATE FUNCTION desk_claim_rotate(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.claim := muster.desk_claim(op, a->>'old', true);
    t muster.template;
    n muster.claim;
    until timestamptz := clock_timestamp() + make_interval(secs => (a->>'old_enrol_for_s')::bigint);
BEGIN
    IF c.kind <> 'shared' THEN
        PERFORM muster.refuse('request.conflict', format('%s is temporary: make another', c.name));
    ELSIF muster.claim_superseded(c) THEN
        PERFORM muster.refuse('request.conflict', format('%s was rotated already, to %s', c.name, (SELECT x.name FROM muster.claim x WHERE x.supersedes_id = c.id)));
    ELSIF until > c.enrol_until THEN
        PERFORM muster.refuse('request.conflict', format('enrolment with %s ends at %s already', c.name, muster.utc(c.enrol_until)));
    END IF;
    SELECT * INTO t FROM muster.template x WHERE x.id = c.template_id;
    n := muster.claim_make(op, jsonb_build_object('kind', c.kind, 'grace_s', c.grace_s, 'budget', c.budget, 'rate_per_second', c.rate_per_second,
        'rate_burst', c.rate_burst, 'max_pending', c.max_pending, 'batch', c.batch) || a, t,
        extract(epoch FROM c.enrol_until - c.created_at)::bigint, c.id);
    INSERT INTO muster.claim_template (claim_id, template_id) SELECT n.id, s.template_id FROM muster.claim_template s WHERE s.claim_id = c.id
        ON CONFLICT DO NOTHING;
    IF until IS NOT NULL THEN
        UPDATE muster.claim SET enrol_until = until WHERE id = c.id;
    END IF;
    PERFORM muster.claim_announce(op, n, 'rotate', jsonb_build_object('supersedes', c.name, 'enrol_until', muster.utc(n.enrol_until),
        'old_enrol_until', muster.utc(COALESCE(until, c.enrol_until)), 'budget', n.budget, 'batch', n.batch));
    RETURN muster.claim_json(n)::json;
END $$;
COMMENT ON FUNCTION desk_claim_rotate IS 'POST /claims/{name}/rotate; the server adds certificate and key to the answer';

CREATE FUNCTION claim_pending_revoke(number bigint) RETURNS integer LANGUAGE sql AS $$
    SELECT muster.claim_certificate_end(ARRAY(SELECT id FROM muster.claim_certificate w WHERE w.claim_id = number AND w.ended_at IS NULL ORDER BY id FOR UPDATE))
$$;
COMMENT ON FUNCTION claim_pending_revoke IS 'Revokes what waits for its registration; how many that were';

CREATE FUNCTION desk_claim_revoke(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.claim := muster.desk_claim(op, a->>'name', true);
    n integer := 0;
BEGIN
    IF c.revoke_mode = 'hard' AND a->>'mode' <> 'hard' THEN
        PERFORM muster.refuse('request.conflict', format('%s was revoked for good at %s', c.name, muster.utc(c.revoked_at)));
    ELSIF c.revoke_mode IS DISTINCT FROM a->>'mode' THEN
        UPDATE muster.claim SET revoked_at = COALESCE(revoked_at, clock_timestamp()), revoke_mode = a->>'mode' WHERE id = c.id RETURNING * INTO c;
        IF c.revoke_mode = 'hard' THEN
            n := muster.claim_pending_revoke(c.id);
        END IF;
        PERFORM muster.claim_announce(op, c, 'revoke', jsonb_build_object('mode', c.revoke_mode, 'pending_revoked', n));
    END IF;
    RETURN muster.claim_json(c)::json;
END $$;
COMMENT ON FUNCTION desk_claim_revoke IS 'POST /claims/{name}/revoke';

CREATE FUNCTION claim_stock_json(c claim, serials bigint, never_seen bigint) RETURNS json LANGUAGE sql VOLATILE AS $$
    SELECT json_build_object('name', c.name, 'product', (SELECT p.name FROM muster.product p WHERE p.id = c.product_id), 'batch', c.batch,
        'state', muster.claim_state(c), 'days_left', muster.claim_days_left(c), 'enrol_until', muster.utc(c.enrol_until), 'serials', serials,
        'never_seen', never_seen, 'devices', c.devices, 'budget', c.budget)
$$;
COMMENT ON FUNCTION claim_stock_json IS 'A claim and what is left of its serials, as GET /claims:stock has it';

-- What a claim is told of when it or its budget nears the end. Of days only the nearest threshold is told, so that a claim made
-- for a month does not begin with the alert for half a year.
CREATE FUNCTION claim_alerts() RETURNS TABLE (claim text, product text, kind text, threshold integer, days_left integer, percent integer, serials bigint,
    never_seen bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    r record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1836413807) THEN
        RETURN;
    END IF;
    FOR r IN
        WITH watched AS (
            SELECT c AS it FROM muster.claim c WHERE c.kind = 'shared' AND c.revoked_at IS NULL
                AND NOT (muster.claim_state(c) = 'expired' AND muster.claim_superseded(c))
        ), due AS (
            SELECT (w.it).id, 'expiring' AS about, t.n, t.n = min(t.n) OVER (PARTITION BY (w.it).id) AS told
                FROM watched w JOIN (VALUES (180), (90), (30), (7)) t(n) ON (w.it).enrol_until <= clock_timestamp() + make_interval(secs => t.n * 86400)
            UNION ALL
            SELECT (w.it).id, 'budget', t.n, true
                FROM watched w JOIN (VALUES (80), (100)) t(n) ON (w.it).devices::bigint * 100 >= (w.it).budget::bigint * t.n
        ), made AS (
            INSERT INTO muster.claim_alert AS x (claim_id, kind, threshold) SELECT d.id, d.about, d.n FROM due d
                ON CONFLICT DO NOTHING RETURNING x.claim_id, x.kind, x.threshold
        )
        SELECT c.name, p.name AS product, d.about, d.n, muster.claim_days_left(c) AS days, (c.devices::bigint * 100 / c.budget)::integer AS used,
                s.serials, s.never_seen
            FROM made m JOIN due d ON d.id = m.claim_id AND d.about = m.kind AND d.n = m.threshold AND d.told
            JOIN muster.claim c ON c.id = d.id JOIN muster.product p ON p.id = c.product_id
            CROSS JOIN LATERAL (SELECT count(*) AS serials, count(*) FILTER (WHERE l.device_id IS NULL) AS never_seen FROM muster.allowlist l
                WHERE l.product_id = c.product_id AND (c.batch IS NULL OR l.batch = c.batch)) s
            ORDER BY c.name, d.about, d.n
    LOOP
        INSERT INTO muster.outbox (event, payload) VALUES ('claim.' || r.about, jsonb_build_object('claim', r.name, 'product', r.product,
            'threshold', r.n, 'days_left', r.days, 'percent', r.used, 'serials', r.serials, 'never_seen', r.never_seen));
        RETURN QUERY SELECT r.name, r.product, r.about, r.n, r.days, r.used, r.serials, r.never_seen;
    END LOOP;
END $$;
COMMENT ON FUNCTION claim_alerts IS 'Tells each threshold once, to the outbox and to whoever asks';

-- The claim that asked, and whether that was in its grace, where the desk shows attempts and certificates.
CREATE OR REPLACE FUNCTION history_json(h history) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('at', to_char(h.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'request_id', h.request_id,
        'protocol', h.protocol, 'operation', h.operation, 'credential', h.credential, 'claim', h.claim, 'source', h.source, 'template', h.template,
        'outcome', h.outcome, 'detail', h.detail, 'reached', h.reached, 'state', h.state, 'fingerprint', encode(h.fingerprint, 'hex'), 'serial', h.serial)
$$;

-- By way of the product's claims, which are few: the uses have no index by device.
CREATE FUNCTION certificate_claim(device bigint, cert bigint) RETURNS TABLE (name text, in_grace boolean) LANGUAGE sql STABLE AS $$
    SELECT k.name, u.in_grace FROM muster.device d JOIN muster.claim k ON k.product_id = d.product_id
        JOIN muster.claim_use u ON u.claim_id = k.id AND u.device_id = d.id
        WHERE d.id = device AND u.certificate_id = cert
$$;
COMMENT ON FUNCTION certificate_claim IS 'The claim that gave a certificate; no row: another credential did';

CREATE OR REPLACE FUNCTION certificates_json(device bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_agg(jsonb_build_object('fingerprint', encode(c.fingerprint, 'hex'), 'purpose', c.purpose, 'status', c.status,
            'active', c.active, 'not_before', muster.utc(c.not_before), 'not_after', muster.utc(c.not_after), 'issued_at', muster.utc(c.issued_at),
            'verified_at', muster.utc(c.verified_at), 'ended_at', muster.utc(c.ended_at), 'revoke_reason', c.revoke_reason,
            'claim', k.name, 'in_grace', k.in_grace,
            'policies', (SELECT COALESCE(jsonb_agg(p.name ORDER BY p.name), '[]') FROM muster.certificate_policy x JOIN muster.policy p ON p.id = x.policy_id
                WHERE x.certificate_id = c.id)) ORDER BY c.id DESC), '[]')
    FROM (SELECT * FROM muster.certificate k WHERE k.device_id = device ORDER BY k.id DESC LIMIT 50) c
        LEFT JOIN LATERAL muster.certificate_claim(device, c.id) k ON true
$$;

CREATE FUNCTION doctor_claims() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    found jsonb := '[]';
    watched bigint[] := ARRAY(SELECT c.id FROM muster.claim c WHERE c.kind = 'shared' AND c.revoked_at IS NULL AND NOT muster.claim_superseded(c));
    n bigint;
BEGIN
    SELECT count(*) INTO n FROM muster.claim c WHERE c.id = ANY (watched) AND c.enrol_until > now() AND c.enrol_until <= now() + interval '30 days';
    found := found || muster.doctor_row('claims', n > 0, 'warning', format('enrolment of %s claims ends within 30 days', n), 'muster claim stock, then muster claim rotate');
    SELECT count(*) INTO n FROM muster.claim c WHERE c.id = ANY (watched) AND muster.claim_state(c) = 'exhausted';
    found := found || muster.doctor_row('claim budgets', n > 0, 'warning', format('%s claims have provisioned as many devices as they may', n),
        'muster claim show; more devices than were built is a leak, else muster claim rotate, or revoke when the line is done');
    SELECT count(*) INTO n FROM muster.claim c WHERE c.id = ANY (watched) AND muster.claim_state(c) = 'expired' AND EXISTS (SELECT 1 FROM muster.allowlist l
        WHERE l.product_id = c.product_id AND (c.batch IS NULL OR l.batch = c.batch) AND l.device_id IS NULL AND NOT l.blocked);
    found := found || muster.doctor_row('expired claims', n > 0, 'warning', format('%s claims have expired while serials of theirs were never seen', n),
        'muster claim stock, then muster claim rotate, and firmware with the successor');
    RETURN found;
END $$;
COMMENT ON FUNCTION doctor_claims IS 'The doctor''s findings about claims';

ALTER FUNCTION desk_doctor(jsonb, jsonb) RENAME TO doctor_installation;
COMMENT ON FUNCTION doctor_installation IS 'The doctor''s findings about everything but claims';
CREATE FUNCTION desk_doctor(op jsonb, a jsonb) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT (muster.doctor_installation(op, a)::jsonb || muster.doctor_claims())::json
$$;
COMMENT ON FUNCTION desk_doctor IS 'GET /doctor';
