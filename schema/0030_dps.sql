-- migration: 30
-- name: dps
-- oldest-binary: 1
-- transaction: yes
--
-- Enrollments: devices, and groups of devices, that are known by a key before they come, and what is assigned to them when
-- they register (the device API of Azure's provisioning service).

SET LOCAL search_path = muster;

CREATE TABLE secret_key (
    id      smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    wrapped bytea NOT NULL CHECK (octet_length(wrapped) BETWEEN 256 AND 512),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE secret_key IS 'The key that seals secrets in this registry, itself enciphered for a key outside it ([secrets] key)';
COMMENT ON COLUMN secret_key.id IS 'There is one';
COMMENT ON COLUMN secret_key.wrapped IS 'RSAES-OAEP of 32 bytes';
COMMENT ON COLUMN secret_key.made_at IS 'When the first replica with such a key made it';

CREATE FUNCTION secret_key_keep(made bytea) RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.secret_key (wrapped) VALUES (made) ON CONFLICT DO NOTHING;
    RETURN (SELECT wrapped FROM muster.secret_key);
END $$;
COMMENT ON FUNCTION secret_key_keep IS 'The registry''s sealing key: this one where there is none yet';

CREATE TABLE broker_endpoint (
    host       text PRIMARY KEY CHECK (host ~ '^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$'),
    weight     integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 1000),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL
);
COMMENT ON TABLE broker_endpoint IS 'Brokers that devices are assigned to';
COMMENT ON COLUMN broker_endpoint.host IS 'Its name, as devices are told it';
COMMENT ON COLUMN broker_endpoint.weight IS 'Its share under the policy weighted; 0: nobody new';
COMMENT ON COLUMN broker_endpoint.created_at IS 'When it was made known';
COMMENT ON COLUMN broker_endpoint.created_by IS 'The operator';

CREATE TABLE enrollment (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grouped       boolean NOT NULL,
    name          text NOT NULL CHECK (name ~ '^[A-Za-z0-9._:-]{0,127}[A-Za-z0-9-]$'),
    name_lower    text NOT NULL GENERATED ALWAYS AS (lower(name)) STORED,
    product_id    bigint NOT NULL REFERENCES product,
    template_id   bigint NOT NULL REFERENCES template,
    attestation   text NOT NULL CHECK (attestation IN ('symmetric-key', 'x509', 'tpm')),
    primary_key   bytea CHECK (octet_length(primary_key) BETWEEN 44 AND 92),
    secondary_key bytea CHECK (octet_length(secondary_key) BETWEEN 44 AND 92),
    primary_certificate   bytea CHECK (octet_length(primary_certificate) = 32),
    secondary_certificate bytea CHECK (octet_length(secondary_certificate) = 32),
    ca_id         bigint REFERENCES ca,
    endorsement   bytea CHECK (octet_length(endorsement) = 32),
    storage_root  bytea CHECK (octet_length(storage_root) = 32),
    roots         text CHECK (octet_length(roots) <= 65536),
    serial        text CHECK (serial ~ '^[A-Za-z0-9._:-]{1,64}$'),
    enabled       boolean NOT NULL DEFAULT true,
    allocation    text NOT NULL DEFAULT 'hashed' CHECK (allocation IN ('static', 'hashed', 'weighted')),
    endpoints     text[] CHECK (cardinality(endpoints) BETWEEN 1 AND 50),
    sticky        boolean NOT NULL DEFAULT false,
    migrate       boolean NOT NULL DEFAULT true,
    payload       jsonb CHECK (octet_length(payload::text) <= 65536),
    max_devices   bigint CHECK (max_devices > 0),
    warn_devices  bigint CHECK (warn_devices > 0),
    registrations bigint NOT NULL DEFAULT 0,
    note          text CHECK (length(note) <= 256),
    etag          bigint NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by    text NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (grouped, name_lower),
    CHECK ((attestation = 'symmetric-key') = (primary_key IS NOT NULL AND secondary_key IS NOT NULL)),
    CHECK ((attestation = 'x509' AND NOT grouped) = (primary_certificate IS NOT NULL)),
    CHECK (secondary_certificate IS NULL OR primary_certificate IS NOT NULL),
    CHECK ((attestation = 'x509' AND grouped) = (ca_id IS NOT NULL)),
    CHECK ((attestation = 'tpm' AND NOT grouped) = (endorsement IS NOT NULL)),
    CHECK ((attestation = 'tpm' AND grouped) = (roots IS NOT NULL)),
    CHECK (storage_root IS NULL OR endorsement IS NOT NULL),
    CHECK (NOT grouped OR serial IS NULL),
    CHECK (grouped OR (max_devices IS NULL AND warn_devices IS NULL))
);
CREATE UNIQUE INDEX enrollment_ca_idx ON enrollment (ca_id) WHERE ca_id IS NOT NULL;
CREATE INDEX enrollment_groups_idx ON enrollment (id) WHERE grouped;
COMMENT ON TABLE enrollment IS 'A device, or a group of devices, that may register by a key of its own: an individual enrollment or an enrollment group of DPS';
COMMENT ON COLUMN enrollment.id IS 'Registry number';
COMMENT ON COLUMN enrollment.grouped IS 'It is a group';
COMMENT ON COLUMN enrollment.name IS 'Registration id of the one device, or the group''s name, as first spelt';
COMMENT ON COLUMN enrollment.name_lower IS 'The same as it is compared';
COMMENT ON COLUMN enrollment.product_id IS 'Product line of its template';
COMMENT ON COLUMN enrollment.template_id IS 'What its devices get';
COMMENT ON COLUMN enrollment.attestation IS 'How a device proves itself';
COMMENT ON COLUMN enrollment.primary_key IS 'Symmetric key, of a group the master that devices'' keys are derived from; sealed with secret_key';
COMMENT ON COLUMN enrollment.secondary_key IS 'Another that is as good, so that one can be replaced while the other is in use';
COMMENT ON COLUMN enrollment.primary_certificate IS 'SHA-256 of the device''s certificate';
COMMENT ON COLUMN enrollment.secondary_certificate IS 'Another that is as good';
COMMENT ON COLUMN enrollment.ca_id IS 'The registered CA whose certificates a group''s devices have';
COMMENT ON COLUMN enrollment.endorsement IS 'SHA-256 of the public area (TPMT_PUBLIC) of the TPM''s endorsement key';
COMMENT ON COLUMN enrollment.storage_root IS 'The same of its storage root key; NULL: any';
COMMENT ON COLUMN enrollment.roots IS 'PEM: the CAs of TPM manufacturers whose endorsement key certificates a group takes';
COMMENT ON COLUMN enrollment.serial IS 'The device''s serial; NULL: its registration id in small letters';
COMMENT ON COLUMN enrollment.enabled IS 'Whether it may register';
COMMENT ON COLUMN enrollment.allocation IS 'How its broker is chosen: the first of its list, by a hash of its id, or so that brokers get their shares';
COMMENT ON COLUMN enrollment.endpoints IS 'Brokers to choose from; NULL: all';
COMMENT ON COLUMN enrollment.sticky IS 'A device that was assigned stays where it is';
COMMENT ON COLUMN enrollment.migrate IS 'What a device that is moved is told of its data: that it moved, or that it was reset';
COMMENT ON COLUMN enrollment.payload IS 'Initial configuration that its devices are given';
COMMENT ON COLUMN enrollment.max_devices IS 'How many devices a group may have; NULL: any number';
COMMENT ON COLUMN enrollment.warn_devices IS 'At how many it is told that many share one secret; NULL: never';
COMMENT ON COLUMN enrollment.registrations IS 'How many devices have registered by a group''s key';
COMMENT ON COLUMN enrollment.note IS 'Free text';
COMMENT ON COLUMN enrollment.etag IS 'Grows with every change of an operator''s';
COMMENT ON COLUMN enrollment.created_at IS 'When it was made';
COMMENT ON COLUMN enrollment.created_by IS 'The operator';
COMMENT ON COLUMN enrollment.updated_at IS 'When an operator changed it last';

CREATE TABLE dps_registration (
    registration_id  text PRIMARY KEY CHECK (length(registration_id) BETWEEN 1 AND 128),
    enrollment_id    bigint NOT NULL,
    product_id       bigint NOT NULL,
    serial_canonical text NOT NULL,
    device_name      text NOT NULL,
    endpoint         text NOT NULL,
    first_endpoint   text NOT NULL,
    substatus        text NOT NULL CHECK (substatus IN ('initialAssignment', 'deviceDataMigrated', 'deviceDataReset', 'reprovisionedToInitialAssignment')),
    etag             bigint NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dps_registration_device_idx ON dps_registration (product_id, serial_canonical);
CREATE INDEX dps_registration_enrollment_idx ON dps_registration (enrollment_id);
COMMENT ON TABLE dps_registration IS 'What a device that registered was assigned; written with the device, so without foreign keys';
COMMENT ON COLUMN dps_registration.registration_id IS 'Its registration id in small letters';
COMMENT ON COLUMN dps_registration.enrollment_id IS 'By which enrollment';
COMMENT ON COLUMN dps_registration.product_id IS 'Whose device';
COMMENT ON COLUMN dps_registration.serial_canonical IS 'Which device';
COMMENT ON COLUMN dps_registration.device_name IS 'The device id it is told: its thing name, or its serial';
COMMENT ON COLUMN dps_registration.endpoint IS 'The broker it is assigned to; empty: it has come, and asked for none';
COMMENT ON COLUMN dps_registration.first_endpoint IS 'The one it was assigned to at first';
COMMENT ON COLUMN dps_registration.substatus IS 'What the last registration did';
COMMENT ON COLUMN dps_registration.etag IS 'Grows with every registration';
COMMENT ON COLUMN dps_registration.created_at IS 'The first registration';
COMMENT ON COLUMN dps_registration.updated_at IS 'The last';

CREATE TABLE dps_operation (
    registration_id text PRIMARY KEY CHECK (length(registration_id) BETWEEN 1 AND 128),
    operation       text NOT NULL CHECK (length(operation) <= 128),
    body            text NOT NULL CHECK (octet_length(body) <= 131072),
    begun_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dps_operation_begun_idx ON dps_operation (begun_at);
COMMENT ON TABLE dps_operation IS 'Registrations that could not be done yet: what the device asked, for when it asks what became of it';
COMMENT ON COLUMN dps_operation.registration_id IS 'Of a device that has proved itself; its last one';
COMMENT ON COLUMN dps_operation.operation IS 'The operation id it was given';
COMMENT ON COLUMN dps_operation.body IS 'The request, JSON';
COMMENT ON COLUMN dps_operation.begun_at IS 'When it was asked';

-- Which enrollments may be meant

CREATE FUNCTION enrollment_candidates(registration text, kind text, ca bigint) RETURNS SETOF enrollment LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT * FROM muster.enrollment e WHERE NOT e.grouped AND e.name_lower = lower(registration);
    IF NOT FOUND AND kind <> 'x509' THEN
        RETURN QUERY SELECT * FROM muster.enrollment e WHERE e.grouped AND e.attestation = kind ORDER BY e.id LIMIT 200;
    ELSIF NOT FOUND THEN
        RETURN QUERY SELECT * FROM muster.enrollment e WHERE e.ca_id = ca;
    END IF;
END $$;
COMMENT ON FUNCTION enrollment_candidates IS 'The individual enrollment of an id, disabled ones too; where there is none the groups by that attestation, by certificates that of a CA';

-- Assigning

ALTER TYPE enrol_request ADD ATTRIBUTE enrollment_id bigint;
ALTER TYPE enrol_request ADD ATTRIBUTE registration_id text; -- in small letters

-- Rendezvous hashing: a broker that comes takes its share from every other, one that goes leaves its own to them.
CREATE FUNCTION endpoint_choose(x enrollment, registration text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT b.host FROM muster.broker_endpoint b
    WHERE (x.endpoints IS NULL OR b.host = ANY (x.endpoints)) AND (x.allocation <> 'weighted' OR b.weight > 0)
    ORDER BY CASE x.allocation
        WHEN 'static' THEN COALESCE(array_position(x.endpoints, b.host), 0)
        ELSE -ln((('x' || substr(md5(b.host || ' ' || registration), 1, 8))::bit(32)::bigint & 4294967295) / 4294967296.0::float8 + 1e-10)
            / CASE x.allocation WHEN 'weighted' THEN b.weight ELSE 1 END END, b.host
    LIMIT 1
$$;
COMMENT ON FUNCTION endpoint_choose IS 'The broker for a registration id under an enrollment''s policy';

-- Behind the lock the device may have been counted by another request of its own.
CREATE FUNCTION enrollment_count(x enrollment, r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    SELECT * INTO x FROM muster.enrollment WHERE id = x.id FOR NO KEY UPDATE;
    IF NOT x.grouped OR EXISTS (SELECT 1 FROM muster.dps_registration g WHERE g.registration_id = r.registration_id) THEN
        RETURN;
    ELSIF x.registrations >= x.max_devices THEN
        PERFORM muster.refuse('enrollment.group_full', format('group %s has its %s devices', x.name, x.max_devices));
    END IF;
    UPDATE muster.enrollment SET registrations = registrations + 1 WHERE id = x.id;
    IF x.registrations + 1 = x.warn_devices THEN
        INSERT INTO muster.outbox (event, payload) VALUES ('enrollment.group_large',
            jsonb_build_object('group', x.name, 'devices', x.warn_devices, 'request_id', r.request_id));
    END IF;
END $$;
COMMENT ON FUNCTION enrollment_count IS 'Counts a group''s new device';

CREATE FUNCTION dps_assign(x enrollment, r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    g muster.dps_registration;
    chosen text;
BEGIN
    SELECT * INTO g FROM muster.dps_registration WHERE registration_id = r.registration_id FOR UPDATE;
    chosen := CASE WHEN x.sticky AND EXISTS (SELECT 1 FROM muster.broker_endpoint b WHERE b.host = g.endpoint) THEN g.endpoint
                   ELSE muster.endpoint_choose(x, r.registration_id) END;
    IF r.protocol <> 'dps' THEN -- it asked for no broker
        chosen := COALESCE(g.endpoint, '');
    ELSIF chosen IS NULL THEN
        PERFORM muster.refuse('enrollment.no_endpoint', format('enrollment %s has no broker to assign to', x.name));
    END IF;
    IF g.registration_id IS NULL THEN
        PERFORM muster.enrollment_count(x, r);
    END IF;
    INSERT INTO muster.dps_registration AS o (registration_id, enrollment_id, product_id, serial_canonical, device_name, endpoint, first_endpoint, substatus)
        VALUES (r.registration_id, x.id, r.product_id, r.serial_canonical, COALESCE(r.thing_name, r.serial), chosen, chosen, 'initialAssignment')
        ON CONFLICT (registration_id) DO UPDATE SET enrollment_id = x.id, product_id = r.product_id, serial_canonical = r.serial_canonical,
            device_name = EXCLUDED.device_name, endpoint = chosen, etag = o.etag + 1, updated_at = clock_timestamp(),
            first_endpoint = CASE WHEN o.first_endpoint = '' THEN chosen ELSE o.first_endpoint END,
            substatus = CASE WHEN o.endpoint IN (chosen, '') THEN o.substatus
                             WHEN o.first_endpoint = chosen THEN 'reprovisionedToInitialAssignment'
                             WHEN x.migrate THEN 'deviceDataMigrated' ELSE 'deviceDataReset' END;
    DELETE FROM muster.dps_operation WHERE registration_id = r.registration_id;
END $$;
COMMENT ON FUNCTION dps_assign IS 'Assigns a broker to a device that registers, under its enrollment''s policies';

-- A device that asks for no certificate: nobody will see it use one, so it is provisioned when it is told where to go.
CREATE FUNCTION enrol_assigned(r enrol_request, v token_verdict) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    res muster.enrol_result;
BEGIN
    PERFORM muster.enrol_allowlist(r);
    INSERT INTO muster.device (product_id, serial, serial_canonical, state, template_id, template_version)
        VALUES (r.product_id, r.serial, r.serial_canonical, 'UNPROVISIONED', r.template_id, r.template_version)
        ON CONFLICT DO NOTHING;
    SELECT * INTO d FROM muster.device WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical FOR UPDATE;
    PERFORM muster.enrol_device_check(d);
    IF r.approval AND d.state IN ('UNPROVISIONED', 'BOOTSTRAP', 'ENROLL') AND NOT muster.enrol_approval(r, d, v, true) THEN
        SELECT r.ord, 'approval.pending', format('device %s waits for an operator', r.serial), true, NULL::bytea, NULL::bytea, d.state INTO res;
        RETURN res;
    END IF;
    SELECT r.ord, 'ok', '', true, NULL::bytea, NULL::bytea, d.state INTO res;
    IF EXISTS (SELECT 1 FROM muster.certificate c WHERE c.device_id = d.id AND c.purpose = 'operational' AND c.status IN ('pending', 'current')) THEN
        UPDATE muster.device SET last_seen = clock_timestamp(), failures = 0 WHERE id = d.id;
        PERFORM muster.enrol_trail(r, d.id, d.state, 'ok', NULL);
        RETURN res;
    END IF;
    PERFORM muster.enrol_register(r, d, d.state NOT IN ('UNPROVISIONED', 'BOOTSTRAP', 'ENROLL'));
    r.verify := 'none';
    res.state := muster.enrol_finish(r, d, d.state NOT IN ('UNPROVISIONED', 'BOOTSTRAP', 'ENROLL'));
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_assigned IS 'Registers a device without a certificate';

CREATE FUNCTION enrol_by_enrollment(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    x muster.enrollment;
    v muster.token_verdict;
    res muster.enrol_result;
BEGIN
    SELECT * INTO x FROM muster.enrollment WHERE id = r.enrollment_id;
    IF x.id IS NULL OR NOT x.enabled THEN
        PERFORM muster.refuse('enrollment.disabled', format('enrollment %s of %s', COALESCE(x.name, 'that was deleted'), r.registration_id));
    END IF;
    PERFORM muster.dps_assign(x, r);
    v.bound := true;
    res := CASE WHEN r.certificate IS NULL THEN muster.enrol_assigned(r, v) ELSE muster.enrol_first(r, v) END;
    IF res.code = 'approval.pending' THEN -- nothing is assigned to a device that waits
        DELETE FROM muster.dps_registration WHERE registration_id = r.registration_id AND etag = 1;
        IF FOUND AND x.grouped THEN
            UPDATE muster.enrollment SET registrations = registrations - 1 WHERE id = x.id;
        END IF;
    END IF;
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_by_enrollment IS 'Registers a device by its enrollment, with or without a certificate';

-- As before, and: an enrollment proves its device.
CREATE OR REPLACE FUNCTION enrol_one(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    v muster.token_verdict;
    res muster.enrol_result;
    why text;
    proven boolean := r.credential IN ('factory', 'device', 'jit', 'enrollment');
BEGIN
    BEGIN
        IF r.credential = 'device' THEN
            RETURN muster.enrol_renew(r);
        ELSIF r.credential = 'claim' THEN
            RETURN muster.enrol_by_claim(r);
        ELSIF r.credential = 'jit' THEN
            RETURN muster.enrol_jit(r);
        ELSIF r.credential = 'enrollment' THEN
            RETURN muster.enrol_by_enrollment(r);
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

-- As before, and: a device that is known by a key of its own is nobody's who has a shared credential.
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
        IF NOT bound AND (EXISTS (SELECT 1 FROM muster.certificate c WHERE c.device_id = d.id
                                  AND c.purpose = 'operational' AND c.verified_at IS NOT NULL)
                OR EXISTS (SELECT 1 FROM muster.dps_registration g WHERE g.product_id = d.product_id AND g.serial_canonical = d.serial_canonical)) THEN
            PERFORM muster.refuse('device.already_provisioned', 'a shared credential never takes over a device that was verified, or registered by a key of its own; muster device reset allows it once');
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
    ELSIF NOT r.replace THEN
        in_grace := COALESCE(v.comeback, false)
            OR (r.credential = 'token' AND bound AND NOT v.comeback)
            OR (r.credential IN ('factory', 'jit', 'enrollment') AND clock_timestamp() <= pend.issued_at + make_interval(secs => r.grace_s));
        IF NOT (bound AND in_grace) THEN
            PERFORM muster.refuse('device.key_conflict', format('another key was enrolled at %s and the template says Reprovision: refuse', pend.issued_at));
        END IF;
    END IF;
    IF muster.asked_at(r) < pend.issued_at THEN
        PERFORM muster.refuse('device.busy', 'another key was enrolled for this device while this request was under way');
    END IF;
END $$;

-- What became of a registration

CREATE FUNCTION dps_operation_keep(registration text, op text, asked text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.dps_operation (registration_id, operation, body) VALUES (registration, op, asked)
        ON CONFLICT (registration_id) DO UPDATE SET operation = op, body = asked, begun_at = clock_timestamp()
$$;
COMMENT ON FUNCTION dps_operation_keep IS 'Keeps a registration that could not be done yet';

-- The operator's desk

CREATE FUNCTION endpoint_json(b broker_endpoint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('host', b.host, 'weight', b.weight,
        'devices', (SELECT count(*) FROM muster.dps_registration g WHERE g.endpoint = b.host),
        'created_at', muster.utc(b.created_at), 'created_by', b.created_by)
$$;
COMMENT ON FUNCTION endpoint_json IS 'A broker as the API shows it';
CREATE INDEX dps_registration_endpoint_idx ON dps_registration (endpoint);

-- a: host, weight
CREATE FUNCTION desk_endpoint_put(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    b muster.broker_endpoint;
BEGIN
    PERFORM muster.desk_unscoped(op);
    INSERT INTO muster.broker_endpoint (host, weight, created_by)
        VALUES (lower(a->>'host'), COALESCE((a->>'weight')::integer, 1), op->>'actor')
        ON CONFLICT (host) DO UPDATE SET weight = EXCLUDED.weight RETURNING * INTO b;
    PERFORM muster.desk_audit(op, 'endpoint.put', b.host, a);
    RETURN muster.endpoint_json(b);
END $$;
COMMENT ON FUNCTION desk_endpoint_put IS 'PUT /endpoints/{host}';

CREATE FUNCTION desk_endpoint_delete(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    b muster.broker_endpoint;
BEGIN
    PERFORM muster.desk_unscoped(op);
    DELETE FROM muster.broker_endpoint WHERE host = lower(a->>'host') RETURNING * INTO b;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no endpoint %s', a->>'host'));
    END IF;
    PERFORM muster.desk_audit(op, 'endpoint.delete', b.host);
    RETURN muster.endpoint_json(b);
END $$;
COMMENT ON FUNCTION desk_endpoint_delete IS 'DELETE /endpoints/{host}: its devices are assigned anew when they register again';

CREATE FUNCTION enrollment_json(x enrollment) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(CASE WHEN x.grouped THEN 'name' ELSE 'registration_id' END, x.name,
        'attestation', x.attestation, 'template', t.name, 'product', p.name, 'serial', x.serial, 'enabled', x.enabled,
        'certificate', encode(x.primary_certificate, 'hex'), 'secondary_certificate', encode(x.secondary_certificate, 'hex'),
        'ca', (SELECT c.name FROM muster.ca c WHERE c.id = x.ca_id),
        'endorsement_key', encode(x.endorsement, 'hex'), 'storage_root_key', encode(x.storage_root, 'hex'),
        'roots', x.roots, 'allocation', x.allocation, 'endpoints', to_jsonb(x.endpoints), 'reprovision', CASE WHEN x.sticky THEN 'sticky' ELSE 'update' END,
        'migrate', x.migrate, 'payload', x.payload, 'max_devices', x.max_devices, 'warn_devices', x.warn_devices,
        'devices', CASE WHEN x.grouped THEN x.registrations END, 'note', x.note, 'etag', x.etag::text,
        'created_at', muster.utc(x.created_at), 'created_by', x.created_by, 'updated_at', muster.utc(x.updated_at)))
        || CASE WHEN x.grouped THEN '{}' ELSE jsonb_build_object('registration', (SELECT jsonb_build_object('endpoint', g.endpoint, 'device_id', g.device_name,
            'substatus', g.substatus, 'created_at', muster.utc(g.created_at), 'updated_at', muster.utc(g.updated_at))
            FROM muster.dps_registration g WHERE g.registration_id = x.name_lower AND g.enrollment_id = x.id)) END
    FROM muster.template t, muster.product p WHERE t.id = x.template_id AND p.id = x.product_id
$$;
COMMENT ON FUNCTION enrollment_json IS 'An enrollment as the API shows it: its keys never';

-- a: grouped, name; etag: as the operator has seen it, NULL: whatever it is
CREATE FUNCTION desk_enrollment(op jsonb, a jsonb) RETURNS enrollment LANGUAGE plpgsql AS $$
DECLARE
    x muster.enrollment;
BEGIN
    SELECT * INTO x FROM muster.enrollment e WHERE e.grouped = (a->>'grouped')::boolean AND e.name_lower = lower(a->>'name')
        AND muster.desk_sees(op, e.product_id) FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no enrollment%s %s', CASE WHEN (a->>'grouped')::boolean THEN ' group' ELSE '' END, a->>'name'));
    ELSIF a->>'etag' IS NOT NULL AND x.etag::text <> a->>'etag' THEN
        PERFORM muster.refuse('request.etag_mismatch', format('enrollment %s has etag %s', x.name, x.etag));
    END IF;
    RETURN x;
END $$;
COMMENT ON FUNCTION desk_enrollment IS 'The enrollment of a name, locked';

CREATE FUNCTION desk_enrollment_show(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    RETURN muster.enrollment_json(muster.desk_enrollment(op, a));
END $$;
COMMENT ON FUNCTION desk_enrollment_show IS 'GET /enrollments/{id} and /enrollment-groups/{name}';

CREATE FUNCTION enrollment_endpoints(a jsonb) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
DECLARE
    hosts text[] := ARRAY(SELECT lower(h) FROM jsonb_array_elements_text(a->'endpoints') WITH ORDINALITY x(h, n) ORDER BY x.n);
    missing text;
BEGIN
    IF a->'endpoints' IS NULL OR cardinality(hosts) = 0 THEN
        RETURN NULL;
    END IF;
    SELECT h INTO missing FROM unnest(hosts) h WHERE NOT EXISTS (SELECT 1 FROM muster.broker_endpoint b WHERE b.host = h) LIMIT 1;
    IF missing IS NOT NULL THEN
        PERFORM muster.refuse('object.not_found', format('there is no endpoint %s', missing));
    END IF;
    RETURN hosts;
END $$;
COMMENT ON FUNCTION enrollment_endpoints IS 'The brokers that an operator names, which must be known';

-- a: grouped, name, template, attestation, primary_key, secondary_key (hex, sealed), certificate, secondary_certificate, endorsement_key,
-- storage_root_key (hex of SHA-256), roots, ca, serial, allocation, endpoints, reprovision, migrate, payload, max_devices, warn_devices, note
CREATE FUNCTION desk_enrollment_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.template := muster.desk_template(op, a->>'template');
    hosts text[] := muster.enrollment_endpoints(a);
    authority bigint;
    x muster.enrollment;
BEGIN
    IF a->>'ca' IS NOT NULL THEN
        SELECT c.id INTO authority FROM muster.ca c WHERE c.name = a->>'ca' AND c.kind = 'registered';
        IF NOT FOUND THEN
            PERFORM muster.refuse('object.not_found', format('there is no registered CA %s', a->>'ca'));
        END IF;
    END IF;
    INSERT INTO muster.enrollment (grouped, name, product_id, template_id, attestation, primary_key, secondary_key, primary_certificate,
            secondary_certificate, ca_id, endorsement, storage_root, roots, serial, allocation, endpoints, sticky, migrate, payload, max_devices,
            warn_devices, note, created_by)
        VALUES ((a->>'grouped')::boolean, a->>'name', t.product_id, t.id, a->>'attestation', decode(a->>'primary_key', 'hex'),
            decode(a->>'secondary_key', 'hex'), decode(a->>'certificate', 'hex'), decode(a->>'secondary_certificate', 'hex'), authority,
            decode(a->>'endorsement_key', 'hex'), decode(a->>'storage_root_key', 'hex'), a->>'roots', a->>'serial', COALESCE(a->>'allocation', 'hashed'),
            hosts, COALESCE(a->>'reprovision', 'update') = 'sticky', COALESCE((a->>'migrate')::boolean, true), a->'payload',
            (a->>'max_devices')::bigint, (a->>'warn_devices')::bigint, a->>'note', op->>'actor')
        ON CONFLICT DO NOTHING RETURNING * INTO x;
    IF x.id IS NULL THEN
        PERFORM muster.refuse('request.exists', format('an enrollment of the name %s, or with this CA', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, CASE WHEN x.grouped THEN 'enrollment_group.create' ELSE 'enrollment.create' END, x.name,
        a - '{grouped,registration_id,primary_key,secondary_key}'::text[]);
    RETURN muster.enrollment_json(x);
END $$;
COMMENT ON FUNCTION desk_enrollment_create IS 'POST /enrollments and /enrollment-groups';

-- What is not named stays; a JSON null cannot come here.
CREATE FUNCTION desk_enrollment_update(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    x muster.enrollment := muster.desk_enrollment(op, a);
    t muster.template;
    hosts text[] := muster.enrollment_endpoints(a);
BEGIN
    IF a->>'template' IS NOT NULL THEN
        t := muster.desk_template(op, a->>'template');
        IF t.product_id <> x.product_id THEN
            PERFORM muster.refuse('request.conflict', format('template %s is of another product', t.name));
        END IF;
    END IF;
    UPDATE muster.enrollment SET etag = etag + 1, updated_at = clock_timestamp(), template_id = COALESCE(t.id, template_id),
            enabled = COALESCE((a->>'enabled')::boolean, enabled), allocation = COALESCE(a->>'allocation', allocation),
            endpoints = COALESCE(hosts, endpoints), sticky = COALESCE(a->>'reprovision' = 'sticky', sticky),
            migrate = COALESCE((a->>'migrate')::boolean, migrate), payload = COALESCE(a->'payload', payload),
            max_devices = COALESCE((a->>'max_devices')::bigint, max_devices), warn_devices = COALESCE((a->>'warn_devices')::bigint, warn_devices),
            primary_key = COALESCE(decode(a->>'primary_key', 'hex'), primary_key), secondary_key = COALESCE(decode(a->>'secondary_key', 'hex'), secondary_key),
            note = COALESCE(a->>'note', note)
        WHERE id = x.id RETURNING * INTO x;
    PERFORM muster.desk_audit(op, CASE WHEN x.grouped THEN 'enrollment_group.update' ELSE 'enrollment.update' END, x.name,
        a - '{grouped,name,primary_key,secondary_key}'::text[] || CASE WHEN a ? 'primary_key' OR a ? 'secondary_key'
            THEN jsonb_build_object('key', CASE WHEN a ? 'primary_key' THEN 'primary' ELSE 'secondary' END) ELSE '{}' END);
    RETURN muster.enrollment_json(x);
END $$;
COMMENT ON FUNCTION desk_enrollment_update IS 'POST /enrollments/{id}, /enable, /disable and /rotate, and those of /enrollment-groups';

CREATE FUNCTION desk_enrollment_delete(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    x muster.enrollment := muster.desk_enrollment(op, a);
BEGIN
    DELETE FROM muster.enrollment WHERE id = x.id;
    PERFORM muster.desk_audit(op, CASE WHEN x.grouped THEN 'enrollment_group.delete' ELSE 'enrollment.delete' END, x.name);
    RETURN muster.enrollment_json(x);
END $$;
COMMENT ON FUNCTION desk_enrollment_delete IS 'DELETE /enrollments/{id} and /enrollment-groups/{name}; its devices stay';

-- a: grouped, enrollments: objects as desk_enrollment_create takes them. One that is refused keeps none of the others out.
CREATE FUNCTION desk_enrollment_import(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    item jsonb;
    code text;
    why text;
    done jsonb := '[]';
BEGIN
    FOR item IN SELECT e || jsonb_build_object('grouped', a->'grouped') FROM jsonb_array_elements(a->'enrollments') e LOOP
        IF item ? 'problem' THEN -- the server would not take it
            done := done || (jsonb_build_object('name', COALESCE(item->'name', item->'registration_id'), 'result', 'refused') || (item->'problem'));
            CONTINUE;
        END IF;
        BEGIN
            PERFORM muster.desk_enrollment_create(op, item);
            done := done || jsonb_build_object('name', item->'name', 'result', 'created');
        EXCEPTION
            WHEN SQLSTATE 'MU001' THEN
                GET STACKED DIAGNOSTICS code = MESSAGE_TEXT, why = PG_EXCEPTION_DETAIL;
                done := done || jsonb_build_object('name', item->'name', 'result', 'refused', 'code', code, 'detail', why);
            WHEN check_violation OR not_null_violation THEN
                done := done || jsonb_build_object('name', item->'name', 'result', 'refused', 'code', 'request.malformed',
                    'detail', 'its members do not go together');
        END;
    END LOOP;
    RETURN done;
END $$;
COMMENT ON FUNCTION desk_enrollment_import IS 'POST /enrollments:import and /enrollment-groups:import';

CREATE FUNCTION dps_prune() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM muster.dps_operation WHERE begun_at < clock_timestamp() - interval '30 days';
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
COMMENT ON FUNCTION dps_prune IS 'Forgets registrations that have waited too long; returns how many';
