-- migration: 15
-- name: jit
-- oldest-binary: 1
-- transaction: yes
--
-- Devices that come with a certificate of a registered CA: what their first contact does.

SET LOCAL search_path = muster;

ALTER TABLE ca ADD COLUMN auto_registration boolean NOT NULL DEFAULT false;
ALTER TABLE ca ADD COLUMN jit text NOT NULL DEFAULT 'jitp' CHECK (jit IN ('jitp', 'jitr'));
ALTER TABLE ca ADD COLUMN proof text CHECK (proof IN ('verified', 'override', 'imported'));
ALTER TABLE ca ADD CHECK (kind = 'registered' OR NOT auto_registration);
ALTER TABLE ca ADD CHECK (NOT auto_registration OR jit = 'jitr' OR template_id IS NOT NULL);
COMMENT ON COLUMN ca.auto_registration IS 'For registered CAs: whether the first contact of a certificate of its registers the device';
COMMENT ON COLUMN ca.jit IS 'How: jitp runs the template at once, jitr records the certificate as pending and tells it';
COMMENT ON COLUMN ca.proof IS 'verified: its holder signed a certificate with our registration code; override: an operator vouched; imported: from another region''s bundle; NULL: our own, or registered before proofs were';
ALTER TABLE ca ADD COLUMN has_devices boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ca.has_devices IS 'Whether certificates of it may be devices'' own: it registers them, once did, or an operator did';

CREATE FUNCTION ca_devices_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.has_devices := NEW.has_devices OR NEW.auto_registration;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION ca_devices_note IS 'A CA that ever registered devices is known to have some';
CREATE TRIGGER ca_devices BEFORE INSERT OR UPDATE ON ca FOR EACH ROW EXECUTE FUNCTION ca_devices_note();

ALTER TABLE certificate ADD COLUMN origin text NOT NULL DEFAULT 'issued' CHECK (origin IN ('issued', 'registered'));
COMMENT ON COLUMN certificate.origin IS 'Of operational ones: issued by us, or registered: a registered CA made it, and it became the device''s own';
-- Numbers are ours to keep apart only where we sign.
DROP INDEX certificate_serial_number;
CREATE UNIQUE INDEX certificate_serial_number ON certificate (issuer_id, serial_number) WHERE purpose = 'operational' AND origin = 'issued';
CREATE INDEX certificate_registered_idx ON certificate (issuer_id, id) WHERE origin = 'registered';

CREATE TABLE jit_certificate (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint   sha256 NOT NULL UNIQUE,
    ca_id         bigint NOT NULL REFERENCES ca,
    certificate   der NOT NULL,
    spki_sha256   sha256 NOT NULL,
    serial_number certificate_number NOT NULL,
    subject       text NOT NULL CHECK (length(subject) <= 1024),
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL,
    status        text NOT NULL CHECK (status IN ('pending', 'active', 'inactive', 'failed', 'assigned', 'revoked')),
    template_id   bigint REFERENCES template,
    parameters    jsonb NOT NULL DEFAULT '{}',
    reason        text CHECK (length(reason) <= 1024),
    request_id    text NOT NULL,
    contacts      bigint NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by    text,
    last_seen     timestamptz,
    last_source   text,
    told_at       timestamptz,
    ended_at      timestamptz,
    device_id     bigint,
    CHECK ((status = 'assigned') = (device_id IS NOT NULL))
);
COMMENT ON TABLE jit_certificate IS 'Certificates of registered CAs that are known and belong to no device yet: recorded by their first contact, or by an operator ahead of it';
COMMENT ON COLUMN jit_certificate.id IS 'Registry number';
COMMENT ON COLUMN jit_certificate.fingerprint IS 'SHA-256 of the DER: the certificateId of AWS';
COMMENT ON COLUMN jit_certificate.ca_id IS 'The registered CA its chain ends at';
COMMENT ON COLUMN jit_certificate.certificate IS 'DER';
COMMENT ON COLUMN jit_certificate.spki_sha256 IS 'SHA-256 of its public key';
COMMENT ON COLUMN jit_certificate.serial_number IS 'Serial number, big endian';
COMMENT ON COLUMN jit_certificate.subject IS 'Subject, RFC 2253, as much as fits';
COMMENT ON COLUMN jit_certificate.not_before IS 'Start of validity';
COMMENT ON COLUMN jit_certificate.not_after IS 'End of validity';
COMMENT ON COLUMN jit_certificate.status IS 'pending: waits for somebody to activate it (AWS: PENDING_ACTIVATION); active: its first contact makes a device of it; inactive: refused until it is activated; failed: its template refused it, the next contact tries again; assigned: it is a device''s; revoked for good';
COMMENT ON COLUMN jit_certificate.template_id IS 'The template to use in place of the CA''s; NULL: the CA''s';
COMMENT ON COLUMN jit_certificate.parameters IS 'Values for the template that an operator gave';
COMMENT ON COLUMN jit_certificate.reason IS 'Why the last contact failed';
COMMENT ON COLUMN jit_certificate.request_id IS 'The request that did last something to it';
COMMENT ON COLUMN jit_certificate.contacts IS 'How often it came';
COMMENT ON COLUMN jit_certificate.created_at IS 'When it was recorded';
COMMENT ON COLUMN jit_certificate.created_by IS 'The admin token that registered it; NULL: it came by itself';
COMMENT ON COLUMN jit_certificate.last_seen IS 'When it came last';
COMMENT ON COLUMN jit_certificate.last_source IS 'From which address';
COMMENT ON COLUMN jit_certificate.told_at IS 'When it was last announced as pending';
COMMENT ON COLUMN jit_certificate.ended_at IS 'When it was revoked';
COMMENT ON COLUMN jit_certificate.device_id IS 'The device it became; no foreign key, as it may be written before the device, in one transaction';
CREATE INDEX jit_certificate_waiting_idx ON jit_certificate (ca_id, status, id) WHERE status IN ('pending', 'active', 'inactive', 'failed');
CREATE INDEX jit_certificate_revoked_idx ON jit_certificate (spki_sha256) WHERE status = 'revoked';

CREATE FUNCTION jit_move_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'revoked' OR NEW.fingerprint <> OLD.fingerprint THEN
        RAISE EXCEPTION 'a revoked certificate is dead forever' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION jit_move_check IS 'What was revoked stays so';
CREATE TRIGGER jit_certificate_move BEFORE UPDATE ON jit_certificate FOR EACH ROW
    WHEN (NEW.status <> OLD.status OR NEW.fingerprint <> OLD.fingerprint) EXECUTE FUNCTION jit_move_check();
CREATE TRIGGER jit_certificate_stays BEFORE DELETE ON jit_certificate FOR EACH ROW EXECUTE FUNCTION row_stays();

-- What is known of a certificate that comes. code: new (nothing), ok (a device's, and good), else why it is
-- refused whatever its CA says; waiting: its row of jit_certificate.
CREATE FUNCTION jit_find(fp bytea, spki bytea) RETURNS TABLE (code text, detail text, serial text, waiting text, template_id bigint, parameters jsonb)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    c muster.certificate;
    d muster.device;
    j muster.jit_certificate;
BEGIN
    SELECT * INTO c FROM muster.certificate x WHERE x.fingerprint = fp;
    IF FOUND THEN
        SELECT * INTO d FROM muster.device x WHERE x.id = c.device_id;
        code := muster.certificate_code(c, d);
        detail := CASE WHEN c.ended_at IS NOT NULL THEN format('since %s', c.ended_at) ELSE d.quarantine_reason END;
        serial := d.serial;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT * INTO j FROM muster.jit_certificate x WHERE x.fingerprint = fp;
    code := CASE
        WHEN EXISTS (SELECT 1 FROM muster.claim k WHERE k.fingerprint = fp) THEN 'cert.wrong_purpose'
        WHEN EXISTS (SELECT 1 FROM muster.jit_certificate x WHERE x.spki_sha256 = spki AND x.status = 'revoked') THEN 'cert.revoked'
        ELSE 'new' END;
    waiting := j.status;
    template_id := j.template_id;
    parameters := j.parameters;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION jit_find IS 'What the registry knows of a certificate of a registered CA';

-- What the first matter is that keeps a device's certificate out; ok: nothing.
CREATE FUNCTION certificate_code(c certificate, d device) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN c.status = 'revoked' THEN 'cert.revoked'
        WHEN c.purpose <> 'operational' THEN 'cert.wrong_purpose'
        WHEN d.retired_at IS NOT NULL THEN 'device.retired'
        WHEN d.state = 'QUARANTINE' THEN 'device.quarantined'
        WHEN c.status = 'superseded' THEN 'cert.superseded'
        WHEN NOT c.active THEN 'cert.inactive'
        ELSE 'ok' END
$$;
COMMENT ON FUNCTION certificate_code IS 'Why a certificate may not be used, as a fault''s code, or ok';

-- A contact that gave no device. j: fingerprint, certificate, spki, ca_id, serial_number, subject, not_before, not_after (seconds
-- since 1970), status (pending or failed), reason, request_id, source, protocol. A pending one is announced with every contact, once a
-- second at most. Of failed ones a CA has 10,000 at most; more are only in the trail.
CREATE FUNCTION jit_contact(j jsonb) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    x muster.jit_certificate;
    ca_fingerprint bytea;
    ca_name text;
    at timestamptz := clock_timestamp();
BEGIN
    IF j->>'status' = 'failed' AND NOT EXISTS (SELECT 1 FROM muster.jit_certificate y WHERE y.fingerprint = (j->>'fingerprint')::bytea)
       AND EXISTS (SELECT 1 FROM muster.jit_certificate y WHERE y.ca_id = (j->>'ca_id')::bigint AND y.status = 'failed' ORDER BY y.id OFFSET 9999 LIMIT 1) THEN
        RETURN NULL;
    END IF;
    INSERT INTO muster.jit_certificate (fingerprint, ca_id, certificate, spki_sha256, serial_number, subject, not_before, not_after, status, request_id)
        VALUES ((j->>'fingerprint')::bytea, (j->>'ca_id')::bigint, (j->>'certificate')::bytea, (j->>'spki')::bytea, (j->>'serial_number')::bytea,
            left(j->>'subject', 1024), to_timestamp((j->>'not_before')::bigint), to_timestamp((j->>'not_after')::bigint), j->>'status', j->>'request_id')
        ON CONFLICT (fingerprint) DO NOTHING;
    SELECT * INTO x FROM muster.jit_certificate y WHERE y.fingerprint = (j->>'fingerprint')::bytea FOR UPDATE;
    UPDATE muster.jit_certificate SET contacts = contacts + 1, last_seen = at, last_source = j->>'source', request_id = j->>'request_id',
            reason = left(j->>'reason', 1024), status = CASE WHEN status = 'failed' THEN j->>'status' ELSE status END,
            told_at = CASE WHEN status = 'pending' AND (told_at IS NULL OR told_at < at - interval '1 second') THEN at ELSE told_at END
        WHERE id = x.id RETURNING * INTO x;
    IF x.status = 'pending' AND x.told_at = at THEN
        SELECT c.fingerprint, c.name INTO ca_fingerprint, ca_name FROM muster.ca c WHERE c.id = x.ca_id;
        INSERT INTO muster.outbox (event, payload) VALUES ('certificate.pending', jsonb_build_object('fingerprint', encode(x.fingerprint, 'hex'),
            'certificate_id', encode(x.fingerprint, 'hex'), 'ca_certificate_id', encode(ca_fingerprint, 'hex'), 'ca', ca_name, 'subject', x.subject,
            'request_id', x.request_id, 'timestamp_ms', floor(extract(epoch FROM at) * 1000)::bigint,
            'registered_at', floor(extract(epoch FROM x.created_at) * 1000)::bigint));
    END IF;
    RETURN x.status;
END $$;
COMMENT ON FUNCTION jit_contact IS 'Records the contact of a certificate that is no device''s; returns its status';

-- A certificate of a registered CA becomes its device's own. It is a device's already where another contact was faster.
CREATE FUNCTION enrol_jit(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
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
    END IF;
    res := muster.enrol_first(r, v);
    IF res.code = 'ok' THEN
        UPDATE muster.jit_certificate SET status = 'assigned', reason = NULL, request_id = r.request_id,
                device_id = COALESCE(res.device_id, (SELECT y.device_id FROM muster.certificate y WHERE y.fingerprint = r.fingerprint))
            WHERE fingerprint = r.fingerprint AND status <> 'revoked';
    END IF;
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_jit IS 'Registers a device with the certificate it came with';

-- As before, and: so does a certificate that its registered CA made.

CREATE OR REPLACE FUNCTION enrol_certificate(r enrol_request, device bigint, replaces bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    made bigint;
BEGIN
    INSERT INTO muster.certificate (fingerprint, device_id, purpose, status, active, issuer_id, serial_number,
            spki_sha256, not_before, not_after, supersedes_id, template_id, template_version, request_id, origin)
        VALUES (r.fingerprint, device, 'operational', 'pending', NOT r.inactive, r.issuer_id, r.serial_number,
            r.spki, to_timestamp(r.not_before), to_timestamp(r.not_after), replaces,
            r.template_id, r.template_version, r.request_id, CASE WHEN r.credential = 'jit' THEN 'registered' ELSE 'issued' END)
        RETURNING id INTO made;
    INSERT INTO muster.certificate_der VALUES (made, r.certificate);
    RETURN made;
END $$;

CREATE OR REPLACE FUNCTION enrol_write(rs enrol_request[]) RETURNS void LANGUAGE plpgsql
    SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    r muster.enrol_request;
BEGIN
    INSERT INTO muster.device (id, product_id, serial, serial_canonical, state, thing_name, thing_type, billing_group, attributes,
            configuration, template_id, template_version, verify_mode, verify_by, last_seen)
        OVERRIDING SYSTEM VALUE
        SELECT q.device_id, q.product_id, q.serial, q.serial_canonical, q.new_state, q.thing_name, q.thing_type, q.billing_group, q.attributes,
            q.configuration, q.template_id, q.template_version, q.verify,
            CASE WHEN q.new_state = 'VERIFY' THEN clock_timestamp() + make_interval(secs => q.verify_within_s) END, clock_timestamp()
        FROM unnest(rs) q;
    INSERT INTO muster.key_owner (spki_sha256, kind, device_id) SELECT q.spki, 'device', q.device_id FROM unnest(rs) q;
    INSERT INTO muster.thing (name, device_id) SELECT q.thing_name, q.device_id FROM unnest(rs) q WHERE q.thing_name IS NOT NULL;
    IF rs[1].credential = 'factory' OR EXISTS (SELECT 1 FROM unnest(rs) q WHERE q.credential = 'factory') THEN
        PERFORM muster.enrol_write_factory(rs);
    END IF;
    INSERT INTO muster.certificate (id, fingerprint, device_id, purpose, status, active, issuer_id, serial_number,
            spki_sha256, not_before, not_after, template_id, template_version, request_id, origin)
        OVERRIDING SYSTEM VALUE
        SELECT q.certificate_id, q.fingerprint, q.device_id, 'operational', 'pending', NOT q.inactive, q.issuer_id, q.serial_number,
            q.spki, to_timestamp(q.not_before), to_timestamp(q.not_after), q.template_id, q.template_version, q.request_id,
            CASE WHEN q.credential = 'jit' THEN 'registered' ELSE 'issued' END
        FROM unnest(rs) q;
    INSERT INTO muster.certificate_der SELECT q.certificate_id, q.certificate FROM unnest(rs) q;
    PERFORM muster.enrol_write_members(rs);
    UPDATE muster.token t SET uses = t.uses + x.n
        FROM (SELECT q.token_id, count(*)::integer AS n FROM unnest(rs) q WHERE q.token_id IS NOT NULL GROUP BY q.token_id) x
        WHERE t.id = x.token_id;
    INSERT INTO muster.token_use (token_id, device_id, certificate_id)
        SELECT q.token_id, q.device_id, q.certificate_id FROM unnest(rs) q WHERE q.token_id IS NOT NULL;
    IF rs[1].claim_id IS NOT NULL OR EXISTS (SELECT 1 FROM unnest(rs) q WHERE q.claim_id IS NOT NULL) THEN
        PERFORM muster.enrol_write_claims(rs);
    END IF;
    UPDATE muster.allowlist a SET device_id = q.device_id, claimed_at = clock_timestamp()
        FROM unnest(rs) q
        WHERE a.product_id = q.product_id AND a.serial_canonical = q.serial_canonical AND a.device_id IS NULL;
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, claim,
            source, template, outcome, detail, reached, state, fingerprint, steps)
        SELECT q.request_id, q.product_id, q.device_id, q.serial, q.protocol, q.operation, q.credential, q.claim_name,
            q.source, q.template_label, 'ok', CASE WHEN q.claim_grace THEN 'in the grace of the claim' END, CASE WHEN q.new_state = 'PROVISIONED' THEN 'PROVISIONED' ELSE 'REGISTER' END,
            q.new_state, q.fingerprint, q.steps
        FROM unnest(rs) q;
    INSERT INTO muster.outbox (event, payload)
        SELECT 'device.enrolled', jsonb_build_object('serial', q.serial, 'thing_name', q.thing_name, 'template', q.template_label,
            'fingerprint', encode(q.fingerprint, 'hex'), 'request_id', q.request_id)
        FROM unnest(rs) q;
    FOREACH r IN ARRAY rs LOOP
        IF r.verify = 'none' THEN
            PERFORM muster.certificate_used(r.certificate_id); -- nothing else will ever say so
        END IF;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION enrol_new(r enrol_request, v token_verdict) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    res muster.enrol_result;
BEGIN
    IF EXISTS (SELECT 1 FROM muster.device WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical) THEN
        RETURN NULL; -- it is known: the long way
    END IF;
    res.device_id := nextval('muster.device_id_seq');
    IF r.credential = 'factory' AND (EXISTS (SELECT 1 FROM muster.certificate WHERE fingerprint = r.peer_fingerprint)
            OR EXISTS (SELECT 1 FROM muster.key_owner WHERE spki_sha256 = r.peer_spki)) THEN
        PERFORM muster.enrol_factory(r, res.device_id);
    END IF;
    IF EXISTS (SELECT 1 FROM muster.key_owner WHERE spki_sha256 = r.spki) OR r.spki = r.peer_spki THEN
        PERFORM muster.enrol_key(r, res.device_id);
    END IF;
    IF EXISTS (SELECT 1 FROM muster.thing WHERE name = r.thing_name) THEN
        PERFORM muster.enrol_thing(r, res.device_id);
    END IF;
    IF r.policies @? '$[*] ? (!exists(@.document) || @.document == null)' THEN
        PERFORM muster.enrol_policies_check(r);
    END IF;
    res.ord := r.ord;
    res.code := 'ok';
    res.detail := '';
    res.proven := r.credential IN ('factory', 'jit') OR COALESCE(v.bound, false);
    res.fingerprint := r.fingerprint;
    res.state := CASE WHEN r.verify = 'none' THEN 'PROVISIONED' ELSE 'VERIFY' END;
    res.token_id := v.token_id;
    res.claim_grace := r.claim_grace;
    RETURN res;
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
    proven boolean := r.credential IN ('factory', 'jit') OR COALESCE(v.bound, false);
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
        IF r.ownership_hash IS NULL AND r.credential <> 'jit' AND live.not_after - make_interval(secs => r.renew_before_s) > clock_timestamp() THEN
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
    PERFORM muster.enrol_claim_use(r, d.id, made);
    SELECT r.ord, 'ok', '', proven, NULL::bytea, r.fingerprint, muster.enrol_finish(r, d, existed) INTO res;
    IF r.verify = 'none' THEN
        PERFORM muster.certificate_used(made); -- nothing else will ever say so
    END IF;
    RETURN res;
END $$;

CREATE OR REPLACE FUNCTION enrol_takeover(r enrol_request, d device, v token_verdict, pend certificate, cur certificate)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    bound boolean := r.credential IN ('factory', 'jit') OR COALESCE(v.bound, false);
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
    in_grace := COALESCE(v.comeback, false)
        OR (r.credential = 'token' AND bound AND NOT v.comeback)
        OR (r.credential IN ('factory', 'jit') AND clock_timestamp() <= pend.issued_at + make_interval(secs => r.grace_s));
    IF NOT (bound AND in_grace) THEN
        PERFORM muster.refuse('device.key_conflict', format('another key was enrolled at %s and the template says Reprovision: refuse', pend.issued_at));
    END IF;
    IF clock_timestamp() - make_interval(secs => r.age_us / 1e6) < pend.issued_at THEN
        PERFORM muster.refuse('device.busy', 'another key was enrolled for this device while this request was under way');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION enrol_one(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    v muster.token_verdict;
    res muster.enrol_result;
    why text;
    proven boolean := r.credential IN ('factory', 'device', 'jit');
BEGIN
    BEGIN
        IF r.credential = 'device' THEN
            RETURN muster.enrol_renew(r);
        ELSIF r.credential = 'claim' THEN
            RETURN muster.enrol_by_claim(r);
        ELSIF r.credential = 'jit' THEN
            RETURN muster.enrol_jit(r);
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
    code := muster.certificate_code(c, d);
    IF code = 'ok' AND muster.certificate_used(c.id) THEN
        INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, source, outcome, reached, state, fingerprint)
            SELECT request, d.product_id, d.id, d.serial, how, 'verify', CASE WHEN how IN ('config', 'broker') THEN 'device' ELSE 'operator' END, source_text,
                'ok', 'VERIFY', x.state, fp FROM muster.device x WHERE x.id = d.id;
    END IF;
    RETURN QUERY SELECT code, CASE WHEN c.ended_at IS NOT NULL THEN format('since %s', c.ended_at) ELSE d.quarantine_reason END,
        x.serial::text, x.thing_name::text, x.configuration, x.state::text FROM muster.device x WHERE x.id = d.id;
END $$;

CREATE OR REPLACE FUNCTION certificates_json(device bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_agg(jsonb_build_object('fingerprint', encode(c.fingerprint, 'hex'), 'purpose', c.purpose, 'origin', c.origin, 'status', c.status,
            'active', c.active, 'not_before', muster.utc(c.not_before), 'not_after', muster.utc(c.not_after), 'issued_at', muster.utc(c.issued_at),
            'verified_at', muster.utc(c.verified_at), 'ended_at', muster.utc(c.ended_at), 'revoke_reason', c.revoke_reason,
            'claim', k.name, 'in_grace', k.in_grace,
            'policies', (SELECT COALESCE(jsonb_agg(p.name ORDER BY p.name), '[]') FROM muster.certificate_policy x JOIN muster.policy p ON p.id = x.policy_id
                WHERE x.certificate_id = c.id)) ORDER BY c.id DESC), '[]')
    FROM (SELECT * FROM muster.certificate k WHERE k.device_id = device ORDER BY k.id DESC LIMIT 50) c
        LEFT JOIN LATERAL muster.certificate_claim(device, c.id) k ON true
$$;

-- The operator's desk

CREATE OR REPLACE FUNCTION certificate_json(c certificate) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('fingerprint', encode(c.fingerprint, 'hex'), 'serial', d.serial, 'product', p.name, 'purpose', c.purpose,
        'origin', c.origin, 'status', c.status, 'active', c.active, 'issuer', i.name, 'serial_number', encode(c.serial_number, 'hex'),
        'not_before', muster.utc(c.not_before), 'not_after', muster.utc(c.not_after), 'issued_at', muster.utc(c.issued_at))
    FROM muster.device d, muster.product p, muster.ca i WHERE d.id = c.device_id AND p.id = d.product_id AND i.id = c.issuer_id
$$;

CREATE FUNCTION jit_json(j jit_certificate) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('fingerprint', encode(j.fingerprint, 'hex'), 'status', j.status, 'ca', c.name, 'subject', j.subject,
        'template', (SELECT t.name FROM muster.template t WHERE t.id = COALESCE(j.template_id, c.template_id)), 'reason', j.reason,
        'request_id', j.request_id, 'contacts', j.contacts, 'not_before', muster.utc(j.not_before), 'not_after', muster.utc(j.not_after),
        'created_at', muster.utc(j.created_at), 'created_by', j.created_by, 'last_seen', muster.utc(j.last_seen), 'last_source', j.last_source)
    FROM muster.ca c WHERE c.id = j.ca_id
$$;
COMMENT ON FUNCTION jit_json IS 'A certificate without a device as the API shows it';

-- An operator of one product sees the certificates that its templates would make devices of.
CREATE FUNCTION jit_sees(op jsonb, j jit_certificate) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT op->>'scope' IS NULL OR EXISTS (SELECT 1 FROM muster.ca c JOIN muster.template t ON t.id = COALESCE(j.template_id, c.template_id)
        WHERE c.id = j.ca_id AND muster.desk_sees(op, t.product_id))
$$;
COMMENT ON FUNCTION jit_sees IS 'Whether the operator''s scope has this certificate';

CREATE FUNCTION desk_jit(op jsonb, fp bytea) RETURNS jit_certificate LANGUAGE plpgsql AS $$
DECLARE
    j muster.jit_certificate;
BEGIN
    SELECT * INTO j FROM muster.jit_certificate x WHERE x.fingerprint = fp AND x.status <> 'assigned' AND muster.jit_sees(op, x) FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no certificate %s', encode(fp, 'hex')));
    ELSIF j.status = 'revoked' THEN
        PERFORM muster.refuse('request.conflict', format('revoked at %s', muster.utc(j.ended_at)));
    END IF;
    RETURN j;
END $$;
COMMENT ON FUNCTION desk_jit IS 'The certificate without a device of a fingerprint, locked';

-- Of a device's certificate: it may be used, or not until it is activated again. Of one without a device: false keeps
-- it out; true gives what the server needs to make a device of it: certificate (hex), template, parameters.
CREATE FUNCTION desk_certificate_activate(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    fp bytea := decode(a->>'fingerprint', 'hex');
    on_ boolean := (a->>'active')::boolean;
    c muster.certificate;
    d muster.device;
    j muster.jit_certificate;
    action text := CASE WHEN (a->>'active')::boolean THEN 'cert.activate' ELSE 'cert.deactivate' END;
BEGIN
    SELECT d0.* INTO d FROM muster.certificate x JOIN muster.device d0 ON d0.id = x.device_id
        WHERE x.fingerprint = fp AND muster.desk_sees(op, d0.product_id) FOR UPDATE OF d0;
    IF NOT FOUND THEN
        j := muster.desk_jit(op, fp);
        PERFORM muster.desk_audit(op, action, a->>'fingerprint', jsonb_build_object('subject', j.subject, 'template', a->>'template'));
        IF NOT on_ THEN
            UPDATE muster.jit_certificate SET status = 'inactive' WHERE id = j.id RETURNING * INTO j;
            RETURN muster.jit_json(j);
        END IF;
        RETURN json_build_object('register', true, 'certificate', encode(j.certificate, 'hex'), 'parameters', j.parameters,
            'template', COALESCE(a->>'template', (SELECT t.name FROM muster.template t WHERE t.id = j.template_id)));
    END IF;
    SELECT * INTO c FROM muster.certificate x WHERE x.fingerprint = fp;
    IF c.status NOT IN ('pending', 'current') THEN
        PERFORM muster.refuse('request.conflict', format('the certificate is %s', c.status));
    ELSIF c.active = on_ THEN
        RETURN muster.certificate_json(c)::json;
    END IF;
    UPDATE muster.certificate SET active = on_ WHERE id = c.id RETURNING * INTO c;
    PERFORM muster.desk_audit(op, action, a->>'fingerprint', jsonb_build_object('serial', d.serial));
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, source, outcome, reached, state, fingerprint)
        VALUES (op->>'request', d.product_id, d.id, d.serial, 'admin', CASE WHEN on_ THEN 'activate' ELSE 'deactivate' END, 'operator', op->>'actor', 'ok', d.state, d.state, c.fingerprint);
    INSERT INTO muster.outbox (event, payload) VALUES (CASE WHEN on_ THEN 'certificate.activated' ELSE 'certificate.deactivated' END,
        jsonb_build_object('serial', d.serial, 'product', (SELECT p.name FROM muster.product p WHERE p.id = d.product_id),
            'thing_name', d.thing_name, 'fingerprint', a->>'fingerprint'));
    RETURN muster.certificate_json(c)::json;
END $$;
COMMENT ON FUNCTION desk_certificate_activate IS 'POST /certs/{fingerprint}/activate and /deactivate';

-- a: fingerprint, certificate, spki, serial_number (hex), ca_id, subject, not_before, not_after, status, template, parameters
CREATE FUNCTION desk_jit_register(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    j muster.jit_certificate;
    t bigint;
BEGIN
    IF a->>'template' IS NOT NULL THEN
        SELECT x.id INTO t FROM muster.desk_template(op, a->>'template') x;
    END IF;
    IF EXISTS (SELECT 1 FROM muster.certificate c WHERE c.fingerprint = decode(a->>'fingerprint', 'hex')) THEN
        PERFORM muster.refuse('request.exists', 'the certificate is a device''s already');
    ELSIF EXISTS (SELECT 1 FROM muster.key_owner k WHERE k.spki_sha256 = decode(a->>'spki', 'hex') AND (k.dead_at IS NOT NULL OR k.kind <> 'device')) THEN
        PERFORM muster.refuse('key.reused', 'the certificate''s key is dead, or a CA''s or a claim''s');
    END IF;
    INSERT INTO muster.jit_certificate (fingerprint, ca_id, certificate, spki_sha256, serial_number, subject, not_before, not_after, status,
            template_id, parameters, request_id, created_by)
        VALUES (decode(a->>'fingerprint', 'hex'), (a->>'ca_id')::bigint, decode(a->>'certificate', 'hex'), decode(a->>'spki', 'hex'),
            decode(a->>'serial_number', 'hex'), left(a->>'subject', 1024), to_timestamp((a->>'not_before')::bigint), to_timestamp((a->>'not_after')::bigint),
            COALESCE(a->>'status', 'active'), t, COALESCE(a->'parameters', '{}'), op->>'request', op->>'actor')
        ON CONFLICT (fingerprint) DO NOTHING RETURNING * INTO j;
    IF j.id IS NULL THEN
        SELECT * INTO j FROM muster.jit_certificate x WHERE x.fingerprint = decode(a->>'fingerprint', 'hex');
        PERFORM muster.refuse('request.exists', format('the certificate is known already, as %s', j.status));
    END IF;
    IF NOT muster.jit_sees(op, j) THEN
        PERFORM muster.refuse('admin.forbidden', 'the CA is not for a template of the token''s product; name one');
    END IF;
    UPDATE muster.ca SET has_devices = true WHERE id = j.ca_id AND NOT has_devices;
    PERFORM muster.desk_audit(op, 'cert.register', a->>'fingerprint', jsonb_build_object('subject', j.subject, 'status', j.status, 'template', a->>'template'));
    RETURN muster.jit_json(j);
END $$;
COMMENT ON FUNCTION desk_jit_register IS 'POST /certs without a thing: the first contact makes a device of it';

-- Before the server makes a device of a certificate that an operator hands in.
CREATE FUNCTION desk_jit_begin(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.template := muster.desk_template(op, a->>'template');
BEGIN
    UPDATE muster.ca SET has_devices = true WHERE id = (a->>'ca_id')::bigint AND NOT has_devices;
    PERFORM muster.desk_audit(op, 'cert.register', a->>'fingerprint', jsonb_build_object('subject', a->>'subject', 'template', t.name));
    RETURN '{}';
END $$;
COMMENT ON FUNCTION desk_jit_begin IS 'Scope and audit of POST /certs with a template';

ALTER FUNCTION desk_certificate_revoke(jsonb, jsonb) RENAME TO desk_device_certificate_revoke;
COMMENT ON FUNCTION desk_device_certificate_revoke IS 'Revokes the certificate of a device';
CREATE FUNCTION desk_certificate_revoke(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    fp bytea := decode(a->>'fingerprint', 'hex');
    j muster.jit_certificate;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM muster.jit_certificate x WHERE x.fingerprint = fp AND x.status <> 'assigned') THEN
        RETURN muster.desk_device_certificate_revoke(op, a);
    END IF;
    j := muster.desk_jit(op, fp);
    UPDATE muster.jit_certificate SET status = 'revoked', ended_at = clock_timestamp() WHERE id = j.id RETURNING * INTO j;
    PERFORM muster.desk_audit(op, 'cert.revoke', a->>'fingerprint', jsonb_build_object('subject', j.subject, 'reason', COALESCE(a->>'reason', 'unspecified')));
    RETURN muster.jit_json(j);
END $$;
COMMENT ON FUNCTION desk_certificate_revoke IS 'POST /certs/{fingerprint}/revoke';
