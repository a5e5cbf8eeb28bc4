-- migration: 11
-- name: many_renewals
-- oldest-binary: 1
-- transaction: yes
--
-- The live certificates of a device were looked for among all it ever had: after three thousand renewals
-- that was most of what a renewal cost. The two partial indexes find them at once.

SET LOCAL search_path = muster;

CREATE OR REPLACE FUNCTION certificate_of(device bigint, wanted_purpose text, wanted_status text) RETURNS certificate LANGUAGE plpgsql STABLE AS $$
DECLARE
    c muster.certificate;
BEGIN
    -- the status in so many words: an index over some of the rows is used only where the statement says which
    IF wanted_status = 'current' THEN
        SELECT * INTO c FROM muster.certificate x WHERE x.device_id = device AND x.purpose = wanted_purpose AND x.status = 'current';
    ELSE
        SELECT * INTO c FROM muster.certificate x WHERE x.device_id = device AND x.purpose = wanted_purpose AND x.status = 'pending';
    END IF;
    RETURN c;
END $$;
