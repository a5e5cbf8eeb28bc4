-- migration: 16
-- name: gate_policy
-- oldest-binary: 1
-- transaction: yes
--
-- What the broker's table says of a device's policies, and of the CAs it is to trust.

SET LOCAL search_path = muster;

ALTER TABLE policy ADD COLUMN uses_thing boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN policy.uses_thing IS 'Whether its document names attributes or the type of the thing, which the broker then needs to know';
CREATE FUNCTION policy_uses_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.uses_thing := NEW.document::text LIKE '%iot:Connection.Thing.Attributes[%' OR NEW.document::text LIKE '%iot:Connection.Thing.ThingTypeName%';
    RETURN NEW;
END $$;
COMMENT ON FUNCTION policy_uses_note IS 'Trigger: what of the thing a policy names';
CREATE TRIGGER policy_uses BEFORE INSERT OR UPDATE ON policy FOR EACH ROW EXECUTE FUNCTION policy_uses_note();
UPDATE policy SET document = document;

-- What a device's certificate may be asked of, besides its state.
CREATE FUNCTION gate_policies_of(cert bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(x.policy_id::text, ',' ORDER BY x.policy_id) FROM muster.certificate_policy x WHERE x.certificate_id = cert
$$;
COMMENT ON FUNCTION gate_policies_of IS 'The numbers of a certificate''s policies, separated by commas; NULL: none';

CREATE FUNCTION gate_thing_of(cert bigint, d device) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('type', d.thing_type, 'attributes', d.attributes)
    WHERE EXISTS (SELECT 1 FROM muster.certificate_policy x JOIN muster.policy p ON p.id = x.policy_id WHERE x.certificate_id = cert AND p.uses_thing)
$$;
COMMENT ON FUNCTION gate_thing_of IS 'Type and attributes of the thing where a policy of the certificate names some';

-- A registered CA that is not active vouches for nobody.
CREATE FUNCTION gate_state_now(c certificate, d device) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN c.origin = 'registered' AND EXISTS (SELECT 1 FROM muster.ca a WHERE a.id = c.issuer_id AND NOT a.active) THEN 0
        ELSE muster.gate_state(c, d) END
$$;
COMMENT ON FUNCTION gate_state_now IS 'What an operational certificate may do at the broker, its CA''s standing included';

DROP FUNCTION gate_changes(bigint, bigint, text, bigint, bigint, integer);
CREATE FUNCTION gate_changes(base bigint, stable bigint, seen text, after_xid bigint, after_seq bigint, most integer)
RETURNS TABLE (xid bigint, seq bigint, fingerprint bytea, state integer, thing text, policies text, thing_values jsonb) LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT g.xid::text::bigint, g.seq, g.fingerprint, s.state, CASE WHEN s.state > 1 THEN d.thing_name END,
        CASE WHEN s.state > 1 THEN muster.gate_policies_of(c.id) END, CASE WHEN s.state > 1 THEN muster.gate_thing_of(c.id, d) END
    FROM (SELECT x.xid, x.seq, x.fingerprint FROM muster.gate_change x
          WHERE x.xid >= base::text::xid8 AND (x.xid, x.seq) > (after_xid::text::xid8, after_seq)
            AND (x.xid < stable::text::xid8 OR seen IS NULL OR NOT pg_visible_in_snapshot(x.xid, seen::pg_snapshot))
          ORDER BY x.xid, x.seq LIMIT most) g
    LEFT JOIN muster.claim k ON k.fingerprint = g.fingerprint
    LEFT JOIN muster.certificate c ON c.fingerprint = g.fingerprint
    LEFT JOIN muster.device d ON d.id = c.device_id
    CROSS JOIN LATERAL (SELECT CASE WHEN k.id IS NULL THEN COALESCE(muster.gate_state_now(c, d), 0) WHEN k.revoke_mode = 'hard' THEN 0 ELSE 1 END) s(state)
    ORDER BY g.xid, g.seq
$$;
COMMENT ON FUNCTION gate_changes IS 'The present state of certificates that changed, for the broker''s table, page by page';

DROP FUNCTION gate_certificates(bigint, integer);
CREATE FUNCTION gate_certificates(after bigint, most integer)
RETURNS TABLE (id bigint, fingerprint bytea, state integer, thing text, policies text, thing_values jsonb) LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT c.id, c.fingerprint, muster.gate_state_now(c, d), d.thing_name, muster.gate_policies_of(c.id), muster.gate_thing_of(c.id, d)
    FROM muster.certificate c JOIN muster.device d ON d.id = c.device_id
    WHERE c.id > after AND muster.gate_state_now(c, d) > 0 ORDER BY c.id LIMIT most
$$;
COMMENT ON FUNCTION gate_certificates IS 'All operational certificates the broker may admit, page by page';

DROP FUNCTION gate_claims(bigint, integer);
CREATE FUNCTION gate_claims(after bigint, most integer)
RETURNS TABLE (id bigint, fingerprint bytea, state integer, thing text, policies text, thing_values jsonb) LANGUAGE sql STABLE AS $$
    SELECT k.id, k.fingerprint, 1, NULL, NULL, NULL::jsonb FROM muster.claim k
    WHERE k.id > after AND k.revoke_mode IS DISTINCT FROM 'hard' ORDER BY k.id LIMIT most
$$;
COMMENT ON FUNCTION gate_claims IS 'All claims the broker may admit, page by page';

DROP FUNCTION gate_now();
CREATE FUNCTION gate_now() RETURNS TABLE (stable bigint, newest bigint, snapshot text, pruned_through bigint, epoch bigint) LANGUAGE sql STABLE AS $$
    SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint, s::text, h.pruned_through::text::bigint, e.epoch
    FROM pg_current_snapshot() s, muster.gate_head h, muster.registry_epoch e
$$;
COMMENT ON FUNCTION gate_now IS 'stable: every transaction below it is finished; newest: none above it has begun; epoch: of what is cached, CAs among it';

CREATE FUNCTION gate_policies(numbers bigint[]) RETURNS TABLE (id bigint, document text) LANGUAGE sql STABLE AS $$
    SELECT p.id, p.document::text FROM muster.policy p WHERE p.id = ANY (numbers) ORDER BY p.id
$$;
COMMENT ON FUNCTION gate_policies IS 'Documents of policies';

-- Whom the broker's TLS is to trust; what their certificates may do is the table's to say.
CREATE FUNCTION gate_cas() RETURNS TABLE (certificate bytea) LANGUAGE sql STABLE AS $$
    SELECT c.certificate FROM muster.ca c ORDER BY c.id
$$;
COMMENT ON FUNCTION gate_cas IS 'All CAs, for the broker''s folder of trusted ones';

-- As before, and: what policies may name.
DROP TRIGGER device_gate_changed ON device;
CREATE TRIGGER device_gate_changed AFTER UPDATE ON device FOR EACH ROW
    WHEN ((OLD.state = 'QUARANTINE') <> (NEW.state = 'QUARANTINE')
          OR (OLD.retired_at IS NULL) <> (NEW.retired_at IS NULL)
          OR OLD.thing_name IS DISTINCT FROM NEW.thing_name
          OR OLD.thing_type IS DISTINCT FROM NEW.thing_type
          OR OLD.attributes <> NEW.attributes
          OR OLD.verify_mode <> NEW.verify_mode)
    EXECUTE FUNCTION gate_device_changed();

CREATE FUNCTION gate_ca_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.gate_change (fingerprint) SELECT c.fingerprint FROM muster.certificate c
        WHERE c.issuer_id = NEW.id AND c.origin = 'registered' AND c.status IN ('pending', 'current');
    RETURN NULL;
END $$;
COMMENT ON FUNCTION gate_ca_changed IS 'Trigger: notes the devices'' own certificates of a CA that is switched off or on';
CREATE TRIGGER ca_gate_changed AFTER UPDATE ON ca FOR EACH ROW
    WHEN (NEW.kind = 'registered' AND OLD.active <> NEW.active) EXECUTE FUNCTION gate_ca_changed();
