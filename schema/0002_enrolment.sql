-- migration: 2
-- name: enrolment
-- oldest-binary: 1
-- transaction: yes
--
-- One enrolment is one call: everything it consumes and everything it creates stands or falls
-- together. A refusal is raised as an exception of class MU and caught one level up, so that
-- whatever the attempt had written is rolled back with it: a denied request consumes nothing.

SET LOCAL search_path = muster;

CREATE TYPE enrol_request AS (
    ord                 integer,  -- place in the batch
    request_id          text,
    age_us              bigint,   -- time since the request arrived
    protocol            text,
    operation           text,
    credential          text,     -- token, factory, device
    source              text,
    product_id          bigint,
    template_id         bigint,
    template_version    integer,
    template_label      text,
    serial              text,
    serial_canonical    text,
    token_hash          bytea,
    peer_fingerprint    bytea,    -- the client certificate, for factory and device
    peer_der            bytea,
    peer_serial_number  bytea,
    peer_spki           bytea,
    peer_ca             bigint,
    peer_not_before     bigint,   -- seconds since 1970
    peer_not_after      bigint,
    spki                bytea,    -- of the key to be certified
    fingerprint         bytea,
    certificate         bytea,    -- DER as signed
    serial_number       bytea,
    issuer_id           bigint,
    not_before          bigint,
    not_after           bigint,
    thing_name          text,
    thing_type          text,
    billing_group       text,
    attributes          jsonb,
    attributes_override text,
    type_override       text,
    groups_override     text,
    groups              jsonb,
    policies            jsonb,    -- [{"name", "document"}]
    configuration       jsonb,
    inactive            boolean,
    allowlist_required  boolean,
    replace             boolean,
    verify              text,
    verify_within_s     bigint,
    renew_before_s      bigint,
    grace_s             bigint,
    replay_s            bigint,
    steps               jsonb
);
COMMENT ON TYPE enrol_request IS 'One enrolment as signed in memory, to be recorded';

CREATE TYPE enrol_result AS (
    ord         integer,
    code        text,    -- ok, replayed, or a fault's code
    detail      text,
    proven      boolean, -- the credential proves that very device
    certificate bytea,   -- of a replay; NULL: the one just recorded
    fingerprint bytea,
    state       text
);
COMMENT ON TYPE enrol_result IS 'What became of one enrolment';

CREATE FUNCTION refuse(code text, detail text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'MU001', MESSAGE = code, DETAIL = detail;
END $$;
COMMENT ON FUNCTION refuse IS 'Ends an attempt with a fault of the registry';

-- What the token says, checked while its row is locked.
CREATE TYPE token_verdict AS (
    token_id bigint,
    bound    boolean, -- proves one device: bound to its serial, or its own single-use token come back
    comeback boolean  -- was used by this device within its grace
);

CREATE FUNCTION enrol_token(r enrol_request) RETURNS token_verdict LANGUAGE plpgsql AS $$
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
    SELECT u.used_at INTO used FROM muster.token_use u JOIN muster.device d ON d.id = u.device_id
        WHERE u.token_id = t.id AND d.product_id = r.product_id AND d.serial_canonical = r.serial_canonical;
    v.token_id := t.id;
    -- within its grace; or the answer of this very request was lost between commit and server
    v.comeback := used IS NOT NULL AND (at <= used + make_interval(secs => t.grace_s)
        OR EXISTS (SELECT 1 FROM muster.token_use u JOIN muster.certificate c ON c.id = u.certificate_id
                   WHERE u.token_id = t.id AND c.request_id = r.request_id));
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
COMMENT ON FUNCTION enrol_token IS 'Locks and judges the bootstrap token of an enrolment';

CREATE FUNCTION enrol_allowlist(r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    a muster.allowlist;
BEGIN
    SELECT * INTO a FROM muster.allowlist
        WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical FOR UPDATE;
    IF NOT FOUND THEN
        IF r.allowlist_required THEN
            PERFORM muster.refuse('allowlist.unknown_serial', format('serial %s is not on the allowlist', r.serial));
        END IF;
        RETURN;
    END IF;
    IF a.blocked THEN
        PERFORM muster.refuse('allowlist.blocked', format('serial %s is blocked', r.serial));
    END IF;
    IF a.spki_pin IS NOT NULL AND a.spki_pin <> r.spki THEN
        PERFORM muster.refuse('allowlist.key_mismatch', format('serial %s is pinned to key %s, the request has %s',
            r.serial, encode(a.spki_pin, 'hex'), encode(r.spki, 'hex')));
    END IF;
END $$;
COMMENT ON FUNCTION enrol_allowlist IS 'Locks and judges the allowlist row of an enrolment';

-- The key must be nobody else's, nor dead; from now on it is this device's.
CREATE FUNCTION enrol_key(r enrol_request, device bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    k muster.key_owner;
BEGIN
    SELECT * INTO k FROM muster.key_owner WHERE spki_sha256 = r.spki;
    IF NOT FOUND THEN
        INSERT INTO muster.key_owner (spki_sha256, kind, device_id) VALUES (r.spki, 'device', device)
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN;
        END IF;
        SELECT * INTO k FROM muster.key_owner WHERE spki_sha256 = r.spki;
    END IF;
    IF k.dead_at IS NOT NULL THEN
        PERFORM muster.refuse('key.reused', format('the key was revoked at %s and is dead', k.dead_at));
    ELSIF k.kind <> 'device' THEN
        PERFORM muster.refuse('key.reused', format('the key is a %s key', k.kind));
    ELSIF k.device_id <> device THEN
        PERFORM muster.refuse('key.reused', 'the key belongs to another device');
    END IF;
END $$;
COMMENT ON FUNCTION enrol_key IS 'Judges the key of an enrolment and takes it into the registry of keys';

CREATE FUNCTION certificate_revoke(cert bigint, reason text) RETURNS void LANGUAGE sql AS $$
    UPDATE muster.certificate SET status = 'revoked', revoke_reason = reason, ended_at = clock_timestamp()
        WHERE id = cert AND status <> 'revoked';
    UPDATE muster.key_owner SET dead_at = clock_timestamp()
        WHERE dead_at IS NULL AND spki_sha256 = (SELECT spki_sha256 FROM muster.certificate WHERE id = cert);
$$;
COMMENT ON FUNCTION certificate_revoke IS 'Revokes a certificate and kills its key, for good';

-- The factory certificate itself goes into the registry, as bootstrap, the first time it is used.
CREATE FUNCTION enrol_factory(r enrol_request, device bigint) RETURNS void LANGUAGE plpgsql AS $$
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
    SELECT * INTO k FROM muster.key_owner WHERE spki_sha256 = r.peer_spki;
    IF k.dead_at IS NOT NULL OR k.kind <> 'bootstrap' OR k.device_id <> device THEN
        PERFORM muster.refuse('key.reused', 'the factory certificate''s key is dead or belongs to another');
    END IF;
    UPDATE muster.certificate SET status = 'superseded', ended_at = clock_timestamp()
        WHERE device_id = device AND purpose = 'bootstrap' AND status = 'current';
    INSERT INTO muster.certificate (fingerprint, device_id, purpose, status, issuer_id, serial_number,
            spki_sha256, not_before, not_after, verified_at, template_id, template_version, request_id)
        VALUES (r.peer_fingerprint, device, 'bootstrap', 'current', r.peer_ca, r.peer_serial_number,
            r.peer_spki, to_timestamp(r.peer_not_before), to_timestamp(r.peer_not_after), clock_timestamp(),
            r.template_id, r.template_version, r.request_id)
        RETURNING id INTO made;
    INSERT INTO muster.certificate_der VALUES (made, r.peer_der);
END $$;
COMMENT ON FUNCTION enrol_factory IS 'Judges the factory certificate and records it as bootstrap at its first use';

-- A certificate was used: what was pending is current now, what it replaces is superseded.
CREATE FUNCTION certificate_used(cert bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c muster.certificate;
    first boolean;
BEGIN
    SELECT * INTO c FROM muster.certificate WHERE id = cert;
    first := c.status = 'pending';
    IF first THEN
        UPDATE muster.certificate SET status = 'superseded', ended_at = clock_timestamp()
            WHERE device_id = c.device_id AND purpose = c.purpose AND status = 'current';
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
COMMENT ON FUNCTION certificate_used IS 'Marks a live certificate as used; true when it was its first use';

-- Whether another key may take over; returns when it may. pend and cur are the device's live
-- operational certificates.
CREATE FUNCTION enrol_takeover(r enrol_request, d device, v token_verdict, pend certificate, cur certificate)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    bound boolean := r.credential = 'factory' OR COALESCE(v.bound, false);
    in_grace boolean;
BEGIN
    IF d.reset_at IS NOT NULL THEN
        RETURN;
    END IF;
    IF pend.id IS NULL AND cur.id IS NULL THEN
        -- its certificates were revoked or have gone; who once was verified is not taken over
        IF NOT bound AND EXISTS (SELECT 1 FROM muster.certificate c WHERE c.device_id = d.id
                                 AND c.purpose = 'operational' AND c.verified_at IS NOT NULL) THEN
            PERFORM muster.refuse('device.already_provisioned', 'a shared credential never takes over a device that was verified; muster device reset allows it once');
        END IF;
        RETURN;
    END IF;
    IF cur.id IS NOT NULL THEN
        IF NOT bound THEN
            PERFORM muster.refuse('device.already_provisioned', 'a shared credential never replaces a verified certificate; muster device reset allows it once');
        ELSIF NOT r.replace THEN
            PERFORM muster.refuse('device.already_provisioned', 'the template says Reprovision: refuse');
        ELSIF COALESCE(v.comeback, false) AND NOT EXISTS (SELECT 1 FROM muster.token_use u
                WHERE u.token_id = v.token_id AND u.device_id = d.id AND u.certificate_id = pend.id) THEN
            PERFORM muster.refuse('token.consumed', 'the grace of a token ends when the certificate it gave has been used');
        END IF;
        RETURN;
    END IF;
    IF r.replace THEN
        RETURN;
    END IF;
    IF clock_timestamp() - make_interval(secs => r.age_us / 1e6) < pend.issued_at THEN
        PERFORM muster.refuse('device.key_conflict', 'another key was enrolled for this device while this request was under way');
    END IF;
    in_grace := COALESCE(v.comeback, false)
        OR (r.credential = 'token' AND bound AND NOT v.comeback)
        OR (r.credential = 'factory' AND clock_timestamp() <= pend.issued_at + make_interval(secs => r.grace_s));
    IF NOT (bound AND in_grace) THEN
        PERFORM muster.refuse('device.key_conflict', format('another key was enrolled at %s and the template says Reprovision: refuse', pend.issued_at));
    END IF;
END $$;
COMMENT ON FUNCTION enrol_takeover IS 'Judges a new key for a device that has a live certificate';

CREATE FUNCTION enrol_groups(r enrol_request, device bigint, existed boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    names text[] := ARRAY(SELECT g FROM jsonb_array_elements_text(r.groups) g ORDER BY g);
    had text[];
BEGIN
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
COMMENT ON FUNCTION enrol_groups IS 'Writes group membership under OverrideSettings';

CREATE FUNCTION enrol_policies(r enrol_request, cert bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    p record;
    found_id bigint;
BEGIN
    FOR p IN SELECT x->>'name' AS name, x->'document' AS document
             FROM jsonb_array_elements(r.policies) x ORDER BY x->>'name' LOOP
        SELECT id INTO found_id FROM muster.policy WHERE product_id = r.product_id AND name = p.name;
        IF found_id IS NULL THEN
            IF p.document IS NULL OR p.document = 'null' THEN
                PERFORM muster.refuse('template.evaluation_failed', format('there is no policy %s', p.name));
            END IF;
            INSERT INTO muster.policy (product_id, name, document) VALUES (r.product_id, p.name, p.document) ON CONFLICT DO NOTHING;
            SELECT id INTO found_id FROM muster.policy WHERE product_id = r.product_id AND name = p.name;
        END IF;
        INSERT INTO muster.certificate_policy VALUES (cert, found_id) ON CONFLICT DO NOTHING;
    END LOOP;
END $$;
COMMENT ON FUNCTION enrol_policies IS 'Makes and attaches the policies of a certificate';

CREATE FUNCTION enrol_thing(r enrol_request, device bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    owner bigint;
BEGIN
    IF r.thing_name IS NULL THEN
        RETURN;
    END IF;
    SELECT t.device_id INTO owner FROM muster.thing t WHERE t.name = r.thing_name;
    IF owner IS NULL THEN
        INSERT INTO muster.thing (name, device_id) VALUES (r.thing_name, device) ON CONFLICT DO NOTHING;
        SELECT t.device_id INTO owner FROM muster.thing t WHERE t.name = r.thing_name;
    END IF;
    IF owner <> device THEN
        PERFORM muster.refuse('thing.name_taken', format('thing name %s belongs to another device', r.thing_name));
    END IF;
END $$;
COMMENT ON FUNCTION enrol_thing IS 'Takes the thing name for its identity, for good';

-- Registers what the template says; d is the device before, existed: it had been registered.
CREATE FUNCTION enrol_register(r enrol_request, d device, existed boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF existed AND r.attributes_override = 'FAIL' AND d.attributes <> r.attributes THEN
        PERFORM muster.refuse('template.override_fail', 'AttributePayload differs and OverrideSettings say FAIL');
    ELSIF existed AND r.type_override = 'FAIL' AND d.thing_type IS DISTINCT FROM r.thing_type THEN
        PERFORM muster.refuse('template.override_fail', 'ThingTypeName differs and OverrideSettings say FAIL');
    END IF;
    PERFORM muster.enrol_thing(r, d.id);
    PERFORM muster.enrol_groups(r, d.id, existed);
END $$;
COMMENT ON FUNCTION enrol_register IS 'Takes the thing name and writes the groups, under OverrideSettings; enrol_finish writes the device';

CREATE FUNCTION enrol_certificate(r enrol_request, device bigint, replaces bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    made bigint;
BEGIN
    INSERT INTO muster.certificate (fingerprint, device_id, purpose, status, active, issuer_id, serial_number,
            spki_sha256, not_before, not_after, supersedes_id, template_id, template_version, request_id)
        VALUES (r.fingerprint, device, 'operational', 'pending', NOT r.inactive, r.issuer_id, r.serial_number,
            r.spki, to_timestamp(r.not_before), to_timestamp(r.not_after), replaces,
            r.template_id, r.template_version, r.request_id)
        RETURNING id INTO made;
    INSERT INTO muster.certificate_der VALUES (made, r.certificate);
    RETURN made;
END $$;
COMMENT ON FUNCTION enrol_certificate IS 'Records the new certificate as pending';

CREATE FUNCTION enrol_trail(r enrol_request, device bigint, state text, outcome text, fp bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential,
            source, template, outcome, reached, state, fingerprint, steps)
        VALUES (r.request_id, r.product_id, device, r.serial, r.protocol, r.operation, r.credential,
            r.source, r.template_label, outcome, CASE WHEN state = 'PROVISIONED' THEN 'PROVISIONED' ELSE 'REGISTER' END, state, fp, r.steps);
END $$;
COMMENT ON FUNCTION enrol_trail IS 'The history row of an attempt that succeeded';

-- Gives the same certificate again: nothing changes but the trail.
CREATE FUNCTION enrol_replay(r enrol_request, d device, c certificate, proven boolean) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    res muster.enrol_result;
BEGIN
    -- a device that comes back with the key it had has used up a reset
    UPDATE muster.device SET last_seen = clock_timestamp(), failures = 0, reset_at = NULL,
            state = CASE WHEN reset_at IS NULL THEN state WHEN c.status = 'current' THEN 'PROVISIONED' ELSE 'VERIFY' END
        WHERE id = d.id RETURNING * INTO d;
    PERFORM muster.enrol_trail(r, d.id, d.state, 'replayed', c.fingerprint);
    SELECT r.ord, 'replayed', '', proven, x.der, c.fingerprint, d.state INTO res
        FROM muster.certificate_der x WHERE x.certificate_id = c.id;
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_replay IS 'Answers an enrolment with the certificate that the device has already';

CREATE FUNCTION enrol_device_check(d device) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF d.retired_at IS NOT NULL THEN
        PERFORM muster.refuse('device.retired', format('retired at %s', d.retired_at));
    ELSIF d.state = 'QUARANTINE' THEN
        PERFORM muster.refuse('device.quarantined', d.quarantine_reason);
    END IF;
END $$;
COMMENT ON FUNCTION enrol_device_check IS 'Refuses devices in quarantine and retired ones';

-- Records the outcome of a new certificate on the device.
CREATE FUNCTION enrol_finish(r enrol_request, d device, existed boolean) RETURNS text LANGUAGE plpgsql AS $$
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
    INSERT INTO muster.outbox (event, payload) VALUES (
        CASE WHEN renewal THEN 'device.renewed' ELSE 'device.enrolled' END,
        jsonb_build_object('serial', r.serial, 'thing_name', COALESCE(r.thing_name, d.thing_name), 'template', r.template_label,
            'fingerprint', encode(r.fingerprint, 'hex'), 'request_id', r.request_id));
    RETURN new_state;
END $$;
COMMENT ON FUNCTION enrol_finish IS 'Moves the device, claims its allowlist row, writes trail and outbox';

-- Enrolment by token or factory certificate.
CREATE FUNCTION enrol_first(r enrol_request, v token_verdict) RETURNS enrol_result LANGUAGE plpgsql AS $$
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
    INSERT INTO muster.device (product_id, serial, serial_canonical, state, template_id, template_version)
        VALUES (r.product_id, r.serial, r.serial_canonical, 'UNPROVISIONED', r.template_id, r.template_version)
        ON CONFLICT DO NOTHING;
    SELECT * INTO d FROM muster.device
        WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical FOR UPDATE;
    PERFORM muster.enrol_device_check(d);
    IF r.credential = 'factory' THEN
        PERFORM muster.enrol_factory(r, d.id);
    END IF;
    PERFORM muster.enrol_key(r, d.id);
    SELECT * INTO pend FROM muster.certificate WHERE device_id = d.id AND purpose = 'operational' AND status = 'pending';
    SELECT * INTO cur FROM muster.certificate WHERE device_id = d.id AND purpose = 'operational' AND status = 'current';
    existed := pend.id IS NOT NULL OR cur.id IS NOT NULL OR d.state NOT IN ('UNPROVISIONED', 'BOOTSTRAP', 'ENROLL');
    IF pend.spki_sha256 = r.spki THEN live := pend; ELSIF cur.spki_sha256 = r.spki THEN live := cur; END IF;
    IF live.id IS NOT NULL THEN
        IF live.not_after - make_interval(secs => r.renew_before_s) > clock_timestamp() THEN
            RETURN muster.enrol_replay(r, d, live, proven);
        END IF;
    ELSIF d.state <> 'UNPROVISIONED' OR d.last_seen IS NOT NULL THEN
        PERFORM muster.enrol_takeover(r, d, v, pend, cur);
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
    IF v.token_id IS NOT NULL THEN
        IF NOT v.comeback THEN
            UPDATE muster.token SET uses = uses + 1 WHERE id = v.token_id;
        END IF;
        INSERT INTO muster.token_use (token_id, device_id, certificate_id) VALUES (v.token_id, d.id, made)
            ON CONFLICT (token_id, device_id) DO UPDATE SET certificate_id = made,
                used_at = CASE WHEN v.comeback THEN token_use.used_at ELSE clock_timestamp() END;
    END IF;
    SELECT r.ord, 'ok', '', proven, NULL::bytea, r.fingerprint, muster.enrol_finish(r, d, existed) INTO res;
    IF r.verify = 'none' THEN
        PERFORM muster.certificate_used(made); -- nothing else will ever say so
    END IF;
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_first IS 'Enrols a device by bootstrap token or factory certificate';

-- Renewal by the device's own certificate.
CREATE FUNCTION enrol_renew(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    own muster.certificate;
    pend muster.certificate;
    made bigint;
    res muster.enrol_result;
BEGIN
    SELECT x.* INTO d FROM muster.device x JOIN muster.certificate c ON c.device_id = x.id
        WHERE c.fingerprint = r.peer_fingerprint FOR UPDATE OF x;
    IF NOT FOUND THEN
        PERFORM muster.refuse('cert.unknown', 'our CA signed the certificate, the registry does not have it');
    END IF;
    SELECT * INTO own FROM muster.certificate WHERE fingerprint = r.peer_fingerprint;
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
    SELECT * INTO pend FROM muster.certificate WHERE device_id = d.id AND purpose = 'operational' AND status = 'pending';
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
COMMENT ON FUNCTION enrol_renew IS 'Renews a device''s certificate, authenticated by the one it has';

CREATE FUNCTION enrol_allowlist_block(r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM muster.allowlist WHERE product_id = r.product_id
               AND serial_canonical = r.serial_canonical AND blocked) THEN
        PERFORM muster.refuse('allowlist.blocked', format('serial %s is blocked', r.serial));
    END IF;
END $$;
COMMENT ON FUNCTION enrol_allowlist_block IS 'A blocked serial does not renew either';

CREATE FUNCTION enrol_one(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    v muster.token_verdict;
    res muster.enrol_result;
    why text;
    proven boolean := r.credential IN ('factory', 'device');
BEGIN
    BEGIN
        IF r.credential = 'device' THEN
            RETURN muster.enrol_renew(r);
        END IF;
        IF r.credential = 'token' THEN
            v := muster.enrol_token(r);
            proven := v.bound;
        END IF;
        RETURN muster.enrol_first(r, v);
    EXCEPTION WHEN SQLSTATE 'MU001' THEN
        GET STACKED DIAGNOSTICS res.code = MESSAGE_TEXT, why = PG_EXCEPTION_DETAIL;
    END;
    res.ord := r.ord;
    res.detail := why;
    res.proven := proven;
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_one IS 'One enrolment: recorded whole, or refused without a trace but its result';

-- Every statement below finds its rows by key: a plan made for the values at hand is never better,
-- and making one costs more than running it.
CREATE FUNCTION enrol_batch(requests jsonb) RETURNS SETOF enrol_result LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    r muster.enrol_request;
BEGIN
    -- tokens first and in one order, then devices in one order: no two batches wait for each other.
    -- The token of a single request is locked when it is judged.
    PERFORM 1 FROM muster.token
        WHERE jsonb_array_length(requests) > 1
          AND hash IN (SELECT (x->>'token_hash')::bytea FROM jsonb_array_elements(requests) x)
        ORDER BY id FOR UPDATE;
    FOR r IN SELECT q.* FROM jsonb_populate_recordset(NULL::muster.enrol_request, requests) q
             ORDER BY q.product_id, q.serial_canonical, q.ord LOOP
        RETURN NEXT muster.enrol_one(r);
    END LOOP;
END $$;
COMMENT ON FUNCTION enrol_batch IS 'Records several enrolments in one transaction; an array of enrol_request as JSON';

-- A refusal is recorded in a transaction of its own, so that no rollback loses it.
CREATE FUNCTION attempt_failed(f jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    t muster.token;
    proven boolean := COALESCE((f->>'proven')::boolean, false);
    state_then text;
    limit_n integer := (f->>'quarantine_failures')::integer;
    storm integer;
    storm_limit bigint;
BEGIN
    IF EXISTS (SELECT 1 FROM muster.history h WHERE h.request_id = f->>'request_id' AND h.outcome = f->>'outcome'
               AND h.at > clock_timestamp() - interval '1 hour') THEN
        RETURN NULL; -- asked again after a lost connection
    END IF;
    IF f->>'token_hash' IS NOT NULL THEN
        SELECT x.* INTO t FROM muster.token x JOIN muster.template y ON y.id = x.template_id
            WHERE x.hash = (f->>'token_hash')::bytea AND x.serial IS NOT NULL AND x.revoked_at IS NULL
              AND (f->>'template_id')::bigint = y.id
              AND COALESCE(f->>'serial_canonical', x.serial_canonical) = x.serial_canonical
              AND ((x.uses < x.max_uses AND x.expires_at > clock_timestamp())
                   OR EXISTS (SELECT 1 FROM muster.token_use u WHERE u.token_id = x.id
                              AND u.used_at + make_interval(secs => x.grace_s) > clock_timestamp()));
        IF FOUND THEN
            proven := true;
            f := f || jsonb_build_object('serial', COALESCE(f->>'serial', t.serial), 'serial_canonical', t.serial_canonical);
        END IF;
    END IF;
    -- nor does a certificate that is no longer the device's prove anything
    proven := proven AND NOT EXISTS (SELECT 1 FROM muster.certificate c
        WHERE c.fingerprint = (f->>'fingerprint')::bytea AND c.status IN ('revoked', 'superseded'));
    IF proven AND f->>'serial_canonical' IS NOT NULL AND f->>'product_id' IS NOT NULL THEN
        INSERT INTO muster.device (product_id, serial, serial_canonical, state, template_id, template_version)
            VALUES ((f->>'product_id')::bigint, f->>'serial', f->>'serial_canonical', 'UNPROVISIONED',
                (f->>'template_id')::bigint, (f->>'template_version')::integer)
            ON CONFLICT DO NOTHING;
        SELECT * INTO d FROM muster.device WHERE product_id = (f->>'product_id')::bigint
            AND serial_canonical = f->>'serial_canonical' FOR UPDATE;
        IF d.state IN ('UNPROVISIONED', 'BOOTSTRAP') AND f->>'reached' IN ('BOOTSTRAP', 'ENROLL') AND d.state <> f->>'reached' THEN
            UPDATE muster.device SET state = f->>'reached' WHERE id = d.id;
        END IF;
        IF (f->>'counts')::boolean AND d.state <> 'QUARANTINE' AND d.retired_at IS NULL THEN
            UPDATE muster.device SET failures = failures + 1 WHERE id = d.id RETURNING failures INTO d.failures;
            IF d.failures >= limit_n THEN
                SELECT count(*) INTO storm FROM muster.device q WHERE q.template_id = d.template_id
                    AND q.state = 'QUARANTINE' AND q.state_since > clock_timestamp() - interval '1 hour';
                SELECT count(*) / 100 INTO storm_limit FROM (SELECT 1 FROM muster.device q
                    WHERE q.template_id = d.template_id LIMIT 100 * (storm + 1)) n;
                IF storm + 1 > GREATEST(10, storm_limit) THEN
                    -- told once an hour and template
                    INSERT INTO muster.outbox (event, payload)
                        SELECT 'quarantine.storm', jsonb_build_object('template', f->>'template', 'serial', d.serial, 'quarantined_within_hour', storm)
                        WHERE NOT EXISTS (SELECT 1 FROM muster.outbox o WHERE o.at > clock_timestamp() - interval '1 hour'
                            AND o.event = 'quarantine.storm' AND o.payload->>'template' = f->>'template');
                ELSE
                    UPDATE muster.device SET state = 'QUARANTINE',
                        quarantine_reason = format('%s failures in a row, the last %s', d.failures, f->>'outcome')
                        WHERE id = d.id;
                    INSERT INTO muster.outbox (event, payload) VALUES ('device.quarantined',
                        jsonb_build_object('serial', d.serial, 'template', f->>'template', 'last', f->>'outcome', 'failures', d.failures));
                END IF;
            END IF;
        END IF;
        SELECT state INTO state_then FROM muster.device WHERE id = d.id;
    ELSIF f->>'token_hash' IS NOT NULL THEN
        UPDATE muster.token SET failures = failures + 1 WHERE hash = (f->>'token_hash')::bytea;
    END IF;
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential,
            source, template, outcome, detail, reached, state, fingerprint, steps)
        VALUES (f->>'request_id', (f->>'product_id')::bigint, d.id, f->>'serial', f->>'protocol', f->>'operation',
            f->>'credential', f->>'source', f->>'template', f->>'outcome', f->>'detail',
            COALESCE(f->>'reached', 'UNPROVISIONED'), state_then, (f->>'fingerprint')::bytea, COALESCE(f->'steps', '[]'));
    RETURN state_then;
END $$;
COMMENT ON FUNCTION attempt_failed IS 'Records a refused attempt and counts it against the device or the token it concerns';

-- The first use of a certificate outside a renewal: the device fetches its configuration, or a
-- foreign platform saw it. how: config or external.
CREATE FUNCTION certificate_seen(fp bytea, how text, request text, source_text text) RETURNS TABLE (code text, detail text, serial text, thing text, configuration jsonb, state text)
LANGUAGE plpgsql AS $$
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
        x.serial, x.thing_name, x.configuration, x.state FROM muster.device x WHERE x.id = d.id;
END $$;
COMMENT ON FUNCTION certificate_seen IS 'Notes the use of a device''s certificate; its first use is VERIFY';
