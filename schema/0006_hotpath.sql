-- migration: 6
-- name: hotpath
-- oldest-binary: 1
-- transaction: yes
--
-- What an enrolment costs. Plans inside enrol_batch are generic and may be made while the tables
-- are empty, when a scan of everything costs nothing; they must stay right when the tables have
-- grown. So every statement finds its rows by a key that no other index could stand in for.

SET LOCAL search_path = muster;

-- A table's CHECKs are parsed anew and evaluated all together by every statement that writes a row of
-- it; a domain's are kept ready and concern the columns that are written. So what one column alone must
-- satisfy is a domain from here on. The tables are rewritten once, under an exclusive lock.
CREATE DOMAIN serial_text AS text CHECK (VALUE ~ '^[A-Za-z0-9._:-]+$' AND length(VALUE) <= 64);
COMMENT ON DOMAIN serial_text IS 'A serial: 1 to 64 characters of A-Z a-z 0-9 . _ : -';
CREATE DOMAIN thing_text AS text CHECK (VALUE ~ '^[A-Za-z0-9:_-]+$' AND length(VALUE) <= 128);
COMMENT ON DOMAIN thing_text IS 'Name of a thing or a group, as AWS IoT has it: 1 to 128 characters of A-Z a-z 0-9 : _ -';
CREATE DOMAIN sha256 AS bytea CHECK (length(VALUE) = 32);
COMMENT ON DOMAIN sha256 IS 'A SHA-256';
CREATE DOMAIN der AS bytea CHECK (length(VALUE) <= 16384);
COMMENT ON DOMAIN der IS 'A certificate as DER';
CREATE DOMAIN device_state AS text CHECK (VALUE IN ('UNPROVISIONED', 'BOOTSTRAP', 'ENROLL', 'CREDENTIAL_STORE', 'REGISTER', 'VERIFY', 'PROVISIONED', 'QUARANTINE'));
COMMENT ON DOMAIN device_state IS 'Where a device stands on its way';
CREATE DOMAIN verify_mode AS text CHECK (VALUE IN ('call', 'broker', 'external', 'none'));
COMMENT ON DOMAIN verify_mode IS 'What counts as the first use of a certificate';
CREATE DOMAIN certificate_purpose AS text CHECK (VALUE IN ('bootstrap', 'operational'));
COMMENT ON DOMAIN certificate_purpose IS 'What a certificate may do';
CREATE DOMAIN certificate_status AS text CHECK (VALUE IN ('pending', 'current', 'superseded', 'revoked'));
COMMENT ON DOMAIN certificate_status IS 'Where a certificate stands in its life';
CREATE DOMAIN revoke_reason AS text CHECK (VALUE IN ('unspecified', 'keyCompromise', 'cACompromise', 'affiliationChanged', 'superseded', 'cessationOfOperation', 'privilegeWithdrawn'));
COMMENT ON DOMAIN revoke_reason IS 'RFC 5280 5.3.1';
CREATE DOMAIN certificate_number AS bytea CHECK (length(VALUE) BETWEEN 1 AND 20);
COMMENT ON DOMAIN certificate_number IS 'Serial number of a certificate, big endian (RFC 5280 4.1.2.2)';
CREATE DOMAIN key_kind AS text CHECK (VALUE IN ('device', 'bootstrap', 'ca'));
COMMENT ON DOMAIN key_kind IS 'What a key is for';

ALTER TABLE device
    DROP CONSTRAINT device_serial_check, DROP CONSTRAINT device_serial_canonical_check, DROP CONSTRAINT device_state_check,
    DROP CONSTRAINT device_thing_name_check, DROP CONSTRAINT device_verify_mode_check,
    ALTER serial TYPE serial_text, ALTER serial_canonical TYPE serial_text, ALTER state TYPE device_state,
    ALTER thing_name TYPE thing_text, ALTER verify_mode TYPE verify_mode;
ALTER TABLE thing DROP CONSTRAINT thing_name_check, ALTER name TYPE thing_text;
ALTER TABLE thing_group DROP CONSTRAINT thing_group_name_check, ALTER name TYPE thing_text;
ALTER TABLE certificate
    DROP CONSTRAINT certificate_fingerprint_check, DROP CONSTRAINT certificate_purpose_check, DROP CONSTRAINT certificate_status_check,
    DROP CONSTRAINT certificate_serial_number_check, DROP CONSTRAINT certificate_spki_sha256_check, DROP CONSTRAINT certificate_revoke_reason_check,
    ALTER fingerprint TYPE sha256, ALTER purpose TYPE certificate_purpose, ALTER status TYPE certificate_status,
    ALTER serial_number TYPE certificate_number, ALTER spki_sha256 TYPE sha256, ALTER revoke_reason TYPE revoke_reason;
ALTER TABLE certificate_der DROP CONSTRAINT certificate_der_der_check, ALTER der TYPE der;
ALTER TABLE key_owner
    DROP CONSTRAINT key_owner_spki_sha256_check, DROP CONSTRAINT key_owner_kind_check,
    ALTER spki_sha256 TYPE sha256, ALTER kind TYPE key_kind;
ALTER TABLE allowlist
    DROP CONSTRAINT allowlist_serial_check, DROP CONSTRAINT allowlist_serial_canonical_check, DROP CONSTRAINT allowlist_spki_pin_check,
    ALTER serial TYPE serial_text, ALTER serial_canonical TYPE serial_text, ALTER spki_pin TYPE sha256;
ALTER TABLE token DROP CONSTRAINT token_hash_check, ALTER hash TYPE sha256;

-- Tokens and allowlist rows are updated once in their lives, by the enrolment: with room beside
-- them that touches no index.
ALTER TABLE token SET (fillfactor = 80);
ALTER TABLE allowlist SET (fillfactor = 80);

-- A partial index whose condition follows from a query's own stands in for the index that is meant,
-- and then is read from end to end; this condition follows from nothing but itself.
DROP INDEX certificate_serial_number;
CREATE UNIQUE INDEX certificate_serial_number ON certificate (issuer_id, serial_number) WHERE (purpose = 'operational') IS NOT FALSE;
COMMENT ON INDEX certificate_serial_number IS 'What we signed is unique; a factory''s intermediates below one registered CA may count alike';

CREATE FUNCTION certificate_of(device bigint, wanted_purpose text, wanted_status text) RETURNS certificate LANGUAGE plpgsql STABLE AS $$
DECLARE
    c muster.certificate;
BEGIN
    FOR c IN SELECT * FROM muster.certificate x WHERE x.device_id = device LOOP
        IF c.purpose = wanted_purpose AND c.status = wanted_status THEN
            RETURN c;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION certificate_of IS 'The one certificate of a device of this purpose and status (pending or current), or NULL';

CREATE OR REPLACE FUNCTION enrol_token(r enrol_request) RETURNS token_verdict LANGUAGE plpgsql AS $$
DECLARE
    t muster.token;
    v muster.token_verdict;
    used timestamptz;
    at timestamptz := clock_timestamp();
BEGIN
    SELECT * INTO t FROM muster.token WHERE hash = r.token_hash FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('token.unknown', 'no token of this hash');
    END IF;
    IF t.template_id <> r.template_id THEN
        PERFORM muster.refuse('token.wrong_template', format('token %s is for another template than %s', t.id, r.template_label));
    END IF;
    IF t.serial_canonical IS NOT NULL AND t.serial_canonical <> r.serial_canonical THEN
        PERFORM muster.refuse('token.wrong_serial', format('token %s is bound to %s, the device says %s', t.id, t.serial, r.serial));
    END IF;
    IF t.revoked_at IS NOT NULL THEN
        PERFORM muster.refuse('token.revoked', format('token %s was revoked at %s', t.id, t.revoked_at));
    END IF;
    v.token_id := t.id;
    v.comeback := false;
    IF t.uses > 0 THEN
        SELECT u.used_at INTO used FROM muster.token_use u JOIN muster.device d ON d.id = u.device_id
            WHERE u.token_id = t.id AND d.product_id = r.product_id AND d.serial_canonical = r.serial_canonical;
        -- within its grace; or the answer of this very request was lost between commit and server
        v.comeback := used IS NOT NULL AND (at <= used + make_interval(secs => t.grace_s)
            OR EXISTS (SELECT 1 FROM muster.token_use u JOIN muster.certificate c ON c.id = u.certificate_id
                       WHERE u.token_id = t.id AND c.request_id = r.request_id));
    END IF;
    v.bound := t.serial_canonical IS NOT NULL OR (t.max_uses = 1 AND used IS NOT NULL);
    IF v.comeback THEN
        RETURN v;
    END IF;
    IF t.uses >= t.max_uses THEN
        PERFORM muster.refuse('token.consumed', CASE WHEN used IS NULL
            THEN format('token %s has given all of its %s certificates', t.id, t.max_uses)
            ELSE format('token %s was used by this device at %s and its grace of %s s is over', t.id, used, t.grace_s) END);
    END IF;
    IF t.expires_at <= at THEN
        PERFORM muster.refuse('token.expired', format('token %s expired at %s', t.id, t.expires_at));
    END IF;
    RETURN v;
END $$;

-- A key is new most of the time: it is taken first and judged where that fails.
CREATE OR REPLACE FUNCTION enrol_key(r enrol_request, device bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    k muster.key_owner;
BEGIN
    INSERT INTO muster.key_owner (spki_sha256, kind, device_id) VALUES (r.spki, 'device', device) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO k FROM muster.key_owner WHERE spki_sha256 = r.spki;
    IF k.dead_at IS NOT NULL THEN
        PERFORM muster.refuse('key.reused', format('the key was revoked at %s and is dead', k.dead_at));
    ELSIF k.kind <> 'device' THEN
        PERFORM muster.refuse('key.reused', format('the key is a %s key', k.kind));
    ELSIF k.device_id <> device THEN
        PERFORM muster.refuse('key.reused', 'the key belongs to another device');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION enrol_thing(r enrol_request, device bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    owner bigint;
BEGIN
    IF r.thing_name IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO muster.thing (name, device_id) VALUES (r.thing_name, device) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT t.device_id INTO owner FROM muster.thing t WHERE t.name = r.thing_name;
    IF owner <> device THEN
        PERFORM muster.refuse('thing.name_taken', format('thing name %s belongs to another device', r.thing_name));
    END IF;
END $$;

-- Groups and policies are there every time but the first.
CREATE OR REPLACE FUNCTION enrol_groups(r enrol_request, device bigint, existed boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    names text[];
    had text[];
    written bigint;
BEGIN
    IF NOT existed THEN
        IF r.groups = '[]' THEN
            RETURN;
        END IF;
        INSERT INTO muster.device_group SELECT device, g.id FROM muster.thing_group g
            WHERE g.name = ANY (ARRAY(SELECT jsonb_array_elements_text(r.groups))) ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written = jsonb_array_length(r.groups) THEN
            RETURN; -- as every time but the first
        END IF;
    END IF;
    names := ARRAY(SELECT g FROM jsonb_array_elements_text(r.groups) g ORDER BY g);
    IF existed THEN
        had := ARRAY(SELECT g.name FROM muster.device_group m JOIN muster.thing_group g ON g.id = m.group_id
                     WHERE m.device_id = device ORDER BY g.name);
        IF r.groups_override = 'FAIL' AND had <> names THEN
            PERFORM muster.refuse('template.override_fail', 'ThingGroups differ and OverrideSettings say FAIL');
        ELSIF r.groups_override = 'DO_NOTHING' THEN
            RETURN;
        ELSIF r.groups_override = 'REPLACE' THEN
            DELETE FROM muster.device_group WHERE device_id = device;
        END IF;
    END IF;
    IF cardinality(names) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO muster.thing_group (name)
        SELECT n FROM unnest(names) n WHERE NOT EXISTS (SELECT 1 FROM muster.thing_group g WHERE g.name = n)
        ON CONFLICT DO NOTHING;
    INSERT INTO muster.device_group SELECT device, g.id FROM muster.thing_group g WHERE g.name = ANY (names)
        ON CONFLICT DO NOTHING;
END $$;

CREATE OR REPLACE FUNCTION enrol_policies(r enrol_request, cert bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    q record;
    found_id bigint;
    written bigint;
BEGIN
    IF r.policies = '[]' THEN
        RETURN;
    END IF;
    INSERT INTO muster.certificate_policy SELECT cert, p.id FROM muster.policy p
        WHERE p.product_id = r.product_id
          AND p.name = ANY (ARRAY(SELECT x->>'name' FROM jsonb_array_elements(r.policies) x));
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written = jsonb_array_length(r.policies) THEN
        RETURN; -- as every time but the first
    END IF;
    FOR q IN SELECT x->>'name' AS name, x->'document' AS document
             FROM jsonb_array_elements(r.policies) x ORDER BY x->>'name' LOOP
        SELECT id INTO found_id FROM muster.policy WHERE product_id = r.product_id AND name = q.name;
        IF found_id IS NULL THEN
            IF q.document IS NULL OR q.document = 'null' THEN
                PERFORM muster.refuse('template.evaluation_failed', format('there is no policy %s', q.name));
            END IF;
            INSERT INTO muster.policy (product_id, name, document) VALUES (r.product_id, q.name, q.document) ON CONFLICT DO NOTHING;
            SELECT id INTO found_id FROM muster.policy WHERE product_id = r.product_id AND name = q.name;
        END IF;
        INSERT INTO muster.certificate_policy VALUES (cert, found_id) ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION enrol_factory(r enrol_request, device bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c muster.certificate;
    k muster.key_owner;
    made bigint;
BEGIN
    SELECT * INTO c FROM muster.certificate WHERE fingerprint = r.peer_fingerprint;
    IF FOUND THEN
        IF c.status = 'revoked' THEN
            PERFORM muster.refuse('cert.revoked', format('the factory certificate was revoked (%s) at %s', c.revoke_reason, c.ended_at));
        ELSIF c.device_id <> device THEN
            PERFORM muster.refuse('serial.mismatch', 'the factory certificate belongs to another device');
        END IF;
        RETURN;
    END IF;
    INSERT INTO muster.key_owner (spki_sha256, kind, device_id) VALUES (r.peer_spki, 'bootstrap', device)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT * INTO k FROM muster.key_owner WHERE spki_sha256 = r.peer_spki;
        IF k.dead_at IS NOT NULL OR k.kind <> 'bootstrap' OR k.device_id <> device THEN
            PERFORM muster.refuse('key.reused', 'the factory certificate''s key is dead or belongs to another');
        END IF;
    END IF;
    c := muster.certificate_of(device, 'bootstrap', 'current');
    IF c.id IS NOT NULL THEN
        UPDATE muster.certificate SET status = 'superseded', ended_at = clock_timestamp() WHERE id = c.id;
    END IF;
    INSERT INTO muster.certificate (fingerprint, device_id, purpose, status, issuer_id, serial_number,
            spki_sha256, not_before, not_after, verified_at, template_id, template_version, request_id)
        VALUES (r.peer_fingerprint, device, 'bootstrap', 'current', r.peer_ca, r.peer_serial_number,
            r.peer_spki, to_timestamp(r.peer_not_before), to_timestamp(r.peer_not_after), clock_timestamp(),
            r.template_id, r.template_version, r.request_id)
        RETURNING id INTO made;
    INSERT INTO muster.certificate_der VALUES (made, r.peer_der);
END $$;

CREATE OR REPLACE FUNCTION certificate_used(cert bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c muster.certificate;
    old muster.certificate;
    first boolean;
BEGIN
    SELECT * INTO c FROM muster.certificate WHERE id = cert;
    first := c.status = 'pending';
    IF first THEN
        old := muster.certificate_of(c.device_id, c.purpose, 'current');
        IF old.id IS NOT NULL THEN
            UPDATE muster.certificate SET status = 'superseded', ended_at = clock_timestamp() WHERE id = old.id;
        END IF;
        UPDATE muster.certificate SET status = 'current', verified_at = clock_timestamp() WHERE id = cert;
    END IF;
    UPDATE muster.device SET last_seen = clock_timestamp(), verify_by = NULL,
            state = CASE WHEN state = 'VERIFY' THEN 'PROVISIONED' ELSE state END
        WHERE id = c.device_id;
    IF first THEN
        INSERT INTO muster.outbox (event, payload)
            SELECT 'device.verified', jsonb_build_object('serial', d.serial, 'product', p.name, 'thing_name', d.thing_name, 'fingerprint', encode(c.fingerprint, 'hex'))
            FROM muster.device d JOIN muster.product p ON p.id = d.product_id WHERE d.id = c.device_id;
    END IF;
    RETURN first;
END $$;

CREATE FUNCTION enrol_announce(r enrol_request, d device, event text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.outbox (event, payload) VALUES (event,
        jsonb_build_object('serial', r.serial, 'thing_name', COALESCE(r.thing_name, d.thing_name), 'template', r.template_label,
            'fingerprint', encode(r.fingerprint, 'hex'), 'request_id', r.request_id));
$$;
COMMENT ON FUNCTION enrol_announce IS 'The outbox row of a new certificate';

CREATE FUNCTION enrol_token_use(r enrol_request, v token_verdict, device bigint, made bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF v.token_id IS NULL THEN
        RETURN;
    END IF;
    IF NOT v.comeback THEN
        UPDATE muster.token SET uses = uses + 1 WHERE id = v.token_id;
    END IF;
    INSERT INTO muster.token_use (token_id, device_id, certificate_id) VALUES (v.token_id, device, made)
        ON CONFLICT (token_id, device_id) DO UPDATE SET certificate_id = made,
            used_at = CASE WHEN v.comeback THEN token_use.used_at ELSE clock_timestamp() END;
END $$;
COMMENT ON FUNCTION enrol_token_use IS 'Consumes one use of the token, or notes the comeback';

-- Most devices come for the first time: what they will be in the end is written at once. Whoever is
-- refused further down takes the row back with him.
CREATE FUNCTION enrol_new(r enrol_request, v token_verdict) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    made bigint;
    res muster.enrol_result;
BEGIN
    d.state := CASE WHEN r.verify = 'none' THEN 'PROVISIONED' ELSE 'VERIFY' END;
    INSERT INTO muster.device (product_id, serial, serial_canonical, state, thing_name, thing_type, billing_group, attributes,
            configuration, template_id, template_version, verify_mode, verify_by, last_seen)
        VALUES (r.product_id, r.serial, r.serial_canonical, d.state, r.thing_name, r.thing_type, r.billing_group, r.attributes,
            r.configuration, r.template_id, r.template_version, r.verify,
            CASE WHEN d.state = 'VERIFY' THEN clock_timestamp() + make_interval(secs => r.verify_within_s) END, clock_timestamp())
        ON CONFLICT DO NOTHING RETURNING id INTO d.id;
    IF d.id IS NULL THEN
        RETURN NULL; -- it is known: the long way
    END IF;
    IF r.credential = 'factory' THEN
        PERFORM muster.enrol_factory(r, d.id);
    END IF;
    PERFORM muster.enrol_key(r, d.id);
    PERFORM muster.enrol_thing(r, d.id);
    PERFORM muster.enrol_groups(r, d.id, false);
    made := muster.enrol_certificate(r, d.id, NULL);
    PERFORM muster.enrol_policies(r, made);
    PERFORM muster.enrol_token_use(r, v, d.id, made);
    UPDATE muster.allowlist SET device_id = d.id, claimed_at = clock_timestamp()
        WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical AND device_id IS NULL;
    PERFORM muster.enrol_trail(r, d.id, d.state, 'ok', r.fingerprint);
    PERFORM muster.enrol_announce(r, d, 'device.enrolled');
    IF r.verify = 'none' THEN
        PERFORM muster.certificate_used(made); -- nothing else will ever say so
    END IF;
    res.ord := r.ord;
    res.code := 'ok';
    res.detail := '';
    res.proven := r.credential = 'factory' OR COALESCE(v.bound, false);
    res.fingerprint := r.fingerprint;
    res.state := d.state;
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_new IS 'Enrols a device that has no row yet; NULL where it has one';

CREATE OR REPLACE FUNCTION enrol_finish(r enrol_request, d device, existed boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    renewal boolean := r.credential = 'device';
    new_state text;
BEGIN
    new_state := CASE WHEN renewal AND d.reset_at IS NOT NULL THEN 'PROVISIONED' WHEN renewal THEN d.state WHEN r.verify = 'none' THEN 'PROVISIONED' ELSE 'VERIFY' END;
    UPDATE muster.device SET state = new_state, failures = 0, last_seen = clock_timestamp(),
            reset_at = NULL,
            verify_mode = r.verify,
            verify_by = CASE WHEN new_state = 'VERIFY' THEN clock_timestamp() + make_interval(secs => r.verify_within_s) END,
            template_id = r.template_id, template_version = r.template_version,
            -- a renewal leaves what was registered as it is
            thing_name = CASE WHEN renewal THEN thing_name ELSE COALESCE(r.thing_name, thing_name) END,
            thing_type = CASE WHEN renewal OR existed AND r.type_override = 'DO_NOTHING' THEN thing_type ELSE r.thing_type END,
            billing_group = CASE WHEN renewal THEN billing_group ELSE r.billing_group END,
            attributes = CASE
                WHEN renewal THEN attributes
                WHEN NOT existed OR r.attributes_override = 'REPLACE' THEN r.attributes
                WHEN r.attributes_override = 'MERGE' THEN attributes || r.attributes
                ELSE attributes END,
            configuration = CASE WHEN renewal THEN configuration ELSE r.configuration END
        WHERE id = d.id;
    IF NOT renewal THEN -- which has not locked the row before the device
        UPDATE muster.allowlist SET device_id = d.id, claimed_at = clock_timestamp()
            WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical AND device_id IS NULL;
    END IF;
    PERFORM muster.enrol_trail(r, d.id, new_state, 'ok', r.fingerprint);
    PERFORM muster.enrol_announce(r, d, CASE WHEN renewal THEN 'device.renewed' ELSE 'device.enrolled' END);
    RETURN new_state;
END $$;

CREATE OR REPLACE FUNCTION enrol_first(r enrol_request, v token_verdict) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    pend muster.certificate;
    cur muster.certificate;
    live muster.certificate;
    existed boolean;
    made bigint;
    res muster.enrol_result;
    proven boolean := r.credential = 'factory' OR COALESCE(v.bound, false);
BEGIN
    PERFORM muster.enrol_allowlist(r);
    IF r.approval THEN
        INSERT INTO muster.device (product_id, serial, serial_canonical, state, template_id, template_version)
            VALUES (r.product_id, r.serial, r.serial_canonical, 'UNPROVISIONED', r.template_id, r.template_version)
            ON CONFLICT DO NOTHING;
    ELSE
        res := muster.enrol_new(r, v);
        IF res.code IS NOT NULL THEN
            RETURN res;
        END IF;
    END IF;
    SELECT * INTO d FROM muster.device
        WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical FOR UPDATE;
    PERFORM muster.enrol_device_check(d);
    IF r.credential = 'factory' THEN
        PERFORM muster.enrol_factory(r, d.id);
    END IF;
    PERFORM muster.enrol_key(r, d.id);
    pend := muster.certificate_of(d.id, 'operational', 'pending');
    cur := muster.certificate_of(d.id, 'operational', 'current');
    existed := pend.id IS NOT NULL OR cur.id IS NOT NULL OR d.state NOT IN ('UNPROVISIONED', 'BOOTSTRAP', 'ENROLL');
    IF pend.spki_sha256 = r.spki THEN live := pend; ELSIF cur.spki_sha256 = r.spki THEN live := cur; END IF;
    IF live.id IS NOT NULL THEN
        IF live.not_after - make_interval(secs => r.renew_before_s) > clock_timestamp() THEN
            RETURN muster.enrol_replay(r, d, live, proven);
        END IF;
    ELSIF d.state <> 'UNPROVISIONED' OR d.last_seen IS NOT NULL THEN
        PERFORM muster.enrol_takeover(r, d, v, pend, cur);
    END IF;
    IF r.approval AND NOT muster.enrol_approval(r, d, v, proven) THEN
        SELECT r.ord, 'approval.pending', format('device %s waits for an operator', r.serial), proven, NULL::bytea, NULL::bytea, d.state INTO res;
        RETURN res;
    END IF;
    -- a key that the current certificate still needs, or this request, does not die with a pending one
    IF pend.id IS NOT NULL AND (pend.spki_sha256 = r.spki OR pend.spki_sha256 = cur.spki_sha256) THEN
        UPDATE muster.certificate SET status = 'superseded', ended_at = clock_timestamp() WHERE id = pend.id;
    ELSIF pend.id IS NOT NULL THEN
        PERFORM muster.certificate_revoke(pend.id, 'superseded');
    END IF;
    PERFORM muster.enrol_register(r, d, existed);
    made := muster.enrol_certificate(r, d.id, COALESCE(cur.id, pend.id));
    PERFORM muster.enrol_policies(r, made);
    PERFORM muster.enrol_token_use(r, v, d.id, made);
    SELECT r.ord, 'ok', '', proven, NULL::bytea, r.fingerprint, muster.enrol_finish(r, d, existed) INTO res;
    IF r.verify = 'none' THEN
        PERFORM muster.certificate_used(made); -- nothing else will ever say so
    END IF;
    RETURN res;
END $$;

CREATE OR REPLACE FUNCTION enrol_renew(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    own muster.certificate;
    pend muster.certificate;
    made bigint;
    res muster.enrol_result;
BEGIN
    SELECT * INTO own FROM muster.certificate WHERE fingerprint = r.peer_fingerprint;
    SELECT * INTO d FROM muster.device WHERE id = own.device_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('cert.unknown', 'our CA signed the certificate, the registry does not have it');
    END IF;
    -- what it is now, with the device locked
    SELECT * INTO own FROM muster.certificate WHERE id = own.id;
    IF own.status = 'revoked' THEN
        PERFORM muster.refuse('cert.revoked', format('revoked (%s) at %s', own.revoke_reason, own.ended_at));
    ELSIF own.purpose <> 'operational' THEN
        PERFORM muster.refuse('cert.wrong_purpose', 'the certificate is for bootstrap only');
    END IF;
    PERFORM muster.enrol_device_check(d);
    IF own.status = 'superseded' THEN
        PERFORM muster.refuse('cert.superseded', format('superseded at %s', own.ended_at));
    END IF;
    IF EXISTS (SELECT 1 FROM muster.key_owner k WHERE k.spki_sha256 = own.spki_sha256 AND k.dead_at IS NOT NULL) THEN
        PERFORM muster.refuse('key.reused', 'the key of the certificate was revoked with another certificate');
    END IF;
    PERFORM muster.enrol_allowlist_block(r);
    PERFORM muster.certificate_used(own.id);
    r.inactive := NOT own.active;
    SELECT * INTO d FROM muster.device WHERE id = d.id;
    pend := muster.certificate_of(d.id, 'operational', 'pending');
    IF pend.id IS NOT NULL AND pend.supersedes_id = own.id AND pend.spki_sha256 = r.spki
       AND pend.issued_at + make_interval(secs => r.replay_s) >= clock_timestamp() THEN
        RETURN muster.enrol_replay(r, d, pend, true);
    END IF;
    PERFORM muster.enrol_key(r, d.id);
    IF pend.id IS NOT NULL THEN
        IF pend.spki_sha256 <> r.spki AND NOT r.replace
           AND clock_timestamp() - make_interval(secs => r.age_us / 1e6) < pend.issued_at THEN
            PERFORM muster.refuse('device.key_conflict', 'another key was enrolled for this device while this request was under way');
        END IF;
        IF pend.spki_sha256 IN (r.spki, own.spki_sha256) THEN
            UPDATE muster.certificate SET status = 'superseded', ended_at = clock_timestamp() WHERE id = pend.id;
        ELSE
            PERFORM muster.certificate_revoke(pend.id, 'superseded');
        END IF;
    END IF;
    made := muster.enrol_certificate(r, d.id, own.id);
    INSERT INTO muster.certificate_policy SELECT made, policy_id FROM muster.certificate_policy WHERE certificate_id = own.id;
    SELECT r.ord, 'ok', '', true, NULL::bytea, r.fingerprint, muster.enrol_finish(r, d, true) INTO res;
    RETURN res;
END $$;

CREATE OR REPLACE FUNCTION enrol_batch(requests jsonb) RETURNS SETOF enrol_result LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    r muster.enrol_request;
    tokens bigint[];
BEGIN
    -- tokens first and in one order, then devices in one order: no two batches wait for each other.
    -- The token of a single request is locked when it is judged.
    IF jsonb_array_length(requests) > 1 THEN
        tokens := ARRAY(SELECT t.id FROM jsonb_array_elements(requests) x
            CROSS JOIN LATERAL (SELECT k.id FROM muster.token k WHERE k.hash = (x->>'token_hash')::bytea OFFSET 0) t);
        PERFORM 1 FROM muster.token k WHERE k.id = ANY (tokens) ORDER BY k.id FOR UPDATE;
    END IF;
    FOR r IN SELECT q.* FROM jsonb_populate_recordset(NULL::muster.enrol_request, requests) q
             ORDER BY q.product_id, q.serial_canonical, q.ord LOOP
        RETURN NEXT muster.enrol_one(r);
    END LOOP;
END $$;
ALTER FUNCTION attempt_failed(jsonb) SET enable_seqscan = off;
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
            SELECT request, d.product_id, d.id, d.serial, how, 'verify', CASE how WHEN 'config' THEN 'device' ELSE 'operator' END, source_text,
                'ok', 'VERIFY', x.state, fp FROM muster.device x WHERE x.id = d.id;
    END IF;
    RETURN QUERY SELECT code, CASE WHEN c.ended_at IS NOT NULL THEN format('since %s', c.ended_at) ELSE d.quarantine_reason END,
        x.serial::text, x.thing_name::text, x.configuration, x.state::text FROM muster.device x WHERE x.id = d.id;
END $$;
