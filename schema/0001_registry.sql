-- migration: 1
-- name: registry
-- oldest-binary: 1
-- transaction: yes
--
-- The registry: who may enrol, who has, with which certificate, and what happened on the way.
-- Every rule that must hold whatever a program does is a constraint or a trigger here.

CREATE SCHEMA muster;
SET LOCAL search_path = muster;

CREATE TABLE schema_migration (
    version       integer PRIMARY KEY CHECK (version > 0),
    name          text NOT NULL,
    oldest_binary integer NOT NULL,
    applied_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE schema_migration IS 'Migrations applied, in order; append-only';
COMMENT ON COLUMN schema_migration.version IS 'Number of the migration, without gaps';
COMMENT ON COLUMN schema_migration.name IS 'Short name, for people';
COMMENT ON COLUMN schema_migration.oldest_binary IS 'The oldest schema number a running musterd may have been built for and still work after this migration';
COMMENT ON COLUMN schema_migration.applied_at IS 'When it was applied';

CREATE TABLE registry_epoch (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL DEFAULT 1
);
COMMENT ON TABLE registry_epoch IS 'One row: the version of everything that replicas cache (templates, CAs, products)';
COMMENT ON COLUMN registry_epoch.one IS 'Always true, so that there is one row';
COMMENT ON COLUMN registry_epoch.epoch IS 'Raised by every change of cached data; a replica that sees another value reloads';
INSERT INTO registry_epoch DEFAULT VALUES;

CREATE FUNCTION epoch_raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE muster.registry_epoch SET epoch = epoch + 1;
    RETURN NULL;
END $$;

CREATE TABLE product (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name             text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    serial_case      text NOT NULL DEFAULT 'keep' CHECK (serial_case IN ('keep', 'upper', 'lower')),
    strip_separators boolean NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE product IS 'A product line: groups templates, allowlist and claims; the first half of every identity';
COMMENT ON COLUMN product.id IS 'Registry number';
COMMENT ON COLUMN product.name IS 'Name as operators write it';
COMMENT ON COLUMN product.serial_case IS 'How letters of a serial are folded in its canonical form';
COMMENT ON COLUMN product.strip_separators IS 'Whether . _ : and - are dropped from the canonical form';
COMMENT ON COLUMN product.created_at IS 'When it was made';
CREATE TRIGGER product_epoch AFTER INSERT OR UPDATE OR DELETE ON product
    FOR EACH STATEMENT EXECUTE FUNCTION epoch_raise();

CREATE TABLE template (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id      bigint NOT NULL REFERENCES product,
    name            text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_-]{1,36}$'),
    default_version integer NOT NULL DEFAULT 1,
    enabled         boolean NOT NULL DEFAULT true,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE template IS 'A provisioning template by name; its documents are in template_version';
COMMENT ON COLUMN template.id IS 'Registry number';
COMMENT ON COLUMN template.product_id IS 'The product line whose devices it provisions';
COMMENT ON COLUMN template.name IS 'Name, also the EST label';
COMMENT ON COLUMN template.default_version IS 'The version that enrolments use';
COMMENT ON COLUMN template.enabled IS 'A disabled template refuses everything';
COMMENT ON COLUMN template.created_at IS 'When it was made';
CREATE TRIGGER template_epoch AFTER INSERT OR UPDATE OR DELETE ON template
    FOR EACH STATEMENT EXECUTE FUNCTION epoch_raise();

CREATE TABLE template_version (
    template_id bigint NOT NULL REFERENCES template,
    version     integer NOT NULL CHECK (version > 0),
    body        text NOT NULL CHECK (length(body) <= 16384),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by  text NOT NULL,
    PRIMARY KEY (template_id, version)
);
COMMENT ON TABLE template_version IS 'The documents of a template; immutable once written';
COMMENT ON COLUMN template_version.template_id IS 'The template';
COMMENT ON COLUMN template_version.version IS 'Counted from 1';
COMMENT ON COLUMN template_version.body IS 'The JSON document as given';
COMMENT ON COLUMN template_version.created_at IS 'When it was put';
COMMENT ON COLUMN template_version.created_by IS 'The admin token that put it';

CREATE FUNCTION row_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER template_version_immutable BEFORE UPDATE OR DELETE ON template_version
    FOR EACH ROW EXECUTE FUNCTION row_immutable();

CREATE TABLE ca (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('root', 'issuing', 'registered', 'helper')),
    name          text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    certificate   bytea NOT NULL CHECK (length(certificate) <= 16384),
    fingerprint   bytea NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    spki_sha256   bytea NOT NULL CHECK (length(spki_sha256) = 32),
    subject       text NOT NULL,
    key_reference text CHECK (length(key_reference) <= 1024),
    active        boolean NOT NULL DEFAULT true,
    template_id   bigint REFERENCES template,
    not_after     timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((kind = 'issuing') = (key_reference IS NOT NULL)),
    CHECK (kind = 'registered' OR template_id IS NULL)
);
COMMENT ON TABLE ca IS 'Certification authorities: our own (root, issuing), and those whose device certificates we admit (registered) or use to complete chains (helper)';
COMMENT ON COLUMN ca.id IS 'Registry number';
COMMENT ON COLUMN ca.kind IS 'root and issuing are ours; registered vouches for factory certificates; helper only completes chains';
COMMENT ON COLUMN ca.name IS 'Name as operators write it';
COMMENT ON COLUMN ca.certificate IS 'DER';
COMMENT ON COLUMN ca.fingerprint IS 'SHA-256 of the DER';
COMMENT ON COLUMN ca.spki_sha256 IS 'SHA-256 of the SubjectPublicKeyInfo; no device may enrol with this key';
COMMENT ON COLUMN ca.subject IS 'Subject, RFC 2253';
COMMENT ON COLUMN ca.key_reference IS 'Where the signing key is (file name inside the CA folder); issuing only';
COMMENT ON COLUMN ca.active IS 'An inactive CA neither signs nor vouches';
COMMENT ON COLUMN ca.template_id IS 'For registered CAs: the template its devices are provisioned with';
COMMENT ON COLUMN ca.not_after IS 'End of the certificate''s validity';
COMMENT ON COLUMN ca.created_at IS 'When it was registered';
CREATE TRIGGER ca_epoch AFTER INSERT OR UPDATE OR DELETE ON ca
    FOR EACH STATEMENT EXECUTE FUNCTION epoch_raise();

CREATE TABLE unknown_issuer (
    issuer_hash bytea PRIMARY KEY CHECK (length(issuer_hash) = 32),
    issuer      text NOT NULL CHECK (length(issuer) <= 1024),
    aki         bytea CHECK (length(aki) <= 64),
    sample      bytea NOT NULL CHECK (length(sample) <= 16384),
    seen        bigint NOT NULL DEFAULT 1,
    first_seen  timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_source text NOT NULL
);
COMMENT ON TABLE unknown_issuer IS 'Issuers of client certificates that no registered CA stands behind; at most 256 rows, the least recently seen goes';
COMMENT ON COLUMN unknown_issuer.issuer_hash IS 'SHA-256 over issuer name and authority key identifier';
COMMENT ON COLUMN unknown_issuer.issuer IS 'Issuer, RFC 2253';
COMMENT ON COLUMN unknown_issuer.aki IS 'Authority key identifier the certificate asks for';
COMMENT ON COLUMN unknown_issuer.sample IS 'One certificate that named this issuer, DER';
COMMENT ON COLUMN unknown_issuer.seen IS 'How often it was recorded (sampled under load)';
COMMENT ON COLUMN unknown_issuer.first_seen IS 'First time';
COMMENT ON COLUMN unknown_issuer.last_seen IS 'Last time';
COMMENT ON COLUMN unknown_issuer.last_source IS 'Source address of the last';

CREATE TABLE device_transition (
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (from_state, to_state)
);
COMMENT ON TABLE device_transition IS 'Moves of a device that one commit may make; a forward move may pass several states';
COMMENT ON COLUMN device_transition.from_state IS 'State before';
COMMENT ON COLUMN device_transition.to_state IS 'State after';
INSERT INTO device_transition
    SELECT a.s, b.s
    FROM unnest(ARRAY['UNPROVISIONED', 'BOOTSTRAP', 'ENROLL', 'CREDENTIAL_STORE', 'REGISTER', 'VERIFY', 'PROVISIONED']) WITH ORDINALITY a(s, i),
         unnest(ARRAY['UNPROVISIONED', 'BOOTSTRAP', 'ENROLL', 'CREDENTIAL_STORE', 'REGISTER', 'VERIFY', 'PROVISIONED']) WITH ORDINALITY b(s, i)
    WHERE a.i < b.i;
INSERT INTO device_transition VALUES
    ('PROVISIONED', 'VERIFY'),
    ('BOOTSTRAP', 'UNPROVISIONED'), ('ENROLL', 'UNPROVISIONED'),
    ('VERIFY', 'UNPROVISIONED'), ('PROVISIONED', 'UNPROVISIONED'),
    ('UNPROVISIONED', 'QUARANTINE'), ('BOOTSTRAP', 'QUARANTINE'), ('ENROLL', 'QUARANTINE'),
    ('CREDENTIAL_STORE', 'QUARANTINE'), ('REGISTER', 'QUARANTINE'), ('VERIFY', 'QUARANTINE'),
    ('PROVISIONED', 'QUARANTINE'),
    ('QUARANTINE', 'UNPROVISIONED'), ('QUARANTINE', 'BOOTSTRAP'), ('QUARANTINE', 'ENROLL'),
    ('QUARANTINE', 'VERIFY'), ('QUARANTINE', 'PROVISIONED');

CREATE TABLE device (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id        bigint NOT NULL REFERENCES product,
    serial            text NOT NULL CHECK (serial ~ '^[A-Za-z0-9._:-]{1,64}$'),
    serial_canonical  text NOT NULL CHECK (serial_canonical ~ '^[A-Za-z0-9._:-]{1,64}$'),
    state             text NOT NULL CHECK (state IN ('UNPROVISIONED', 'BOOTSTRAP', 'ENROLL', 'CREDENTIAL_STORE', 'REGISTER', 'VERIFY', 'PROVISIONED', 'QUARANTINE')),
    state_since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    thing_name        text CHECK (thing_name ~ '^[A-Za-z0-9:_-]{1,128}$'),
    thing_type        text,
    billing_group     text,
    attributes        jsonb NOT NULL DEFAULT '{}',
    configuration     jsonb NOT NULL DEFAULT '{}',
    template_id       bigint NOT NULL REFERENCES template,
    template_version  integer NOT NULL,
    verify_mode       text NOT NULL DEFAULT 'call' CHECK (verify_mode IN ('call', 'broker', 'external', 'none')),
    verify_by         timestamptz,
    failures          integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    quarantine_reason text,
    reset_at          timestamptz,
    retired_at        timestamptz,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen         timestamptz,
    UNIQUE (product_id, serial_canonical),
    CHECK ((state = 'QUARANTINE') = (quarantine_reason IS NOT NULL))
);
COMMENT ON TABLE device IS 'One device, one identity: (product, canonical serial), whatever protocol it came by';
COMMENT ON COLUMN device.id IS 'Registry number';
COMMENT ON COLUMN device.product_id IS 'Product line';
COMMENT ON COLUMN device.serial IS 'Serial as first given';
COMMENT ON COLUMN device.serial_canonical IS 'Serial under the product''s rule; what identity compares';
COMMENT ON COLUMN device.state IS 'Where it stands on its way; moves are limited by device_transition';
COMMENT ON COLUMN device.state_since IS 'When it came into this state';
COMMENT ON COLUMN device.thing_name IS 'Thing name in use; reserved for good in table thing';
COMMENT ON COLUMN device.thing_type IS 'Thing type, or NULL';
COMMENT ON COLUMN device.billing_group IS 'Billing group, or NULL';
COMMENT ON COLUMN device.attributes IS 'Thing attributes: an object of strings';
COMMENT ON COLUMN device.configuration IS 'DeviceConfiguration handed to the device';
COMMENT ON COLUMN device.template_id IS 'Template it enrolled with last';
COMMENT ON COLUMN device.template_version IS 'Version of that template';
COMMENT ON COLUMN device.verify_mode IS 'What counts as the first use of its certificate';
COMMENT ON COLUMN device.verify_by IS 'When the first use is due; NULL when none is awaited';
COMMENT ON COLUMN device.failures IS 'Failures in a row that count against it; quarantine at the template''s threshold';
COMMENT ON COLUMN device.quarantine_reason IS 'Why it is in quarantine; NULL outside';
COMMENT ON COLUMN device.reset_at IS 'Set by an operator''s reset: one enrolment with a new key is allowed; cleared by it';
COMMENT ON COLUMN device.retired_at IS 'Set once and for all by retire';
COMMENT ON COLUMN device.created_at IS 'When the row was made';
COMMENT ON COLUMN device.last_seen IS 'Last successful contact';
CREATE INDEX device_state_idx ON device (state, id);
CREATE INDEX device_template_idx ON device (template_id);
CREATE INDEX device_serial_idx ON device (serial_canonical);
CREATE INDEX device_quarantined_idx ON device (template_id, state_since) WHERE state = 'QUARANTINE';

CREATE FUNCTION device_move_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> OLD.state THEN
        IF NOT EXISTS (SELECT 1 FROM muster.device_transition t
                       WHERE t.from_state = OLD.state AND t.to_state = NEW.state) THEN
            RAISE EXCEPTION 'device % may not go from % to %', OLD.serial, OLD.state, NEW.state
                USING ERRCODE = 'check_violation';
        END IF;
        NEW.state_since := clock_timestamp();
    END IF;
    IF OLD.retired_at IS NOT NULL AND NEW.retired_at IS DISTINCT FROM OLD.retired_at THEN
        RAISE EXCEPTION 'device % was retired for good', OLD.serial USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.product_id <> OLD.product_id OR NEW.serial_canonical <> OLD.serial_canonical THEN
        RAISE EXCEPTION 'the identity of device % does not change', OLD.serial USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER device_move BEFORE UPDATE ON device FOR EACH ROW EXECUTE FUNCTION device_move_check();

CREATE TABLE thing (
    name       text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9:_-]{1,128}$'),
    device_id  bigint NOT NULL REFERENCES device,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE thing IS 'Thing names ever given; a name belongs to its first identity forever';
COMMENT ON COLUMN thing.name IS 'The name';
COMMENT ON COLUMN thing.device_id IS 'The identity it belongs to';
COMMENT ON COLUMN thing.created_at IS 'When it was given';
CREATE INDEX thing_device_idx ON thing (device_id);
CREATE TRIGGER thing_immutable BEFORE UPDATE OR DELETE ON thing
    FOR EACH ROW EXECUTE FUNCTION row_immutable();

CREATE TABLE thing_group (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9:_-]{1,128}$')
);
COMMENT ON TABLE thing_group IS 'Groups of things, made by the first template that names them';
COMMENT ON COLUMN thing_group.id IS 'Registry number';
COMMENT ON COLUMN thing_group.name IS 'Name';

CREATE TABLE device_group (
    device_id bigint NOT NULL REFERENCES device,
    group_id  bigint NOT NULL REFERENCES thing_group,
    PRIMARY KEY (device_id, group_id)
);
COMMENT ON TABLE device_group IS 'Membership of devices in groups';
COMMENT ON COLUMN device_group.device_id IS 'The device';
COMMENT ON COLUMN device_group.group_id IS 'The group';
CREATE INDEX device_group_group_idx ON device_group (group_id, device_id);

CREATE TABLE policy (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id bigint NOT NULL REFERENCES product,
    name       text NOT NULL CHECK (name ~ '^[A-Za-z0-9_+=,.@-]{1,128}$'),
    document   jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (product_id, name)
);
COMMENT ON TABLE policy IS 'Policies that templates attach to certificates';
COMMENT ON COLUMN policy.id IS 'Registry number';
COMMENT ON COLUMN policy.product_id IS 'The product line whose templates made it: names of one never reach another';
COMMENT ON COLUMN policy.name IS 'Name';
COMMENT ON COLUMN policy.document IS 'AWS IoT policy document';
COMMENT ON COLUMN policy.created_at IS 'When it was made';

CREATE TABLE certificate (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint      bytea NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    device_id        bigint NOT NULL REFERENCES device,
    purpose          text NOT NULL CHECK (purpose IN ('bootstrap', 'operational')),
    status           text NOT NULL CHECK (status IN ('pending', 'current', 'superseded', 'revoked')),
    active           boolean NOT NULL DEFAULT true,
    issuer_id        bigint NOT NULL REFERENCES ca,
    serial_number    bytea NOT NULL CHECK (length(serial_number) BETWEEN 1 AND 20),
    spki_sha256      bytea NOT NULL CHECK (length(spki_sha256) = 32),
    not_before       timestamptz NOT NULL,
    not_after        timestamptz NOT NULL CHECK (not_after > not_before),
    issued_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    verified_at      timestamptz,
    ended_at         timestamptz,
    revoke_reason    text CHECK (revoke_reason IN ('unspecified', 'keyCompromise', 'cACompromise', 'affiliationChanged', 'superseded', 'cessationOfOperation', 'privilegeWithdrawn')),
    supersedes_id    bigint REFERENCES certificate,
    template_id      bigint NOT NULL REFERENCES template,
    template_version integer NOT NULL,
    request_id       text NOT NULL,
    CHECK ((status = 'revoked') = (revoke_reason IS NOT NULL)),
    CHECK ((status IN ('superseded', 'revoked')) = (ended_at IS NOT NULL))
);
COMMENT ON TABLE certificate IS 'Every certificate released to a device or presented by one; the DER is in certificate_der';
COMMENT ON COLUMN certificate.id IS 'Registry number';
COMMENT ON COLUMN certificate.fingerprint IS 'SHA-256 of the DER: the certificateId of AWS';
COMMENT ON COLUMN certificate.device_id IS 'Its device';
COMMENT ON COLUMN certificate.purpose IS 'bootstrap: may only ask for an identity; operational: is one';
COMMENT ON COLUMN certificate.status IS 'pending: not used yet; current; superseded by a newer one that was used; revoked for good';
COMMENT ON COLUMN certificate.active IS 'False where the template made it INACTIVE';
COMMENT ON COLUMN certificate.issuer_id IS 'The CA that signed it, or the registered CA its chain ends at';
COMMENT ON COLUMN certificate.serial_number IS 'Serial number, big endian';
COMMENT ON COLUMN certificate.spki_sha256 IS 'SHA-256 of the SubjectPublicKeyInfo';
COMMENT ON COLUMN certificate.not_before IS 'Start of validity';
COMMENT ON COLUMN certificate.not_after IS 'End of validity';
COMMENT ON COLUMN certificate.issued_at IS 'When it was recorded, by the database''s clock';
COMMENT ON COLUMN certificate.verified_at IS 'First use';
COMMENT ON COLUMN certificate.ended_at IS 'When it was superseded or revoked';
COMMENT ON COLUMN certificate.revoke_reason IS 'RFC 5280 5.3.1 reason';
COMMENT ON COLUMN certificate.supersedes_id IS 'The certificate that was renewed or replaced by this one';
COMMENT ON COLUMN certificate.template_id IS 'Template it was made after';
COMMENT ON COLUMN certificate.template_version IS 'Version of that template';
COMMENT ON COLUMN certificate.request_id IS 'The request that made it';
CREATE UNIQUE INDEX certificate_one_current ON certificate (device_id, purpose) WHERE status = 'current';
CREATE UNIQUE INDEX certificate_one_pending ON certificate (device_id, purpose) WHERE status = 'pending';
-- what we signed; a factory's intermediates below one registered CA may count alike
CREATE UNIQUE INDEX certificate_serial_number ON certificate (issuer_id, serial_number) WHERE purpose = 'operational';
CREATE INDEX certificate_device_idx ON certificate (device_id, id);
CREATE INDEX certificate_expiry_idx ON certificate (not_after) WHERE status IN ('pending', 'current');

CREATE FUNCTION certificate_move_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'revoked' AND NEW.status <> 'revoked' THEN
        RAISE EXCEPTION 'a revoked certificate is dead forever' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.status = 'superseded' AND NEW.status NOT IN ('superseded', 'revoked') THEN
        RAISE EXCEPTION 'a superseded certificate does not come back' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.purpose = 'bootstrap' AND NEW.purpose <> 'bootstrap' THEN
        RAISE EXCEPTION 'a bootstrap certificate does not become operational here' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER certificate_move BEFORE UPDATE ON certificate
    FOR EACH ROW EXECUTE FUNCTION certificate_move_check();

CREATE TABLE certificate_der (
    certificate_id bigint PRIMARY KEY REFERENCES certificate,
    der            bytea NOT NULL CHECK (length(der) <= 16384)
);
COMMENT ON TABLE certificate_der IS 'The certificates themselves, apart, so that the table of certificates stays small';
COMMENT ON COLUMN certificate_der.certificate_id IS 'The certificate';
COMMENT ON COLUMN certificate_der.der IS 'DER as signed';
CREATE TRIGGER certificate_der_immutable BEFORE UPDATE ON certificate_der
    FOR EACH ROW EXECUTE FUNCTION row_immutable();

CREATE TABLE certificate_policy (
    certificate_id bigint NOT NULL REFERENCES certificate,
    policy_id      bigint NOT NULL REFERENCES policy,
    PRIMARY KEY (certificate_id, policy_id)
);
COMMENT ON TABLE certificate_policy IS 'Policies attached to certificates';
COMMENT ON COLUMN certificate_policy.certificate_id IS 'The certificate';
COMMENT ON COLUMN certificate_policy.policy_id IS 'The policy';

CREATE TABLE key_owner (
    spki_sha256 bytea PRIMARY KEY CHECK (length(spki_sha256) = 32),
    kind        text NOT NULL CHECK (kind IN ('device', 'bootstrap', 'ca')),
    device_id   bigint REFERENCES device,
    dead_at     timestamptz,
    CHECK ((kind = 'ca') = (device_id IS NULL))
);
COMMENT ON TABLE key_owner IS 'Every public key ever admitted and whose it is; a key never changes hands';
COMMENT ON COLUMN key_owner.spki_sha256 IS 'SHA-256 of the SubjectPublicKeyInfo';
COMMENT ON COLUMN key_owner.kind IS 'What the key is for; only kind device may enrol';
COMMENT ON COLUMN key_owner.device_id IS 'The device it belongs to';
COMMENT ON COLUMN key_owner.dead_at IS 'Set when a certificate over it was revoked; never cleared';

CREATE FUNCTION key_owner_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.kind <> OLD.kind OR NEW.device_id IS DISTINCT FROM OLD.device_id
       OR (OLD.dead_at IS NOT NULL AND NEW.dead_at IS NULL) THEN
        RAISE EXCEPTION 'a key keeps its owner, and a dead key stays dead' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER key_owner_move BEFORE UPDATE OR DELETE ON key_owner
    FOR EACH ROW EXECUTE FUNCTION key_owner_check();

CREATE TABLE allowlist (
    product_id       bigint NOT NULL REFERENCES product,
    serial_canonical text NOT NULL CHECK (serial_canonical ~ '^[A-Za-z0-9._:-]{1,64}$'),
    serial           text NOT NULL CHECK (serial ~ '^[A-Za-z0-9._:-]{1,64}$'),
    spki_pin         bytea CHECK (length(spki_pin) = 32),
    blocked          boolean NOT NULL DEFAULT false,
    batch            text CHECK (length(batch) <= 128),
    device_id        bigint REFERENCES device,
    claimed_at       timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (product_id, serial_canonical)
);
COMMENT ON TABLE allowlist IS 'Serials a product line has built and admits';
COMMENT ON COLUMN allowlist.product_id IS 'Product line';
COMMENT ON COLUMN allowlist.serial_canonical IS 'Canonical serial';
COMMENT ON COLUMN allowlist.serial IS 'Serial as imported';
COMMENT ON COLUMN allowlist.spki_pin IS 'SHA-256 of the only public key this serial may enrol with; NULL: any';
COMMENT ON COLUMN allowlist.blocked IS 'A blocked serial is refused even where no allowlist is required';
COMMENT ON COLUMN allowlist.batch IS 'Free text of the import: line, lot, date';
COMMENT ON COLUMN allowlist.device_id IS 'The device that claimed the row; NULL: never seen';
COMMENT ON COLUMN allowlist.claimed_at IS 'When it did';
COMMENT ON COLUMN allowlist.created_at IS 'When it was imported';
CREATE INDEX allowlist_unseen_idx ON allowlist (product_id, serial_canonical) WHERE device_id IS NULL;

CREATE TABLE token (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash             bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    template_id      bigint NOT NULL REFERENCES template,
    serial           text,
    serial_canonical text,
    max_uses         integer NOT NULL DEFAULT 1 CHECK (max_uses BETWEEN 1 AND 10000000),
    uses             integer NOT NULL DEFAULT 0 CHECK (uses BETWEEN 0 AND max_uses),
    failures         bigint NOT NULL DEFAULT 0,
    expires_at       timestamptz NOT NULL,
    grace_s          integer NOT NULL CHECK (grace_s BETWEEN 0 AND 31536000),
    revoked_at       timestamptz,
    replaced_by      bigint REFERENCES token,
    note             text CHECK (length(note) <= 256),
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by       text NOT NULL,
    CHECK ((serial IS NULL) = (serial_canonical IS NULL))
);
COMMENT ON TABLE token IS 'Bootstrap tokens; only their hash is kept';
COMMENT ON COLUMN token.id IS 'Registry number, what operators name a token by';
COMMENT ON COLUMN token.hash IS 'SHA-256 of the token text (256 random bits, so no salt)';
COMMENT ON COLUMN token.template_id IS 'The template it admits to';
COMMENT ON COLUMN token.serial IS 'The serial it is bound to; NULL: free';
COMMENT ON COLUMN token.serial_canonical IS 'Canonical form of that serial';
COMMENT ON COLUMN token.max_uses IS 'How many certificates it may give';
COMMENT ON COLUMN token.uses IS 'How many it has given';
COMMENT ON COLUMN token.failures IS 'Refused presentations of a free token';
COMMENT ON COLUMN token.expires_at IS 'End of life by the database''s clock';
COMMENT ON COLUMN token.grace_s IS 'How long after its use the same device may come back with it, seconds';
COMMENT ON COLUMN token.revoked_at IS 'Set when an operator revoked or regenerated it';
COMMENT ON COLUMN token.replaced_by IS 'The token that regenerate made instead';
COMMENT ON COLUMN token.note IS 'Free text';
COMMENT ON COLUMN token.created_at IS 'When it was minted';
COMMENT ON COLUMN token.created_by IS 'The admin token that minted it';
CREATE INDEX token_serial_idx ON token (serial_canonical);

CREATE TABLE token_use (
    token_id       bigint NOT NULL REFERENCES token,
    device_id      bigint NOT NULL REFERENCES device,
    certificate_id bigint NOT NULL REFERENCES certificate,
    used_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (token_id, device_id)
);
COMMENT ON TABLE token_use IS 'Which token gave which certificate to whom';
COMMENT ON COLUMN token_use.token_id IS 'The token';
COMMENT ON COLUMN token_use.device_id IS 'The device';
COMMENT ON COLUMN token_use.certificate_id IS 'The certificate it gave last';
COMMENT ON COLUMN token_use.used_at IS 'First use; grace counts from here';

CREATE TABLE history (
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    request_id  text NOT NULL,
    product_id  bigint,
    device_id   bigint,
    serial      text,
    protocol    text NOT NULL,
    operation   text NOT NULL,
    credential  text NOT NULL,
    source      text NOT NULL,
    template    text,
    outcome     text NOT NULL,
    detail      text,
    reached     text NOT NULL,
    state       text,
    fingerprint bytea,
    steps       jsonb NOT NULL DEFAULT '[]'
) PARTITION BY RANGE (at);
COMMENT ON TABLE history IS 'The trail: one append-only row an attempt';
COMMENT ON COLUMN history.at IS 'When, by the database''s clock; partition key';
COMMENT ON COLUMN history.request_id IS 'Joins the row to the log record and to what the client was told';
COMMENT ON COLUMN history.product_id IS 'Product line, as far as it was known';
COMMENT ON COLUMN history.device_id IS 'Device, as far as it was proven';
COMMENT ON COLUMN history.serial IS 'Serial as presented';
COMMENT ON COLUMN history.protocol IS 'est, json (POST /v1/enroll), config, external, admin';
COMMENT ON COLUMN history.operation IS 'simpleenroll, simplereenroll, ...';
COMMENT ON COLUMN history.credential IS 'token, factory, device, operator, none';
COMMENT ON COLUMN history.source IS 'Source address, or the operator''s token name';
COMMENT ON COLUMN history.template IS 'Template name and version, e.g. pump@3';
COMMENT ON COLUMN history.outcome IS 'ok, replayed, or the fault''s code';
COMMENT ON COLUMN history.detail IS 'The reason in full, for operators';
COMMENT ON COLUMN history.reached IS 'How far the attempt came: the last step that passed';
COMMENT ON COLUMN history.state IS 'The device''s state afterwards';
COMMENT ON COLUMN history.fingerprint IS 'The certificate given or used';
COMMENT ON COLUMN history.steps IS 'Steps with their time in microseconds';
CREATE INDEX history_request_idx ON history (request_id);
CREATE INDEX history_device_idx ON history (device_id, at);
CREATE INDEX history_serial_idx ON history (serial, at);
CREATE TRIGGER history_immutable BEFORE UPDATE OR DELETE ON history
    FOR EACH ROW EXECUTE FUNCTION row_immutable();

CREATE TABLE outbox (
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    id      bigint GENERATED ALWAYS AS IDENTITY,
    event   text NOT NULL,
    payload jsonb NOT NULL,
    PRIMARY KEY (at, id)
) PARTITION BY RANGE (at);
COMMENT ON TABLE outbox IS 'Events to announce, written in the transaction that makes them true';
COMMENT ON COLUMN outbox.at IS 'When; partition key';
COMMENT ON COLUMN outbox.id IS 'Order of events';
COMMENT ON COLUMN outbox.event IS 'device.enrolled, device.renewed, device.verified, device.quarantined, ...';
COMMENT ON COLUMN outbox.payload IS 'The event';

CREATE TABLE audit (
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    id     bigint GENERATED ALWAYS AS IDENTITY,
    actor  text NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (at, id)
) PARTITION BY RANGE (at);
COMMENT ON TABLE audit IS 'Every change an operator made, in the transaction that made it';
COMMENT ON COLUMN audit.at IS 'When; partition key';
COMMENT ON COLUMN audit.id IS 'Order';
COMMENT ON COLUMN audit.actor IS 'Name of the admin token';
COMMENT ON COLUMN audit.source IS 'Source address';
COMMENT ON COLUMN audit.action IS 'What was done, e.g. token.create';
COMMENT ON COLUMN audit.object IS 'To what';
COMMENT ON COLUMN audit.detail IS 'With which values; never a secret';
CREATE TRIGGER audit_immutable BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION row_immutable();

CREATE TABLE admin_token (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_.@-]{1,64}$'),
    hash       bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    role       text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    product_id bigint REFERENCES product,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);
COMMENT ON TABLE admin_token IS 'Who may use the admin listener; only the hash of a token is kept';
COMMENT ON COLUMN admin_token.id IS 'Registry number';
COMMENT ON COLUMN admin_token.name IS 'Who; what the audit shows';
COMMENT ON COLUMN admin_token.hash IS 'SHA-256 of the token text';
COMMENT ON COLUMN admin_token.role IS 'viewer reads, operator handles devices and tokens, admin does everything';
COMMENT ON COLUMN admin_token.product_id IS 'The only product it may see and touch; NULL: all';
COMMENT ON COLUMN admin_token.created_at IS 'When it was made';
COMMENT ON COLUMN admin_token.revoked_at IS 'When it was revoked';

-- Partitions by month, made ahead of time; the default partition only catches a clock gone wild.
CREATE TABLE history_default PARTITION OF history DEFAULT;
CREATE TABLE outbox_default PARTITION OF outbox DEFAULT;
CREATE TABLE audit_default PARTITION OF audit DEFAULT;
COMMENT ON TABLE history_default IS 'Rows of history outside every monthly partition';
COMMENT ON TABLE outbox_default IS 'Rows of outbox outside every monthly partition';
COMMENT ON TABLE audit_default IS 'Rows of audit outside every monthly partition';

CREATE FUNCTION partition_ensure(parent text, month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || '_' || to_char(month, 'YYYYMM');
BEGIN
    IF to_regclass('muster.' || child) IS NULL THEN
        EXECUTE format('CREATE TABLE muster.%I PARTITION OF muster.%I FOR VALUES FROM (%L) TO (%L)',
                       child, parent, month::text || ' 00:00:00+00', (month + interval '1 month')::date::text || ' 00:00:00+00');
        EXECUTE format('COMMENT ON TABLE muster.%I IS %L', child, 'One month of ' || parent);
    END IF;
END $$;
COMMENT ON FUNCTION partition_ensure IS 'Makes the monthly partition of a table when it is missing';

CREATE FUNCTION partition_maintain(parent text, keep_days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    child text;
    dropped integer := 0;
BEGIN
    FOR i IN 0..2 LOOP
        PERFORM muster.partition_ensure(parent, (this_month + make_interval(months => i))::date);
    END LOOP;
    FOR child IN
        SELECT c.relname FROM pg_inherits h
        JOIN pg_class c ON c.oid = h.inhrelid
        WHERE h.inhparent = ('muster.' || quote_ident(parent))::regclass
          AND c.relname ~ ('^' || parent || '_[0-9]{6}$')
          AND to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' <= now() - make_interval(days => keep_days)
    LOOP
        EXECUTE format('DROP TABLE muster.%I', child);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
COMMENT ON FUNCTION partition_maintain IS 'Makes this and the next two months'' partitions and drops those older than keep_days; returns how many were dropped';

SELECT partition_maintain('history', 3650), partition_maintain('outbox', 3650), partition_maintain('audit', 36500);
