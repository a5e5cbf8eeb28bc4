-- migration: 32
-- name: one_owner
-- oldest-binary: 1
-- transaction: yes
--
-- A device has one enrollment: what the key of a group opens ends where another enrollment's devices begin.

SET LOCAL search_path = muster;

ALTER TABLE approval ADD COLUMN enrollment_id bigint;
COMMENT ON COLUMN approval.enrollment_id IS 'By which enrollment it asks; NULL: by another credential';
ALTER TABLE dps_operation ADD COLUMN done_at timestamptz;
COMMENT ON COLUMN dps_operation.done_at IS 'When it was done; the device may not have heard of it yet';
COMMENT ON TABLE dps_operation IS 'Registrations that could not be done at once: what the device asked, for when it asks what became of it';
ALTER TABLE scep_pending ADD COLUMN device text UNIQUE CHECK (length(device) <= 512);
COMMENT ON COLUMN scep_pending.device IS 'Template and serial it is for: a device has one that waits';

-- How many devices a group has. Apart from enrollment, whose constraints would be judged for every device.

CREATE TABLE enrollment_tally (
    enrollment_id bigint PRIMARY KEY REFERENCES enrollment ON DELETE CASCADE,
    devices       bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE enrollment_tally IS 'How many devices a group has';
COMMENT ON COLUMN enrollment_tally.enrollment_id IS 'The group';
COMMENT ON COLUMN enrollment_tally.devices IS 'How many have come by its key, each once';
INSERT INTO enrollment_tally (enrollment_id, devices) SELECT id, registrations FROM enrollment WHERE grouped;

-- A registration does not say of which group it is, so that the keys of each are tried.
CREATE FUNCTION enrollment_tally_make() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    most integer := CASE NEW.attestation WHEN 'symmetric-key' THEN 200 WHEN 'tpm' THEN 50 END;
BEGIN
    IF (SELECT count(*) FROM muster.enrollment e WHERE e.grouped AND e.attestation = NEW.attestation) > most THEN
        PERFORM muster.refuse('request.conflict', format('there are %s groups by %s already, and each registration tries them all: delete one, or enroll devices singly', most, NEW.attestation));
    END IF;
    INSERT INTO muster.enrollment_tally (enrollment_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION enrollment_tally_make IS 'Begins to count the devices of a new group, unless there are too many groups';
CREATE TRIGGER enrollment_tallied AFTER INSERT ON enrollment FOR EACH ROW WHEN (NEW.grouped) EXECUTE FUNCTION enrollment_tally_make();

-- The lock of the row is the group's: taken before a device's own are, so that batches never wait for each other in a circle.
CREATE FUNCTION enrollment_tally_add(x enrollment, devices bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    UPDATE muster.enrollment_tally t SET devices = t.devices + enrollment_tally_add.devices WHERE t.enrollment_id = x.id RETURNING t.devices INTO n;
    RETURN n;
END $$;
COMMENT ON FUNCTION enrollment_tally_add IS 'Counts devices of a group, or takes them off again; how many there are, NULL: it is no group';

-- n: with the device that is new
CREATE FUNCTION enrollment_tally_judge(x enrollment, n bigint, r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF n > x.max_devices THEN
        PERFORM muster.refuse('enrollment.group_full', format('group %s has its %s devices', x.name, x.max_devices));
    ELSIF n = x.warn_devices THEN
        INSERT INTO muster.outbox (event, payload) VALUES ('enrollment.group_large',
            jsonb_build_object('group', x.name, 'devices', x.warn_devices, 'request_id', r.request_id));
    END IF;
END $$;
COMMENT ON FUNCTION enrollment_tally_judge IS 'Refuses the device that is one too many, and tells of a group that has grown large';

-- As before, with the tally.
CREATE OR REPLACE FUNCTION enrollment_json(x enrollment) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(CASE WHEN x.grouped THEN 'name' ELSE 'registration_id' END, x.name,
        'attestation', x.attestation, 'template', t.name, 'product', p.name, 'serial', x.serial, 'enabled', x.enabled,
        'certificate', encode(x.primary_certificate, 'hex'), 'secondary_certificate', encode(x.secondary_certificate, 'hex'),
        'ca', (SELECT c.name FROM muster.ca c WHERE c.id = x.ca_id),
        'endorsement_key', encode(x.endorsement, 'hex'), 'storage_root_key', encode(x.storage_root, 'hex'),
        'roots', x.roots, 'allocation', x.allocation, 'endpoints', to_jsonb(x.endpoints), 'reprovision', CASE WHEN x.sticky THEN 'sticky' ELSE 'update' END,
        'migrate', x.migrate, 'payload', x.payload, 'max_devices', x.max_devices, 'warn_devices', x.warn_devices,
        'devices', (SELECT y.devices FROM muster.enrollment_tally y WHERE y.enrollment_id = x.id), 'note', x.note, 'etag', x.etag::text,
        'created_at', muster.utc(x.created_at), 'created_by', x.created_by, 'updated_at', muster.utc(x.updated_at)))
        || CASE WHEN x.grouped THEN '{}' ELSE jsonb_build_object('registration', (SELECT jsonb_build_object('endpoint', g.endpoint, 'device_id', g.device_name,
            'substatus', g.substatus, 'created_at', muster.utc(g.created_at), 'updated_at', muster.utc(g.updated_at))
            FROM muster.dps_registration g WHERE g.registration_id = x.name_lower AND g.enrollment_id = x.id)) END
    FROM muster.template t, muster.product p WHERE t.id = x.template_id AND p.id = x.product_id
$$;
DROP FUNCTION enrollment_count(enrollment, enrol_request);
ALTER TABLE enrollment DROP COLUMN registrations;

-- As before, but in PL/pgSQL, which keeps the plan.
CREATE OR REPLACE FUNCTION endpoint_choose(x enrollment, registration text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT b.host FROM muster.broker_endpoint b
        WHERE (x.endpoints IS NULL OR b.host = ANY (x.endpoints)) AND (x.allocation <> 'weighted' OR b.weight > 0)
        ORDER BY CASE x.allocation
            WHEN 'static' THEN COALESCE(array_position(x.endpoints, b.host), 0)
            ELSE -ln((('x' || substr(md5(b.host || ' ' || registration), 1, 8))::bit(32)::bigint & 4294967295) / 4294967296.0::float8 + 1e-10)
                / CASE x.allocation WHEN 'weighted' THEN b.weight ELSE 1 END END, b.host
        LIMIT 1);
END $$;

-- Whose a device is

CREATE INDEX enrollment_serial_idx ON enrollment (product_id, lower(COALESCE(serial, name))) WHERE NOT grouped;

CREATE FUNCTION enrollment_knows(x enrollment, r enrol_request) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF x.attestation = 'psk' THEN
        RETURN EXISTS (SELECT 1 FROM muster.enrollment_device g
            WHERE g.product_id = r.product_id AND g.serial_canonical = r.serial_canonical AND g.enrollment_id = x.id);
    END IF;
    RETURN EXISTS (SELECT 1 FROM muster.dps_registration g WHERE g.registration_id = r.registration_id AND g.enrollment_id = x.id);
END $$;
COMMENT ON FUNCTION enrollment_knows IS 'Whether the device has come by this enrollment before';

-- An individual enrollment is an operator's word on this very device, and goes before every group. Of a group's devices none is another's,
-- unless its enrollment was deleted, or an operator reset the device.
CREATE FUNCTION enrollment_other(of_group bigint, registration text, product bigint, named text, canonical text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    owner text;
BEGIN
    SELECT e.name INTO owner FROM muster.enrollment e WHERE NOT e.grouped AND e.product_id = product
        AND lower(COALESCE(e.serial, e.name)) IN (lower(named), lower(canonical)) LIMIT 1;
    IF FOUND THEN
        RETURN owner;
    END IF;
    SELECT e.name INTO owner FROM (
            SELECT g.enrollment_id FROM muster.dps_registration g WHERE g.registration_id = registration
            UNION ALL SELECT g.enrollment_id FROM muster.dps_registration g WHERE g.product_id = product AND g.serial_canonical = canonical
            UNION ALL SELECT g.enrollment_id FROM muster.enrollment_device g WHERE g.product_id = product AND g.serial_canonical = canonical) o
        JOIN muster.enrollment e ON e.id = o.enrollment_id WHERE e.id <> of_group LIMIT 1;
    IF FOUND AND EXISTS (SELECT 1 FROM muster.device d WHERE d.reset_at IS NOT NULL
            AND ((d.product_id = product AND d.serial_canonical = canonical)
                OR (d.product_id, d.serial_canonical) = (SELECT g.product_id, g.serial_canonical FROM muster.dps_registration g WHERE g.registration_id = registration))) THEN
        RETURN NULL;
    END IF;
    RETURN owner;
END $$;
COMMENT ON FUNCTION enrollment_other IS 'The enrollment whose device it is, where a group''s key must not have it; NULL: none';

-- As before, and: who has the key of a group fails for its own devices only.
ALTER FUNCTION attempt_failed(jsonb) RENAME TO attempt_failed_note;
COMMENT ON FUNCTION attempt_failed_note IS 'Records a refused attempt, of a credential that is the device''s';
CREATE FUNCTION attempt_failed(f jsonb) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    IF f ? 'group_id' AND muster.enrollment_other((f->>'group_id')::bigint, lower(f->>'registration_id'), (f->>'product_id')::bigint, f->>'serial', f->>'serial_canonical') IS NOT NULL THEN
        f := f || '{"proven": false}';
    END IF;
    RETURN muster.attempt_failed_note(f);
END $$;
COMMENT ON FUNCTION attempt_failed IS 'Records a refused attempt and counts it against the device or the token it concerns';

-- What another enrollment had counted, an individual one apart, which may have two ids for one device.
CREATE FUNCTION enrollment_others_drop(x enrollment, r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    FOR gone IN DELETE FROM muster.enrollment_device g WHERE g.product_id = r.product_id AND g.serial_canonical = r.serial_canonical
            AND g.enrollment_id <> x.id RETURNING g.enrollment_id LOOP
        UPDATE muster.enrollment_tally t SET devices = t.devices - 1 WHERE t.enrollment_id = gone;
    END LOOP;
    FOR gone IN DELETE FROM muster.dps_registration g WHERE g.product_id = r.product_id AND g.serial_canonical = r.serial_canonical
            AND g.registration_id IS DISTINCT FROM r.registration_id
            AND NOT EXISTS (SELECT 1 FROM muster.enrollment e WHERE e.id = g.enrollment_id AND NOT e.grouped) RETURNING g.enrollment_id LOOP
        UPDATE muster.enrollment_tally t SET devices = t.devices - 1 WHERE t.enrollment_id = gone;
    END LOOP;
END $$;
COMMENT ON FUNCTION enrollment_others_drop IS 'Takes a device from the groups that had it before';

-- A registered CA may have registered the same certificate, and an operator judged it.
CREATE FUNCTION enrollment_certificate_code(shown bytea, product bigint, canonical text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    c muster.certificate;
    d muster.device;
    waiting text;
BEGIN
    SELECT * INTO c FROM muster.certificate x WHERE x.fingerprint = shown;
    IF FOUND THEN
        SELECT * INTO d FROM muster.device x WHERE x.id = c.device_id;
        RETURN CASE WHEN c.status = 'revoked' THEN 'cert.revoked'
            WHEN (d.product_id, d.serial_canonical) <> (product, canonical) THEN 'serial.mismatch'
            WHEN c.purpose = 'operational' AND c.status = 'superseded' THEN 'cert.superseded'
            WHEN NOT c.active THEN 'cert.inactive'
            ELSE 'ok' END;
    END IF;
    SELECT j.status INTO waiting FROM muster.jit_certificate j WHERE j.fingerprint = shown;
    RETURN CASE WHEN waiting = 'revoked' THEN 'cert.revoked' WHEN waiting IN ('pending', 'inactive') THEN 'cert.inactive' ELSE 'ok' END;
END $$;
COMMENT ON FUNCTION enrollment_certificate_code IS 'Why the certificate that a device registers with may not be used, as a fault''s code, or ok';

-- As before, and: counts a device that was another enrollment's, and keeps what was asked for a while.
CREATE OR REPLACE FUNCTION dps_assign(x enrollment, r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    g muster.dps_registration;
    chosen text;
    n bigint;
    version bigint;
BEGIN
    SELECT * INTO g FROM muster.dps_registration WHERE registration_id = r.registration_id FOR UPDATE;
    chosen := CASE WHEN x.sticky AND EXISTS (SELECT 1 FROM muster.broker_endpoint b WHERE b.host = g.endpoint) THEN g.endpoint
                   ELSE muster.endpoint_choose(x, r.registration_id) END;
    IF r.protocol <> 'dps' THEN -- it asked for no broker
        chosen := COALESCE(g.endpoint, '');
    ELSIF chosen IS NULL THEN
        PERFORM muster.refuse('enrollment.no_endpoint', format('enrollment %s has no broker to assign to', x.name));
    END IF;
    IF g.enrollment_id IS DISTINCT FROM x.id THEN -- NULL: it never came
        UPDATE muster.enrollment_tally t SET devices = t.devices - 1 WHERE t.enrollment_id = g.enrollment_id;
        n := muster.enrollment_tally_add(x, 1);
    END IF;
    INSERT INTO muster.dps_registration AS o (registration_id, enrollment_id, product_id, serial_canonical, device_name, endpoint, first_endpoint, substatus)
        VALUES (r.registration_id, x.id, r.product_id, r.serial_canonical, COALESCE(r.thing_name, r.serial), chosen, chosen, 'initialAssignment')
        ON CONFLICT (registration_id) DO UPDATE SET enrollment_id = x.id, product_id = r.product_id, serial_canonical = r.serial_canonical,
            device_name = EXCLUDED.device_name, endpoint = chosen, etag = o.etag + 1, updated_at = clock_timestamp(),
            first_endpoint = CASE WHEN o.first_endpoint = '' THEN chosen ELSE o.first_endpoint END,
            substatus = CASE WHEN o.endpoint IN (chosen, '') THEN o.substatus
                             WHEN o.first_endpoint = chosen THEN 'reprovisionedToInitialAssignment'
                             WHEN x.migrate THEN 'deviceDataMigrated' ELSE 'deviceDataReset' END
        RETURNING etag INTO version;
    IF g.registration_id IS NULL AND version > 1 AND x.grouped THEN
        PERFORM muster.refuse('device.busy', format('%s has registered by another enrollment meanwhile', r.registration_id));
    ELSIF n IS NOT NULL THEN
        PERFORM muster.enrollment_tally_judge(x, n, r);
    END IF;
    PERFORM muster.enrollment_others_drop(x, r);
    UPDATE muster.dps_operation SET done_at = clock_timestamp() WHERE registration_id = r.registration_id AND done_at IS NULL;
END $$;

-- As before, but whoever is locked the tally is locked already.
DROP FUNCTION psk_count(enrollment, enrol_request);
CREATE FUNCTION psk_count(x enrollment, r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT muster.enrollment_knows(x, r) THEN
        INSERT INTO muster.enrollment_device (product_id, serial_canonical, enrollment_id) VALUES (r.product_id, r.serial_canonical, x.id);
        PERFORM muster.enrollment_tally_judge(x, muster.enrollment_tally_add(x, 1), r);
    END IF;
    PERFORM muster.enrollment_others_drop(x, r);
END $$;
COMMENT ON FUNCTION psk_count IS 'Counts a device of a PSK group once, under the lock of its tally';

-- As before, and: only its own devices, no certificate that was judged otherwise; and what waits for an operator is neither assigned nor
-- counted. The lock of a group's tally is taken before that of a device, so that no two wait for each other.
CREATE OR REPLACE FUNCTION enrol_by_enrollment(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    x muster.enrollment;
    v muster.token_verdict;
    res muster.enrol_result;
    code text;
    other text;
BEGIN
    SELECT * INTO x FROM muster.enrollment WHERE id = r.enrollment_id;
    IF x.id IS NULL OR NOT x.enabled THEN
        PERFORM muster.refuse('enrollment.disabled', format('enrollment %s of %s', COALESCE(x.name, 'that was deleted'), COALESCE(r.registration_id, r.serial)));
    ELSIF (x.attestation = 'psk') <> (r.registration_id IS NULL) THEN
        PERFORM muster.refuse('enrollment.disabled', format('enrollment %s is by %s', x.name, x.attestation));
    ELSIF x.product_id <> r.product_id THEN
        PERFORM muster.refuse('template.credential_not_allowed', format('enrollment %s is of another product', x.name));
    END IF;
    code := CASE WHEN r.peer_fingerprint IS NULL THEN 'ok' ELSE muster.enrollment_certificate_code(r.peer_fingerprint, r.product_id, r.serial_canonical) END;
    IF code <> 'ok' THEN
        PERFORM muster.refuse(code, format('the certificate that %s registers with', r.registration_id));
    END IF;
    IF x.grouped THEN
        IF NOT muster.enrollment_knows(x, r) THEN
            PERFORM 1 FROM muster.enrollment_tally t WHERE t.enrollment_id = x.id FOR UPDATE;
        END IF;
        other := muster.enrollment_other(x.id, r.registration_id, r.product_id, r.serial, r.serial_canonical);
        IF other IS NOT NULL THEN
            PERFORM muster.refuse('enrollment.other', format('device %s is of enrollment %s', COALESCE(r.registration_id, r.serial), other));
        END IF;
    END IF;
    v.bound := true;
    res := CASE WHEN r.certificate IS NULL THEN muster.enrol_assigned(r, v) ELSE muster.enrol_first(r, v) END;
    IF res.code = 'approval.pending' THEN
        RETURN res;
    ELSIF x.attestation = 'psk' THEN
        PERFORM muster.psk_count(x, r);
    ELSE
        PERFORM muster.dps_assign(x, r);
    END IF;
    RETURN res;
END $$;
DROP FUNCTION enrol_by_psk(enrollment, enrol_request);

-- Tokens, claims and groups first and in one order, then devices in one order: no two batches wait for each other. Of groups only those that
-- have new devices in it.
CREATE FUNCTION enrol_batch_lock(requests jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    tokens bigint[];
    claims bigint[];
    groups bigint[];
BEGIN
    tokens := ARRAY(SELECT t.id FROM jsonb_array_elements(requests) x
        CROSS JOIN LATERAL (SELECT k.id FROM muster.token k WHERE k.hash = (x->>'token_hash')::bytea OFFSET 0) t);
    PERFORM 1 FROM muster.token k WHERE k.id = ANY (tokens) ORDER BY k.id FOR UPDATE;
    claims := ARRAY(SELECT DISTINCT (x->>'claim_id')::bigint FROM jsonb_array_elements(requests) x WHERE x->>'claim_id' IS NOT NULL);
    IF cardinality(claims) > 0 THEN
        PERFORM 1 FROM muster.claim c WHERE c.id = ANY (claims) ORDER BY c.id FOR NO KEY UPDATE;
    END IF;
    groups := ARRAY(SELECT DISTINCT (x->>'enrollment_id')::bigint FROM jsonb_array_elements(requests) x WHERE x->>'enrollment_id' IS NOT NULL);
    IF cardinality(groups) > 0 THEN
        groups := ARRAY(SELECT DISTINCT e.id FROM jsonb_populate_recordset(NULL::muster.enrol_request, requests) q
            JOIN muster.enrollment e ON e.id = q.enrollment_id WHERE e.grouped AND NOT muster.enrollment_knows(e, q));
        PERFORM 1 FROM muster.enrollment_tally t WHERE t.enrollment_id = ANY (groups) ORDER BY t.enrollment_id FOR UPDATE;
    END IF;
END $$;
COMMENT ON FUNCTION enrol_batch_lock IS 'Takes the locks that several requests of a batch share';

-- As before, with its locks in a function of their own. Those of a single request are locked when they are judged.
CREATE OR REPLACE FUNCTION enrol_batch(requests jsonb) RETURNS SETOF enrol_result LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    r muster.enrol_request;
    res muster.enrol_result;
    fresh muster.enrol_request[] := '{}';
    last muster.enrol_request;
BEGIN
    IF jsonb_array_length(requests) > 1 THEN
        PERFORM muster.enrol_batch_lock(requests);
    END IF;
    FOR r IN SELECT q.* FROM jsonb_populate_recordset(NULL::muster.enrol_request, requests) q
             ORDER BY q.product_id, q.serial_canonical, q.ord LOOP
        IF last.product_id = r.product_id AND last.serial_canonical = r.serial_canonical THEN
            PERFORM muster.enrol_write(fresh); -- the same device again must see itself
            fresh := '{}';
            last := NULL;
        END IF;
        res := muster.enrol_one(r);
        IF res.device_id IS NOT NULL THEN
            r.device_id := res.device_id;
            r.certificate_id := nextval('muster.certificate_id_seq');
            r.token_id := res.token_id;
            r.claim_grace := res.claim_grace;
            r.new_state := res.state;
            fresh := fresh || r;
            last := r;
        END IF;
        RETURN NEXT res;
    END LOOP;
    IF cardinality(fresh) > 0 THEN
        PERFORM muster.enrol_write(fresh);
    END IF;
END $$;

-- As before, and: an operator's word is for the enrollment that asked; requests without a key would else be each other's.
CREATE OR REPLACE FUNCTION enrol_approval(r enrol_request, d device, v token_verdict, bound boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    a muster.approval;
    key bytea := CASE WHEN r.server_key THEN NULL ELSE r.spki END;
BEGIN
    SELECT * INTO a FROM muster.approval WHERE device_id = d.id;
    IF a.decision = 'rejected' THEN
        PERFORM muster.refuse('approval.rejected', format('rejected by %s at %s: %s', a.decided_by, a.decided_at, COALESCE(a.reason, 'no reason given')));
    ELSIF a.device_id IS NOT NULL AND a.spki_sha256 IS NOT DISTINCT FROM key AND a.enrollment_id IS NOT DISTINCT FROM r.enrollment_id THEN
        IF a.decision = 'approved' THEN
            DELETE FROM muster.approval WHERE device_id = d.id;
            RETURN true;
        END IF;
        UPDATE muster.approval SET asked = asked + 1, last_asked = clock_timestamp() WHERE device_id = d.id;
        RETURN false;
    ELSIF a.device_id IS NOT NULL AND NOT bound THEN
        -- whoever else holds a shared credential must not slip in a key between look and word
        PERFORM muster.refuse('device.key_conflict', format('another key waits for approval since %s', a.requested_at));
    END IF;
    DELETE FROM muster.approval WHERE device_id = d.id;
    IF EXISTS (SELECT 1 FROM muster.token t WHERE t.id = v.token_id AND NOT v.comeback
               AND t.uses + (SELECT count(*) FROM muster.approval w WHERE w.token_id = t.id) >= t.max_uses) THEN
        PERFORM muster.refuse('token.consumed', format('as many enrolments wait as token %s has certificates left to give', v.token_id));
    END IF;
    INSERT INTO muster.approval (device_id, spki_sha256, request_id, template, credential, token_id, source, enrollment_id)
        VALUES (d.id, key, r.request_id, r.template_label, r.credential, v.token_id, r.source, r.enrollment_id);
    IF d.state IN ('UNPROVISIONED', 'BOOTSTRAP') THEN
        UPDATE muster.device SET state = 'ENROLL' WHERE id = d.id RETURNING * INTO d;
    END IF;
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, source, template, outcome, reached, state, steps)
        VALUES (r.request_id, r.product_id, d.id, r.serial, r.protocol, r.operation, r.credential, r.source, r.template_label, 'approval.pending', 'ENROLL', d.state, r.steps);
    INSERT INTO muster.outbox (event, payload) VALUES ('device.approval_requested',
        jsonb_build_object('serial', r.serial, 'template', r.template_label, 'key', encode(key, 'hex'), 'request_id', r.request_id));
    RETURN false;
END $$;

-- Looking up

-- shown: SHA-256 of the certificate it looks up with; NULL: with none
CREATE FUNCTION dps_standing(g dps_registration, shown bytea) RETURNS text LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    d muster.device;
    code text := CASE WHEN shown IS NULL THEN 'ok' ELSE muster.enrollment_certificate_code(shown, g.product_id, g.serial_canonical) END;
BEGIN
    SELECT * INTO d FROM muster.device x WHERE x.product_id = g.product_id AND x.serial_canonical = g.serial_canonical;
    RETURN CASE WHEN d.retired_at IS NOT NULL THEN 'device.retired' WHEN d.state = 'QUARANTINE' THEN 'device.quarantined' ELSE code END;
END $$;
COMMENT ON FUNCTION dps_standing IS 'Why a device may not be told what it was assigned, as a fault''s code, or ok';

-- Those that are enabled first: a disabled one with the same roots does not hide them.
CREATE OR REPLACE FUNCTION enrollment_candidates(registration text, kind text, ca bigint) RETURNS SETOF enrollment LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT * FROM muster.enrollment e WHERE NOT e.grouped AND e.name_lower = lower(registration);
    IF NOT FOUND AND kind <> 'x509' THEN
        RETURN QUERY SELECT * FROM muster.enrollment e WHERE e.grouped AND e.attestation = kind ORDER BY NOT e.enabled, e.id;
    ELSIF NOT FOUND THEN
        RETURN QUERY SELECT * FROM muster.enrollment e WHERE e.ca_id = ca;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION dps_prune() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM muster.dps_operation WHERE begun_at < clock_timestamp() - interval '30 days' OR done_at < clock_timestamp() - interval '1 hour';
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE OR REPLACE FUNCTION dps_operation_keep(registration text, op text, asked text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.dps_operation (registration_id, operation, body) VALUES (registration, op, asked)
        ON CONFLICT (registration_id) DO UPDATE SET operation = op, body = asked, begun_at = clock_timestamp(), done_at = NULL
$$;

-- Replicas of before go on with the one of two arguments.
CREATE FUNCTION scep_pending_keep(of bytea, sent bytea, whose text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM muster.scep_pending p WHERE p.device = whose AND p.transaction <> of;
    INSERT INTO muster.scep_pending (transaction, message, device) VALUES (of, sent, whose)
        ON CONFLICT (transaction) DO UPDATE SET message = sent, kept_at = clock_timestamp(), device = whose;
END $$;
COMMENT ON FUNCTION scep_pending_keep(bytea, bytea, text) IS 'Keeps a message whose enrolment waits, the device''s only one';

-- The operator's desk


CREATE FUNCTION enrollment_change_judge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.primary_key IS NOT NULL OR NEW.secondary_key IS NOT NULL) AND NEW.attestation NOT IN ('symmetric-key', 'psk') THEN
        PERFORM muster.refuse('request.conflict', format('%s is by %s: it has no keys here', NEW.name, NEW.attestation));
    ELSIF octet_length(NEW.payload::text) > 65536 THEN
        PERFORM muster.refuse('request.malformed', 'payload is longer than 65536 bytes');
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION enrollment_change_judge IS 'Says in words what the constraints of the table say';
CREATE TRIGGER enrollment_change_judged BEFORE UPDATE ON enrollment FOR EACH ROW EXECUTE FUNCTION enrollment_change_judge();

-- A CA is for its template's product, one for all is an unscoped operator's, and so is the id of another product's device.
CREATE FUNCTION enrollment_scope_check(op jsonb, a jsonb, t template) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    made_for bigint;
BEGIN
    IF a->>'ca' IS NOT NULL THEN
        SELECT x.product_id INTO made_for FROM muster.ca c LEFT JOIN muster.template x ON x.id = c.template_id
            WHERE c.name = a->>'ca' AND c.kind = 'registered';
        IF NOT FOUND OR NOT muster.desk_sees(op, COALESCE(made_for, 0)) THEN
            PERFORM muster.refuse('object.not_found', format('there is no registered CA %s', a->>'ca'));
        ELSIF made_for <> t.product_id THEN
            PERFORM muster.refuse('request.conflict', format('CA %s is registered for another product than that of template %s', a->>'ca', t.name));
        END IF;
    END IF;
    IF NOT (a->>'grouped')::boolean AND EXISTS (SELECT 1 FROM muster.dps_registration g
            WHERE g.registration_id = lower(a->>'name') AND NOT muster.desk_sees(op, g.product_id)) THEN
        PERFORM muster.refuse('request.exists', format('a device of another product has registered as %s', a->>'name'));
    END IF;
END $$;
COMMENT ON FUNCTION enrollment_scope_check IS 'Refuses to enroll what is another product''s';

ALTER FUNCTION desk_enrollment_create(jsonb, jsonb) RENAME TO enrollment_create;
COMMENT ON FUNCTION enrollment_create IS 'Makes an enrollment of what is the operator''s to enroll';
CREATE FUNCTION desk_enrollment_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM muster.enrollment_scope_check(op, a, muster.desk_template(op, a->>'template'));
    RETURN muster.enrollment_create(op, a);
END $$;
COMMENT ON FUNCTION desk_enrollment_create IS 'POST /enrollments and /enrollment-groups';

-- What devices by PSK are assigned is nothing that could be changed.
ALTER FUNCTION desk_enrollment_update(jsonb, jsonb) RENAME TO enrollment_update;
COMMENT ON FUNCTION enrollment_update IS 'Changes of an enrollment what is named';
CREATE FUNCTION desk_enrollment_update(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    x muster.enrollment := muster.desk_enrollment(op, a);
BEGIN
    IF x.attestation = 'psk' AND a ?| '{allocation,endpoints,reprovision,migrate,payload}' THEN
        PERFORM muster.refuse('request.conflict', format('%s is by PSK: its devices are assigned nothing', x.name));
    END IF;
    RETURN muster.enrollment_update(op, a);
END $$;
COMMENT ON FUNCTION desk_enrollment_update IS 'POST /enrollments/{id}, /enable, /disable and /rotate, and those of /enrollment-groups';

-- As before, with the reason that an operator gives.
CREATE OR REPLACE FUNCTION desk_device_retire(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device_must(op, a);
BEGIN
    PERFORM muster.certificate_revoke(c.id, COALESCE(a->>'reason', 'cessationOfOperation')) FROM muster.certificate c
        WHERE c.device_id = d.id AND c.status IN ('pending', 'current');
    UPDATE muster.device SET retired_at = clock_timestamp(), verify_by = NULL, reset_at = NULL WHERE id = d.id RETURNING * INTO d;
    RETURN muster.desk_device_done(op, d, 'retire', a->>'reason');
END $$;
