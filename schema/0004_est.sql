-- migration: 4
-- name: est
-- oldest-binary: 1
-- transaction: yes
--
-- Enrolments that wait for an operator, and certificates that lead from one root to the next.

SET LOCAL search_path = muster;

ALTER TABLE ca DROP CONSTRAINT ca_kind_check;
ALTER TABLE ca ADD CONSTRAINT ca_kind_check CHECK (kind IN ('root', 'issuing', 'registered', 'helper', 'rollover'));
COMMENT ON COLUMN ca.kind IS 'root and issuing are ours; rollover: one of our roots signed by another, told to clients and nothing else; registered vouches for factory certificates; helper only completes chains';

CREATE TABLE approval (
    device_id    bigint PRIMARY KEY REFERENCES device,
    spki_sha256  bytea CHECK (length(spki_sha256) = 32),
    request_id   text NOT NULL,
    template     text NOT NULL,
    credential   text NOT NULL,
    token_id     bigint REFERENCES token,
    source       text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    asked        bigint NOT NULL DEFAULT 1,
    last_asked   timestamptz NOT NULL DEFAULT clock_timestamp(),
    decision     text CHECK (decision IN ('approved', 'rejected')),
    decided_at   timestamptz,
    decided_by   text,
    reason       text CHECK (length(reason) <= 256),
    CHECK ((decision IS NULL) = (decided_at IS NULL)),
    CHECK ((decision IS NULL) = (decided_by IS NULL))
);
COMMENT ON TABLE approval IS 'Enrolments that wait for an operator, at most one a device; goes with the enrolment it allows';
COMMENT ON COLUMN approval.device_id IS 'The device';
COMMENT ON COLUMN approval.spki_sha256 IS 'The key that waits: only it is approved; NULL: a key that the server will make';
COMMENT ON COLUMN approval.request_id IS 'The request that asked first';
COMMENT ON COLUMN approval.template IS 'Template name and version';
COMMENT ON COLUMN approval.credential IS 'Kind of the credential';
COMMENT ON COLUMN approval.token_id IS 'The token, for its uses: no more may wait than it could give';
COMMENT ON COLUMN approval.source IS 'Source address of the first request';
COMMENT ON COLUMN approval.requested_at IS 'When it was asked first';
COMMENT ON COLUMN approval.asked IS 'How often';
COMMENT ON COLUMN approval.last_asked IS 'The last time';
COMMENT ON COLUMN approval.decision IS 'NULL: nobody has decided';
COMMENT ON COLUMN approval.decided_at IS 'When it was decided';
COMMENT ON COLUMN approval.decided_by IS 'By which admin token';
COMMENT ON COLUMN approval.reason IS 'Why it was rejected';
CREATE INDEX approval_waiting_idx ON approval (requested_at) WHERE decision IS NULL;
CREATE INDEX approval_token_idx ON approval (token_id);

ALTER TYPE enrol_request ADD ATTRIBUTE approval boolean;   -- the template wants an operator's word
ALTER TYPE enrol_request ADD ATTRIBUTE server_key boolean; -- the key was made here, another one every time

-- Whether the enrolment may go on. Nothing has been consumed yet, and nothing is while it waits.
CREATE FUNCTION enrol_approval(r enrol_request, d device, v token_verdict, bound boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    a muster.approval;
    key bytea := CASE WHEN r.server_key THEN NULL ELSE r.spki END;
BEGIN
    SELECT * INTO a FROM muster.approval WHERE device_id = d.id;
    IF a.decision = 'rejected' THEN
        PERFORM muster.refuse('approval.rejected', format('rejected by %s at %s: %s', a.decided_by, a.decided_at, COALESCE(a.reason, 'no reason given')));
    ELSIF a.device_id IS NOT NULL AND a.spki_sha256 IS NOT DISTINCT FROM key THEN
        IF a.decision = 'approved' THEN
            DELETE FROM muster.approval WHERE device_id = d.id;
            RETURN true;
        END IF;
        UPDATE muster.approval SET asked = asked + 1, last_asked = clock_timestamp() WHERE device_id = d.id;
        RETURN false;
    ELSIF a.device_id IS NOT NULL AND NOT bound THEN
        -- whoever else holds a shared credential must not slip in a key between look and word
        PERFORM muster.refuse('device.key_conflict', format('another key waits for approval since %s', a.requested_at));
    END IF;
    DELETE FROM muster.approval WHERE device_id = d.id;
    IF EXISTS (SELECT 1 FROM muster.token t WHERE t.id = v.token_id AND NOT v.comeback
               AND t.uses + (SELECT count(*) FROM muster.approval w WHERE w.token_id = t.id) >= t.max_uses) THEN
        PERFORM muster.refuse('token.consumed', format('as many enrolments wait as token %s has certificates left to give', v.token_id));
    END IF;
    INSERT INTO muster.approval (device_id, spki_sha256, request_id, template, credential, token_id, source)
        VALUES (d.id, key, r.request_id, r.template_label, r.credential, v.token_id, r.source);
    IF d.state IN ('UNPROVISIONED', 'BOOTSTRAP') THEN
        UPDATE muster.device SET state = 'ENROLL' WHERE id = d.id RETURNING * INTO d;
    END IF;
    INSERT INTO muster.history (request_id, product_id, device_id, serial, protocol, operation, credential, source, template, outcome, reached, state, steps)
        VALUES (r.request_id, r.product_id, d.id, r.serial, r.protocol, r.operation, r.credential, r.source, r.template_label, 'approval.pending', 'ENROLL', d.state, r.steps);
    INSERT INTO muster.outbox (event, payload) VALUES ('device.approval_requested',
        jsonb_build_object('serial', r.serial, 'template', r.template_label, 'key', encode(key, 'hex'), 'request_id', r.request_id));
    RETURN false;
END $$;
COMMENT ON FUNCTION enrol_approval IS 'Judges an enrolment whose template wants an operator''s word; false: it waits';

CREATE OR REPLACE FUNCTION enrol_first(r enrol_request, v token_verdict) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    pend muster.certificate;
    cur muster.certificate;
    live muster.certificate;
    existed boolean;
    made bigint;
    res muster.enrol_result;
    proven boolean := r.credential = 'factory' OR COALESCE(v.bound, false);
BEGIN
    PERFORM muster.enrol_allowlist(r);
    INSERT INTO muster.device (product_id, serial, serial_canonical, state, template_id, template_version)
        VALUES (r.product_id, r.serial, r.serial_canonical, 'UNPROVISIONED', r.template_id, r.template_version)
        ON CONFLICT DO NOTHING;
    SELECT * INTO d FROM muster.device
        WHERE product_id = r.product_id AND serial_canonical = r.serial_canonical FOR UPDATE;
    PERFORM muster.enrol_device_check(d);
    IF r.credential = 'factory' THEN
        PERFORM muster.enrol_factory(r, d.id);
    END IF;
    PERFORM muster.enrol_key(r, d.id);
    SELECT * INTO pend FROM muster.certificate WHERE device_id = d.id AND purpose = 'operational' AND status = 'pending';
    SELECT * INTO cur FROM muster.certificate WHERE device_id = d.id AND purpose = 'operational' AND status = 'current';
    existed := pend.id IS NOT NULL OR cur.id IS NOT NULL OR d.state NOT IN ('UNPROVISIONED', 'BOOTSTRAP', 'ENROLL');
    IF pend.spki_sha256 = r.spki THEN live := pend; ELSIF cur.spki_sha256 = r.spki THEN live := cur; END IF;
    IF live.id IS NOT NULL THEN
        IF live.not_after - make_interval(secs => r.renew_before_s) > clock_timestamp() THEN
            RETURN muster.enrol_replay(r, d, live, proven);
        END IF;
    ELSIF d.state <> 'UNPROVISIONED' OR d.last_seen IS NOT NULL THEN
        PERFORM muster.enrol_takeover(r, d, v, pend, cur);
    END IF;
    IF r.approval AND NOT muster.enrol_approval(r, d, v, proven) THEN
        SELECT r.ord, 'approval.pending', format('device %s waits for an operator', r.serial), proven, NULL::bytea, NULL::bytea, d.state INTO res;
        RETURN res;
    END IF;
    -- a key that the current certificate still needs, or this request, does not die with a pending one
    IF pend.id IS NOT NULL AND (pend.spki_sha256 = r.spki OR pend.spki_sha256 = cur.spki_sha256) THEN
        UPDATE muster.certificate SET status = 'superseded', ended_at = clock_timestamp() WHERE id = pend.id;
    ELSIF pend.id IS NOT NULL THEN
        PERFORM muster.certificate_revoke(pend.id, 'superseded');
    END IF;
    PERFORM muster.enrol_register(r, d, existed);
    made := muster.enrol_certificate(r, d.id, COALESCE(cur.id, pend.id));
    PERFORM muster.enrol_policies(r, made);
    IF v.token_id IS NOT NULL THEN
        IF NOT v.comeback THEN
            UPDATE muster.token SET uses = uses + 1 WHERE id = v.token_id;
        END IF;
        INSERT INTO muster.token_use (token_id, device_id, certificate_id) VALUES (v.token_id, d.id, made)
            ON CONFLICT (token_id, device_id) DO UPDATE SET certificate_id = made,
                used_at = CASE WHEN v.comeback THEN token_use.used_at ELSE clock_timestamp() END;
    END IF;
    SELECT r.ord, 'ok', '', proven, NULL::bytea, r.fingerprint, muster.enrol_finish(r, d, existed) INTO res;
    IF r.verify = 'none' THEN
        PERFORM muster.certificate_used(made); -- nothing else will ever say so
    END IF;
    RETURN res;
END $$;

-- A key is dear to make: credential, serial and waiting are judged before as they will be judged again.
CREATE FUNCTION enrol_keygen_check(request jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r muster.enrol_request := jsonb_populate_record(NULL::muster.enrol_request, request);
BEGIN
    IF r.credential = 'token' THEN
        PERFORM muster.enrol_token(r);
    END IF;
    IF r.credential <> 'device' THEN
        PERFORM muster.enrol_allowlist(r);
    END IF;
    IF r.approval THEN
        UPDATE muster.approval w SET asked = asked + 1, last_asked = clock_timestamp() FROM muster.device d
            WHERE d.product_id = r.product_id AND d.serial_canonical = r.serial_canonical AND w.device_id = d.id
              AND w.decision IS NULL AND w.spki_sha256 IS NULL;
        IF FOUND THEN
            RETURN 'approval.pending';
        END IF;
    END IF;
    RETURN 'ok';
END $$;
COMMENT ON FUNCTION enrol_keygen_check IS 'Whether a key is worth making for an enrolment: ok or approval.pending; refuses like the enrolment would';

-- The desk

CREATE FUNCTION approval_json(a approval) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('state', COALESCE(a.decision, 'pending'), 'key', encode(a.spki_sha256, 'hex'), 'request_id', a.request_id,
        'template', a.template, 'credential', a.credential, 'source', a.source, 'requested_at', muster.utc(a.requested_at), 'asked', a.asked,
        'last_asked', muster.utc(a.last_asked), 'decided_at', muster.utc(a.decided_at), 'decided_by', a.decided_by, 'reason', a.reason)
$$;
COMMENT ON FUNCTION approval_json IS 'An enrolment that waits, as the API shows it';

-- a: serial, product, key (hex or null), reason; decision
CREATE FUNCTION desk_device_decide(op jsonb, a jsonb, word text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    d muster.device := muster.desk_device_must(op, a);
    w muster.approval;
    what text := CASE word WHEN 'approved' THEN 'approve' ELSE 'reject' END;
BEGIN
    SELECT * INTO w FROM muster.approval WHERE device_id = d.id;
    IF NOT FOUND THEN
        PERFORM muster.refuse('request.conflict', format('%s does not wait for approval', d.serial));
    ELSIF a->>'key' IS NOT NULL AND w.spki_sha256 IS DISTINCT FROM decode(a->>'key', 'hex') THEN
        PERFORM muster.refuse('request.conflict', format('another key of %s waits: %s', d.serial, COALESCE(encode(w.spki_sha256, 'hex'), 'one that the server will make')));
    END IF;
    UPDATE muster.approval SET decision = word, decided_at = clock_timestamp(), decided_by = op->>'actor', reason = a->>'reason' WHERE device_id = d.id;
    RETURN muster.desk_device_done(op, d, what, COALESCE(a->>'reason', 'key ' || COALESCE(encode(w.spki_sha256, 'hex'), 'to be made by the server')));
END $$;
COMMENT ON FUNCTION desk_device_decide IS 'An operator''s word on an enrolment that waits';

CREATE FUNCTION desk_device_approve(op jsonb, a jsonb) RETURNS json LANGUAGE sql AS $$ SELECT muster.desk_device_decide(op, a, 'approved') $$;
COMMENT ON FUNCTION desk_device_approve IS 'POST /devices/{serial}/approve';
CREATE FUNCTION desk_device_reject(op jsonb, a jsonb) RETURNS json LANGUAGE sql AS $$ SELECT muster.desk_device_decide(op, a, 'rejected') $$;
COMMENT ON FUNCTION desk_device_reject IS 'POST /devices/{serial}/reject';

CREATE OR REPLACE FUNCTION desk_device_show(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
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
            'approval', (SELECT muster.approval_json(w) FROM muster.approval w WHERE w.device_id = d.id),
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

-- A reset and a retirement end what waits.
CREATE FUNCTION approval_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM muster.approval WHERE device_id = NEW.id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION approval_end IS 'Ends the waiting of a device that was reset or retired';
CREATE TRIGGER device_approval_end AFTER UPDATE OF reset_at, retired_at ON device FOR EACH ROW
    WHEN (NEW.reset_at IS DISTINCT FROM OLD.reset_at AND NEW.reset_at IS NOT NULL OR NEW.retired_at IS DISTINCT FROM OLD.retired_at)
    EXECUTE FUNCTION approval_end();
