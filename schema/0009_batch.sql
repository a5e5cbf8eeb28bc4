-- migration: 9
-- name: batch
-- oldest-binary: 1
-- transaction: yes
--
-- Devices that come for the first time are judged one by one and written together: one statement a
-- table and batch, not one a device. Most of what a statement costs is not its rows.

SET LOCAL search_path = muster;

-- Devices, certificates and tokens stay for ever. What refers to them is written by the functions that
-- have just made or locked them, so a foreign key would look up again, for every row, what cannot be
-- otherwise; and no distributed PostgreSQL keeps one between tables that are spread by different keys.
-- Instead nothing is ever deleted from those three.
ALTER TABLE thing DROP CONSTRAINT thing_device_id_fkey;
ALTER TABLE device_group DROP CONSTRAINT device_group_device_id_fkey;
ALTER TABLE certificate DROP CONSTRAINT certificate_device_id_fkey, DROP CONSTRAINT certificate_supersedes_id_fkey;
ALTER TABLE key_owner DROP CONSTRAINT key_owner_device_id_fkey;
ALTER TABLE allowlist DROP CONSTRAINT allowlist_device_id_fkey;
ALTER TABLE token_use DROP CONSTRAINT token_use_device_id_fkey, DROP CONSTRAINT token_use_certificate_id_fkey,
    DROP CONSTRAINT token_use_token_id_fkey;
ALTER TABLE certificate_der DROP CONSTRAINT certificate_der_certificate_id_fkey;
ALTER TABLE certificate_policy DROP CONSTRAINT certificate_policy_certificate_id_fkey;

CREATE FUNCTION row_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never deleted: others refer to them', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
COMMENT ON FUNCTION row_stays IS 'Trigger: refuses to delete';
CREATE TRIGGER device_stays BEFORE DELETE ON device FOR EACH ROW EXECUTE FUNCTION row_stays();
CREATE TRIGGER certificate_stays BEFORE DELETE ON certificate FOR EACH ROW EXECUTE FUNCTION row_stays();
CREATE TRIGGER token_stays BEFORE DELETE ON token FOR EACH ROW EXECUTE FUNCTION row_stays();

-- Registry numbers of what is about to be written, in the request that it is about.
ALTER TYPE enrol_request ADD ATTRIBUTE new_state text;
ALTER TYPE enrol_request ADD ATTRIBUTE device_id bigint;
ALTER TYPE enrol_request ADD ATTRIBUTE certificate_id bigint;
ALTER TYPE enrol_request ADD ATTRIBUTE token_id bigint;
ALTER TYPE enrol_result ADD ATTRIBUTE device_id bigint; -- of a device still to be written; else NULL
ALTER TYPE enrol_result ADD ATTRIBUTE token_id bigint;

-- In SQL this was planned anew by every call.
CREATE OR REPLACE FUNCTION enrol_announce(r enrol_request, d device, event text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.outbox (event, payload) VALUES (event,
        jsonb_build_object('serial', r.serial, 'thing_name', COALESCE(r.thing_name, d.thing_name), 'template', r.template_label,
            'fingerprint', encode(r.fingerprint, 'hex'), 'request_id', r.request_id));
END $$;

-- Whoever asks has seen that the fact is there; the functions that write it know what is wrong with it.
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
    RETURN res;
END $$;
COMMENT ON FUNCTION enrol_new IS 'Judges a device that has no row yet, for enrol_write; NULL where it has one';

CREATE FUNCTION enrol_policies_check(r enrol_request) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    missing text;
BEGIN
    SELECT x->>'name' INTO missing FROM jsonb_array_elements(r.policies) x
        WHERE COALESCE(x->'document', 'null') = 'null'
          AND NOT EXISTS (SELECT 1 FROM muster.policy p WHERE p.product_id = r.product_id AND p.name = x->>'name')
        LIMIT 1;
    IF missing IS NOT NULL THEN
        PERFORM muster.refuse('template.evaluation_failed', format('there is no policy %s', missing));
    END IF;
END $$;
COMMENT ON FUNCTION enrol_policies_check IS 'Refuses policies that a template only names and nobody has made';

-- Groups and policies are there every time but the first.
CREATE FUNCTION enrol_write_members(rs enrol_request[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO muster.device_group
        SELECT r.device_id, g.id FROM unnest(rs) r, jsonb_array_elements_text(r.groups) n, muster.thing_group g WHERE g.name = n
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> (SELECT sum(jsonb_array_length(r.groups)) FROM unnest(rs) r) THEN
        INSERT INTO muster.thing_group (name)
            SELECT DISTINCT n FROM unnest(rs) r, jsonb_array_elements_text(r.groups) n ORDER BY n
            ON CONFLICT DO NOTHING;
        INSERT INTO muster.device_group
            SELECT r.device_id, g.id FROM unnest(rs) r, jsonb_array_elements_text(r.groups) n, muster.thing_group g WHERE g.name = n
            ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO muster.certificate_policy
        SELECT r.certificate_id, p.id FROM unnest(rs) r, jsonb_array_elements(r.policies) x, muster.policy p
        WHERE p.product_id = r.product_id AND p.name = x->>'name'
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> (SELECT sum(jsonb_array_length(r.policies)) FROM unnest(rs) r) THEN
        INSERT INTO muster.policy (product_id, name, document)
            SELECT DISTINCT ON (r.product_id, x->>'name') r.product_id, x->>'name', x->'document'
            FROM unnest(rs) r, jsonb_array_elements(r.policies) x
            WHERE COALESCE(x->'document', 'null') <> 'null'
            ORDER BY r.product_id, x->>'name', r.ord
            ON CONFLICT DO NOTHING;
        INSERT INTO muster.certificate_policy
            SELECT r.certificate_id, p.id FROM unnest(rs) r, jsonb_array_elements(r.policies) x, muster.policy p
            WHERE p.product_id = r.product_id AND p.name = x->>'name'
            ON CONFLICT DO NOTHING;
    END IF;
END $$;
COMMENT ON FUNCTION enrol_write_members IS 'Groups and policies of devices that enrol_write writes';

CREATE FUNCTION enrol_write_factory(rs enrol_request[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.key_owner (spki_sha256, kind, device_id)
        SELECT r.peer_spki, 'bootstrap', r.device_id FROM unnest(rs) r WHERE r.credential = 'factory';
    WITH made AS (
        INSERT INTO muster.certificate (fingerprint, device_id, purpose, status, issuer_id, serial_number,
                spki_sha256, not_before, not_after, verified_at, template_id, template_version, request_id)
            SELECT r.peer_fingerprint, r.device_id, 'bootstrap', 'current', r.peer_ca, r.peer_serial_number,
                r.peer_spki, to_timestamp(r.peer_not_before), to_timestamp(r.peer_not_after), clock_timestamp(),
                r.template_id, r.template_version, r.request_id
            FROM unnest(rs) r WHERE r.credential = 'factory'
            RETURNING id, device_id)
    INSERT INTO muster.certificate_der
        SELECT m.id, r.peer_der FROM made m JOIN unnest(rs) r ON r.device_id = m.device_id;
END $$;
COMMENT ON FUNCTION enrol_write_factory IS 'Factory certificates of devices that enrol_write writes';

-- The unique keys decide once more: where two requests want the same key, name or last use of a token,
-- all of it fails, and the caller tries each by itself.
CREATE FUNCTION enrol_write(rs enrol_request[]) RETURNS void LANGUAGE plpgsql
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
    UPDATE muster.allowlist a SET device_id = q.device_id, claimed_at = clock_timestamp()
        FROM unnest(rs) q
        WHERE a.product_id = q.product_id AND a.serial_canonical = q.serial_canonical AND a.device_id IS NULL;
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential,
            source, template, outcome, reached, state, fingerprint, steps)
        SELECT q.request_id, q.product_id, q.device_id, q.serial, q.protocol, q.operation, q.credential,
            q.source, q.template_label, 'ok', CASE WHEN q.new_state = 'PROVISIONED' THEN 'PROVISIONED' ELSE 'REGISTER' END,
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
COMMENT ON FUNCTION enrol_write IS 'Writes devices that enrol_new has judged, with all that belongs to them';

CREATE OR REPLACE FUNCTION enrol_batch(requests jsonb) RETURNS SETOF enrol_result LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    r muster.enrol_request;
    res muster.enrol_result;
    tokens bigint[];
    fresh muster.enrol_request[] := '{}';
    last muster.enrol_request;
BEGIN
    -- tokens first and in one order, then devices in one order: no two batches wait for each other.
    -- The token of a single request is locked when it is judged.
    IF jsonb_array_length(requests) > 1 THEN
        tokens := ARRAY(SELECT t.id FROM jsonb_array_elements(requests) x
            CROSS JOIN LATERAL (SELECT k.id FROM muster.token k WHERE k.hash = (x->>'token_hash')::bytea OFFSET 0) t);
        PERFORM 1 FROM muster.token k WHERE k.id = ANY (tokens) ORDER BY k.id FOR UPDATE;
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
