-- migration: 31
-- name: psk
-- oldest-binary: 1
-- transaction: yes
--
-- Groups of devices that have nothing but a key that both sides know (TLS-PSK), derived from one of the group's.

SET LOCAL search_path = muster;

ALTER TABLE enrollment DROP CONSTRAINT enrollment_attestation_check;
ALTER TABLE enrollment ADD CONSTRAINT enrollment_attestation_check CHECK (attestation IN ('symmetric-key', 'x509', 'tpm', 'psk'));
ALTER TABLE enrollment DROP CONSTRAINT enrollment_check;
ALTER TABLE enrollment ADD CONSTRAINT enrollment_keys_check
    CHECK ((attestation IN ('symmetric-key', 'psk')) = (primary_key IS NOT NULL AND secondary_key IS NOT NULL));
ALTER TABLE enrollment ADD CONSTRAINT enrollment_psk_check CHECK (attestation <> 'psk' OR grouped);
CREATE UNIQUE INDEX enrollment_psk_idx ON enrollment (product_id) WHERE attestation = 'psk';

-- Replicas keep these groups in memory: no handshake waits for the registry. Counting devices raises no etag.
CREATE TRIGGER enrollment_psk_epoch_made AFTER INSERT ON enrollment FOR EACH ROW WHEN (NEW.attestation = 'psk')
    EXECUTE FUNCTION epoch_raise();
CREATE TRIGGER enrollment_psk_epoch_changed AFTER UPDATE ON enrollment FOR EACH ROW
    WHEN (NEW.attestation = 'psk' AND NEW.etag IS DISTINCT FROM OLD.etag) EXECUTE FUNCTION epoch_raise();
CREATE TRIGGER enrollment_psk_epoch_deleted AFTER DELETE ON enrollment FOR EACH ROW WHEN (OLD.attestation = 'psk')
    EXECUTE FUNCTION epoch_raise();

CREATE TABLE enrollment_device (
    product_id       bigint NOT NULL,
    serial_canonical text NOT NULL,
    enrollment_id    bigint NOT NULL,
    counted_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (product_id, serial_canonical, enrollment_id)
);
COMMENT ON TABLE enrollment_device IS 'Which devices a group that assigns no broker has counted; written with the device, so without foreign keys';
COMMENT ON COLUMN enrollment_device.product_id IS 'Whose device';
COMMENT ON COLUMN enrollment_device.serial_canonical IS 'Which device';
COMMENT ON COLUMN enrollment_device.enrollment_id IS 'By which group';
COMMENT ON COLUMN enrollment_device.counted_at IS 'When it came first';

-- A device that is known takes no lock on its group. A refusal takes the row back with everything else.
CREATE FUNCTION psk_count(x enrollment, r enrol_request) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM muster.enrollment_device g WHERE g.product_id = r.product_id AND g.serial_canonical = r.serial_canonical AND g.enrollment_id = x.id) THEN
        RETURN false;
    END IF;
    SELECT * INTO x FROM muster.enrollment WHERE id = x.id FOR NO KEY UPDATE;
    INSERT INTO muster.enrollment_device (product_id, serial_canonical, enrollment_id)
        VALUES (r.product_id, r.serial_canonical, x.id) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF x.registrations >= x.max_devices THEN
        PERFORM muster.refuse('enrollment.group_full', format('group %s has its %s devices', x.name, x.max_devices));
    END IF;
    UPDATE muster.enrollment SET registrations = registrations + 1 WHERE id = x.id;
    IF x.registrations + 1 = x.warn_devices THEN
        INSERT INTO muster.outbox (event, payload) VALUES ('enrollment.group_large',
            jsonb_build_object('group', x.name, 'devices', x.warn_devices, 'request_id', r.request_id));
    END IF;
    RETURN true;
END $$;
COMMENT ON FUNCTION psk_count IS 'Counts a device of a PSK group once; whether it was counted now';

-- A broker is no part of it, and what waits for an operator is not counted.
CREATE FUNCTION enrol_by_psk(x enrollment, r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    v muster.token_verdict;
    res muster.enrol_result;
    counted boolean;
BEGIN
    IF x.product_id <> r.product_id THEN
        PERFORM muster.refuse('template.credential_not_allowed', format('group %s is of another product', x.name));
    END IF;
    counted := muster.psk_count(x, r);
    v.bound := true;
    res := muster.enrol_first(r, v);
    IF res.code = 'approval.pending' AND counted THEN
        DELETE FROM muster.enrollment_device WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical AND enrollment_id = x.id;
        UPDATE muster.enrollment SET registrations = registrations - 1 WHERE id = x.id;
    END IF;
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_by_psk IS 'Enrols a device that proved the key of a PSK group in TLS';

-- As before, and: a PSK group's devices.
CREATE OR REPLACE FUNCTION enrol_by_enrollment(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    x muster.enrollment;
    v muster.token_verdict;
    res muster.enrol_result;
BEGIN
    SELECT * INTO x FROM muster.enrollment WHERE id = r.enrollment_id;
    IF x.id IS NULL OR NOT x.enabled THEN
        PERFORM muster.refuse('enrollment.disabled', format('enrollment %s of %s', COALESCE(x.name, 'that was deleted'), COALESCE(r.registration_id, r.serial)));
    ELSIF (x.attestation = 'psk') <> (r.registration_id IS NULL) THEN
        PERFORM muster.refuse('enrollment.disabled', format('enrollment %s is by %s', x.name, x.attestation));
    ELSIF x.attestation = 'psk' THEN
        RETURN muster.enrol_by_psk(x, r);
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

-- As before, and: so is a device that came by a PSK.
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
                OR EXISTS (SELECT 1 FROM muster.dps_registration g WHERE g.product_id = d.product_id AND g.serial_canonical = d.serial_canonical)
                OR EXISTS (SELECT 1 FROM muster.enrollment_device g WHERE g.product_id = d.product_id AND g.serial_canonical = d.serial_canonical)) THEN
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

-- As before, and: a product has one PSK group at most.
CREATE OR REPLACE FUNCTION desk_enrollment_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
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
        PERFORM muster.refuse('request.exists', CASE a->>'attestation'
            WHEN 'psk' THEN format('an enrollment group of the name %s, or by PSK for product %s, which has one at most', a->>'name',
                (SELECT p.name FROM muster.product p WHERE p.id = t.product_id))
            ELSE format('an enrollment of the name %s, or with this CA', a->>'name') END);
    END IF;
    PERFORM muster.desk_audit(op, CASE WHEN x.grouped THEN 'enrollment_group.create' ELSE 'enrollment.create' END, x.name,
        a - '{grouped,registration_id,primary_key,secondary_key}'::text[]);
    RETURN muster.enrollment_json(x);
END $$;
