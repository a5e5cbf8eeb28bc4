-- migration: 8
-- name: doctor
-- oldest-binary: 1
-- transaction: yes
--
-- More for the doctor: the database itself, the server's certificate, registered CAs, approvals.

SET LOCAL search_path = muster;

-- a: clock (the replica's, microseconds since 1970), needs (schema number of the binary), default_template, issuers (names this
-- replica can sign with), server_ends (its certificate's end, seconds since 1970)
CREATE OR REPLACE FUNCTION desk_doctor(op jsonb, a jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    found jsonb := '[]';
    drift numeric := abs(extract(epoch FROM clock_timestamp()) - (a->>'clock')::numeric / 1e6);
    n bigint;
    r record;
BEGIN
    PERFORM muster.desk_unscoped(op);
    found := found || muster.doctor_row('database', pg_is_in_recovery(), 'error', format('PostgreSQL %s, %s of %s connections', current_setting('server_version'),
        (SELECT sum(numbackends) FROM pg_stat_database), current_setting('max_connections')), 'it is a standby: database.host must name the primary');
    SELECT max(version) INTO n FROM muster.schema_migration;
    found := found || muster.doctor_row('schema', n < (a->>'needs')::integer, 'error', format('the schema is at %s, the server needs %s', n, a->>'needs'), 'musterd migrate');
    found := found || muster.doctor_row('clock', drift > 2, CASE WHEN drift > 30 THEN 'error' ELSE 'warning' END,
        format('the clocks of server and database differ by %s s', round(drift, 1)), 'run a time service on both');
    n := floor(((a->>'server_ends')::bigint - extract(epoch FROM now())) / 86400);
    found := found || muster.doctor_row('server certificate', n < 30, CASE WHEN n < 7 THEN 'error' ELSE 'warning' END,
        format('the one this replica shows devices ends in %s days', n), 'replace the files of [tls], then SIGHUP');
    SELECT count(*) INTO n FROM muster.ca c WHERE c.kind = 'issuing' AND c.active;
    found := found || muster.doctor_row('issuers', n = 0, 'error', format('%s issuing CAs are active', n), 'musterd init, or muster ca activate');
    FOR r IN SELECT c.name, floor(extract(epoch FROM c.not_after - now()) / 86400) AS days FROM muster.ca c WHERE c.kind IN ('issuing', 'root') AND c.active ORDER BY c.id LOOP
        found := found || muster.doctor_row('ca ' || r.name, r.days < 90, CASE WHEN r.days < 14 THEN 'error' ELSE 'warning' END,
            format('it ends in %s days', r.days), 'musterd add-issuer makes another issuing CA');
    END LOOP;
    FOR r IN SELECT c.name, floor(extract(epoch FROM c.not_after - now()) / 86400) AS days FROM muster.ca c WHERE c.kind = 'registered' AND c.active
            AND c.not_after < now() + interval '90 days' ORDER BY c.id LOOP
        found := found || muster.doctor_row('ca ' || r.name, true, CASE WHEN r.days < 14 THEN 'error' ELSE 'warning' END,
            format('devices of this registered CA are refused in %s days', r.days), 'muster ca register its successor, or muster ca deactivate');
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
    SELECT count(*) INTO n FROM muster.approval p WHERE p.decision IS NULL;
    found := found || muster.doctor_row('approvals', n > 0, 'warning', format('%s enrolments wait for an operator', n), 'muster device list --approval pending, then approve or reject');
    SELECT count(*) INTO n FROM muster.unknown_issuer;
    found := found || muster.doctor_row('unknown issuers', n > 0, 'warning', format('%s issuers came that nobody registered', n), 'muster ca unknown, then register or dismiss');
    SELECT count(*) INTO n FROM muster.certificate c WHERE c.status = 'current' AND c.not_after < now() + interval '30 days';
    found := found || muster.doctor_row('certificates', n > 0, 'warning', format('%s certificates in use end within 30 days', n), 'muster cert list --status current --expires-before TIME');
    SELECT count(*) INTO n FROM unnest(ARRAY['history', 'outbox', 'audit']) t(name)
        WHERE to_regclass('muster.' || t.name || '_' || to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYYMM')) IS NULL;
    found := found || muster.doctor_row('partitions', n > 0, 'error', format('%s tables have no partition for next month', n), 'a replica''s background job makes them; read its log');
    RETURN found::json;
END $$;
