-- migration: 19
-- name: watch
-- oldest-binary: 1
-- transaction: yes
--
-- Devices that stand in a state for too long; certificates an operator registers ahead of their device.

SET LOCAL search_path = muster;

CREATE TABLE state_limit (
    state   device_state PRIMARY KEY,
    seconds bigint NOT NULL CHECK (seconds BETWEEN 60 AND 315360000)
);
COMMENT ON TABLE state_limit IS 'How long a device may stand in a state before it counts as stuck; a state without a row has no limit';
COMMENT ON COLUMN state_limit.state IS 'The state';
COMMENT ON COLUMN state_limit.seconds IS 'The limit; of VERIFY only where the device has no time of its own (verify_by)';
INSERT INTO state_limit VALUES ('BOOTSTRAP', 86400), ('ENROLL', 86400), ('CREDENTIAL_STORE', 3600), ('REGISTER', 3600), ('VERIFY', 86400), ('QUARANTINE', 604800);

CREATE TABLE stuck_told (
    device_id   bigint NOT NULL,
    state_since timestamptz NOT NULL,
    PRIMARY KEY (device_id, state_since)
);
COMMENT ON TABLE stuck_told IS 'Which stays of devices were announced as stuck, each once';
COMMENT ON COLUMN stuck_told.device_id IS 'The device; no foreign key, as devices are never deleted';
COMMENT ON COLUMN stuck_told.state_since IS 'When it came into the state';

-- Only those on their way: a fleet that is provisioned is not looked at.
CREATE INDEX device_on_its_way_idx ON device (state, state_since) WHERE state NOT IN ('UNPROVISIONED', 'PROVISIONED') AND retired_at IS NULL;

CREATE FUNCTION stuck_since(d device, l state_limit) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN d.state = 'VERIFY' AND d.verify_by IS NOT NULL THEN d.verify_by ELSE d.state_since + make_interval(secs => l.seconds) END
$$;
COMMENT ON FUNCTION stuck_since IS 'From when on a device counts as stuck in its state';

CREATE FUNCTION stuck_json(d device, l state_limit) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_build_object('serial', d.serial, 'product', p.name, 'state', d.state, 'since', muster.utc(d.state_since),
        'limit_s', CASE WHEN d.state = 'VERIFY' AND d.verify_by IS NOT NULL THEN extract(epoch FROM d.verify_by - d.state_since)::bigint ELSE l.seconds END,
        'overdue_s', floor(extract(epoch FROM clock_timestamp() - muster.stuck_since(d, l)))::bigint, 'template', t.name,
        'last_outcome', (SELECT h.outcome FROM muster.history h WHERE h.device_id = d.id ORDER BY h.at DESC LIMIT 1),
        'remedy', CASE d.state WHEN 'VERIFY' THEN 'it has its certificate and never used it: is it on, does it reach the broker?'
            WHEN 'QUARANTINE' THEN 'muster device show, then muster device release or retire'
            WHEN 'ENROLL' THEN CASE WHEN EXISTS (SELECT 1 FROM muster.approval w WHERE w.device_id = d.id AND w.decision IS NULL) THEN 'muster device approve, or reject'
                ELSE 'its attempts fail: muster device show' END
            ELSE 'its attempts fail: muster device show' END)
    FROM muster.product p, muster.template t WHERE p.id = d.product_id AND t.id = d.template_id
$$;
COMMENT ON FUNCTION stuck_json IS 'A device that is stuck, as the API lists it';

-- Each stay is told once; at most 1,000 at a time.
CREATE FUNCTION stuck_tell() RETURNS TABLE (state text, devices bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY WITH late AS (
        SELECT d.id, d.serial, d.state AS stands, d.state_since, d.thing_name, p.name AS product FROM muster.state_limit l
        JOIN muster.device d ON d.state = l.state AND d.retired_at IS NULL JOIN muster.product p ON p.id = d.product_id
        WHERE d.state NOT IN ('UNPROVISIONED', 'PROVISIONED') AND muster.stuck_since(d, l) < clock_timestamp()
          AND NOT EXISTS (SELECT 1 FROM muster.stuck_told x WHERE x.device_id = d.id AND x.state_since = d.state_since)
        ORDER BY d.state_since LIMIT 1000),
    noted AS (INSERT INTO muster.stuck_told SELECT late.id, late.state_since FROM late ON CONFLICT DO NOTHING RETURNING device_id),
    told AS (INSERT INTO muster.outbox (event, payload) SELECT 'device.stuck', jsonb_build_object('serial', late.serial, 'product', late.product,
            'thing_name', late.thing_name, 'state', late.stands, 'since', muster.utc(late.state_since)) FROM late JOIN noted n ON n.device_id = late.id RETURNING 1)
    SELECT late.stands::text, count(*) FROM late JOIN noted n ON n.device_id = late.id GROUP BY late.stands;
END $$;
COMMENT ON FUNCTION stuck_tell IS 'Announces devices that are stuck, each stay once; how many in which state';

CREATE FUNCTION desk_state_limit(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM muster.desk_unscoped(op);
    IF (a->>'seconds')::bigint = 0 THEN
        DELETE FROM muster.state_limit WHERE state = a->>'state';
    ELSE
        INSERT INTO muster.state_limit VALUES (a->>'state', (a->>'seconds')::bigint) ON CONFLICT (state) DO UPDATE SET seconds = excluded.seconds;
    END IF;
    PERFORM muster.desk_audit(op, 'state.limit', a->>'state', jsonb_build_object('seconds', (a->>'seconds')::bigint));
    RETURN json_build_object('state', a->>'state', 'limit_s', NULLIF((a->>'seconds')::bigint, 0));
END $$;
COMMENT ON FUNCTION desk_state_limit IS 'POST /state-limits';

-- The doctor, and: who is stuck, what waits, who is not told.
ALTER FUNCTION desk_doctor(jsonb, jsonb) RENAME TO doctor_before_watch;
COMMENT ON FUNCTION doctor_before_watch IS 'The doctor''s findings about installation and claims';
CREATE FUNCTION doctor_watch() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
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
            CASE WHEN r.dead > 0 THEN format('%s events were given up', r.dead) ELSE COALESCE('it is away: ' || r.last_error, 'delivered') END, 'muster webhook list, muster event dead');
    END LOOP;
    RETURN found;
END $$;
COMMENT ON FUNCTION doctor_watch IS 'The doctor''s findings about devices on their way and events';
CREATE FUNCTION desk_doctor(op jsonb, a jsonb) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT (muster.doctor_before_watch(op, a)::jsonb || muster.doctor_watch())::json
$$;
COMMENT ON FUNCTION desk_doctor IS 'GET /doctor';
