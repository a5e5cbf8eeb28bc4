-- migration: 24
-- name: manifest
-- oldest-binary: 1
-- transaction: yes
--
-- Whose signatures count on manifests of secure elements.

SET LOCAL search_path = muster;

CREATE TABLE manifest_signer (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    certificate bytea NOT NULL,
    fingerprint bytea NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    subject     text NOT NULL,
    not_after   timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by  text NOT NULL
);
COMMENT ON TABLE manifest_signer IS 'Certificates whose keys sign the manifests that are imported as allowlists';
COMMENT ON COLUMN manifest_signer.id IS 'Registry number';
COMMENT ON COLUMN manifest_signer.name IS 'Name as operators write it';
COMMENT ON COLUMN manifest_signer.certificate IS 'The certificate, DER';
COMMENT ON COLUMN manifest_signer.fingerprint IS 'SHA-256 of it: x5t#S256 of the manifest''s entries';
COMMENT ON COLUMN manifest_signer.subject IS 'RFC 2253 name';
COMMENT ON COLUMN manifest_signer.not_after IS 'End of its validity; entries signed before count all the same';
COMMENT ON COLUMN manifest_signer.created_at IS 'When it was trusted';
COMMENT ON COLUMN manifest_signer.created_by IS 'The operator';

CREATE FUNCTION signer_json(s manifest_signer) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('name', s.name, 'subject', s.subject, 'fingerprint', encode(s.fingerprint, 'hex'), 'not_after', muster.utc(s.not_after),
        'pem', muster.pem(s.certificate), 'created_at', muster.utc(s.created_at), 'created_by', s.created_by)
$$;
COMMENT ON FUNCTION signer_json IS 'A signer of manifests as the API shows it';

-- a: name, der, fingerprint, subject, not_after
CREATE FUNCTION desk_signer_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    s muster.manifest_signer;
BEGIN
    PERFORM muster.desk_unscoped(op);
    INSERT INTO muster.manifest_signer (name, certificate, fingerprint, subject, not_after, created_by)
        VALUES (a->>'name', decode(a->>'der', 'hex'), decode(a->>'fingerprint', 'hex'), a->>'subject', to_timestamp((a->>'not_after')::bigint), op->>'actor')
        ON CONFLICT DO NOTHING RETURNING * INTO s;
    IF s.id IS NULL THEN
        PERFORM muster.refuse('request.exists', format('a signer of the name %s or with this certificate', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, 'manifest.trust', s.name, jsonb_build_object('subject', s.subject, 'fingerprint', a->>'fingerprint'));
    RETURN muster.signer_json(s);
END $$;
COMMENT ON FUNCTION desk_signer_create IS 'POST /manifest-signers';

CREATE FUNCTION desk_signer_delete(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM muster.desk_unscoped(op);
    DELETE FROM muster.manifest_signer WHERE name = a->>'name';
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no signer %s', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, 'manifest.distrust', a->>'name');
    RETURN '{}';
END $$;
COMMENT ON FUNCTION desk_signer_delete IS 'DELETE /manifest-signers/{name}';
