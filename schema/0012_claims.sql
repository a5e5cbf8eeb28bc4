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
ALTER DOMAIN key_kind ADD CONSTRAINT key_kind_check CHECK (VALUE IN ('device', 'bootstrap', 'ca', 'claim', 'orphan'));
ALTER TABLE key_owner DROP CONSTRAINT key_owner_check;
ALTER TABLE key_owner ADD CONSTRAINT key_owner_check CHECK ((kind IN ('ca', 'claim', 'orphan')) = (device_id IS NULL));
COMMENT ON COLUMN key_owner.kind IS 'What the key is for; only kind device may enrol. orphan: of a certificate that nobody registered, dead';

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
