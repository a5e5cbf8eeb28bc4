-- migration: 12
-- name: claims
-- oldest-binary: 1
-- transaction: yes
--
-- Claims: certificates that a product line shares and that may do one thing, ask for an identity.
-- A certificate made for one (AWS Create*) knows neither device nor template: it waits in
-- claim_certificate until its owner registers a thing with it, or the sweeper revokes it.

SET LOCAL search_path = muster;

ALTER DOMAIN key_kind DROP CONSTRAINT key_kind_check;
ALTER DOMAIN key_kind ADD CONSTRAINT key_kind_check CHECK (VALUE IN ('device', 'bootstrap', 'ca', 'claim'));
ALTER TABLE key_owner DROP CONSTRAINT key_owner_check;
ALTER TABLE key_owner ADD CONSTRAINT key_owner_check CHECK ((kind IN ('ca', 'claim')) = (device_id IS NULL));
COMMENT ON COLUMN key_owner.kind IS 'What the key is for; only kind device may enrol';

CREATE TABLE claim (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    product_id      bigint NOT NULL REFERENCES product,
    template_id     bigint NOT NULL REFERENCES template,
    kind            text NOT NULL DEFAULT 'shared' CHECK (kind IN ('shared', 'temporary')),
    fingerprint     sha256 NOT NULL UNIQUE,
    spki_sha256     sha256 NOT NULL,
    certificate     der NOT NULL,
    issuer_id       bigint NOT NULL REFERENCES ca,
    serial_number   certificate_number NOT NULL,
    not_before      timestamptz NOT NULL,
    not_after       timestamptz NOT NULL CHECK (not_after > not_before),
    batch           text CHECK (length(batch) <= 128),
    budget          integer CHECK (budget BETWEEN 1 AND 1000000000),
    devices         integer NOT NULL DEFAULT 0 CHECK (devices >= 0),
    rate_per_second integer NOT NULL CHECK (rate_per_second BETWEEN 0 AND 100000),
    rate_burst      integer NOT NULL CHECK (rate_burst BETWEEN 0 AND 1000000),
    max_pending     integer NOT NULL CHECK (max_pending BETWEEN 1 AND 1000000),
    enrol_until     timestamptz NOT NULL,
    grace_s         bigint NOT NULL DEFAULT 0 CHECK (grace_s BETWEEN 0 AND 315360000),
    failures        bigint NOT NULL DEFAULT 0,
    revoked_at      timestamptz,
    revoke_mode     text CHECK (revoke_mode IN ('stop-new', 'hard')),
    supersedes_id   bigint REFERENCES claim,
    note            text CHECK (length(note) <= 256),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by      text NOT NULL,
    CHECK (budget IS NULL OR devices <= budget),
    CHECK ((revoked_at IS NULL) = (revoke_mode IS NULL))
) WITH (fillfactor = 50);
COMMENT ON TABLE claim IS 'Claim certificates: shared by the devices of a line, good for asking for an identity and nothing else';
COMMENT ON COLUMN claim.id IS 'Registry number';
COMMENT ON COLUMN claim.name IS 'Name as operators write it';
COMMENT ON COLUMN claim.product_id IS 'Product line';
COMMENT ON COLUMN claim.template_id IS 'The template that requests without one use, and whose profile certificates have that are made before a template is named';
COMMENT ON COLUMN claim.kind IS 'shared: burnt into firmware; temporary: lent to a trusted user for minutes';
COMMENT ON COLUMN claim.fingerprint IS 'SHA-256 of the DER';
COMMENT ON COLUMN claim.spki_sha256 IS 'SHA-256 of its public key, which no device may enrol';
COMMENT ON COLUMN claim.certificate IS 'DER';
COMMENT ON COLUMN claim.issuer_id IS 'The CA that signed it, or the registered CA its chain ends at';
COMMENT ON COLUMN claim.serial_number IS 'Serial number, big endian';
COMMENT ON COLUMN claim.not_before IS 'Start of the certificate''s validity';
COMMENT ON COLUMN claim.not_after IS 'End of the certificate''s validity: long, because a broker drops an expired one without a word';
COMMENT ON COLUMN claim.batch IS 'The batch of the allowlist whose devices carry it, for reports; NULL: the whole product';
COMMENT ON COLUMN claim.budget IS 'How many devices it may provision; NULL: any number';
COMMENT ON COLUMN claim.devices IS 'How many it has';
COMMENT ON COLUMN claim.rate_per_second IS 'Requests a second it may make, of all replicas and transports; 0: no limit';
COMMENT ON COLUMN claim.rate_burst IS 'And at once; 0: as many as a second';
COMMENT ON COLUMN claim.max_pending IS 'How many certificates may wait for their registration';
COMMENT ON COLUMN claim.enrol_until IS 'End of enrolment by the database''s clock, apart from the certificate''s own';
COMMENT ON COLUMN claim.grace_s IS 'How long after that (and after the certificate''s end) serials of the allowlist that were never seen may still come, seconds';
COMMENT ON COLUMN claim.failures IS 'Refused attempts';
COMMENT ON COLUMN claim.revoked_at IS 'When it was revoked';
COMMENT ON COLUMN claim.revoke_mode IS 'stop-new: what was begun may be finished; hard: nothing may';
COMMENT ON COLUMN claim.supersedes_id IS 'The claim it was rotated from';
COMMENT ON COLUMN claim.note IS 'Free text';
COMMENT ON COLUMN claim.created_at IS 'When it was made';
COMMENT ON COLUMN claim.created_by IS 'The admin token that made it';
CREATE TRIGGER claim_stays BEFORE DELETE ON claim FOR EACH ROW EXECUTE FUNCTION row_stays();

CREATE FUNCTION claim_move_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.fingerprint <> OLD.fingerprint OR NEW.product_id <> OLD.product_id OR NEW.name <> OLD.name THEN
        RAISE EXCEPTION 'the identity of claim % does not change', OLD.name USING ERRCODE = 'check_violation';
    ELSIF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at
          OR OLD.revoke_mode = 'hard' AND NEW.revoke_mode IS DISTINCT FROM 'hard' THEN
        RAISE EXCEPTION 'claim % was revoked for good', OLD.name USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION claim_move_check IS 'A claim keeps its certificate, and a revoked one never comes back';
CREATE TRIGGER claim_move BEFORE UPDATE ON claim FOR EACH ROW EXECUTE FUNCTION claim_move_check();

-- The key of a claim is never a device's.
CREATE FUNCTION claim_key_take() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.key_owner (spki_sha256, kind) VALUES (NEW.spki_sha256, 'claim') ON CONFLICT DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (SELECT 1 FROM muster.key_owner k WHERE k.spki_sha256 = NEW.spki_sha256 AND k.kind = 'claim' AND k.dead_at IS NULL) THEN
        RAISE EXCEPTION 'the key of claim % is dead or another''s', NEW.name USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION claim_key_take IS 'Takes the key of a new claim into the registry of keys';
CREATE TRIGGER claim_key AFTER INSERT ON claim FOR EACH ROW EXECUTE FUNCTION claim_key_take();

CREATE TABLE claim_template (
    claim_id    bigint NOT NULL REFERENCES claim,
    template_id bigint NOT NULL REFERENCES template,
    PRIMARY KEY (claim_id, template_id)
);
COMMENT ON TABLE claim_template IS 'The scope of a claim: the templates it may be used with';
COMMENT ON COLUMN claim_template.claim_id IS 'The claim';
COMMENT ON COLUMN claim_template.template_id IS 'A template of its product';

CREATE TABLE claim_use (
    claim_id       bigint NOT NULL,
    device_id      bigint NOT NULL,
    certificate_id bigint NOT NULL,
    used_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    in_grace       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (claim_id, device_id)
);
COMMENT ON TABLE claim_use IS 'Which claim gave which certificate to whom; its rows are what a budget counts';
COMMENT ON COLUMN claim_use.claim_id IS 'The claim';
COMMENT ON COLUMN claim_use.device_id IS 'The device';
COMMENT ON COLUMN claim_use.certificate_id IS 'The certificate it gave last';
COMMENT ON COLUMN claim_use.used_at IS 'First use';
COMMENT ON COLUMN claim_use.in_grace IS 'Whether that was after the claim''s end';

CREATE TABLE claim_certificate (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    claim_id         bigint NOT NULL,
    fingerprint      sha256 NOT NULL UNIQUE,
    token_hash       sha256 NOT NULL UNIQUE,
    client_id        text CHECK (length(client_id) <= 256),
    status           text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'registered', 'revoked')),
    spki_sha256      sha256 NOT NULL,
    key_kind         integer NOT NULL,
    certificate      der,
    issuer_id        bigint NOT NULL,
    serial_number    certificate_number NOT NULL,
    not_before       timestamptz NOT NULL,
    not_after        timestamptz NOT NULL,
    csr_serial       text CHECK (length(csr_serial) <= 64),
    request_id       text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at       timestamptz NOT NULL,
    ended_at         timestamptz,
    parameters_hash  sha256,
    device_id        bigint,
    answer           jsonb,
    CHECK ((status = 'pending') = (ended_at IS NULL)),
    CHECK ((status = 'registered') = (device_id IS NOT NULL)),
    CHECK (status = 'registered' OR certificate IS NOT NULL)
);
COMMENT ON TABLE claim_certificate IS 'Certificates made for claims before it was known for whom: registered within the hour, or revoked';
COMMENT ON COLUMN claim_certificate.id IS 'Registry number';
COMMENT ON COLUMN claim_certificate.claim_id IS 'The claim it was made for';
COMMENT ON COLUMN claim_certificate.fingerprint IS 'SHA-256 of the DER: the certificateId of AWS';
COMMENT ON COLUMN claim_certificate.token_hash IS 'SHA-256 of the ownership token (256 random bits, so no salt)';
COMMENT ON COLUMN claim_certificate.client_id IS 'The client id that asked for it; NULL: it came by HTTPS without one';
COMMENT ON COLUMN claim_certificate.status IS 'pending: not registered yet; registered: it is in certificate now; revoked: nobody registered it';
COMMENT ON COLUMN claim_certificate.spki_sha256 IS 'SHA-256 of the SubjectPublicKeyInfo';
COMMENT ON COLUMN claim_certificate.key_kind IS 'Kind of its key, a bit of enum key_kind';
COMMENT ON COLUMN claim_certificate.certificate IS 'DER as signed; NULL once it is in certificate_der';
COMMENT ON COLUMN claim_certificate.issuer_id IS 'The CA that signed it';
COMMENT ON COLUMN claim_certificate.serial_number IS 'Serial number, big endian';
COMMENT ON COLUMN claim_certificate.not_before IS 'Start of validity';
COMMENT ON COLUMN claim_certificate.not_after IS 'End of validity';
COMMENT ON COLUMN claim_certificate.csr_serial IS 'The serial its CSR named, which must be the one it is registered for; NULL: none';
COMMENT ON COLUMN claim_certificate.request_id IS 'The request that made it';
COMMENT ON COLUMN claim_certificate.created_at IS 'When it was made';
COMMENT ON COLUMN claim_certificate.expires_at IS 'End of its ownership token';
COMMENT ON COLUMN claim_certificate.ended_at IS 'When it was registered or revoked';
COMMENT ON COLUMN claim_certificate.parameters_hash IS 'SHA-256 of template and parameters it was registered with: the same again gets the same answer';
COMMENT ON COLUMN claim_certificate.device_id IS 'The device it was registered for';
COMMENT ON COLUMN claim_certificate.answer IS 'What the device was told: thing_name and configuration';
CREATE INDEX claim_certificate_pending_idx ON claim_certificate (claim_id) WHERE ended_at IS NULL;
CREATE INDEX claim_certificate_due_idx ON claim_certificate (expires_at) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX claim_certificate_number ON claim_certificate (issuer_id, serial_number);
CREATE TRIGGER claim_certificate_move BEFORE UPDATE ON claim_certificate FOR EACH ROW
    WHEN (OLD.status <> 'pending' AND NEW.status <> OLD.status) EXECUTE FUNCTION row_immutable();

ALTER TABLE ca ADD COLUMN has_claims boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ca.has_claims IS 'A certificate below this registered CA may be a claim: replicas look it up';

ALTER TABLE history ADD COLUMN claim text;
COMMENT ON COLUMN history.claim IS 'Name of the claim that asked; NULL: another credential';

-- What an enrolment by a claim brings, and what comes of it.
ALTER TYPE enrol_request ADD ATTRIBUTE claim_id bigint;
ALTER TYPE enrol_request ADD ATTRIBUTE claim_name text;
ALTER TYPE enrol_request ADD ATTRIBUTE claim_late boolean;      -- the claim certificate itself has expired
ALTER TYPE enrol_request ADD ATTRIBUTE client_id text;
ALTER TYPE enrol_request ADD ATTRIBUTE ownership_hash bytea;    -- of the token that names the certificate
ALTER TYPE enrol_request ADD ATTRIBUTE parameters_hash bytea;   -- of template and parameters as the device gave them
ALTER TYPE enrol_request ADD ATTRIBUTE claim_grace boolean;     -- found here: the claim's end is over
ALTER TYPE enrol_result ADD ATTRIBUTE claim_grace boolean;
ALTER TYPE enrol_result ADD ATTRIBUTE answer jsonb;             -- of a registration asked again: what was answered

-- Whether a claim may be used at all; begun: what is asked was begun before, and may be finished
-- under a claim that was stopped for new devices. True: its end is over and the grace runs.
CREATE FUNCTION claim_check(c claim, late boolean, begun boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    IF c.revoke_mode = 'hard' OR c.revoke_mode = 'stop-new' AND NOT begun THEN
        PERFORM muster.refuse('claim.revoked', format('claim %s was revoked (%s) at %s', c.name, c.revoke_mode, c.revoked_at));
    ELSIF at > c.enrol_until + make_interval(secs => c.grace_s) THEN
        PERFORM muster.refuse('claim.expired', format('enrolment with claim %s ended at %s, and its grace of %s s is over', c.name, c.enrol_until, c.grace_s));
    END IF;
    RETURN at > c.enrol_until OR COALESCE(late, false);
END $$;
COMMENT ON FUNCTION claim_check IS 'Refuses claims that are revoked or past their grace; true: the grace runs';

-- The certificate that an ownership token names, locked. What is wrong with the token is one refusal.
CREATE FUNCTION ownership_take(number bigint, client text, hash bytea) RETURNS claim_certificate LANGUAGE plpgsql AS $$
DECLARE
    o muster.claim_certificate;
BEGIN
    SELECT * INTO o FROM muster.claim_certificate x WHERE x.token_hash = hash FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('ownership.invalid', 'no certificate has this ownership token');
    ELSIF o.claim_id <> number THEN
        PERFORM muster.refuse('ownership.invalid', 'the ownership token was given to another claim');
    ELSIF o.client_id IS DISTINCT FROM client THEN
        PERFORM muster.refuse('ownership.invalid', format('the ownership token was given to client id %s, not to %s',
            COALESCE(o.client_id, '(none)'), COALESCE(left(client, 128), '(none)')));
    ELSIF o.status = 'revoked' THEN
        PERFORM muster.refuse('ownership.invalid', format('the certificate was not registered by %s and is revoked', o.expires_at));
    ELSIF o.status = 'pending' AND o.expires_at <= clock_timestamp() THEN
        PERFORM muster.refuse('ownership.invalid', format('the ownership token expired at %s', o.expires_at));
    END IF;
    RETURN o;
END $$;
COMMENT ON FUNCTION ownership_take IS 'Locks and judges the certificate of an ownership token';

-- The same registration asked again gets the same answer, another one none.
CREATE FUNCTION ownership_again(r enrol_request, o claim_certificate) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    res muster.enrol_result;
BEGIN
    IF o.parameters_hash <> r.parameters_hash THEN
        PERFORM muster.refuse('ownership.used', format('registered at %s with another template or other parameters', o.ended_at));
    END IF;
    SELECT * INTO d FROM muster.device WHERE id = o.device_id FOR UPDATE;
    PERFORM muster.enrol_device_check(d);
    IF EXISTS (SELECT 1 FROM muster.certificate c WHERE c.fingerprint = o.fingerprint AND c.status IN ('revoked', 'superseded')) THEN
        PERFORM muster.refuse('ownership.invalid', 'the certificate has ended since');
    END IF;
    r.serial := d.serial;
    PERFORM muster.enrol_trail(r, d.id, d.state, 'replayed', o.fingerprint);
    res.ord := r.ord;
    res.code := 'replayed';
    res.detail := '';
    res.proven := false;
    res.fingerprint := o.fingerprint;
    res.state := d.state;
    res.answer := o.answer || jsonb_build_object('serial', d.serial);
    RETURN res;
END $$;
COMMENT ON FUNCTION ownership_again IS 'Answers a registration that was made already';

-- Judges the ownership token before anything is evaluated or anybody is asked: o is the certificate it
-- names, or res the answer to give again.
CREATE FUNCTION ownership_open(request jsonb, OUT o claim_certificate, OUT code text, OUT answer jsonb) LANGUAGE plpgsql AS $$
DECLARE
    r muster.enrol_request := jsonb_populate_record(NULL::muster.enrol_request, request);
    c muster.claim;
BEGIN
    SELECT * INTO c FROM muster.claim WHERE id = r.claim_id;
    o := muster.ownership_take(r.claim_id, r.client_id, r.ownership_hash);
    PERFORM muster.claim_check(c, r.claim_late, true);
    code := 'ok';
    IF o.status = 'registered' THEN
        answer := (muster.ownership_again(r, o)).answer;
        code := 'replayed';
    END IF;
END $$;
COMMENT ON FUNCTION ownership_open IS 'The certificate of an ownership token, or what was answered when it was registered';

-- What the claim says; sets claim_grace of the request.
CREATE FUNCTION enrol_claim(INOUT r enrol_request, begun boolean) LANGUAGE plpgsql AS $$
DECLARE
    c muster.claim;
    known boolean;
BEGIN
    SELECT * INTO c FROM muster.claim WHERE id = r.claim_id FOR NO KEY UPDATE;
    r.claim_grace := muster.claim_check(c, r.claim_late, begun);
    IF NOT EXISTS (SELECT 1 FROM muster.claim_template s WHERE s.claim_id = c.id AND s.template_id = r.template_id) THEN
        PERFORM muster.refuse('claim.wrong_template', format('claim %s is not for template %s', c.name, r.template_label));
    END IF;
    IF c.budget IS NULL AND NOT r.claim_grace THEN
        RETURN;
    END IF;
    known := EXISTS (SELECT 1 FROM muster.claim_use u JOIN muster.device d ON d.id = u.device_id
        WHERE u.claim_id = c.id AND d.product_id = r.product_id AND d.serial_canonical = r.serial_canonical);
    IF known THEN
        RETURN; -- it has been counted, and flagged where that was in grace
    ELSIF c.devices >= c.budget THEN
        PERFORM muster.refuse('claim.budget_exhausted', format('claim %s has provisioned its %s devices', c.name, c.budget));
    ELSIF r.claim_grace AND NOT EXISTS (SELECT 1 FROM muster.allowlist a WHERE a.product_id = r.product_id
            AND a.serial_canonical = r.serial_canonical AND a.device_id IS NULL) THEN
        PERFORM muster.refuse('claim.expired', format('enrolment with claim %s ended at %s; its grace is for serials of the allowlist that were never seen', c.name, c.enrol_until));
    END IF;
END $$;
COMMENT ON FUNCTION enrol_claim IS 'Locks and judges the claim of an enrolment: scope, end, budget';

-- Counts a device that was known before, or takes its use up again.
CREATE FUNCTION enrol_claim_use(r enrol_request, device bigint, made bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF r.claim_id IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO muster.claim_use (claim_id, device_id, certificate_id, in_grace) VALUES (r.claim_id, device, made, r.claim_grace)
        ON CONFLICT (claim_id, device_id) DO NOTHING;
    IF FOUND THEN
        UPDATE muster.claim SET devices = devices + 1 WHERE id = r.claim_id;
        PERFORM muster.claim_grace_tell(r.claim_name, r.serial, r.request_id) WHERE r.claim_grace;
    ELSE
        UPDATE muster.claim_use SET certificate_id = made WHERE claim_id = r.claim_id AND device_id = device;
    END IF;
    PERFORM muster.ownership_close(r, device) WHERE r.ownership_hash IS NOT NULL;
END $$;
COMMENT ON FUNCTION enrol_claim_use IS 'Notes which claim gave a device its certificate, and counts the device once';

CREATE FUNCTION claim_grace_tell(claim text, serial text, request text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.outbox (event, payload) VALUES ('claim.grace_used', jsonb_build_object('claim', claim, 'serial', serial, 'request_id', request))
$$;
COMMENT ON FUNCTION claim_grace_tell IS 'Every use of a claim after its end is told';

CREATE FUNCTION ownership_close(r enrol_request, device bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE muster.claim_certificate SET status = 'registered', ended_at = clock_timestamp(), device_id = device,
            parameters_hash = r.parameters_hash, certificate = NULL,
            answer = jsonb_build_object('thing_name', r.thing_name, 'configuration', r.configuration)
        WHERE token_hash = r.ownership_hash;
END $$;
COMMENT ON FUNCTION ownership_close IS 'Marks a certificate as registered, with the answer';

CREATE FUNCTION enrol_by_claim(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    o muster.claim_certificate;
    v muster.token_verdict;
    p muster.product;
BEGIN
    IF r.ownership_hash IS NOT NULL THEN
        o := muster.ownership_take(r.claim_id, r.client_id, r.ownership_hash);
        IF o.status = 'registered' THEN
            RETURN muster.ownership_again(r, o);
        END IF;
        SELECT * INTO p FROM muster.product WHERE id = r.product_id;
        IF muster.serial_canonical(p, o.csr_serial) <> r.serial_canonical THEN
            PERFORM muster.refuse('serial.mismatch', format('the certificate was asked for with serial %s in its CSR, the registration says %s', o.csr_serial, r.serial));
        END IF;
    END IF;
    r := muster.enrol_claim(r, o.id IS NOT NULL);
    RETURN muster.enrol_first(r, v);
END $$;
COMMENT ON FUNCTION enrol_by_claim IS 'Enrols a device by a claim certificate, in one step or as the second of two';

CREATE OR REPLACE FUNCTION enrol_one(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    v muster.token_verdict;
    res muster.enrol_result;
    why text;
    proven boolean := r.credential IN ('factory', 'device');
BEGIN
    BEGIN
        IF r.credential = 'device' THEN
            RETURN muster.enrol_renew(r);
        ELSIF r.credential = 'claim' THEN
            RETURN muster.enrol_by_claim(r);
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

-- As before, and: the claim's grace goes with the result.
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
    res.proven := r.credential = 'factory' OR COALESCE(v.bound, false);
    res.fingerprint := r.fingerprint;
    res.state := CASE WHEN r.verify = 'none' THEN 'PROVISIONED' ELSE 'VERIFY' END;
    res.token_id := v.token_id;
    res.claim_grace := r.claim_grace;
    RETURN res;
END $$;

-- As before, and: a certificate that was made before its device was named is never given in place of
-- another; the claim is counted.
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
        IF r.ownership_hash IS NULL AND live.not_after - make_interval(secs => r.renew_before_s) > clock_timestamp() THEN
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

CREATE OR REPLACE FUNCTION enrol_trail(r enrol_request, device bigint, state text, outcome text, fp bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, claim,
            source, template, outcome, detail, reached, state, fingerprint, steps)
        VALUES (r.request_id, r.product_id, device, r.serial, r.protocol, r.operation, r.credential, r.claim_name,
            r.source, r.template_label, outcome, CASE WHEN r.claim_grace THEN 'in the grace of the claim' END,
            CASE WHEN state = 'PROVISIONED' THEN 'PROVISIONED' ELSE 'REGISTER' END, state, fp, r.steps);
END $$;

-- Claims of devices that enrol_write writes. Two certificates of one batch for one device never meet
-- here: the second of them sees the first.
CREATE FUNCTION enrol_write_claims(rs enrol_request[]) RETURNS void LANGUAGE plpgsql
    SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    r muster.enrol_request;
BEGIN
    UPDATE muster.claim c SET devices = c.devices + x.n
        FROM (SELECT q.claim_id, count(*)::integer AS n FROM unnest(rs) q WHERE q.claim_id IS NOT NULL GROUP BY q.claim_id) x
        WHERE c.id = x.claim_id;
    INSERT INTO muster.claim_use (claim_id, device_id, certificate_id, in_grace)
        SELECT q.claim_id, q.device_id, q.certificate_id, COALESCE(q.claim_grace, false) FROM unnest(rs) q WHERE q.claim_id IS NOT NULL;
    UPDATE muster.claim_certificate o SET status = 'registered', ended_at = clock_timestamp(), device_id = q.device_id,
            parameters_hash = q.parameters_hash, certificate = NULL,
            answer = jsonb_build_object('thing_name', q.thing_name, 'configuration', q.configuration)
        FROM unnest(rs) q WHERE o.token_hash = q.ownership_hash;
    FOREACH r IN ARRAY rs LOOP
        IF r.claim_grace THEN
            PERFORM muster.claim_grace_tell(r.claim_name, r.serial, r.request_id);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION enrol_write_claims IS 'Claims of devices that enrol_write writes';

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
            spki_sha256, not_before, not_after, template_id, template_version, request_id)
        OVERRIDING SYSTEM VALUE
        SELECT q.certificate_id, q.fingerprint, q.device_id, 'operational', 'pending', NOT q.inactive, q.issuer_id, q.serial_number,
            q.spki, to_timestamp(q.not_before), to_timestamp(q.not_after), q.template_id, q.template_version, q.request_id
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

CREATE OR REPLACE FUNCTION enrol_batch(requests jsonb) RETURNS SETOF enrol_result LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    r muster.enrol_request;
    res muster.enrol_result;
    tokens bigint[];
    claims bigint[];
    fresh muster.enrol_request[] := '{}';
    last muster.enrol_request;
BEGIN
    -- tokens and claims first and in one order, then devices in one order: no two batches wait for each other.
    -- Those of a single request are locked when they are judged.
    IF jsonb_array_length(requests) > 1 THEN
        tokens := ARRAY(SELECT t.id FROM jsonb_array_elements(requests) x
            CROSS JOIN LATERAL (SELECT k.id FROM muster.token k WHERE k.hash = (x->>'token_hash')::bytea OFFSET 0) t);
        PERFORM 1 FROM muster.token k WHERE k.id = ANY (tokens) ORDER BY k.id FOR UPDATE;
        claims := ARRAY(SELECT DISTINCT (x->>'claim_id')::bigint FROM jsonb_array_elements(requests) x WHERE x->>'claim_id' IS NOT NULL);
        IF cardinality(claims) > 0 THEN
            PERFORM 1 FROM muster.claim c WHERE c.id = ANY (claims) ORDER BY c.id FOR NO KEY UPDATE;
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

-- A key is made only where a claim, too, would be let in.
CREATE OR REPLACE FUNCTION enrol_keygen_check(request jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r muster.enrol_request := jsonb_populate_record(NULL::muster.enrol_request, request);
BEGIN
    IF r.credential = 'token' THEN
        PERFORM muster.enrol_token(r);
    END IF;
    IF r.credential = 'claim' THEN
        PERFORM muster.enrol_claim(r, false);
    END IF;
    IF r.credential <> 'device' THEN
        PERFORM muster.enrol_allowlist(r);
    END IF;
    IF r.approval THEN
        UPDATE muster.approval w SET asked = asked + 1, last_asked = clock_timestamp() FROM muster.device d
            WHERE d.product_id = r.product_id AND d.serial_canonical = r.serial_canonical AND w.device_id = d.id
              AND w.decision IS NULL AND w.spki_sha256 IS NULL;
        IF FOUND THEN
            RETURN 'approval.pending';
        END IF;
    END IF;
    RETURN 'ok';
END $$;

-- As before, and: the failures of a claim count against it.
CREATE OR REPLACE FUNCTION attempt_failed(f jsonb) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
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
    UPDATE muster.claim SET failures = failures + 1 WHERE id = (f->>'claim_id')::bigint;
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, claim,
            source, template, outcome, detail, reached, state, fingerprint, steps)
        VALUES (f->>'request_id', (f->>'product_id')::bigint, d.id, f->>'serial', f->>'protocol', f->>'operation',
            f->>'credential', f->>'claim', f->>'source', f->>'template', f->>'outcome', f->>'detail',
            COALESCE(f->>'reached', 'UNPROVISIONED'), state_then, (f->>'fingerprint')::bytea, COALESCE(f->'steps', '[]'));
    RETURN state_then;
END $$;

-- A certificate for a claim, before anybody says for which device. request: claim_id, claim_late, client_id, token_hash,
-- spki, key_kind, fingerprint, certificate, issuer_id, serial_number, not_before, not_after, csr_serial,
-- life_s, and what the trail wants. How many wait is looked at, not locked: requests that come in the same
-- instant may pass it together, at most as many as there are database connections.
CREATE FUNCTION claim_certificate_check(number bigint, late boolean) RETURNS claim LANGUAGE plpgsql AS $$
DECLARE
    c muster.claim;
BEGIN
    SELECT * INTO c FROM muster.claim WHERE id = number;
    PERFORM muster.claim_check(c, late, false);
    IF c.devices >= c.budget THEN
        PERFORM muster.refuse('claim.budget_exhausted', format('claim %s has provisioned its %s devices', c.name, c.budget));
    ELSIF (SELECT count(*) FROM (SELECT 1 FROM muster.claim_certificate x WHERE x.claim_id = c.id AND x.ended_at IS NULL LIMIT c.max_pending) w) >= c.max_pending THEN
        PERFORM muster.refuse('claim.too_many_pending', format('%s certificates of claim %s wait for their registration', c.max_pending, c.name));
    END IF;
    RETURN c;
END $$;
COMMENT ON FUNCTION claim_certificate_check IS 'Whether a claim may have another certificate made';

CREATE FUNCTION claim_certificate_make(request jsonb) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    c muster.claim := muster.claim_certificate_check((request->>'claim_id')::bigint, (request->>'claim_late')::boolean);
    k muster.key_owner;
    spki bytea := (request->>'spki')::bytea;
    late boolean;
BEGIN
    SELECT * INTO k FROM muster.key_owner WHERE spki_sha256 = spki;
    IF k.dead_at IS NOT NULL OR k.kind <> 'device' THEN
        PERFORM muster.refuse('key.reused', CASE WHEN k.dead_at IS NOT NULL THEN format('the key was revoked at %s and is dead', k.dead_at) ELSE format('the key is a %s key', k.kind) END);
    END IF;
    late := clock_timestamp() > c.enrol_until OR COALESCE((request->>'claim_late')::boolean, false);
    INSERT INTO muster.claim_certificate (claim_id, fingerprint, token_hash, client_id, spki_sha256, key_kind, certificate, issuer_id, serial_number,
            not_before, not_after, csr_serial, request_id, expires_at)
        VALUES (c.id, (request->>'fingerprint')::bytea, (request->>'token_hash')::bytea, request->>'client_id', spki, (request->>'key_kind')::integer,
            (request->>'certificate')::bytea, (request->>'issuer_id')::bigint, (request->>'serial_number')::bytea,
            to_timestamp((request->>'not_before')::bigint), to_timestamp((request->>'not_after')::bigint), request->>'csr_serial',
            request->>'request_id', clock_timestamp() + make_interval(secs => (request->>'life_s')::bigint));
    INSERT INTO muster.history (request_id, product_id, serial, protocol, operation, credential, claim, source, template, outcome, detail, reached, fingerprint, steps)
        VALUES (request->>'request_id', c.product_id, request->>'csr_serial', request->>'protocol', request->>'operation', 'claim', c.name, request->>'source',
            request->>'template_label', 'ok', CASE WHEN late THEN 'in the grace of the claim' END, 'BOOTSTRAP', (request->>'fingerprint')::bytea, COALESCE(request->'steps', '[]'));
    RETURN 'ok';
END $$;
COMMENT ON FUNCTION claim_certificate_make IS 'Records a certificate made for a claim, until it is registered for a device or the sweeper comes';

-- Certificates that nobody registered are revoked, never just forgotten. Their keys live on: they were
-- never used, and a device whose power failed between the two steps may have no other.
CREATE FUNCTION claim_certificate_end(ids bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    n integer;
BEGIN
    WITH gone AS (
        UPDATE muster.claim_certificate SET status = 'revoked', ended_at = clock_timestamp()
            WHERE id = ANY (ids) AND status = 'pending' RETURNING *
    ), told AS (
        INSERT INTO muster.outbox (event, payload) SELECT 'certificate.unregistered', jsonb_build_object('fingerprint', encode(g.fingerprint, 'hex'),
            'claim', c.name, 'client_id', g.client_id, 'request_id', g.request_id) FROM gone g JOIN muster.claim c ON c.id = g.claim_id
    )
    SELECT count(*) INTO n FROM gone;
    RETURN n;
END $$;
COMMENT ON FUNCTION claim_certificate_end IS 'Revokes certificates that were not registered; returns how many';

CREATE FUNCTION claim_certificate_sweep() RETURNS integer LANGUAGE sql AS $$
    SELECT muster.claim_certificate_end(ARRAY(SELECT id FROM muster.claim_certificate
        WHERE ended_at IS NULL AND expires_at <= clock_timestamp() ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED))
$$;
COMMENT ON FUNCTION claim_certificate_sweep IS 'Revokes what was not registered within its hour, at most a thousand at a time; returns how many';
