-- migration: 17
-- name: events
-- oldest-binary: 1
-- transaction: yes
--
-- Lifecycle events: from the outbox to topics and webhooks.

SET LOCAL search_path = muster;

-- A row's place is (xid, id): below the oldest transaction under way nothing new appears.
ALTER TABLE outbox ADD COLUMN xid xid8;
ALTER TABLE outbox ALTER COLUMN xid SET DEFAULT pg_current_xact_id();
COMMENT ON COLUMN outbox.xid IS 'The transaction that wrote it; NULL: written before events were delivered, and never is';
CREATE INDEX outbox_order_idx ON outbox (xid, id);

CREATE TABLE event_sink (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    kind        text NOT NULL CHECK (kind IN ('mqtt', 'webhook')),
    url         text CHECK (length(url) <= 1024),
    events      text[] NOT NULL DEFAULT '{*}',
    paused      boolean NOT NULL DEFAULT false,
    after_xid   xid8 NOT NULL DEFAULT pg_current_xact_id(),
    after_id    bigint NOT NULL DEFAULT 0,
    delivered   bigint NOT NULL DEFAULT 0,
    failed      bigint NOT NULL DEFAULT 0,
    failures    integer NOT NULL DEFAULT 0,
    next_try    timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error  text CHECK (length(last_error) <= 256),
    owner       text,
    owned_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((kind = 'webhook') = (url IS NOT NULL))
);
COMMENT ON TABLE event_sink IS 'Who is told of events: the broker''s topics, and webhooks; each goes through the outbox at its own pace';
COMMENT ON COLUMN event_sink.id IS 'Registry number';
COMMENT ON COLUMN event_sink.name IS 'Name as operators write it';
COMMENT ON COLUMN event_sink.kind IS 'mqtt: topics at the broker; webhook: HTTP POST';
COMMENT ON COLUMN event_sink.url IS 'Where to';
COMMENT ON COLUMN event_sink.events IS 'Names of events, with * at the end of one; others are passed over';
COMMENT ON COLUMN event_sink.paused IS 'Nothing is delivered until an operator resumes it';
COMMENT ON COLUMN event_sink.after_xid IS 'The last event that was taken over: its transaction';
COMMENT ON COLUMN event_sink.after_id IS 'And its number';
COMMENT ON COLUMN event_sink.delivered IS 'How many were delivered';
COMMENT ON COLUMN event_sink.failed IS 'How many attempts failed';
COMMENT ON COLUMN event_sink.failures IS 'How many failed in a row because nobody was there';
COMMENT ON COLUMN event_sink.next_try IS 'When it is asked again';
COMMENT ON COLUMN event_sink.last_error IS 'Why the last attempt failed';
COMMENT ON COLUMN event_sink.owner IS 'The replica that delivers';
COMMENT ON COLUMN event_sink.owned_until IS 'Until when, if it does not say so again';
COMMENT ON COLUMN event_sink.created_at IS 'When it was made: events from then on';
INSERT INTO event_sink (name, kind) VALUES ('mqtt', 'mqtt');

CREATE TABLE event_retry (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sink_id    bigint NOT NULL REFERENCES event_sink ON DELETE CASCADE,
    key        text NOT NULL,
    event      jsonb NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    next_try   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text CHECK (length(last_error) <= 256),
    dead_at    timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE event_retry IS 'Events that a sink did not take, and those of the same device behind them; dead ones wait for an operator';
COMMENT ON COLUMN event_retry.id IS 'Order, and what operators name a dead one by';
COMMENT ON COLUMN event_retry.sink_id IS 'Whom it was for';
COMMENT ON COLUMN event_retry.key IS 'Of a key one at a time goes, in order';
COMMENT ON COLUMN event_retry.event IS 'The event as it is delivered';
COMMENT ON COLUMN event_retry.attempts IS 'How often it was tried';
COMMENT ON COLUMN event_retry.next_try IS 'When it is tried again';
COMMENT ON COLUMN event_retry.last_error IS 'What the sink said';
COMMENT ON COLUMN event_retry.dead_at IS 'Given up';
COMMENT ON COLUMN event_retry.created_at IS 'First attempt';
CREATE INDEX event_retry_key_idx ON event_retry (sink_id, key, id) WHERE dead_at IS NULL;
CREATE INDEX event_retry_due_idx ON event_retry (sink_id, next_try) WHERE dead_at IS NULL;
CREATE INDEX event_retry_dead_idx ON event_retry (sink_id, id) WHERE dead_at IS NOT NULL;

-- Of what the outbox calls an event, the name that is told.
CREATE FUNCTION event_name(event text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE event WHEN 'device.verified' THEN 'device.provisioned' WHEN 'device.quarantine' THEN 'device.quarantined'
        WHEN 'device.release' THEN 'device.released' WHEN 'device.retire' THEN 'device.retired' WHEN 'device.approve' THEN 'device.approved'
        WHEN 'device.reject' THEN 'device.rejected' ELSE event END
$$;
COMMENT ON FUNCTION event_name IS 'The public name of an event of the outbox';

CREATE FUNCTION event_product(p jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT COALESCE(p->>'product',
        (SELECT q.name FROM muster.certificate c JOIN muster.device d ON d.id = c.device_id JOIN muster.product q ON q.id = d.product_id
            WHERE p->>'fingerprint' ~ '^[0-9a-f]{64}$' AND c.fingerprint = decode(p->>'fingerprint', 'hex')),
        (SELECT q.name FROM muster.template t JOIN muster.product q ON q.id = t.product_id WHERE t.name = split_part(p->>'template', '@', 1)),
        (SELECT q.name FROM muster.device d JOIN muster.product q ON q.id = d.product_id WHERE d.serial_canonical = muster.serial_canonical(q, p->>'serial') LIMIT 1))
$$;
COMMENT ON FUNCTION event_product IS 'The product line an event is of, as far as it can be told';

-- What is delivered: flat, and the same at every repetition.
CREATE FUNCTION event_json(at timestamptz, id bigint, event text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('event', muster.event_name(event), 'id', id::text, 'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'product', muster.event_product(payload)) || (payload - 'product')
$$;
COMMENT ON FUNCTION event_json IS 'An event of the outbox as it is delivered';

CREATE FUNCTION event_key(e jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT COALESCE((e->>'product') || ':' || (e->>'serial'), e->>'serial', e->>'certificate_id', e->>'claim', e->>'event')
$$;
COMMENT ON FUNCTION event_key IS 'Events of one key are delivered in order';

-- Takes a sink for this replica, for half a minute; false: another has it, it is paused, or must not be asked yet.
CREATE FUNCTION event_own(sink bigint, me text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE muster.event_sink SET owner = me, owned_until = clock_timestamp() + interval '30 seconds'
        WHERE id = sink AND NOT paused AND next_try <= clock_timestamp()
          AND (owner IS NULL OR owner = me OR owned_until < clock_timestamp());
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION event_own IS 'One replica at a time delivers to a sink';

CREATE FUNCTION event_leave(me text) RETURNS void LANGUAGE sql AS $$
    UPDATE muster.event_sink SET owner = NULL, owned_until = NULL WHERE owner = me
$$;
COMMENT ON FUNCTION event_leave IS 'A replica that stops leaves its sinks to others';

-- What is to be delivered next: what is due again, one a key, else new events up to the oldest transaction under way. behind: one of its
-- key waits already. matches: the sink wants it.
CREATE FUNCTION event_batch(sink bigint, most integer)
RETURNS TABLE (retry bigint, xid bigint, id bigint, key text, event jsonb, attempts integer, behind boolean, matches boolean) LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
DECLARE
    s muster.event_sink;
BEGIN
    SELECT * INTO s FROM muster.event_sink x WHERE x.id = sink;
    RETURN QUERY SELECT r.id, 0::bigint, 0::bigint, r.key, r.event, r.attempts, false, true FROM muster.event_retry r
        WHERE r.sink_id = sink AND r.dead_at IS NULL AND r.next_try <= clock_timestamp()
          AND NOT EXISTS (SELECT 1 FROM muster.event_retry o WHERE o.sink_id = sink AND o.dead_at IS NULL AND o.key = r.key AND o.id < r.id)
        ORDER BY r.next_try LIMIT most;
    IF FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT 0::bigint, o.xid::text::bigint, o.id, muster.event_key(j.e), j.e, 0,
            EXISTS (SELECT 1 FROM muster.event_retry r WHERE r.sink_id = sink AND r.dead_at IS NULL AND r.key = muster.event_key(j.e)),
            EXISTS (SELECT 1 FROM unnest(s.events) w WHERE CASE WHEN right(w, 1) = '*' THEN starts_with(j.e->>'event', left(w, -1)) ELSE w = j.e->>'event' END)
        FROM (SELECT * FROM muster.outbox y WHERE (y.xid, y.id) > (s.after_xid, s.after_id) AND y.xid < pg_snapshot_xmin(pg_current_snapshot())
              ORDER BY y.xid, y.id LIMIT most) o
        CROSS JOIN LATERAL (SELECT muster.event_json(o.at, o.id, o.event, o.payload) e) j
        ORDER BY o.xid, o.id;
END $$;
COMMENT ON FUNCTION event_batch IS 'The next events of a sink';

-- What became of a batch. results: an array of {"retry", "key", "event", "attempts", "result": ok, refused or queued, "error"}; the position is where new
-- events have come to. away: nobody was there, and nothing behind the last result was tried. False: the sink is another's meanwhile.
CREATE FUNCTION event_done(sink bigint, me text, results jsonb, to_xid bigint, to_id bigint, away text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    x jsonb;
    n integer;
BEGIN
    UPDATE muster.event_sink s SET
            after_xid = CASE WHEN to_xid > 0 THEN to_xid::text::xid8 ELSE s.after_xid END, after_id = CASE WHEN to_xid > 0 THEN to_id ELSE s.after_id END,
            delivered = s.delivered + (SELECT count(*) FROM jsonb_array_elements(results) y WHERE y->>'result' = 'ok'),
            failed = s.failed + (SELECT count(*) FROM jsonb_array_elements(results) y WHERE y->>'result' = 'refused') + (away IS NOT NULL)::integer,
            failures = CASE WHEN away IS NULL THEN 0 ELSE LEAST(s.failures + 1, 10) END,
            next_try = CASE WHEN away IS NULL THEN s.next_try ELSE clock_timestamp() + make_interval(secs => LEAST(60, 0.5 * 2 ^ s.failures) * (0.75 + random() / 2)) END,
            last_error = COALESCE(left(away, 256), s.last_error), owned_until = clock_timestamp() + interval '30 seconds'
        WHERE s.id = sink AND s.owner = me AND s.owned_until > clock_timestamp();
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR x IN SELECT y FROM jsonb_array_elements(results) y LOOP
        n := (x->>'attempts')::integer + 1;
        IF x->>'result' = 'ok' THEN
            DELETE FROM muster.event_retry WHERE id = (x->>'retry')::bigint;
        ELSIF (x->>'retry')::bigint > 0 THEN
            UPDATE muster.event_retry SET attempts = n, last_error = left(x->>'error', 256),
                    next_try = clock_timestamp() + make_interval(secs => LEAST(600, 2 ^ n) * (0.75 + random() / 2)),
                    dead_at = CASE WHEN n >= 12 THEN clock_timestamp() END
                WHERE id = (x->>'retry')::bigint;
        ELSE
            INSERT INTO muster.event_retry (sink_id, key, event, attempts, last_error, next_try)
                VALUES (sink, x->>'key', x->'event', CASE WHEN x->>'result' = 'queued' THEN 0 ELSE 1 END, left(x->>'error', 256),
                    clock_timestamp() + CASE WHEN x->>'result' = 'queued' THEN interval '0' ELSE interval '1 second' END);
        END IF;
    END LOOP;
    RETURN true;
END $$;
COMMENT ON FUNCTION event_done IS 'Writes down what became of a batch of events';

-- The desk

CREATE FUNCTION sink_behind_s(s event_sink) RETURNS integer LANGUAGE sql VOLATILE SET enable_seqscan = off AS $$
    SELECT COALESCE((SELECT ceil(extract(epoch FROM clock_timestamp() - o.at))::integer FROM muster.outbox o
        WHERE (o.xid, o.id) > (s.after_xid, s.after_id) ORDER BY o.xid, o.id LIMIT 1), 0)
$$;
COMMENT ON FUNCTION sink_behind_s IS 'How old the oldest event is that a sink has not taken over, seconds';

CREATE FUNCTION sink_json(s event_sink) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_build_object('name', s.name, 'kind', s.kind, 'url', s.url, 'events', to_jsonb(s.events), 'paused', s.paused, 'delivered', s.delivered,
        'failed', s.failed, 'last_error', s.last_error, 'waiting', (SELECT count(*) FROM muster.event_retry r WHERE r.sink_id = s.id AND r.dead_at IS NULL),
        'dead', (SELECT count(*) FROM muster.event_retry r WHERE r.sink_id = s.id AND r.dead_at IS NOT NULL),
        'behind_s', muster.sink_behind_s(s), 'created_at', muster.utc(s.created_at))
$$;
COMMENT ON FUNCTION sink_json IS 'A receiver of events as the API shows it';

CREATE FUNCTION desk_sink(op jsonb, name text) RETURNS event_sink LANGUAGE plpgsql AS $$
DECLARE
    s muster.event_sink;
BEGIN
    PERFORM muster.desk_unscoped(op);
    SELECT * INTO s FROM muster.event_sink x WHERE x.name = desk_sink.name FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('object.not_found', format('there is no receiver of events %s', name));
    END IF;
    RETURN s;
END $$;
COMMENT ON FUNCTION desk_sink IS 'The receiver of a name, locked';

CREATE FUNCTION desk_sink_create(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    s muster.event_sink;
BEGIN
    PERFORM muster.desk_unscoped(op);
    INSERT INTO muster.event_sink (name, kind, url, events)
        VALUES (a->>'name', 'webhook', a->>'url', COALESCE(ARRAY(SELECT jsonb_array_elements_text(a->'events')), '{*}'))
        ON CONFLICT (name) DO NOTHING RETURNING * INTO s;
    IF s.id IS NULL THEN
        PERFORM muster.refuse('request.exists', format('receiver %s', a->>'name'));
    END IF;
    IF cardinality(s.events) = 0 THEN
        UPDATE muster.event_sink SET events = '{*}' WHERE id = s.id RETURNING * INTO s;
    END IF;
    PERFORM muster.desk_audit(op, 'webhook.create', s.name, jsonb_build_object('url', s.url, 'events', to_jsonb(s.events)));
    RETURN muster.sink_json(s);
END $$;
COMMENT ON FUNCTION desk_sink_create IS 'POST /webhooks';

CREATE FUNCTION desk_sink_pause(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    s muster.event_sink := muster.desk_sink(op, a->>'name');
BEGIN
    UPDATE muster.event_sink SET paused = (a->>'paused')::boolean, next_try = clock_timestamp(), failures = 0 WHERE id = s.id RETURNING * INTO s;
    PERFORM muster.desk_audit(op, CASE WHEN s.paused THEN 'webhook.pause' ELSE 'webhook.resume' END, s.name);
    RETURN muster.sink_json(s);
END $$;
COMMENT ON FUNCTION desk_sink_pause IS 'POST /webhooks/{name}/pause and /resume';

CREATE FUNCTION desk_sink_delete(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    s muster.event_sink := muster.desk_sink(op, a->>'name');
BEGIN
    IF s.kind <> 'webhook' THEN
        PERFORM muster.refuse('request.conflict', 'the broker''s topics can be paused, not deleted');
    END IF;
    DELETE FROM muster.event_sink WHERE id = s.id;
    PERFORM muster.desk_audit(op, 'webhook.delete', s.name);
    RETURN '{}';
END $$;
COMMENT ON FUNCTION desk_sink_delete IS 'DELETE /webhooks/{name}';

CREATE FUNCTION dead_json(r event_retry) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', r.id, 'receiver', s.name, 'event', r.event->>'event', 'serial', r.event->>'serial', 'attempts', r.attempts,
        'last_error', r.last_error, 'dead_at', muster.utc(r.dead_at), 'created_at', muster.utc(r.created_at), 'body', r.event)
    FROM muster.event_sink s WHERE s.id = r.sink_id
$$;
COMMENT ON FUNCTION dead_json IS 'A dead letter as the API shows it';

-- a: id, or nothing: all; drop
CREATE FUNCTION desk_dead_end(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    n integer;
BEGIN
    PERFORM muster.desk_unscoped(op);
    IF (a->>'drop')::boolean THEN
        DELETE FROM muster.event_retry WHERE dead_at IS NOT NULL AND id = COALESCE((a->>'id')::bigint, id);
    ELSE
        UPDATE muster.event_retry SET dead_at = NULL, attempts = 0, next_try = clock_timestamp() WHERE dead_at IS NOT NULL AND id = COALESCE((a->>'id')::bigint, id);
    END IF;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n = 0 AND a->>'id' IS NOT NULL THEN
        PERFORM muster.refuse('object.not_found', format('there is no dead letter %s', a->>'id'));
    END IF;
    PERFORM muster.desk_audit(op, CASE WHEN (a->>'drop')::boolean THEN 'event.drop' ELSE 'event.retry' END, COALESCE(a->>'id', 'all'), jsonb_build_object('count', n));
    RETURN json_build_object('count', n);
END $$;
COMMENT ON FUNCTION desk_dead_end IS 'POST /dead-events/{id}/retry and /drop, and of all';
