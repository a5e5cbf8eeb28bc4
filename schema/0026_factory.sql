-- migration: 26
-- name: factory
-- oldest-binary: 1
-- transaction: yes
--
-- The factory's side of the registry: batches of devices whose certificates are made before the devices come, stations
-- that ask for them, and the journals of stations that work without a connection.

SET LOCAL search_path = muster;

CREATE TABLE factory_batch (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    product_id  bigint NOT NULL REFERENCES product,
    template_id bigint NOT NULL REFERENCES template,
    size        bigint CHECK (size > 0),
    certified   bigint NOT NULL DEFAULT 0,
    note        text CHECK (length(note) <= 256),
    closed_at   timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by  text NOT NULL,
    CHECK (size IS NULL OR certified <= size)
);
COMMENT ON TABLE factory_batch IS 'Devices that are made together, under one template';
COMMENT ON COLUMN factory_batch.id IS 'Registry number';
COMMENT ON COLUMN factory_batch.name IS 'How people and stations call it';
COMMENT ON COLUMN factory_batch.product_id IS 'Product line of its template';
COMMENT ON COLUMN factory_batch.template_id IS 'What its devices get';
COMMENT ON COLUMN factory_batch.size IS 'How many devices it may have; NULL: any number';
COMMENT ON COLUMN factory_batch.certified IS 'How many it has: rows of factory_unit';
COMMENT ON COLUMN factory_batch.note IS 'Free text';
COMMENT ON COLUMN factory_batch.closed_at IS 'When it was closed: nothing is certified for it since; NULL: it is open';
COMMENT ON COLUMN factory_batch.created_at IS 'When it was made';
COMMENT ON COLUMN factory_batch.created_by IS 'The operator';

CREATE TABLE factory_station (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    batch_id     bigint NOT NULL REFERENCES factory_batch,
    fingerprint  bytea NOT NULL UNIQUE CHECK (octet_length(fingerprint) = 32),
    certificate  bytea NOT NULL,
    subject      text NOT NULL,
    not_after    timestamptz NOT NULL,
    budget       bigint NOT NULL CHECK (budget > 0),
    certified    bigint NOT NULL DEFAULT 0,
    journal_n    bigint NOT NULL DEFAULT 0,
    journal_hash text NOT NULL DEFAULT repeat('0', 64),
    last_seen    timestamptz,
    revoked_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by   text NOT NULL,
    CHECK (certified <= budget)
);
COMMENT ON TABLE factory_station IS 'Whose client certificate may have devices of one batch certified, and whose journals are believed';
COMMENT ON COLUMN factory_station.id IS 'Registry number';
COMMENT ON COLUMN factory_station.name IS 'How people call it';
COMMENT ON COLUMN factory_station.batch_id IS 'The only batch it works for';
COMMENT ON COLUMN factory_station.fingerprint IS 'SHA-256 of its certificate, which is pinned: nobody vouches for it but the operator';
COMMENT ON COLUMN factory_station.certificate IS 'DER; its key seals the station''s journals';
COMMENT ON COLUMN factory_station.subject IS 'RFC 2253 name, for people';
COMMENT ON COLUMN factory_station.not_after IS 'End of the certificate';
COMMENT ON COLUMN factory_station.budget IS 'How many certificates it may have made';
COMMENT ON COLUMN factory_station.certified IS 'How many it has had made, those for units that were made again too; the same one again is not counted';
COMMENT ON COLUMN factory_station.journal_n IS 'Number of the last line of its journal that is here; 0: none';
COMMENT ON COLUMN factory_station.journal_hash IS 'SHA-256 of that line, which the next one names';
COMMENT ON COLUMN factory_station.last_seen IS 'When it asked last';
COMMENT ON COLUMN factory_station.revoked_at IS 'Since when it is refused; NULL: it is not';
COMMENT ON COLUMN factory_station.created_at IS 'When it was made';
COMMENT ON COLUMN factory_station.created_by IS 'The operator';

CREATE TABLE factory_unit (
    device_id    bigint PRIMARY KEY,
    batch_id     bigint NOT NULL,
    station_id   bigint,
    certified_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX factory_unit_batch ON factory_unit (batch_id, device_id);
COMMENT ON TABLE factory_unit IS 'Which devices a batch has; written with them, so without foreign keys';
COMMENT ON COLUMN factory_unit.device_id IS 'The device; it belongs to its first batch';
COMMENT ON COLUMN factory_unit.batch_id IS 'The batch';
COMMENT ON COLUMN factory_unit.station_id IS 'The station that asked; NULL: an operator';
COMMENT ON COLUMN factory_unit.certified_at IS 'When its first certificate was made';

CREATE TABLE factory_entry (
    station_id       bigint NOT NULL REFERENCES factory_station,
    n                bigint NOT NULL CHECK (n > 0),
    hash             text NOT NULL,
    written_at       timestamptz,
    serial           text,
    serial_canonical text,
    fingerprint      bytea,
    spki_sha256      bytea,
    problem          text,
    uploaded_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (station_id, n)
);
CREATE INDEX factory_entry_key ON factory_entry (spki_sha256);
COMMENT ON TABLE factory_entry IS 'Lines of stations'' journals, up to their last seals';
COMMENT ON COLUMN factory_entry.station_id IS 'Whose journal';
COMMENT ON COLUMN factory_entry.n IS 'Number of the line';
COMMENT ON COLUMN factory_entry.hash IS 'SHA-256 of the line';
COMMENT ON COLUMN factory_entry.written_at IS 'When, by the station''s clock';
COMMENT ON COLUMN factory_entry.serial IS 'The device, as the station spells it; NULL: a seal, or the line says nothing that can be used';
COMMENT ON COLUMN factory_entry.serial_canonical IS 'The same, canonical';
COMMENT ON COLUMN factory_entry.fingerprint IS 'SHA-256 of the certificate that was put into it';
COMMENT ON COLUMN factory_entry.spki_sha256 IS 'SHA-256 of its key';
COMMENT ON COLUMN factory_entry.problem IS 'Why its certificate was not registered when the line came: a fault''s code; NULL: it was, or is a seal';
COMMENT ON COLUMN factory_entry.uploaded_at IS 'When the line came';

CREATE TABLE factory_gap (
    station_id bigint NOT NULL REFERENCES factory_station,
    after_n    bigint NOT NULL,
    next_n     bigint NOT NULL,
    found_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (station_id, after_n),
    CHECK (next_n > after_n + 1)
);
COMMENT ON TABLE factory_gap IS 'Lines of a journal that never came';
COMMENT ON COLUMN factory_gap.station_id IS 'Whose journal';
COMMENT ON COLUMN factory_gap.after_n IS 'Number of the last line before the gap';
COMMENT ON COLUMN factory_gap.next_n IS 'Number of the first line behind it';
COMMENT ON COLUMN factory_gap.found_at IS 'When it was found';

-- The desk

CREATE FUNCTION desk_batch(op jsonb, batch text) RETURNS factory_batch LANGUAGE plpgsql STABLE AS $$
DECLARE
    b muster.factory_batch;
BEGIN
    SELECT * INTO b FROM muster.factory_batch x WHERE x.name = batch AND muster.desk_sees(op, x.product_id);
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no batch %s', batch));
    END IF;
    RETURN b;
END $$;
COMMENT ON FUNCTION desk_batch IS 'The batch of a name';

CREATE FUNCTION batch_json(b factory_batch) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('name', b.name, 'product', p.name, 'template', t.name, 'size', b.size, 'certified', b.certified,
        'state', CASE WHEN b.closed_at IS NOT NULL THEN 'closed' WHEN b.certified >= b.size THEN 'full' ELSE 'open' END,
        'note', b.note, 'closed_at', muster.utc(b.closed_at), 'created_at', muster.utc(b.created_at), 'created_by', b.created_by)
    FROM muster.product p, muster.template t WHERE p.id = b.product_id AND t.id = b.template_id
$$;
COMMENT ON FUNCTION batch_json IS 'A batch as the API shows it';

-- a: name, template, size, note
CREATE FUNCTION desk_batch_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    t muster.template := muster.desk_template(op, a->>'template');
    b muster.factory_batch;
BEGIN
    INSERT INTO muster.factory_batch (name, product_id, template_id, size, note, created_by)
        VALUES (a->>'name', t.product_id, t.id, (a->>'size')::bigint, a->>'note', op->>'actor')
        ON CONFLICT (name) DO NOTHING RETURNING * INTO b;
    IF b.id IS NULL THEN
        PERFORM muster.refuse('request.exists', format('batch %s', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, 'factory.create', b.name, a);
    RETURN muster.batch_json(b);
END $$;
COMMENT ON FUNCTION desk_batch_create IS 'POST /factory-batches';

CREATE FUNCTION desk_batch_close(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    b muster.factory_batch := muster.desk_batch(op, a->>'name');
BEGIN
    UPDATE muster.factory_batch SET closed_at = COALESCE(closed_at, clock_timestamp()) WHERE id = b.id RETURNING * INTO b;
    PERFORM muster.desk_audit(op, 'factory.close', b.name);
    RETURN muster.batch_json(b);
END $$;
COMMENT ON FUNCTION desk_batch_close IS 'POST /factory-batches/{name}/close';

CREATE FUNCTION station_json(s factory_station) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('name', s.name, 'batch', b.name,
        'state', CASE WHEN s.revoked_at IS NOT NULL THEN 'revoked' WHEN s.not_after <= clock_timestamp() THEN 'expired'
                      WHEN b.closed_at IS NOT NULL THEN 'closed' WHEN s.certified >= s.budget THEN 'exhausted' ELSE 'active' END,
        'budget', s.budget, 'certified', s.certified, 'subject', s.subject, 'fingerprint', encode(s.fingerprint, 'hex'),
        'not_after', muster.utc(s.not_after), 'journal_lines', s.journal_n, 'last_seen', muster.utc(s.last_seen),
        'revoked_at', muster.utc(s.revoked_at), 'created_at', muster.utc(s.created_at), 'created_by', s.created_by)
    FROM muster.factory_batch b WHERE b.id = s.batch_id
$$;
COMMENT ON FUNCTION station_json IS 'A station as the API shows it';

-- a: name, batch, budget, der, fingerprint, subject, not_after
CREATE FUNCTION desk_station_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    b muster.factory_batch := muster.desk_batch(op, a->>'batch');
    s muster.factory_station;
BEGIN
    INSERT INTO muster.factory_station (name, batch_id, fingerprint, certificate, subject, not_after, budget, created_by)
        VALUES (a->>'name', b.id, decode(a->>'fingerprint', 'hex'), decode(a->>'der', 'hex'), a->>'subject',
            to_timestamp((a->>'not_after')::bigint), (a->>'budget')::bigint, op->>'actor')
        ON CONFLICT DO NOTHING RETURNING * INTO s;
    IF s.id IS NULL THEN
        PERFORM muster.refuse('request.exists', format('a station of the name %s or with this certificate', a->>'name'));
    END IF;
    PERFORM muster.desk_audit(op, 'factory.station', s.name, jsonb_build_object('batch', b.name, 'budget', s.budget,
        'subject', s.subject, 'fingerprint', a->>'fingerprint'));
    RETURN muster.station_json(s);
END $$;
COMMENT ON FUNCTION desk_station_create IS 'POST /factory-stations';

CREATE FUNCTION desk_station(op jsonb, station text) RETURNS factory_station LANGUAGE plpgsql STABLE AS $$
DECLARE
    s muster.factory_station;
BEGIN
    SELECT x.* INTO s FROM muster.factory_station x JOIN muster.factory_batch b ON b.id = x.batch_id
        WHERE x.name = station AND muster.desk_sees(op, b.product_id);
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no station %s', station));
    END IF;
    RETURN s;
END $$;
COMMENT ON FUNCTION desk_station IS 'The station of a name';

CREATE FUNCTION desk_station_revoke(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    s muster.factory_station := muster.desk_station(op, a->>'name');
BEGIN
    UPDATE muster.factory_station SET revoked_at = COALESCE(revoked_at, clock_timestamp()) WHERE id = s.id RETURNING * INTO s;
    PERFORM muster.desk_audit(op, 'factory.station_revoke', s.name);
    RETURN muster.station_json(s);
END $$;
COMMENT ON FUNCTION desk_station_revoke IS 'POST /factory-stations/{name}/revoke';

-- Who works for which batch

CREATE TYPE factory_scope AS (
    station_id   bigint,  -- NULL: an operator
    station      text,
    batch_id     bigint,
    batch        text,
    product_id   bigint,
    template_id  bigint,
    certificate  bytea,   -- of the station
    journal_n    bigint,
    journal_hash text
);
COMMENT ON TYPE factory_scope IS 'For whom devices are certified or a journal is read';

CREATE FUNCTION factory_scope_of(s factory_station) RETURNS factory_scope LANGUAGE sql STABLE AS $$
    SELECT ROW(s.id, s.name, b.id, b.name, b.product_id, b.template_id, s.certificate, s.journal_n, s.journal_hash)::muster.factory_scope
    FROM muster.factory_batch b WHERE b.id = s.batch_id
$$;
COMMENT ON FUNCTION factory_scope_of IS 'What a station works for';

-- op NULL: a station is asking, with the certificate of this fingerprint.
CREATE FUNCTION factory_by_certificate(fp bytea) RETURNS factory_scope LANGUAGE plpgsql AS $$
DECLARE
    s muster.factory_station;
BEGIN
    UPDATE muster.factory_station SET last_seen = clock_timestamp()
        WHERE fingerprint = fp AND revoked_at IS NULL AND (last_seen IS NULL OR last_seen < clock_timestamp() - interval '10 s');
    SELECT * INTO s FROM muster.factory_station WHERE fingerprint = fp;
    IF NOT FOUND THEN
        PERFORM muster.refuse('station.unknown', 'no station has this client certificate');
    ELSIF s.revoked_at IS NOT NULL THEN
        PERFORM muster.refuse('station.revoked', format('station %s was revoked at %s', s.name, s.revoked_at));
    END IF;
    RETURN muster.factory_scope_of(s);
END $$;
COMMENT ON FUNCTION factory_by_certificate IS 'The station that asks';

CREATE FUNCTION factory_by_batch(op jsonb, batch text) RETURNS factory_scope LANGUAGE plpgsql STABLE AS $$
DECLARE
    b muster.factory_batch := muster.desk_batch(op, batch);
BEGIN
    RETURN ROW(NULL, NULL, b.id, b.name, b.product_id, b.template_id, NULL, 0, '')::muster.factory_scope;
END $$;
COMMENT ON FUNCTION factory_by_batch IS 'The batch that an operator names';

CREATE FUNCTION factory_by_station(op jsonb, station text) RETURNS factory_scope LANGUAGE plpgsql STABLE AS $$
DECLARE
    s muster.factory_station := muster.desk_station(op, station);
BEGIN
    IF s.revoked_at IS NOT NULL THEN -- whoever has its key may have written the journal
        PERFORM muster.refuse('station.revoked', format('station %s was revoked at %s', s.name, s.revoked_at));
    END IF;
    RETURN muster.factory_scope_of(s);
END $$;
COMMENT ON FUNCTION factory_by_station IS 'The station whose journal an operator carries';

-- Certifying

-- Devices nobody knows yet, whose keys and names nobody has: they are judged together. Others go the long way.
CREATE FUNCTION factory_fresh(rs enrol_request[]) RETURNS integer[] LANGUAGE sql STABLE
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
    SELECT COALESCE(array_agg(q.ord), '{}') FROM (
        SELECT r.ord, r.product_id, r.serial_canonical, r.spki, r.thing_name, r.allowlist_required, r.policies,
            count(*) OVER (PARTITION BY r.serial_canonical) AS same_serial, count(*) OVER (PARTITION BY r.spki) AS same_key,
            count(r.thing_name) OVER (PARTITION BY r.thing_name) AS same_name
        FROM unnest(rs) r) q
        LEFT JOIN muster.allowlist a ON a.product_id = q.product_id AND a.serial_canonical = q.serial_canonical
    WHERE q.same_serial = 1 AND q.same_key = 1 AND q.same_name <= 1
      AND CASE WHEN a.serial_canonical IS NULL THEN NOT q.allowlist_required ELSE NOT a.blocked AND (a.spki_pin IS NULL OR a.spki_pin = q.spki) END
      AND NOT EXISTS (SELECT 1 FROM muster.device d WHERE d.product_id = q.product_id AND d.serial_canonical = q.serial_canonical)
      AND NOT EXISTS (SELECT 1 FROM muster.key_owner k WHERE k.spki_sha256 = q.spki)
      AND NOT EXISTS (SELECT 1 FROM muster.thing t WHERE t.name = q.thing_name)
      AND NOT q.policies @? '$[*] ? (!exists(@.document) || @.document == null)'
$$;
COMMENT ON FUNCTION factory_fresh IS 'Numbers of the requests that enrol_write may write as they are';

ALTER TYPE enrol_request ADD ATTRIBUTE hearsay boolean; -- of jit: a station's journal tells of the certificate, nobody has shown its key

-- Who may have a certificate for a device that has had one: NULL where the judgement of an enrolment may begin. A unit that is
-- made again before its first certificate was used is daily work at a station; elsewhere somebody must say that it is meant.
CREATE FUNCTION factory_refusal(r enrol_request, s factory_scope, again boolean) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    device bigint;
BEGIN
    SELECT d.id INTO device FROM muster.device d WHERE d.product_id = r.product_id AND d.serial_canonical = r.serial_canonical;
    IF NOT EXISTS (SELECT 1 FROM muster.certificate c WHERE c.device_id = device AND c.purpose = 'operational')
       OR EXISTS (SELECT 1 FROM muster.certificate c WHERE c.device_id = device AND c.purpose = 'operational'
                  AND c.status IN ('pending', 'current') AND c.spki_sha256 = r.spki) THEN
        RETURN NULL;
    ELSIF NOT EXISTS (SELECT 1 FROM muster.factory_unit u WHERE u.device_id = device AND u.batch_id = s.batch_id) THEN
        RETURN format('the device has a certificate, and is not of batch %s', s.batch);
    ELSIF NOT again THEN
        RETURN 'the unit has a certificate for another key, and nobody said that it is made again';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION factory_refusal IS 'Why a device that has had a certificate gets none here; NULL: it may';

-- One by one, as an enrolment.
CREATE FUNCTION factory_one(r enrol_request, s factory_scope, again boolean) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    res muster.enrol_result;
    why text := muster.factory_refusal(r, s, again);
BEGIN
    IF why IS NOT NULL THEN
        res.ord := r.ord;
        res.code := 'device.key_conflict';
        res.detail := why;
        res.proven := false;
        RETURN res;
    END IF;
    r.replace := again;
    res := muster.enrol_one(r);
    IF res.device_id IS NULL THEN
        RETURN res;
    END IF;
    r.device_id := res.device_id;
    r.certificate_id := nextval('muster.certificate_id_seq');
    r.new_state := res.state;
    BEGIN
        PERFORM muster.enrol_write(ARRAY[r]);
    EXCEPTION WHEN unique_violation THEN -- somebody was faster; now it can be seen
        res := muster.enrol_one(r);
        IF res.device_id IS NOT NULL THEN
            res.device_id := NULL;
            res.code := 'device.busy';
            res.detail := 'the device, its key or its name is being enrolled';
        END IF;
    END;
    RETURN res;
END $$;
COMMENT ON FUNCTION factory_one IS 'Certifies one device by itself';

-- Together; false: somebody was faster with one of them.
CREATE FUNCTION factory_write(rs enrol_request[]) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM muster.enrol_write(rs);
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END $$;
COMMENT ON FUNCTION factory_write IS 'Certifies devices together';

ALTER TYPE enrol_request ADD ATTRIBUTE der_at integer;  -- where its certificate stands among those of many
ALTER TYPE enrol_request ADD ATTRIBUTE der_len integer;

CREATE FUNCTION factory_number(r enrol_request, ders bytea) RETURNS enrol_request LANGUAGE plpgsql AS $$
BEGIN
    r.certificate := substring(ders FROM r.der_at + 1 FOR r.der_len);
    r.device_id := nextval('muster.device_id_seq');
    r.certificate_id := nextval('muster.certificate_id_seq');
    r.new_state := CASE WHEN r.verify = 'none' THEN 'PROVISIONED' ELSE 'VERIFY' END;
    RETURN r;
END $$;
COMMENT ON FUNCTION factory_number IS 'Gives a request its certificate and the registry numbers of what it is about to be';

-- The budgets of batch and station: all of the request or none of it. Their rows are locked from here to the commit, which
-- waits for nobody any more.
CREATE FUNCTION factory_count(s factory_scope, made bigint, certificates bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    b muster.factory_batch;
    t muster.factory_station;
BEGIN
    SELECT * INTO b FROM muster.factory_batch WHERE id = s.batch_id FOR NO KEY UPDATE;
    IF b.closed_at IS NOT NULL THEN
        PERFORM muster.refuse('factory.batch_closed', format('batch %s', b.name));
    ELSIF b.certified + made > b.size THEN
        PERFORM muster.refuse('factory.budget_exhausted', format('batch %s may have %s devices and has %s', b.name, b.size, b.certified));
    END IF;
    UPDATE muster.factory_batch SET certified = certified + made WHERE id = b.id AND made > 0;
    IF s.station_id IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO t FROM muster.factory_station WHERE id = s.station_id FOR NO KEY UPDATE;
    IF t.revoked_at IS NOT NULL THEN
        PERFORM muster.refuse('station.revoked', format('station %s', t.name));
    ELSIF t.certified + certificates > t.budget AND certificates > 0 THEN
        PERFORM muster.refuse('factory.budget_exhausted', format('station %s may have %s certificates made and has had %s', t.name, t.budget, t.certified));
    END IF;
    UPDATE muster.factory_station SET certified = certified + certificates WHERE id = t.id AND certificates > 0;
END $$;
COMMENT ON FUNCTION factory_count IS 'Counts devices against what their batch may have, and certificates against what the station may';

-- base: what the requests have in common; ders: their certificates, one behind the other. Requests for one batch are judged and
-- written beside each other; devices are taken in one order.
CREATE FUNCTION factory_certify(op jsonb, s factory_scope, base jsonb, requests jsonb, ders bytea, again boolean) RETURNS SETOF enrol_result LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    rs muster.enrol_request[];
    fresh integer[];
    together muster.enrol_request[] := '{}';
    r muster.enrol_request;
    done muster.enrol_result[] := '{}';
    made bigint;
BEGIN
    rs := ARRAY(SELECT muster.factory_number(q, ders)
        FROM jsonb_populate_recordset(jsonb_populate_record(NULL::muster.enrol_request, base), requests) q ORDER BY q.serial_canonical, q.ord);
    IF EXISTS (SELECT 1 FROM muster.allowlist a WHERE a.product_id = s.product_id) THEN
        PERFORM 1 FROM muster.allowlist a, unnest(rs) q WHERE a.product_id = q.product_id AND a.serial_canonical = q.serial_canonical
            ORDER BY a.serial_canonical FOR UPDATE OF a;
    END IF;
    fresh := muster.factory_fresh(rs);
    together := CASE WHEN cardinality(fresh) = cardinality(rs) THEN rs ELSE ARRAY(SELECT q FROM unnest(rs) q WHERE q.ord = ANY (fresh)) END;
    IF cardinality(together) > 0 AND NOT muster.factory_write(together) THEN
        together := '{}';
        fresh := '{}';
    END IF;
    FOR r IN SELECT q.* FROM unnest(rs) q WHERE cardinality(fresh) < cardinality(rs) AND NOT q.ord = ANY (fresh) LOOP
        done := done || muster.factory_one(r, s, again);
    END LOOP;
    WITH new AS (
        INSERT INTO muster.factory_unit (device_id, batch_id, station_id)
            SELECT q.device_id, s.batch_id, s.station_id FROM unnest(together) q
            UNION SELECT d.id, s.batch_id, s.station_id FROM unnest(done) x JOIN unnest(rs) q ON q.ord = x.ord
                JOIN muster.device d ON d.product_id = q.product_id AND d.serial_canonical = q.serial_canonical
                WHERE x.code IN ('ok', 'replayed')
            ON CONFLICT DO NOTHING RETURNING 1)
    SELECT count(*) INTO made FROM new;
    PERFORM muster.factory_count(s, made, cardinality(together) + (SELECT count(*) FROM unnest(done) x WHERE x.code = 'ok'));
    IF op IS NOT NULL THEN
        PERFORM muster.desk_audit(op, 'factory.certify', s.batch, jsonb_build_object('requests', cardinality(rs), 'devices', made));
    END IF;
    RETURN QUERY SELECT q.ord, 'ok', '', false, NULL::bytea, q.fingerprint, q.new_state, q.device_id, NULL::bigint, NULL::boolean, NULL::jsonb
        FROM unnest(together) q;
    RETURN QUERY SELECT x.* FROM unnest(done) x;
END $$;
COMMENT ON FUNCTION factory_certify IS 'Certifies devices of a batch: all that is written for them, in one transaction; refusals are each their own';

-- Journals

-- Which line of a journal is here already: NULL none, else its hash.
CREATE FUNCTION factory_entries_known(station bigint, first_n bigint, last_n bigint) RETURNS TABLE (n bigint, hash text) LANGUAGE sql STABLE AS $$
    SELECT e.n, e.hash FROM muster.factory_entry e WHERE e.station_id = station AND e.n BETWEEN first_n AND last_n ORDER BY e.n
$$;
COMMENT ON FUNCTION factory_entries_known IS 'Lines of a journal that are here';

-- lines: n, hash, at, serial, serial_canonical, fingerprint, spki, problem; gaps: after, next. The head moves forward only.
CREATE FUNCTION factory_entries_put(op jsonb, s factory_scope, lines jsonb, gaps jsonb, head_n bigint, head_hash text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moved boolean;
    most bigint := (SELECT 10 * budget + 1000 FROM muster.factory_station WHERE id = s.station_id);
BEGIN
    IF head_n > most THEN
        PERFORM muster.refuse('factory.budget_exhausted', format('the journal of station %s may have %s lines', s.station, most));
    END IF;
    UPDATE muster.factory_station SET journal_n = head_n, journal_hash = head_hash
        WHERE id = s.station_id AND journal_n = s.journal_n AND journal_hash = s.journal_hash RETURNING true INTO moved;
    IF moved IS NULL THEN
        PERFORM muster.refuse('journal.busy', format('another upload of the journal of station %s is under way', s.station));
    END IF;
    INSERT INTO muster.factory_entry (station_id, n, hash, written_at, serial, serial_canonical, fingerprint, spki_sha256, problem)
        SELECT s.station_id, x.n, x.hash, to_timestamp(x.at), x.serial, x.serial_canonical, decode(x.fingerprint, 'hex'), decode(x.spki, 'hex'), x.problem
        FROM jsonb_to_recordset(lines) x(n bigint, hash text, at bigint, serial text, serial_canonical text, fingerprint text, spki text, problem text);
    INSERT INTO muster.factory_gap (station_id, after_n, next_n)
        SELECT s.station_id, x."after", x.next FROM jsonb_to_recordset(gaps) x("after" bigint, next bigint) ON CONFLICT DO NOTHING;
    IF op IS NOT NULL THEN
        PERFORM muster.desk_audit(op, 'factory.journal', s.station, jsonb_build_object('lines', jsonb_array_length(lines), 'gaps', jsonb_array_length(gaps)));
    END IF;
END $$;
COMMENT ON FUNCTION factory_entries_put IS 'Records lines of a journal up to a seal';

-- Reconciling. Everything is judged by the registry as it is now: what JITP has repaired meanwhile is no finding any more.
CREATE VIEW factory_finding AS
    SELECT e.station_id, e.n, e.serial, encode(e.fingerprint, 'hex') AS fingerprint,
        CASE WHEN d.product_id = b.product_id AND d.serial_canonical = e.serial_canonical THEN
                  CASE WHEN c.status IN ('revoked', 'superseded') AND c.verified_at IS NULL THEN 'cert.revoked' END
             WHEN c.id IS NOT NULL THEN 'serial.mismatch'
             WHEN EXISTS (SELECT 1 FROM muster.device o WHERE o.id = k.device_id AND (o.product_id, o.serial_canonical) <> (b.product_id, e.serial_canonical))
                 THEN 'key.reused'
             WHEN EXISTS (SELECT 1 FROM muster.factory_entry o JOIN muster.factory_station os ON os.id = o.station_id JOIN muster.factory_batch ob ON ob.id = os.batch_id
                          WHERE o.spki_sha256 = e.spki_sha256 AND (ob.product_id, o.serial_canonical) <> (b.product_id, e.serial_canonical)) THEN 'key.reused'
             ELSE COALESCE(e.problem, 'cert.unknown') END AS problem
    FROM muster.factory_entry e
        JOIN muster.factory_station s ON s.id = e.station_id
        JOIN muster.factory_batch b ON b.id = s.batch_id
        LEFT JOIN muster.certificate c ON c.fingerprint = e.fingerprint
        LEFT JOIN muster.device d ON d.id = c.device_id
        LEFT JOIN muster.key_owner k ON k.spki_sha256 = e.spki_sha256
    WHERE e.serial IS NOT NULL OR e.problem IS NOT NULL;
COMMENT ON VIEW factory_finding IS 'Lines of journals and what is wrong with their devices now; problem NULL: nothing';

-- a: name, silent_s. Lists are cut at a thousand; the counts are whole.
CREATE FUNCTION desk_factory_reconcile(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    b muster.factory_batch := muster.desk_batch(op, a->>'name');
    res json;
BEGIN
    WITH stations AS MATERIALIZED (SELECT s.* FROM muster.factory_station s WHERE s.batch_id = b.id),
    findings AS MATERIALIZED (
        SELECT s.name AS station, f.n, f.serial, f.fingerprint, f.problem
        FROM stations s JOIN muster.factory_finding f ON f.station_id = s.id WHERE f.problem IS NOT NULL),
    silent AS MATERIALIZED (
        SELECT d.serial, u.certified_at FROM muster.factory_unit u JOIN muster.device d ON d.id = u.device_id
        WHERE u.batch_id = b.id AND u.certified_at <= clock_timestamp() - make_interval(secs => COALESCE((a->>'silent_s')::bigint, 0))
          AND NOT EXISTS (SELECT 1 FROM muster.certificate c WHERE c.device_id = d.id AND c.purpose = 'operational' AND c.verified_at IS NOT NULL)),
    gaps AS MATERIALIZED (SELECT s.name AS station, g.after_n, g.next_n FROM stations s JOIN muster.factory_gap g ON g.station_id = s.id)
    SELECT json_build_object('batch', b.name, 'certified', b.certified,
        'journal_lines', (SELECT count(*) FROM stations s JOIN muster.factory_entry e ON e.station_id = s.id WHERE e.serial IS NOT NULL),
        'not_registered', (SELECT count(*) FROM findings WHERE problem NOT IN ('key.reused', 'serial.mismatch', 'cert.revoked')),
        'duplicate_key', (SELECT count(*) FROM findings WHERE problem = 'key.reused'),
        'ended_unused', (SELECT count(*) FROM findings WHERE problem = 'cert.revoked'),
        'other_serial', (SELECT count(*) FROM findings WHERE problem = 'serial.mismatch'),
        'missing_lines', (SELECT COALESCE(sum(next_n - after_n - 1), 0) FROM gaps),
        'never_connected', (SELECT count(*) FROM silent),
        'findings', (SELECT COALESCE(json_agg(x), '[]') FROM (SELECT * FROM findings ORDER BY station, n LIMIT 1000) x),
        'gaps', (SELECT COALESCE(json_agg(x), '[]') FROM (SELECT * FROM gaps ORDER BY station, after_n LIMIT 1000) x),
        'silent', (SELECT COALESCE(json_agg(x.serial), '[]') FROM (SELECT * FROM silent ORDER BY serial LIMIT 1000) x)) INTO res;
    RETURN res;
END $$;
COMMENT ON FUNCTION desk_factory_reconcile IS 'GET /factory-batches/{name}/reconcile';
