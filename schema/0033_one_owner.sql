-- migration: 33
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

-- As before, and: of several groups that a batch has new devices for, in one order.
CREATE OR REPLACE FUNCTION enrol_batch(requests jsonb) RETURNS SETOF enrol_result LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    r muster.enrol_request;
    res muster.enrol_result;
    tokens bigint[];
    claims bigint[];
    groups bigint[];
    fresh muster.enrol_request[] := '{}';
    last muster.enrol_request;
BEGIN
    -- tokens, claims and groups first and in one order, then devices in one order: no two batches wait for each other.
    -- Those of a single request are locked when they are judged.
    IF jsonb_array_length(requests) > 1 THEN
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

CREATE OR REPLACE FUNCTION enrollment_tally_make() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    most integer := CASE NEW.attestation WHEN 'symmetric-key' THEN 200 WHEN 'tpm' THEN 50 END;
BEGIN
    IF (SELECT count(*) FROM muster.enrollment e WHERE e.grouped AND e.attestation = NEW.attestation) > most THEN
        PERFORM muster.refuse('request.conflict', format('there are %s groups by %s already, and each registration tries them all: delete one, or enroll devices singly', most, NEW.attestation));
    END IF;
    INSERT INTO muster.enrollment_tally (enrollment_id) VALUES (NEW.id);
    RETURN NULL;
END $$;

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

-- As before, and: a CA is for its template's product, one for all is an unscoped operator's, and so is the id of another product's device.
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

CREATE OR REPLACE FUNCTION desk_enrollment_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.template := muster.desk_template(op, a->>'template');
    hosts text[] := muster.enrollment_endpoints(a);
    x muster.enrollment;
BEGIN
    PERFORM muster.enrollment_scope_check(op, a, t);
    INSERT INTO muster.enrollment (grouped, name, product_id, template_id, attestation, primary_key, secondary_key, primary_certificate,
            secondary_certificate, ca_id, endorsement, storage_root, roots, serial, allocation, endpoints, sticky, migrate, payload, max_devices,
            warn_devices, note, created_by)
        VALUES ((a->>'grouped')::boolean, a->>'name', t.product_id, t.id, a->>'attestation', decode(a->>'primary_key', 'hex'),
            decode(a->>'secondary_key', 'hex'), decode(a->>'certificate', 'hex'), decode(a->>'secondary_certificate', 'hex'),
            (SELECT c.id FROM muster.ca c WHERE c.name = a->>'ca' AND c.kind = 'registered'),
            decode(a->>'endorsement_key', 'hex'), decode(a->>'storage_root_key', 'hex'), a->>'roots', a->>'serial', COALESCE(a->>'allocation', 'hashed'),
            hosts, COALESCE(a->>'reprovision', 'update') = 'sticky', COALESCE((a->>'migrate')::boolean, true), a->'payload',
            (a->>'max_devices')::bigint, (a->>'warn_devices')::bigint, a->>'note', op->>'actor')
        ON CONFLICT DO NOTHING RETURNING * INTO x;
    IF x.id IS NULL THEN
        PERFORM muster.refuse('request.exists', CASE a->>'attestation'
            WHEN 'psk' THEN format('an enrollment group of the name %s, or by PSK for product %s, which has one at most', a->>'name',
                (SELECT p.name FROM muster.product p WHERE p.id = t.product_id))
            ELSE format('an enrollment of the name %s, or with this CA', a->>'name') END);
    END IF;
    PERFORM muster.desk_audit(op, CASE WHEN x.grouped THEN 'enrollment_group.create' ELSE 'enrollment.create' END, x.name,
        a - '{grouped,registration_id,primary_key,secondary_key}'::text[]);
    RETURN muster.enrollment_json(x);
END $$;

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
