-- migration: 20
-- name: broker_auth
-- oldest-binary: 1
-- transaction: yes
--
-- Other brokers ask over HTTP what the plugin looks up: one certificate at a time.

SET LOCAL search_path = muster;

ALTER TABLE admin_token DROP CONSTRAINT admin_token_role_check;
ALTER TABLE admin_token ADD CONSTRAINT admin_token_role_check CHECK (role IN ('viewer', 'operator', 'admin', 'broker'));
COMMENT ON COLUMN admin_token.role IS 'viewer reads, operator handles devices and tokens, admin does everything; broker only asks who may connect and where to';

-- By fingerprint. Where that is not known by a thing's name: then it is one that we issued, for what other CAs write into a CN is
-- theirs to say, and the certificate in use goes before one that was not used yet.
CREATE FUNCTION gate_one(fp bytea, named text, product bigint) RETURNS TABLE (fingerprint bytea, state integer, thing text, policies text, thing_values jsonb, der bytea)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT c.fingerprint, muster.gate_state_now(c, d), d.thing_name, muster.gate_policies_of(c.id), muster.gate_thing_of(c.id, d), x.der
    FROM muster.certificate c JOIN muster.device d ON d.id = c.device_id JOIN muster.certificate_der x ON x.certificate_id = c.id
    WHERE CASE WHEN fp IS NOT NULL THEN c.fingerprint = fp
        ELSE c.device_id = (SELECT t.device_id FROM muster.thing t WHERE t.name = named) AND c.purpose = 'operational' AND c.origin = 'issued' AND d.thing_name = named END
      AND muster.gate_state_now(c, d) > 0 AND (product IS NULL OR d.product_id = product)
    ORDER BY (c.status = 'current') DESC, c.id DESC LIMIT 1
$$;
COMMENT ON FUNCTION gate_one IS 'A certificate that may be at a broker, with what its policies name; product NULL: of any';
