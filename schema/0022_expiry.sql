-- migration: 22
-- name: expiry
-- oldest-binary: 1
-- transaction: yes
--
-- What ends soon: told once for each threshold, listed, and how many renewals come when.

SET LOCAL search_path = muster;

CREATE TABLE expiry_mark (
    template_id  bigint NOT NULL REFERENCES template,
    threshold_s  bigint NOT NULL CHECK (threshold_s > 0),
    told_through timestamptz NOT NULL,
    looked_at    timestamptz NOT NULL,
    PRIMARY KEY (template_id, threshold_s)
);
COMMENT ON TABLE expiry_mark IS 'How far each threshold of a template was told: certificates that end later were not, those before were';
COMMENT ON COLUMN expiry_mark.template_id IS 'The template';
COMMENT ON COLUMN expiry_mark.threshold_s IS 'Time before the end, seconds';
COMMENT ON COLUMN expiry_mark.told_through IS 'Certificates whose validity ends by then are told, or are no more to be told';
COMMENT ON COLUMN expiry_mark.looked_at IS 'When it was looked at last: a thirtieth of the threshold later it is again';

CREATE TABLE expiry_told (
    subject   text NOT NULL,
    ends      timestamptz NOT NULL,
    threshold integer NOT NULL,
    told_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subject, ends, threshold)
);
COMMENT ON TABLE expiry_told IS 'Thresholds of CAs, server certificates and CRLs that were passed, so that each is told once';
COMMENT ON COLUMN expiry_told.subject IS 'ca:NAME, server, or crl: and which';
COMMENT ON COLUMN expiry_told.ends IS 'The end that was told of: what is renewed is told again';
COMMENT ON COLUMN expiry_told.threshold IS 'Days before the end; of a CRL 0';
COMMENT ON COLUMN expiry_told.told_at IS 'When';

CREATE INDEX device_retired_idx ON device (id) WHERE retired_at IS NOT NULL;

CREATE FUNCTION duration_s(v text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT substring(v FROM '^[0-9]+')::bigint * CASE right(v, 1) WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 WHEN 'w' THEN 604800
        WHEN 'y' THEN 31536000 ELSE 1 END
$$;
COMMENT ON FUNCTION duration_s IS 'Seconds of a template''s duration; its form was checked when it was stored';

-- Defaults as in enroll/template_muster.c.
CREATE FUNCTION renewal_plan(t template) RETURNS TABLE (validity_s bigint, ahead_s bigint, alerts_s bigint[]) LANGUAGE sql STABLE AS $$
    SELECT q.life, COALESCE(muster.duration_s(q.m->>'RenewBefore'), q.life / 3),
        ARRAY(SELECT muster.duration_s(x) FROM jsonb_array_elements_text(COALESCE(q.m->'ExpiryAlerts', '["30d", "7d", "1d"]')) x)
    FROM (SELECT v.m, COALESCE(muster.duration_s(v.m->>'Validity'), 31536000) - COALESCE(muster.duration_s(v.m->>'Jitter'), 0) AS life
        FROM (SELECT COALESCE(x.body::jsonb->'Muster', '{}') AS m FROM muster.template_version x
            WHERE x.template_id = t.id AND x.version = t.default_version) v) q
$$;
COMMENT ON FUNCTION renewal_plan IS 'How long certificates of a template live at least, how long before the end they are renewed, and when it is told that they were not';

-- A certificate that somebody should look after: the latest of its device, for as long as that has no other.
CREATE FUNCTION expiry_counts(c certificate) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT c.purpose = 'operational' AND c.active AND (c.status = 'current' OR c.supersedes_id IS NULL)
        AND NOT EXISTS (SELECT 1 FROM muster.certificate n WHERE n.device_id = c.device_id AND n.supersedes_id = c.id AND n.status IN ('pending', 'current'))
$$;
COMMENT ON FUNCTION expiry_counts IS 'Whether the end of a live certificate matters: one that is superseded, or about to be, does not';

CREATE FUNCTION silent_since(d device) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT COALESCE(d.last_seen, d.created_at)
$$;
COMMENT ON FUNCTION silent_since IS 'The last contact that musterd knows of';

-- Which thresholds are looked at now: each after a thirtieth of its time, so that those of a month are told together, once a day.
CREATE FUNCTION expiry_due(at timestamptz) RETURNS TABLE (template_id bigint, threshold_s bigint, after timestamptz, upto timestamptz) LANGUAGE sql STABLE AS $$
    SELECT t.id, x.s, COALESCE(m.told_through, at), GREATEST(m.told_through, at + make_interval(secs => x.s))
    FROM muster.template t CROSS JOIN LATERAL muster.renewal_plan(t) p CROSS JOIN LATERAL unnest(p.alerts_s) x(s)
    LEFT JOIN muster.expiry_mark m ON m.template_id = t.id AND m.threshold_s = x.s
    WHERE m.looked_at IS NULL OR at >= m.looked_at + make_interval(secs => x.s / 30.0)
$$;
COMMENT ON FUNCTION expiry_due IS 'Thresholds to look at, and between which ends of certificates';

-- All certificates of a template that have come within a threshold since the last look are one event. One that lives no longer than the
-- threshold is never told.
CREATE FUNCTION expiry_tell_certificates() RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    q record;
    told jsonb;
BEGIN
    FOR q IN
        WITH due AS MATERIALIZED (SELECT * FROM muster.expiry_due(at)),
        marked AS (INSERT INTO muster.expiry_mark (template_id, threshold_s, told_through, looked_at) SELECT u.template_id, u.threshold_s, u.upto, at FROM due u
            ON CONFLICT (template_id, threshold_s) DO UPDATE SET told_through = excluded.told_through, looked_at = excluded.looked_at)
        SELECT u.template_id, u.threshold_s, count(*) AS n, count(*) FILTER (WHERE muster.silent_since(d) < at - interval '60 days') AS silent,
            min(c.not_after) AS first_end, max(c.not_after) AS last_end, (array_agg(d.serial ORDER BY c.not_after, d.serial))[1:10] AS serials
        FROM due u JOIN muster.certificate c ON c.template_id = u.template_id AND c.not_after > u.after AND c.not_after <= u.upto
        JOIN muster.device d ON d.id = c.device_id AND d.retired_at IS NULL
        WHERE c.status IN ('pending', 'current') AND c.not_after > (SELECT min(x.after) FROM due x) AND c.not_after <= (SELECT max(x.upto) FROM due x)
            AND c.not_after - c.not_before > make_interval(secs => u.threshold_s) AND muster.expiry_counts(c)
        GROUP BY 1, 2 ORDER BY 1, 2 DESC
    LOOP
        SELECT jsonb_build_object('template', t.name, 'product', p.name, 'threshold_s', q.threshold_s, 'devices', q.n, 'silent', q.silent, 'silent_days', 60,
                'first_end', muster.utc(q.first_end), 'last_end', muster.utc(q.last_end), 'serials', to_jsonb(q.serials)) INTO told
            FROM muster.template t JOIN muster.product p ON p.id = t.product_id WHERE t.id = q.template_id;
        INSERT INTO muster.outbox (event, payload) VALUES ('certificate.expiring', told);
        RETURN NEXT told || '{"event": "certificate.expiring"}';
    END LOOP;
END $$;
COMMENT ON FUNCTION expiry_tell_certificates IS 'Tells of certificates that have come within a threshold of their end, an event for each template and threshold';

-- Of days only the nearest threshold is told, as for claims.
CREATE FUNCTION expiry_tell_one(subject text, event text, ends timestamptz, payload jsonb) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
DECLARE
    days integer;
    told jsonb;
BEGIN
    WITH passed AS (SELECT n FROM unnest(ARRAY[90, 30, 7, 1]) n WHERE clock_timestamp() >= ends - make_interval(days => n)),
    made AS (INSERT INTO muster.expiry_told (subject, ends, threshold) SELECT expiry_tell_one.subject, expiry_tell_one.ends, n FROM passed ON CONFLICT DO NOTHING RETURNING threshold)
    SELECT min(threshold) INTO days FROM made WHERE threshold = (SELECT min(n) FROM passed);
    IF days IS NULL THEN
        RETURN;
    END IF;
    told := payload || jsonb_build_object('threshold_s', days * 86400, 'ends', muster.utc(ends));
    INSERT INTO muster.outbox (event, payload) VALUES (event, told);
    RETURN NEXT told || jsonb_build_object('event', event);
END $$;
COMMENT ON FUNCTION expiry_tell_one IS 'Tells once for each threshold that a CA or a server certificate nears its end';

CREATE FUNCTION expiry_tell_crls() RETURNS SETOF jsonb LANGUAGE sql AS $$
    WITH late AS (SELECT c.*, a.name FROM muster.crl c JOIN muster.ca a ON a.id = c.issuer_id
        WHERE a.not_after > clock_timestamp() AND clock_timestamp() > c.next_update - (c.next_update - c.this_update) / 4),
    made AS (INSERT INTO muster.expiry_told (subject, ends, threshold)
        SELECT format('crl:%s:%s:%s:%s', l.issuer_id, l.shards, l.shard, l.is_delta), l.next_update, 0 FROM late l ON CONFLICT DO NOTHING RETURNING subject),
    told AS (SELECT jsonb_build_object('ca', l.name, 'kind', CASE WHEN l.is_delta THEN 'delta' ELSE 'full' END, 'shards', l.shards, 'shard', l.shard,
            'ends', muster.utc(l.next_update)) AS j
        FROM late l JOIN made m ON m.subject = format('crl:%s:%s:%s:%s', l.issuer_id, l.shards, l.shard, l.is_delta)),
    written AS (INSERT INTO muster.outbox (event, payload) SELECT 'crl.expiring', j FROM told)
    SELECT j || '{"event": "crl.expiring"}' FROM told
$$;
COMMENT ON FUNCTION expiry_tell_crls IS 'Tells once of each CRL that three quarters of its time is over and no other was signed';

-- server_ends_s: of this replica's own certificate, which no other knows; the rest one replica does.
CREATE FUNCTION expiry_tell(server_ends_s bigint) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    RETURN QUERY SELECT * FROM muster.expiry_tell_one('server', 'server.expiring', to_timestamp(server_ends_s), '{}');
    IF NOT pg_try_advisory_xact_lock(1836413811) THEN
        RETURN;
    END IF;
    FOR c IN SELECT a.name, a.kind, a.not_after FROM muster.ca a WHERE a.active AND a.not_after < clock_timestamp() + interval '90 days' ORDER BY a.id LOOP
        RETURN QUERY SELECT * FROM muster.expiry_tell_one('ca:' || c.name, 'ca.expiring', c.not_after, jsonb_build_object('ca', c.name, 'kind', c.kind));
    END LOOP;
    RETURN QUERY SELECT * FROM muster.expiry_tell_crls();
    RETURN QUERY SELECT * FROM muster.expiry_tell_certificates();
    DELETE FROM muster.expiry_told WHERE ends < clock_timestamp() - interval '400 days';
END $$;
COMMENT ON FUNCTION expiry_tell IS 'Tells, to the outbox and to whoever asks, what has come within a threshold of its end';

-- The desk

CREATE FUNCTION expiring_json(c certificate, d device) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('serial', d.serial, 'product', p.name, 'template', t.name, 'thing_name', d.thing_name, 'fingerprint', encode(c.fingerprint, 'hex'),
        'not_after', muster.utc(c.not_after), 'days_left', floor(extract(epoch FROM c.not_after - clock_timestamp()) / 86400)::integer,
        'last_seen', muster.utc(d.last_seen), 'silent_days', floor(extract(epoch FROM clock_timestamp() - muster.silent_since(d)) / 86400)::integer)
    FROM muster.product p, muster.template t WHERE p.id = d.product_id AND t.id = c.template_id
$$;
COMMENT ON FUNCTION expiring_json IS 'A certificate that ends soon, as the API lists it';

-- A device renews in the middle of its window, one that is late today, and again after each life. What lives shorter
-- than a day renews every day.
CREATE FUNCTION forecast(op jsonb, for_product text, for_template text, unit text) RETURNS TABLE (date date, renewals bigint, ends bigint) LANGUAGE sql STABLE AS $$
    WITH plan AS (
        SELECT t.id, GREATEST(p.ahead_s * 3 / 4, 0) AS ahead_s, GREATEST(p.validity_s - p.ahead_s * 3 / 4, 1) AS period_s
        FROM muster.template t JOIN muster.product q ON q.id = t.product_id CROSS JOIN LATERAL muster.renewal_plan(t) p
        WHERE muster.desk_sees(op, q.id) AND (for_product IS NULL OR q.name = for_product) AND (for_template IS NULL OR t.name = for_template)),
    live AS (
        SELECT c.template_id, (c.not_after AT TIME ZONE 'UTC')::date AS ends, count(*) AS n FROM muster.certificate c
        WHERE c.status IN ('pending', 'current') AND c.purpose = 'operational' AND (c.status = 'current' OR c.supersedes_id IS NULL)
            AND c.not_after > now() AND c.template_id IN (SELECT plan.id FROM plan)
            AND NOT EXISTS (SELECT 1 FROM muster.device d WHERE d.id = c.device_id AND d.retired_at IS NOT NULL) GROUP BY 1, 2),
    today AS (SELECT (now() AT TIME ZONE 'UTC')::date AS d),
    due AS (
        SELECT s.at::date AS d, l.n * CASE WHEN p.period_s < 86400 THEN 86400.0 / p.period_s ELSE 1 END AS n
        FROM live l JOIN plan p ON p.id = l.template_id CROSS JOIN today
        CROSS JOIN LATERAL generate_series(GREATEST(l.ends::timestamp - make_interval(secs => p.ahead_s), today.d), today.d + 365, make_interval(secs => GREATEST(p.period_s, 86400))) s(at)),
    days AS (SELECT g::date AS d FROM today, generate_series(today.d, today.d + 365, interval '1 day') g)
    SELECT date_trunc(unit, days.d)::date, COALESCE(sum(r.n), 0)::bigint, COALESCE(sum(e.n), 0)::bigint FROM days
        LEFT JOIN (SELECT due.d, round(sum(due.n)) AS n FROM due GROUP BY 1) r ON r.d = days.d
        LEFT JOIN (SELECT live.ends AS d, sum(live.n) AS n FROM live GROUP BY 1) e ON e.d = days.d
    GROUP BY 1
$$;
COMMENT ON FUNCTION forecast IS 'Renewals to be expected in the next year, and certificates that end, for each day, week (from its Monday) or month';

-- As before, but: why a receiver was away is told only while it is.
CREATE OR REPLACE FUNCTION doctor_watch() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    found jsonb := '[]';
    n bigint;
    r record;
BEGIN
    SELECT count(*) INTO n FROM muster.state_limit l JOIN muster.device d ON d.state = l.state AND d.retired_at IS NULL
        WHERE d.state NOT IN ('UNPROVISIONED', 'PROVISIONED') AND muster.stuck_since(d, l) < now();
    found := found || muster.doctor_row('devices on their way', n > 0, 'warning', format('%s devices stand in a state for longer than its limit', n), 'muster device stuck');
    SELECT count(*) INTO n FROM muster.jit_certificate j WHERE j.status = 'pending';
    found := found || muster.doctor_row('certificates that wait', n > 0, 'warning', format('%s certificates wait for their activation', n), 'muster cert waiting, then muster cert activate');
    SELECT count(*) INTO n FROM muster.jit_certificate j WHERE j.status = 'failed';
    found := found || muster.doctor_row('just-in-time failures', n > 0, 'warning', format('%s certificates came and their template refused them', n), 'muster cert waiting --status failed');
    FOR r IN SELECT s.name, (muster.sink_json(s)->>'dead')::bigint AS dead, s.failures, s.last_error FROM muster.event_sink s WHERE NOT s.paused LOOP
        found := found || muster.doctor_row('events to ' || r.name, r.dead > 0 OR r.failures > 2, 'warning',
            CASE WHEN r.dead > 0 THEN format('%s events were given up', r.dead) WHEN r.failures > 0 THEN COALESCE('it is away: ' || r.last_error, 'it is away') ELSE 'delivered' END, 'muster webhook list, muster event dead');
    END LOOP;
    RETURN found;
END $$;
