-- migration: 33
-- name: doors_watch
-- oldest-binary: 1
-- transaction: yes
--
-- What an operator is told of the newer doors: when SCEP's registration authority ends, and which groups are large.

SET LOCAL search_path = muster;

-- ra_ends_s: of the certificate of this replica's registration authority; 0: it has none
CREATE FUNCTION expiry_tell(server_ends_s bigint, ra_ends_s bigint) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM muster.expiry_tell(server_ends_s);
    IF ra_ends_s > 0 THEN
        RETURN QUERY SELECT * FROM muster.expiry_tell_one('scep_ra', 'scep_ra.expiring', to_timestamp(ra_ends_s), '{}');
    END IF;
END $$;
COMMENT ON FUNCTION expiry_tell(bigint, bigint) IS 'The same, and of the registration authority of SCEP';

-- ra_ends: seconds since 1970; null: no SCEP
CREATE FUNCTION doctor_doors(a jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    found jsonb := '[]';
    n bigint := floor(((a->>'ra_ends')::bigint - extract(epoch FROM now())) / 86400);
BEGIN
    IF n IS NOT NULL THEN
        found := found || muster.doctor_row('SCEP registration authority', n < 30, CASE WHEN n < 7 THEN 'error' ELSE 'warning' END,
            format('its certificate ends in %s days', n), 'musterd add-ra, then restart musterd');
    END IF;
    SELECT count(*) INTO n FROM muster.enrollment e JOIN muster.enrollment_tally t ON t.enrollment_id = e.id
        WHERE e.enabled AND t.devices >= LEAST(e.warn_devices, e.max_devices);
    found := found || muster.doctor_row('enrollment groups', n > 0, 'warning', format('%s groups have as many devices as they are to warn of', n),
        'muster enrollment-group list: many devices behind one key; a group for each line or lot keeps what a leak costs small');
    RETURN found;
END $$;
COMMENT ON FUNCTION doctor_doors IS 'The doctor''s findings about SCEP and enrollments';

ALTER FUNCTION desk_doctor(jsonb, jsonb) RENAME TO doctor_before_doors;
COMMENT ON FUNCTION doctor_before_doors IS 'The doctor''s findings about everything but SCEP and enrollments';
CREATE FUNCTION desk_doctor(op jsonb, a jsonb) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT (muster.doctor_before_doors(op, a)::jsonb || muster.doctor_doors(a))::json
$$;
COMMENT ON FUNCTION desk_doctor IS 'GET /doctor';
