-- migration: 18
-- name: ca_desk
-- oldest-binary: 1
-- transaction: yes
--
-- Registering CAs: proof of possession, bundles, issuers seen but not registered.

SET LOCAL search_path = muster;

CREATE TABLE registration_code (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    code    text NOT NULL CHECK (code ~ '^[0-9a-f]{64}$'),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE registration_code IS 'One row: what the holder of a CA signs a certificate for, to show that the key is there';
COMMENT ON COLUMN registration_code.one IS 'Always true, so that there is one row';
COMMENT ON COLUMN registration_code.code IS '64 hexadecimal digits, of random bits';
COMMENT ON COLUMN registration_code.made_at IS 'When it was made';

ALTER TABLE unknown_issuer ADD COLUMN certificate bytea CHECK (length(certificate) <= 16384);
COMMENT ON COLUMN unknown_issuer.certificate IS 'The issuer''s own certificate, where a client sent it and it has signed that client''s; the first stays; DER';

-- a: fresh (64 hex digits the server drew), renew
CREATE FUNCTION desk_ca_code(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    r muster.registration_code;
BEGIN
    PERFORM muster.desk_unscoped(op);
    INSERT INTO muster.registration_code (code) VALUES (a->>'fresh') ON CONFLICT DO NOTHING;
    IF COALESCE((a->>'renew')::boolean, false) THEN
        UPDATE muster.registration_code SET code = a->>'fresh', made_at = clock_timestamp();
        PERFORM muster.desk_audit(op, 'ca.code', 'registration code');
    END IF;
    SELECT * INTO r FROM muster.registration_code;
    RETURN json_build_object('registration_code', r.code, 'made_at', muster.utc(r.made_at));
END $$;
COMMENT ON FUNCTION desk_ca_code IS 'POST /cas:code';

CREATE OR REPLACE FUNCTION ca_json(c ca) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', c.id, 'name', c.name, 'kind', c.kind, 'active', c.active, 'subject', c.subject,
        'fingerprint', encode(c.fingerprint, 'hex'), 'template', (SELECT t.name FROM muster.template t WHERE t.id = c.template_id),
        'auto_registration', c.auto_registration, 'jit', CASE WHEN c.kind = 'registered' THEN c.jit END, 'proof', c.proof,
        'not_after', muster.utc(c.not_after), 'created_at', muster.utc(c.created_at))
$$;

-- A name that is free, from the subject's CN.
CREATE FUNCTION ca_name_free(cn text, fingerprint_hex text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT n FROM (VALUES (1, COALESCE(NULLIF(left(regexp_replace(lower(cn), '[^a-z0-9_.-]+', '-', 'g'), 50), ''), 'ca')),
        (2, COALESCE(NULLIF(left(regexp_replace(lower(cn), '[^a-z0-9_.-]+', '-', 'g'), 50), ''), 'ca') || '-' || left(fingerprint_hex, 12))) x(i, n)
    WHERE NOT EXISTS (SELECT 1 FROM muster.ca c WHERE c.name = x.n) ORDER BY i LIMIT 1
$$;
COMMENT ON FUNCTION ca_name_free IS 'A CA''s name where none was given';

CREATE FUNCTION ca_jit_check(auto boolean, jit text, template bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF auto AND jit = 'jitp' AND template IS NULL THEN
        PERFORM muster.refuse('request.conflict', 'automatic registration runs a template: name one, or register by event (jit: jitr)');
    END IF;
END $$;
COMMENT ON FUNCTION ca_jit_check IS 'Refuses automatic registration that would not know what to run';

-- a: as before, and cn, auto_registration, jit; proof_cn: the CN of a certificate that the CA signed and that is valid; without_proof
CREATE OR REPLACE FUNCTION desk_ca_register(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.ca;
    k muster.key_owner;
    t bigint;
    kind text := COALESCE(a->>'kind', 'registered');
    called text := COALESCE(a->>'name', muster.ca_name_free(a->>'cn', a->>'fingerprint'));
    jit text := COALESCE(a->>'jit', 'jitp');
    auto boolean;
    shown text;
BEGIN
    PERFORM muster.desk_unscoped(op);
    IF a->>'template' IS NOT NULL THEN
        SELECT x.id INTO t FROM muster.desk_template(op, a->>'template') x;
    END IF;
    auto := kind = 'registered' AND COALESCE((a->>'auto_registration')::boolean, t IS NOT NULL OR jit = 'jitr');
    PERFORM muster.ca_jit_check(auto, jit, t);
    IF kind = 'registered' AND a->>'proof_cn' IS NOT NULL THEN
        IF NOT EXISTS (SELECT 1 FROM muster.registration_code r WHERE r.code = lower(a->>'proof_cn')) THEN
            PERFORM muster.refuse('ca.proof_invalid', 'the CN of the verification certificate is not the registration code of muster ca code');
        END IF;
        shown := 'verified';
    ELSIF kind = 'registered' THEN
        IF NOT COALESCE((a->>'without_proof')::boolean, false) THEN
            PERFORM muster.refuse('ca.proof_required', 'give a verification certificate (--proof FILE), or take the responsibility (--without-proof)');
        END IF;
        shown := 'override';
    END IF;
    IF EXISTS (SELECT 1 FROM muster.ca x WHERE x.name = called OR x.fingerprint = decode(a->>'fingerprint', 'hex')) THEN
        PERFORM muster.refuse('request.exists', format('a CA of the name %s or with this certificate', called));
    END IF;
    INSERT INTO muster.key_owner (spki_sha256, kind) VALUES (decode(a->>'spki', 'hex'), 'ca') ON CONFLICT DO NOTHING;
    SELECT * INTO k FROM muster.key_owner WHERE spki_sha256 = decode(a->>'spki', 'hex');
    IF k.kind <> 'ca' OR k.dead_at IS NOT NULL THEN
        PERFORM muster.refuse('key.reused', 'the CA''s key belongs to a device');
    END IF;
    INSERT INTO muster.ca (kind, name, certificate, fingerprint, spki_sha256, subject, template_id, not_after, auto_registration, jit, proof)
        VALUES (kind, called, decode(a->>'der', 'hex'), decode(a->>'fingerprint', 'hex'), decode(a->>'spki', 'hex'), a->>'subject', t,
            to_timestamp((a->>'not_after')::bigint), auto, jit, shown) RETURNING * INTO c;
    DELETE FROM muster.unknown_issuer u WHERE u.issuer = c.subject;
    PERFORM muster.desk_audit(op, 'ca.register', c.name, jsonb_build_object('kind', c.kind, 'subject', c.subject, 'fingerprint', a->>'fingerprint',
        'proof', shown, 'template', a->>'template', 'auto_registration', auto, 'jit', jit));
    RETURN muster.ca_json(c)::json;
END $$;

CREATE FUNCTION desk_ca_update(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.ca;
    t bigint;
BEGIN
    PERFORM muster.desk_unscoped(op);
    SELECT * INTO c FROM muster.ca x WHERE x.name = a->>'name' FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no CA %s', a->>'name'));
    ELSIF c.kind <> 'registered' THEN
        PERFORM muster.refuse('request.conflict', format('%s is of kind %s; only registered CAs register devices', c.name, c.kind));
    END IF;
    IF a->>'template' IS NOT NULL THEN
        SELECT x.id INTO t FROM muster.desk_template(op, a->>'template') x;
        c.template_id := t;
    END IF;
    c.auto_registration := COALESCE((a->>'auto_registration')::boolean, c.auto_registration);
    c.jit := COALESCE(a->>'jit', c.jit);
    PERFORM muster.ca_jit_check(c.auto_registration, c.jit, c.template_id);
    UPDATE muster.ca SET template_id = c.template_id, auto_registration = c.auto_registration, jit = c.jit WHERE id = c.id RETURNING * INTO c;
    PERFORM muster.desk_audit(op, 'ca.update', c.name, jsonb_build_object('template', a->>'template', 'auto_registration', c.auto_registration, 'jit', c.jit));
    RETURN muster.ca_json(c)::json;
END $$;
COMMENT ON FUNCTION desk_ca_update IS 'POST /cas/{name}/update';

-- a: names (array) or nothing: all
CREATE FUNCTION desk_ca_export(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM muster.desk_unscoped(op);
    RETURN json_build_object('format', 1, 'cas', (SELECT COALESCE(json_agg(json_build_object('name', c.name, 'kind', c.kind, 'pem', muster.pem(c.certificate),
            'active', c.active, 'template', t.name, 'auto_registration', c.auto_registration, 'jit', c.jit, 'proof', c.proof) ORDER BY c.name), '[]')
        FROM muster.ca c LEFT JOIN muster.template t ON t.id = c.template_id WHERE c.kind IN ('registered', 'helper')));
END $$;
COMMENT ON FUNCTION desk_ca_export IS 'GET /cas:export';

-- One entry of a bundle. a: as desk_ca_register, and active, check (nothing is written). The same certificate is the same CA,
-- whatever it is called here.
CREATE FUNCTION desk_ca_import(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.ca;
    t bigint;
    result text;
    dry boolean := COALESCE((a->>'check')::boolean, false);
    auto boolean := COALESCE((a->>'auto_registration')::boolean, false);
BEGIN
    PERFORM muster.desk_unscoped(op);
    IF a->>'template' IS NOT NULL THEN
        SELECT x.id INTO t FROM muster.desk_template(op, a->>'template') x;
    END IF;
    SELECT * INTO c FROM muster.ca x WHERE x.fingerprint = decode(a->>'fingerprint', 'hex') FOR UPDATE;
    IF c.id IS NULL THEN
        IF NOT dry THEN
            PERFORM muster.desk_ca_register(op, a || jsonb_build_object('without_proof', true, 'auto_registration', auto));
            UPDATE muster.ca SET proof = CASE WHEN kind = 'registered' THEN 'imported' END, active = COALESCE((a->>'active')::boolean, true)
                WHERE fingerprint = decode(a->>'fingerprint', 'hex') RETURNING * INTO c;
        END IF;
        result := 'registered';
    ELSIF c.kind <> COALESCE(a->>'kind', 'registered') THEN
        PERFORM muster.refuse('request.conflict', format('it is here as %s, of kind %s', c.name, c.kind));
    ELSIF c.template_id IS NOT DISTINCT FROM t AND c.auto_registration = auto AND c.jit = COALESCE(a->>'jit', 'jitp')
          AND c.active = COALESCE((a->>'active')::boolean, true) THEN
        result := 'unchanged';
    ELSE
        PERFORM muster.ca_jit_check(auto, COALESCE(a->>'jit', 'jitp'), t);
        IF NOT dry THEN
            UPDATE muster.ca SET template_id = t, auto_registration = auto, jit = COALESCE(a->>'jit', 'jitp'), active = COALESCE((a->>'active')::boolean, true)
                WHERE id = c.id RETURNING * INTO c;
            PERFORM muster.desk_audit(op, 'ca.update', c.name, jsonb_build_object('imported', true, 'template', a->>'template', 'auto_registration', auto, 'active', c.active));
        END IF;
        result := 'updated';
    END IF;
    RETURN json_build_object('name', COALESCE(c.name, a->>'name'), 'result', result, 'reason', NULL);
END $$;
COMMENT ON FUNCTION desk_ca_import IS 'POST /cas:import, one entry';

CREATE FUNCTION desk_unknown_ca(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    der bytea;
BEGIN
    PERFORM muster.desk_unscoped(op);
    SELECT u.certificate INTO der FROM muster.unknown_issuer u WHERE sha256(u.certificate) = decode(a->>'unknown', 'hex') LIMIT 1;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', 'no device has sent a CA''s certificate with this fingerprint: see muster ca unknown, or register it from a file');
    END IF;
    RETURN json_build_object('pem', muster.pem(der));
END $$;
COMMENT ON FUNCTION desk_unknown_ca IS 'The certificate of an issuer that nobody registered, as a device sent it, by its fingerprint: what the operator has compared';
