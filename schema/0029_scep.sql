-- migration: 29
-- name: scep
-- oldest-binary: 1
-- transaction: yes
--
-- SCEP requests that wait for an operator: a client that polls sends its transaction's name and no request.

SET LOCAL search_path = muster;

CREATE TABLE scep_pending (
    transaction bytea PRIMARY KEY CHECK (octet_length(transaction) = 32),
    message     bytea NOT NULL CHECK (octet_length(message) BETWEEN 1 AND 32768),
    kept_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX scep_pending_kept_idx ON scep_pending (kept_at);
COMMENT ON TABLE scep_pending IS 'Messages of SCEP whose enrolment waits for an operator, as they came: what is secret in them is enveloped for the registration authority';
COMMENT ON COLUMN scep_pending.transaction IS 'SHA-256 of the client''s transaction id and of the SHA-256 of the key that signed: nobody polls another''s';
COMMENT ON COLUMN scep_pending.message IS 'The message, DER';
COMMENT ON COLUMN scep_pending.kept_at IS 'When it came last; thirty days later it is forgotten';

CREATE FUNCTION scep_pending_keep(of bytea, sent bytea) RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.scep_pending (transaction, message) VALUES (of, sent)
        ON CONFLICT (transaction) DO UPDATE SET message = sent, kept_at = clock_timestamp()
$$;
COMMENT ON FUNCTION scep_pending_keep IS 'Keeps a message whose enrolment waits';

CREATE FUNCTION scep_prune() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM muster.scep_pending WHERE kept_at < clock_timestamp() - interval '30 days';
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
COMMENT ON FUNCTION scep_prune IS 'Forgets messages that have waited too long; returns how many';

CREATE FUNCTION scep_own_certificate(asking bytea, issuer bigint, number bytea) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT x.der FROM muster.certificate mine
        JOIN muster.certificate c ON c.device_id = mine.device_id AND c.issuer_id = issuer AND c.serial_number = number
        JOIN muster.certificate_der x ON x.certificate_id = c.id
    WHERE mine.fingerprint = asking AND mine.status IN ('pending', 'current')
$$;
COMMENT ON FUNCTION scep_own_certificate IS 'A certificate of the device whose certificate asks; NULL: it has none such';
