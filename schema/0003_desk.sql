-- migration: 3
-- name: desk
-- oldest-binary: 1
-- transaction: yes
--
-- The operator's desk: what the admin API does, one function a call, each with its audit row in
-- the same transaction. op says who asks: {"actor", "source", "scope", "request"}, scope being the
-- number of the only product the operator may see, or null. a has the arguments, checked for type
-- and length by the server. Refusals are raised as in migration 2.

SET LOCAL search_path = muster;

CREATE FUNCTION utc(t timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;
COMMENT ON FUNCTION utc IS 'A time as the API writes it: RFC 3339, UTC';

CREATE FUNCTION pem(der bytea) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT E'-----BEGIN CERTIFICATE-----\n'
        || regexp_replace(replace(encode(der, 'base64'), E'\n', ''), '(.{1,64})', E'\\1\n', 'g')
        || E'-----END CERTIFICATE-----\n'
$$;
COMMENT ON FUNCTION pem IS 'A certificate as PEM, RFC 7468';

CREATE FUNCTION serial_canonical(p product, serial text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p.serial_case WHEN 'upper' THEN upper(s COLLATE "C") WHEN 'lower' THEN lower(s COLLATE "C") ELSE s END
    FROM (SELECT CASE WHEN p.strip_separators THEN translate(serial, '._:-', '') ELSE serial END) x(s)
$$;
COMMENT ON FUNCTION serial_canonical IS 'The canonical form of a serial under its product''s rule; the same as serial_parse in C';

CREATE FUNCTION desk_audit(op jsonb, action text, object text, detail jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
    INSERT INTO muster.audit (actor, source, action, object, detail)
        VALUES (op->>'actor', op->>'source', action, object, detail);
$$;
COMMENT ON FUNCTION desk_audit IS 'The audit row of a change';

CREATE INDEX audit_id_idx ON audit (id);

CREATE FUNCTION desk_sees(op jsonb, product bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT op->>'scope' IS NULL OR (op->>'scope')::bigint = product
$$;
COMMENT ON FUNCTION desk_sees IS 'Whether the operator''s scope has this product';

CREATE FUNCTION desk_unscoped(op jsonb) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF op->>'scope' IS NOT NULL THEN
        PERFORM muster.refuse('admin.forbidden', 'the token is for one product only');
    END IF;
    RETURN true;
END $$;
COMMENT ON FUNCTION desk_unscoped IS 'Refuses operators of one product where the object belongs to all';

CREATE FUNCTION desk_product(op jsonb, name text) RETURNS product LANGUAGE plpgsql STABLE AS $$
DECLARE
    p muster.product;
BEGIN
    SELECT * INTO p FROM muster.product x WHERE x.name = desk_product.name AND muster.desk_sees(op, x.id);
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no product %s', name));
    END IF;
    RETURN p;
END $$;
COMMENT ON FUNCTION desk_product IS 'The product of a name';

CREATE FUNCTION desk_template(op jsonb, name text) RETURNS template LANGUAGE plpgsql STABLE AS $$
DECLARE
    t muster.template;
BEGIN
    SELECT * INTO t FROM muster.template x WHERE x.name = desk_template.name AND muster.desk_sees(op, x.product_id);
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no template %s', name));
    END IF;
    RETURN t;
END $$;
COMMENT ON FUNCTION desk_template IS 'The template of a name';

-- Products

CREATE FUNCTION product_json(p product) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('name', p.name, 'serial_case', p.serial_case,
        'strip_separators', p.strip_separators, 'created_at', muster.utc(p.created_at))
$$;
COMMENT ON FUNCTION product_json IS 'A product as the API shows it';

CREATE FUNCTION desk_product_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    p muster.product;
BEGIN
    PERFORM muster.desk_unscoped(op);
    INSERT INTO muster.product (name, serial_case, strip_separators)
        VALUES (a->>'name', COALESCE(a->>'serial_case', 'keep'), COALESCE((a->>'strip_separators')::boolean, false))
        ON CONFLICT (name) DO NOTHING RETURNING * INTO p;
    IF p.id IS NULL THEN
        PERFORM muster.refuse('request.exists', format('product %s', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, 'product.create', p.name, a);
    RETURN muster.product_json(p);
END $$;
COMMENT ON FUNCTION desk_product_create IS 'POST /products';

-- Templates

CREATE FUNCTION template_json(t template) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('name', t.name, 'product', p.name, 'version', t.default_version,
        'enabled', t.enabled, 'created_at', muster.utc(t.created_at))
    FROM muster.product p WHERE p.id = t.product_id
$$;
COMMENT ON FUNCTION template_json IS 'A template as the API lists it';

CREATE FUNCTION desk_template_put(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.template;
    p muster.product;
    v integer;
    changed boolean := true;
BEGIN
    SELECT * INTO t FROM muster.template x WHERE x.name = a->>'name' FOR UPDATE;
    IF FOUND THEN
        IF NOT muster.desk_sees(op, t.product_id) THEN
            PERFORM muster.refuse('admin.forbidden', 'the template is another product''s');
        ELSIF a->>'product' IS NOT NULL AND NOT EXISTS (SELECT 1 FROM muster.product q WHERE q.id = t.product_id AND q.name = a->>'product') THEN
            PERFORM muster.refuse('request.conflict', 'a template stays with its product');
        END IF;
        SELECT x.version INTO v FROM muster.template_version x
            WHERE x.template_id = t.id AND x.version = t.default_version AND x.body = a->>'body';
        changed := v IS NULL;
        IF changed THEN
            SELECT max(x.version) + 1 INTO v FROM muster.template_version x WHERE x.template_id = t.id;
            INSERT INTO muster.template_version (template_id, version, body, created_by) VALUES (t.id, v, a->>'body', op->>'actor');
            UPDATE muster.template SET default_version = v WHERE id = t.id RETURNING * INTO t;
        END IF;
    ELSE
        IF a->>'product' IS NULL THEN
            PERFORM muster.refuse('request.malformed', 'a new template needs its product');
        END IF;
        p := muster.desk_product(op, a->>'product');
        INSERT INTO muster.template (product_id, name) VALUES (p.id, a->>'name') RETURNING * INTO t;
        INSERT INTO muster.template_version (template_id, version, body, created_by) VALUES (t.id, 1, a->>'body', op->>'actor');
        v := 1;
    END IF;
    IF changed THEN
        PERFORM muster.desk_audit(op, 'template.put', t.name, jsonb_build_object('version', v));
    END IF;
    RETURN (SELECT json_build_object('name', t.name, 'product', q.name, 'version', v, 'changed', changed)
            FROM muster.product q WHERE q.id = t.product_id);
END $$;
COMMENT ON FUNCTION desk_template_put IS 'PUT /templates/{name}';

CREATE FUNCTION desk_template_show(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    t muster.template := muster.desk_template(op, a->>'name');
    res json;
BEGIN
    SELECT json_build_object('name', t.name, 'product', p.name, 'version', v.version, 'default_version', t.default_version,
            'enabled', t.enabled, 'created_at', muster.utc(v.created_at), 'created_by', v.created_by, 'body', v.body)
        INTO res FROM muster.template_version v, muster.product p
        WHERE v.template_id = t.id AND v.version = COALESCE((a->>'version')::integer, t.default_version) AND p.id = t.product_id;
    IF res IS NULL THEN
        PERFORM muster.refuse('object.not_found', format('template %s has no version %s', t.name, a->>'version'));
    END IF;
    RETURN res;
END $$;
COMMENT ON FUNCTION desk_template_show IS 'GET /templates/{name}';

CREATE FUNCTION desk_template_enable(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.template := muster.desk_template(op, a->>'name');
BEGIN
    UPDATE muster.template SET enabled = (a->>'enabled')::boolean WHERE id = t.id RETURNING * INTO t;
    PERFORM muster.desk_audit(op, CASE WHEN t.enabled THEN 'template.enable' ELSE 'template.disable' END, t.name);
    RETURN muster.template_json(t);
END $$;
COMMENT ON FUNCTION desk_template_enable IS 'POST /templates/{name}/enable and /disable';

-- Allowlist

CREATE FUNCTION allowlist_json(r allowlist) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('serial', r.serial, 'spki_pin', encode(r.spki_pin, 'hex'), 'blocked', r.blocked,
        'batch', r.batch, 'claimed_at', muster.utc(r.claimed_at), 'created_at', muster.utc(r.created_at))
$$;
COMMENT ON FUNCTION allowlist_json IS 'An allowlist row as the API shows it';

CREATE FUNCTION desk_allowlist_block(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    p muster.product := muster.desk_product(op, a->>'product');
    r muster.allowlist;
BEGIN
    UPDATE muster.allowlist SET blocked = (a->>'blocked')::boolean
        WHERE product_id = p.id AND serial_canonical = muster.serial_canonical(p, a->>'serial') RETURNING * INTO r;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('serial %s is not on the allowlist of %s', a->>'serial', p.name));
    END IF;
    PERFORM muster.desk_audit(op, CASE WHEN r.blocked THEN 'allowlist.block' ELSE 'allowlist.unblock' END, r.serial, jsonb_build_object('product', p.name));
    RETURN muster.allowlist_json(r);
END $$;
COMMENT ON FUNCTION desk_allowlist_block IS 'POST /products/{p}/allowlist/{serial}/block and /unblock';

-- Takes what COPY has put into the temporary table allowlist_import (line, serial, canonical, pin,
-- batch, reason); rows with a reason were rejected while they were parsed.
CREATE FUNCTION desk_allowlist_import(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    p muster.product := muster.desk_product(op, a->>'product');
    res json;
BEGIN
    CREATE TEMPORARY TABLE allowlist_outcome ON COMMIT DROP AS
        WITH first AS (
            SELECT DISTINCT ON (i.canonical) i.line, i.serial, i.canonical, i.pin, i.batch FROM allowlist_import i
                WHERE i.reason IS NULL ORDER BY i.canonical, i.line
        ), made AS (
            INSERT INTO muster.allowlist (product_id, serial, serial_canonical, spki_pin, batch)
                SELECT p.id, f.serial, f.canonical, f.pin, COALESCE(f.batch, a->>'batch') FROM first f ORDER BY f.canonical
                ON CONFLICT DO NOTHING RETURNING serial_canonical
        )
        SELECT i.line, i.serial, i.reason,
            CASE WHEN i.reason IS NOT NULL THEN 'rejected'
                 WHEN f.line IS NOT NULL AND m.serial_canonical IS NOT NULL THEN 'imported' ELSE 'duplicate' END AS result
        FROM allowlist_import i LEFT JOIN first f ON f.line = i.line LEFT JOIN made m ON m.serial_canonical = f.canonical;
    SELECT json_build_object(
            'imported', count(*) FILTER (WHERE o.result = 'imported'),
            'duplicate', count(*) FILTER (WHERE o.result = 'duplicate'),
            'rejected', count(*) FILTER (WHERE o.result = 'rejected'),
            'lines', COALESCE(json_agg(json_build_object('line', o.line, 'serial', o.serial, 'result', o.result, 'reason', o.reason) ORDER BY o.line)
                FILTER (WHERE a->>'report' IS DISTINCT FROM 'rejected' OR o.result = 'rejected'), '[]'))
        INTO res FROM allowlist_outcome o;
    PERFORM muster.desk_audit(op, 'allowlist.import', p.name, jsonb_build_object('imported', res->'imported',
        'duplicate', res->'duplicate', 'rejected', res->'rejected', 'batch', a->>'batch'));
    RETURN res;
END $$;
COMMENT ON FUNCTION desk_allowlist_import IS 'POST /products/{p}/allowlist';

-- Tokens

CREATE FUNCTION token_state(t token) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked' WHEN t.uses >= t.max_uses THEN 'used'
        WHEN t.expires_at <= clock_timestamp() THEN 'expired' WHEN t.uses = 0 THEN 'unused' ELSE 'active' END
$$;
COMMENT ON FUNCTION token_state IS 'unused, active (some uses left), used, expired or revoked';

CREATE FUNCTION token_json(t token) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', t.id, 'template', x.name, 'serial', t.serial, 'max_uses', t.max_uses, 'uses', t.uses,
        'failures', t.failures, 'state', muster.token_state(t), 'expires_at', muster.utc(t.expires_at),
        'revoked_at', muster.utc(t.revoked_at), 'replaced_by', t.replaced_by, 'note', t.note,
        'created_at', muster.utc(t.created_at), 'created_by', t.created_by)
    FROM muster.template x WHERE x.id = t.template_id
$$;
COMMENT ON FUNCTION token_json IS 'A token as the API shows it, without its text';

-- a: template, hashes (hex), serials (array or null), uses, expires_in_s, grace_s, note
CREATE FUNCTION desk_token_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.template := muster.desk_template(op, a->>'template');
    p muster.product;
    bad text;
    res json;
BEGIN
    SELECT * INTO p FROM muster.product WHERE id = t.product_id;
    SELECT s INTO bad FROM jsonb_array_elements_text(CASE WHEN jsonb_typeof(a->'serials') = 'array' THEN a->'serials' ELSE '[]' END) s
        WHERE s !~ '^[A-Za-z0-9._:-]{1,64}$' OR muster.serial_canonical(p, s) = '' LIMIT 1;
    IF bad IS NOT NULL THEN
        PERFORM muster.refuse('serial.malformed', format('"%s"', left(bad, 80)));
    END IF;
    WITH minted AS (
        INSERT INTO muster.token (hash, template_id, serial, serial_canonical, max_uses, expires_at, grace_s, note, created_by)
            SELECT decode(h.value, 'hex'), t.id, s.serial, muster.serial_canonical(p, s.serial), (a->>'uses')::integer,
                clock_timestamp() + make_interval(secs => (a->>'expires_in_s')::double precision), (a->>'grace_s')::integer, a->>'note', op->>'actor'
            FROM jsonb_array_elements_text(a->'hashes') WITH ORDINALITY h(value, n)
            CROSS JOIN LATERAL (SELECT a->'serials'->>(h.n::integer - 1)) s(serial)
            ORDER BY h.n RETURNING *)
    SELECT json_agg(json_build_object('id', m.id, 'token', NULL, 'serial', m.serial, 'template', t.name, 'uses', m.max_uses,
        'expires_at', muster.utc(m.expires_at), 'hash', encode(m.hash, 'hex')) ORDER BY m.id) INTO res FROM minted m;
    PERFORM muster.desk_audit(op, 'token.create', t.name, jsonb_build_object('count', json_array_length(res),
        'first_id', res->0->>'id', 'uses', a->'uses', 'expires_in_s', a->'expires_in_s', 'note', a->>'note'));
    RETURN res;
END $$;
COMMENT ON FUNCTION desk_token_create IS 'POST /tokens; the server puts the texts into the answer';

CREATE FUNCTION desk_token(op jsonb, id text) RETURNS token LANGUAGE plpgsql AS $$
DECLARE
    t muster.token;
BEGIN
    SELECT x.* INTO t FROM muster.token x JOIN muster.template y ON y.id = x.template_id
        WHERE x.id = desk_token.id::bigint AND muster.desk_sees(op, y.product_id) FOR UPDATE OF x;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no token %s', id));
    END IF;
    RETURN t;
END $$;
COMMENT ON FUNCTION desk_token IS 'The token of a number, locked';

CREATE FUNCTION desk_token_show(op jsonb, a jsonb) RETURNS json LANGUAGE sql AS $$
    SELECT (muster.token_json(t) || jsonb_build_object('used_by', COALESCE((
        SELECT jsonb_agg(u.j) FROM (SELECT jsonb_build_object('serial', d.serial, 'fingerprint', encode(c.fingerprint, 'hex'), 'used_at', muster.utc(u.used_at)) AS j
            FROM muster.token_use u JOIN muster.device d ON d.id = u.device_id JOIN muster.certificate c ON c.id = u.certificate_id
            WHERE u.token_id = t.id ORDER BY u.used_at LIMIT 100) u), '[]')))::json
    FROM muster.desk_token(op, a->>'id') t
$$;
COMMENT ON FUNCTION desk_token_show IS 'GET /tokens/{id}';

CREATE FUNCTION desk_token_revoke(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.token := muster.desk_token(op, a->>'id');
BEGIN
    IF t.revoked_at IS NULL THEN
        UPDATE muster.token SET revoked_at = clock_timestamp() WHERE id = t.id RETURNING * INTO t;
        PERFORM muster.desk_audit(op, 'token.revoke', t.id::text);
    END IF;
    RETURN muster.token_json(t)::json;
END $$;
COMMENT ON FUNCTION desk_token_revoke IS 'POST /tokens/{id}/revoke';

CREATE FUNCTION desk_token_regenerate(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.token := muster.desk_token(op, a->>'id');
    n muster.token;
BEGIN
    IF t.replaced_by IS NOT NULL THEN
        PERFORM muster.refuse('request.conflict', format('token %s was regenerated already, as %s', t.id, t.replaced_by));
    ELSIF t.revoked_at IS NOT NULL THEN
        PERFORM muster.refuse('request.conflict', format('token %s was revoked at %s; mint another', t.id, muster.utc(t.revoked_at)));
    END IF;
    INSERT INTO muster.token (hash, template_id, serial, serial_canonical, max_uses, expires_at, grace_s, note, created_by)
        VALUES (decode(a->>'hash', 'hex'), t.template_id, t.serial, t.serial_canonical, GREATEST(1, t.max_uses - t.uses),
            clock_timestamp() + (t.expires_at - t.created_at), t.grace_s, t.note, op->>'actor') RETURNING * INTO n;
    UPDATE muster.token SET revoked_at = COALESCE(revoked_at, clock_timestamp()), replaced_by = n.id WHERE id = t.id;
    PERFORM muster.desk_audit(op, 'token.regenerate', t.id::text, jsonb_build_object('replaced_by', n.id));
    RETURN (SELECT json_build_object('id', n.id, 'token', NULL, 'serial', n.serial, 'template', x.name, 'uses', n.max_uses,
        'expires_at', muster.utc(n.expires_at)) FROM muster.template x WHERE x.id = n.template_id);
END $$;
COMMENT ON FUNCTION desk_token_regenerate IS 'POST /tokens/{id}/regenerate';

-- CAs

CREATE FUNCTION ca_json(c ca) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', c.id, 'name', c.name, 'kind', c.kind, 'active', c.active, 'subject', c.subject,
        'fingerprint', encode(c.fingerprint, 'hex'), 'template', (SELECT t.name FROM muster.template t WHERE t.id = c.template_id),
        'not_after', muster.utc(c.not_after), 'created_at', muster.utc(c.created_at))
$$;
COMMENT ON FUNCTION ca_json IS 'A CA as the API lists it';

CREATE FUNCTION desk_ca_show(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    c muster.ca;
BEGIN
    SELECT * INTO c FROM muster.ca x WHERE x.name = a->>'name';
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no CA %s', a->>'name'));
    END IF;
    RETURN (muster.ca_json(c) || jsonb_build_object('pem', muster.pem(c.certificate)))::json;
END $$;
COMMENT ON FUNCTION desk_ca_show IS 'GET /cas/{name}';

-- a: name, kind, template, der, fingerprint, spki, subject (from the certificate), not_after
CREATE FUNCTION desk_ca_register(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.ca;
    k muster.key_owner;
    t bigint;
BEGIN
    PERFORM muster.desk_unscoped(op);
    IF a->>'template' IS NOT NULL THEN
        SELECT x.id INTO t FROM muster.desk_template(op, a->>'template') x;
    END IF;
    IF EXISTS (SELECT 1 FROM muster.ca x WHERE x.name = a->>'name' OR x.fingerprint = decode(a->>'fingerprint', 'hex')) THEN
        PERFORM muster.refuse('request.exists', format('a CA of the name %s or with this certificate', a->>'name'));
    END IF;
    INSERT INTO muster.key_owner (spki_sha256, kind) VALUES (decode(a->>'spki', 'hex'), 'ca') ON CONFLICT DO NOTHING;
    SELECT * INTO k FROM muster.key_owner WHERE spki_sha256 = decode(a->>'spki', 'hex');
    IF k.kind <> 'ca' OR k.dead_at IS NOT NULL THEN
        PERFORM muster.refuse('key.reused', 'the CA''s key belongs to a device');
    END IF;
    INSERT INTO muster.ca (kind, name, certificate, fingerprint, spki_sha256, subject, template_id, not_after)
        VALUES (COALESCE(a->>'kind', 'registered'), a->>'name', decode(a->>'der', 'hex'), decode(a->>'fingerprint', 'hex'),
            decode(a->>'spki', 'hex'), a->>'subject', t, to_timestamp((a->>'not_after')::bigint)) RETURNING * INTO c;
    DELETE FROM muster.unknown_issuer u WHERE u.issuer = c.subject;
    PERFORM muster.desk_audit(op, 'ca.register', c.name, jsonb_build_object('kind', c.kind, 'subject', c.subject, 'fingerprint', a->>'fingerprint'));
    RETURN muster.ca_json(c)::json;
END $$;
COMMENT ON FUNCTION desk_ca_register IS 'POST /cas';

CREATE FUNCTION desk_ca_activate(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.ca;
BEGIN
    PERFORM muster.desk_unscoped(op);
    UPDATE muster.ca SET active = (a->>'active')::boolean WHERE name = a->>'name' RETURNING * INTO c;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no CA %s', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, CASE WHEN c.active THEN 'ca.activate' ELSE 'ca.deactivate' END, c.name);
    RETURN muster.ca_json(c)::json;
END $$;
COMMENT ON FUNCTION desk_ca_activate IS 'POST /cas/{name}/activate and /deactivate';

CREATE FUNCTION desk_unknown_dismiss(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM muster.desk_unscoped(op);
    DELETE FROM muster.unknown_issuer WHERE issuer_hash = decode(a->>'hash', 'hex');
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', 'there is no such unknown issuer');
    END IF;
    PERFORM muster.desk_audit(op, 'unknown_ca.dismiss', a->>'hash');
    RETURN '{}';
END $$;
COMMENT ON FUNCTION desk_unknown_dismiss IS 'DELETE /unknown-cas/{hash}';

-- Devices

CREATE FUNCTION device_json(d device) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('serial', d.serial, 'product', p.name, 'thing_name', d.thing_name, 'state', d.state,
        'state_since', muster.utc(d.state_since), 'template', t.name, 'template_version', d.template_version, 'last_seen', muster.utc(d.last_seen))
    FROM muster.product p, muster.template t WHERE p.id = d.product_id AND t.id = d.template_id
$$;
COMMENT ON FUNCTION device_json IS 'A device as the API lists it';

-- The device of a serial in any spelling, locked where asked; a null row when it is only on an allowlist.
CREATE FUNCTION desk_device(op jsonb, a jsonb, lock boolean) RETURNS device LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    ids bigint[];
BEGIN
    ids := ARRAY(SELECT x.id FROM muster.product p JOIN muster.device x
        ON x.product_id = p.id AND x.serial_canonical = muster.serial_canonical(p, a->>'serial')
        WHERE muster.desk_sees(op, p.id) AND (a->>'product' IS NULL OR p.name = a->>'product'));
    IF cardinality(ids) > 1 THEN
        PERFORM muster.refuse('device.ambiguous', format('%s products have %s', cardinality(ids), a->>'serial'));
    END IF;
    IF lock THEN
        SELECT * INTO d FROM muster.device WHERE id = ids[1] FOR UPDATE;
    ELSE
        SELECT * INTO d FROM muster.device WHERE id = ids[1];
    END IF;
    RETURN d;
END $$;
COMMENT ON FUNCTION desk_device IS 'Finds a device for an operator';

CREATE FUNCTION desk_device_must(op jsonb, a jsonb) RETURNS device LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device(op, a, true);
BEGIN
    IF d.id IS NULL THEN
        PERFORM muster.refuse('object.not_found', format('no device of the serial %s has ever come', a->>'serial'));
    ELSIF d.retired_at IS NOT NULL THEN
        PERFORM muster.refuse('request.conflict', format('%s was retired at %s', d.serial, muster.utc(d.retired_at)));
    END IF;
    RETURN d;
END $$;
COMMENT ON FUNCTION desk_device_must IS 'The device, locked; refuses where there is none or it was retired';

CREATE FUNCTION history_json(h history) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('at', to_char(h.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'request_id', h.request_id,
        'protocol', h.protocol, 'operation', h.operation, 'credential', h.credential, 'source', h.source, 'template', h.template,
        'outcome', h.outcome, 'detail', h.detail, 'reached', h.reached, 'state', h.state, 'fingerprint', encode(h.fingerprint, 'hex'), 'serial', h.serial)
$$;
COMMENT ON FUNCTION history_json IS 'A row of the trail as the API shows it';

-- Rows that name the device, and those that only claimed its serial, under this product or none.
CREATE FUNCTION trail_json(device bigint, product bigint, serial_text text, rows integer) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_agg(muster.history_json(t) ORDER BY t.at DESC), '[]') FROM (
        SELECT * FROM (
            (SELECT * FROM muster.history h WHERE h.device_id = device ORDER BY h.at DESC LIMIT rows)
            UNION ALL
            (SELECT * FROM muster.history h WHERE h.serial = serial_text AND h.device_id IS NULL
                AND (h.product_id = product OR h.product_id IS NULL) ORDER BY h.at DESC LIMIT rows)) b
        ORDER BY at DESC LIMIT rows) t
$$;
COMMENT ON FUNCTION trail_json IS 'The newest rows of the trail of a device';

CREATE FUNCTION certificates_json(device bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_agg(jsonb_build_object('fingerprint', encode(c.fingerprint, 'hex'), 'purpose', c.purpose, 'status', c.status,
            'active', c.active, 'not_before', muster.utc(c.not_before), 'not_after', muster.utc(c.not_after), 'issued_at', muster.utc(c.issued_at),
            'verified_at', muster.utc(c.verified_at), 'ended_at', muster.utc(c.ended_at), 'revoke_reason', c.revoke_reason,
            'policies', (SELECT COALESCE(jsonb_agg(p.name ORDER BY p.name), '[]') FROM muster.certificate_policy x JOIN muster.policy p ON p.id = x.policy_id
                WHERE x.certificate_id = c.id)) ORDER BY c.id DESC), '[]')
    FROM (SELECT * FROM muster.certificate k WHERE k.device_id = device ORDER BY k.id DESC LIMIT 50) c
$$;
COMMENT ON FUNCTION certificates_json IS 'The newest certificates of a device';

CREATE FUNCTION desk_device_show(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device(op, a, false);
    r muster.allowlist;
    lists integer;
    rows integer := COALESCE((a->>'trail')::integer, 20);
BEGIN
    IF d.id IS NOT NULL THEN
        RETURN (muster.device_json(d) || jsonb_build_object('thing_type', d.thing_type, 'billing_group', d.billing_group,
            'verify_mode', d.verify_mode, 'verify_by', muster.utc(d.verify_by), 'failures', d.failures,
            'quarantine_reason', d.quarantine_reason, 'reset_at', muster.utc(d.reset_at), 'retired_at', muster.utc(d.retired_at),
            'created_at', muster.utc(d.created_at), 'attributes', d.attributes, 'configuration', d.configuration,
            'groups', (SELECT COALESCE(jsonb_agg(g.name ORDER BY g.name), '[]') FROM muster.device_group m JOIN muster.thing_group g ON g.id = m.group_id WHERE m.device_id = d.id),
            'certificates', muster.certificates_json(d.id), 'trail', muster.trail_json(d.id, d.product_id, d.serial, rows)))::json;
    END IF;
    SELECT count(*) INTO lists FROM muster.product p JOIN muster.allowlist x ON x.product_id = p.id AND x.serial_canonical = muster.serial_canonical(p, a->>'serial')
        WHERE muster.desk_sees(op, p.id) AND (a->>'product' IS NULL OR p.name = a->>'product');
    IF lists > 1 THEN
        PERFORM muster.refuse('device.ambiguous', format('%s products list %s', lists, a->>'serial'));
    END IF;
    SELECT x.* INTO r FROM muster.product p JOIN muster.allowlist x ON x.product_id = p.id AND x.serial_canonical = muster.serial_canonical(p, a->>'serial')
        WHERE muster.desk_sees(op, p.id) AND (a->>'product' IS NULL OR p.name = a->>'product');
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('no device of the serial %s has ever come, and no allowlist has it', a->>'serial'));
    END IF;
    RETURN (SELECT json_build_object('serial', r.serial, 'product', p.name, 'thing_name', NULL, 'state', 'UNPROVISIONED',
        'allowlist', muster.allowlist_json(r), 'certificates', '[]'::json, 'trail', muster.trail_json(NULL, r.product_id, r.serial, rows))
        FROM muster.product p WHERE p.id = r.product_id);
END $$;
COMMENT ON FUNCTION desk_device_show IS 'GET /devices/{serial}';

-- The trail, audit and outbox of what an operator did to a device.
CREATE FUNCTION desk_device_done(op jsonb, d device, operation text, detail text) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, source, outcome, detail, reached, state)
        VALUES (op->>'request', d.product_id, d.id, d.serial, 'admin', desk_device_done.operation, 'operator', op->>'actor', 'ok', detail, d.state, d.state);
    PERFORM muster.desk_audit(op, 'device.' || operation, d.serial, jsonb_build_object('product', (SELECT name FROM muster.product WHERE id = d.product_id), 'detail', detail));
    INSERT INTO muster.outbox (event, payload) VALUES ('device.' || operation,
        jsonb_build_object('serial', d.serial, 'thing_name', d.thing_name, 'state', d.state, 'by', op->>'actor'));
    RETURN muster.device_json(d)::json;
END $$;
COMMENT ON FUNCTION desk_device_done IS 'Ends an operator''s action on a device';

CREATE FUNCTION desk_device_quarantine(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device_must(op, a);
    reason text := COALESCE(a->>'reason', 'by ' || (op->>'actor'));
BEGIN
    IF d.state = 'QUARANTINE' THEN
        PERFORM muster.refuse('request.conflict', format('%s is in quarantine already: %s', d.serial, d.quarantine_reason));
    END IF;
    UPDATE muster.device SET state = 'QUARANTINE', quarantine_reason = reason, verify_by = NULL WHERE id = d.id RETURNING * INTO d;
    RETURN muster.desk_device_done(op, d, 'quarantine', reason);
END $$;
COMMENT ON FUNCTION desk_device_quarantine IS 'POST /devices/{serial}/quarantine';

CREATE FUNCTION desk_device_release(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device_must(op, a);
    back text;
BEGIN
    IF d.state <> 'QUARANTINE' THEN
        PERFORM muster.refuse('request.conflict', format('%s is in %s, not in quarantine', d.serial, d.state));
    END IF;
    SELECT CASE WHEN bool_or(c.status = 'current') THEN 'PROVISIONED' WHEN bool_or(c.status = 'pending') THEN 'VERIFY' ELSE 'UNPROVISIONED' END
        INTO back FROM muster.certificate c WHERE c.device_id = d.id AND c.purpose = 'operational' AND c.status IN ('current', 'pending');
    UPDATE muster.device SET state = COALESCE(back, 'UNPROVISIONED'), quarantine_reason = NULL, failures = 0,
            verify_by = CASE WHEN back = 'VERIFY' THEN clock_timestamp() + interval '1 day' END
        WHERE id = d.id RETURNING * INTO d;
    RETURN muster.desk_device_done(op, d, 'release', NULL);
END $$;
COMMENT ON FUNCTION desk_device_release IS 'POST /devices/{serial}/release';

CREATE FUNCTION desk_device_reset(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device_must(op, a);
    revoke boolean := COALESCE((a->>'revoke')::boolean, false);
BEGIN
    IF d.state = 'QUARANTINE' THEN
        PERFORM muster.refuse('request.conflict', format('%s is in quarantine: release it first', d.serial));
    END IF;
    IF revoke THEN
        PERFORM muster.certificate_revoke(c.id, 'cessationOfOperation') FROM muster.certificate c
            WHERE c.device_id = d.id AND c.purpose = 'operational' AND c.status IN ('pending', 'current');
    END IF;
    UPDATE muster.device SET state = 'UNPROVISIONED', reset_at = clock_timestamp(), failures = 0, verify_by = NULL WHERE id = d.id RETURNING * INTO d;
    RETURN muster.desk_device_done(op, d, 'reset', CASE WHEN revoke THEN 'its certificates were revoked' END);
END $$;
COMMENT ON FUNCTION desk_device_reset IS 'POST /devices/{serial}/reset';

CREATE FUNCTION desk_device_retire(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device_must(op, a);
BEGIN
    PERFORM muster.certificate_revoke(c.id, 'cessationOfOperation') FROM muster.certificate c
        WHERE c.device_id = d.id AND c.status IN ('pending', 'current');
    UPDATE muster.device SET retired_at = clock_timestamp(), verify_by = NULL, reset_at = NULL WHERE id = d.id RETURNING * INTO d;
    RETURN muster.desk_device_done(op, d, 'retire', NULL);
END $$;
COMMENT ON FUNCTION desk_device_retire IS 'POST /devices/{serial}/retire';

CREATE FUNCTION desk_device_seen(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device_must(op, a);
    fp bytea;
    s record;
BEGIN
    SELECT c.fingerprint INTO fp FROM muster.certificate c WHERE c.device_id = d.id AND c.purpose = 'operational' AND c.status IN ('pending', 'current')
        AND (a->>'fingerprint' IS NULL OR c.fingerprint = decode(a->>'fingerprint', 'hex')) ORDER BY c.id DESC LIMIT 1;
    IF fp IS NULL THEN
        PERFORM muster.refuse('request.conflict', format('%s has no such live certificate', d.serial));
    END IF;
    SELECT * INTO s FROM muster.certificate_seen(fp, 'external', op->>'request', op->>'actor');
    IF s.code <> 'ok' THEN
        PERFORM muster.refuse('request.conflict', format('%s: %s', s.code, s.detail));
    END IF;
    PERFORM muster.desk_audit(op, 'device.seen', d.serial, jsonb_build_object('fingerprint', encode(fp, 'hex')));
    SELECT * INTO d FROM muster.device WHERE id = d.id;
    RETURN muster.device_json(d)::json;
END $$;
COMMENT ON FUNCTION desk_device_seen IS 'POST /devices/{serial}/seen';

-- Certificates

CREATE FUNCTION certificate_json(c certificate) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('fingerprint', encode(c.fingerprint, 'hex'), 'serial', d.serial, 'product', p.name, 'purpose', c.purpose,
        'status', c.status, 'issuer', i.name, 'serial_number', encode(c.serial_number, 'hex'), 'not_before', muster.utc(c.not_before),
        'not_after', muster.utc(c.not_after), 'issued_at', muster.utc(c.issued_at))
    FROM muster.device d, muster.product p, muster.ca i WHERE d.id = c.device_id AND p.id = d.product_id AND i.id = c.issuer_id
$$;
COMMENT ON FUNCTION certificate_json IS 'A certificate as the API lists it';

CREATE FUNCTION desk_certificate(op jsonb, a jsonb) RETURNS certificate LANGUAGE plpgsql AS $$
DECLARE
    c muster.certificate;
BEGIN
    SELECT x.* INTO c FROM muster.certificate x JOIN muster.device d ON d.id = x.device_id
        WHERE x.fingerprint = decode(a->>'fingerprint', 'hex') AND muster.desk_sees(op, d.product_id);
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no certificate %s', a->>'fingerprint'));
    END IF;
    RETURN c;
END $$;
COMMENT ON FUNCTION desk_certificate IS 'The certificate of a fingerprint';

CREATE FUNCTION desk_certificate_show(op jsonb, a jsonb) RETURNS json LANGUAGE sql AS $$
    SELECT (muster.certificate_json(c) || jsonb_build_object('template', t.name, 'template_version', c.template_version, 'request_id', c.request_id,
        'verified_at', muster.utc(c.verified_at), 'ended_at', muster.utc(c.ended_at), 'revoke_reason', c.revoke_reason, 'pem', muster.pem(x.der)))::json
    FROM muster.desk_certificate(op, a) c JOIN muster.template t ON t.id = c.template_id JOIN muster.certificate_der x ON x.certificate_id = c.id
$$;
COMMENT ON FUNCTION desk_certificate_show IS 'GET /certs/{fingerprint}';

CREATE FUNCTION desk_certificate_revoke(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    c muster.certificate := muster.desk_certificate(op, a);
    d muster.device;
    reason text := COALESCE(a->>'reason', 'unspecified');
BEGIN
    SELECT * INTO d FROM muster.device WHERE id = c.device_id FOR UPDATE;
    SELECT * INTO c FROM muster.certificate WHERE id = c.id;
    IF c.status = 'revoked' THEN
        PERFORM muster.refuse('request.conflict', format('revoked already (%s) at %s', c.revoke_reason, muster.utc(c.ended_at)));
    END IF;
    PERFORM muster.certificate_revoke(c.id, reason);
    -- the key is dead, so is every certificate over it
    PERFORM muster.certificate_revoke(x.id, reason) FROM muster.certificate x
        WHERE x.device_id = d.id AND x.spki_sha256 = c.spki_sha256 AND x.status IN ('pending', 'current');
    PERFORM muster.desk_audit(op, 'cert.revoke', a->>'fingerprint', jsonb_build_object('serial', d.serial, 'reason', reason));
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, source, outcome, detail, reached, state, fingerprint)
        VALUES (op->>'request', d.product_id, d.id, d.serial, 'admin', 'revoke', 'operator', op->>'actor', 'ok', reason, d.state, d.state, c.fingerprint);
    INSERT INTO muster.outbox (event, payload) VALUES ('certificate.revoked', jsonb_build_object('serial', d.serial, 'fingerprint', a->>'fingerprint', 'reason', reason));
    IF reason = 'keyCompromise' AND d.state <> 'QUARANTINE' AND d.retired_at IS NULL THEN
        UPDATE muster.device SET state = 'QUARANTINE', quarantine_reason = 'keyCompromise of ' || (a->>'fingerprint'), verify_by = NULL
            WHERE id = d.id RETURNING * INTO d;
        PERFORM muster.desk_device_done(op, d, 'quarantine', d.quarantine_reason);
    END IF;
    IF d.state IN ('VERIFY', 'PROVISIONED') AND NOT EXISTS (SELECT 1 FROM muster.certificate x
            WHERE x.device_id = d.id AND x.purpose = 'operational' AND x.status IN ('pending', 'current')) THEN
        UPDATE muster.device SET state = 'UNPROVISIONED', verify_by = NULL WHERE id = d.id;
    END IF;
    SELECT * INTO c FROM muster.certificate WHERE id = c.id;
    RETURN muster.certificate_json(c)::json;
END $$;
COMMENT ON FUNCTION desk_certificate_revoke IS 'POST /certs/{fingerprint}/revoke';

-- Attempts, status, admin tokens

CREATE FUNCTION desk_attempts(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    res json;
BEGIN
    SELECT json_agg((muster.history_json(h) || jsonb_build_object('product', p.name, 'steps', h.steps))::json ORDER BY h.at) INTO res
        FROM muster.history h LEFT JOIN muster.product p ON p.id = h.product_id
        WHERE h.request_id = a->>'request_id' AND muster.desk_sees(op, h.product_id);
    IF res IS NULL THEN
        PERFORM muster.refuse('object.not_found', format('no attempt has the request id %s; unauthenticated ones are only sampled', a->>'request_id'));
    END IF;
    RETURN res;
END $$;
COMMENT ON FUNCTION desk_attempts IS 'GET /attempts/{request_id}';

CREATE FUNCTION desk_status(op jsonb, a jsonb) RETURNS json LANGUAGE sql AS $$
    SELECT json_build_object('version', a->>'version', 'schema', (SELECT max(version) FROM muster.schema_migration),
        'time', muster.utc(clock_timestamp()),
        'devices', (SELECT COALESCE(json_object_agg(s.state, s.n), '{}') FROM (SELECT d.state, count(*) n FROM muster.device d
            WHERE muster.desk_sees(op, d.product_id) GROUP BY d.state ORDER BY d.state) s),
        'issuers', (SELECT COALESCE(json_agg(json_build_object('name', c.name, 'active', c.active, 'not_after', muster.utc(c.not_after)) ORDER BY c.name), '[]')
            FROM muster.ca c WHERE c.kind = 'issuing'))
$$;
COMMENT ON FUNCTION desk_status IS 'GET /status';

-- Gauges that only the registry knows: {"name": {"label": number}}; counted over indexes.
CREATE FUNCTION desk_gauges(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM muster.desk_unscoped(op);
    RETURN json_build_object(
        'devices', (SELECT COALESCE(json_object_agg(s.state, s.n), '{}') FROM (SELECT d.state, count(*) n FROM muster.device d GROUP BY d.state) s),
        'certificates_expiring', (SELECT json_object_agg(b.name, (SELECT count(*) FROM muster.certificate c WHERE c.status IN ('pending', 'current')
                AND c.not_after <= now() + b.within)) FROM (VALUES ('expired', interval '0'), ('7d', interval '7 days'), ('30d', interval '30 days'),
                ('90d', interval '90 days')) b(name, within)),
        'issuer_days_left', (SELECT COALESCE(json_object_agg(c.name, floor(extract(epoch FROM c.not_after - now()) / 86400)), '{}') FROM muster.ca c
                WHERE c.kind = 'issuing' AND c.active),
        'unknown_issuers', json_build_object('all', (SELECT count(*) FROM muster.unknown_issuer)),
        'verify_overdue', json_build_object('all', (SELECT count(*) FROM muster.device d WHERE d.state = 'VERIFY' AND d.verify_by < now())));
END $$;
COMMENT ON FUNCTION desk_gauges IS 'GET /metrics, the registry''s part';

-- One row a check; severity ok, warning or error.
CREATE FUNCTION doctor_row(name text, bad boolean, severity text, detail text, remedy text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('check', name, 'severity', CASE WHEN bad THEN severity ELSE 'ok' END, 'detail', detail,
        'remedy', CASE WHEN bad THEN remedy END)
$$;
COMMENT ON FUNCTION doctor_row IS 'A finding of the doctor';

-- a: clock (the replica's, microseconds since 1970), needs (schema number of the binary), default_template, issuers (names this
-- replica can sign with)
CREATE FUNCTION desk_doctor(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    found jsonb := '[]';
    drift numeric := abs(extract(epoch FROM clock_timestamp()) - (a->>'clock')::numeric / 1e6);
    n bigint;
    r record;
BEGIN
    PERFORM muster.desk_unscoped(op);
    SELECT max(version) INTO n FROM muster.schema_migration;
    found := found || muster.doctor_row('schema', n < (a->>'needs')::integer, 'error', format('the schema is at %s, the server needs %s', n, a->>'needs'), 'musterd migrate');
    found := found || muster.doctor_row('clock', drift > 2, CASE WHEN drift > 30 THEN 'error' ELSE 'warning' END,
        format('the clocks of server and database differ by %s s', round(drift, 1)), 'run a time service on both');
    SELECT count(*) INTO n FROM muster.ca c WHERE c.kind = 'issuing' AND c.active;
    found := found || muster.doctor_row('issuers', n = 0, 'error', format('%s issuing CAs are active', n), 'musterd init, or muster ca activate');
    FOR r IN SELECT c.name, floor(extract(epoch FROM c.not_after - now()) / 86400) AS days FROM muster.ca c WHERE c.kind IN ('issuing', 'root') AND c.active ORDER BY c.id LOOP
        found := found || muster.doctor_row('ca ' || r.name, r.days < 90, CASE WHEN r.days < 14 THEN 'error' ELSE 'warning' END,
            format('it ends in %s days', r.days), 'musterd add-issuer makes another issuing CA');
    END LOOP;
    FOR r IN SELECT c.name FROM muster.ca c WHERE c.kind = 'issuing' AND c.active AND NOT COALESCE(a->'issuers' ? c.name, false) LOOP
        found := found || muster.doctor_row('key of ' || r.name, true, 'error', 'this replica cannot sign with it', 'put its key into ca.directory, mode 0600');
    END LOOP;
    found := found || muster.doctor_row('default template', a->>'default_template' IS NOT NULL AND NOT EXISTS
            (SELECT 1 FROM muster.template t WHERE t.name = a->>'default_template' AND t.enabled), 'error',
        COALESCE(format('requests without label use %s', a->>'default_template'), 'none: requests without label are refused'), 'muster template put, or correct enrol.default_template');
    SELECT count(*) INTO n FROM muster.product p WHERE NOT EXISTS (SELECT 1 FROM muster.template t WHERE t.product_id = p.id AND t.enabled);
    found := found || muster.doctor_row('products', n > 0, 'warning', format('%s products have no enabled template', n), 'muster template list');
    SELECT count(*) INTO n FROM muster.device d WHERE d.state = 'VERIFY' AND d.verify_by < now();
    found := found || muster.doctor_row('stuck devices', n > 0, 'warning', format('%s devices have not used their certificate in time', n), 'muster device list --state VERIFY');
    SELECT count(*) INTO n FROM muster.outbox o WHERE o.event = 'quarantine.storm' AND o.at > now() - interval '1 day';
    found := found || muster.doctor_row('quarantine storm', n > 0, 'error', format('%s devices were spared within a day, because too many failed at once', n),
        'muster device list --state QUARANTINE; something they share is wrong');
    SELECT count(*) INTO n FROM muster.device d WHERE d.state = 'QUARANTINE';
    found := found || muster.doctor_row('quarantine', n > 0, 'warning', format('%s devices are in quarantine', n), 'muster device list --state QUARANTINE');
    SELECT count(*) INTO n FROM muster.unknown_issuer;
    found := found || muster.doctor_row('unknown issuers', n > 0, 'warning', format('%s issuers came that nobody registered', n), 'muster ca unknown, then register or dismiss');
    SELECT count(*) INTO n FROM muster.certificate c WHERE c.status = 'current' AND c.not_after < now() + interval '30 days';
    found := found || muster.doctor_row('certificates', n > 0, 'warning', format('%s certificates in use end within 30 days', n), 'muster cert list --status current --expires-before TIME');
    SELECT count(*) INTO n FROM unnest(ARRAY['history', 'outbox', 'audit']) t(name)
        WHERE to_regclass('muster.' || t.name || '_' || to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYYMM')) IS NULL;
    found := found || muster.doctor_row('partitions', n > 0, 'error', format('%s tables have no partition for next month', n), 'a replica''s background job makes them; read its log');
    RETURN found::json;
END $$;
COMMENT ON FUNCTION desk_doctor IS 'GET /doctor';

CREATE FUNCTION admin_token_json(t admin_token) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('name', t.name, 'role', t.role, 'product', (SELECT p.name FROM muster.product p WHERE p.id = t.product_id),
        'created_at', muster.utc(t.created_at), 'revoked_at', muster.utc(t.revoked_at))
$$;
COMMENT ON FUNCTION admin_token_json IS 'An admin token as the API shows it, without its text';

CREATE FUNCTION desk_admin_token_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.admin_token;
    p bigint;
BEGIN
    PERFORM muster.desk_unscoped(op);
    IF a->>'product' IS NOT NULL THEN
        SELECT x.id INTO p FROM muster.desk_product(op, a->>'product') x;
    END IF;
    INSERT INTO muster.admin_token (name, hash, role, product_id) VALUES (a->>'name', decode(a->>'hash', 'hex'), a->>'role', p)
        ON CONFLICT (name) DO NOTHING RETURNING * INTO t;
    IF t.id IS NULL THEN
        PERFORM muster.refuse('request.exists', format('admin token %s', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, 'admin_token.create', t.name, jsonb_build_object('role', t.role, 'product', a->>'product'));
    RETURN muster.admin_token_json(t)::json;
END $$;
COMMENT ON FUNCTION desk_admin_token_create IS 'POST /admin-tokens';

CREATE FUNCTION desk_admin_token_revoke(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.admin_token;
BEGIN
    PERFORM muster.desk_unscoped(op);
    UPDATE muster.admin_token SET revoked_at = COALESCE(revoked_at, clock_timestamp()) WHERE name = a->>'name' RETURNING * INTO t;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no admin token %s', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, 'admin_token.revoke', t.name);
    RETURN muster.admin_token_json(t)::json;
END $$;
COMMENT ON FUNCTION desk_admin_token_revoke IS 'POST /admin-tokens/{name}/revoke';
