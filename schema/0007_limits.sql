-- migration: 7
-- name: limits
-- oldest-binary: 1
-- transaction: yes

SET LOCAL search_path = muster;

-- A limit is a line of slots in time, one every 1/rate seconds. Replicas take runs of slots from it
-- and let one enrolment pass in each. Two lanes make the line: one that everybody may use, and the
-- share of the renewals. Rates are the caller's: the table knows only how far each lane is given away.
CREATE TABLE rate_line (
    kind       text NOT NULL CHECK (kind IN ('global', 'template', 'claim')),
    id         bigint NOT NULL,
    common_us  bigint NOT NULL DEFAULT 0,
    renewal_us bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 50);
COMMENT ON TABLE rate_line IS 'Rate limits that hold across replicas: how far the slots of each limit are given away';
COMMENT ON COLUMN rate_line.kind IS 'What is limited: global, template or claim';
COMMENT ON COLUMN rate_line.id IS 'Registry number of the template or claim; 0 for global';
COMMENT ON COLUMN rate_line.common_us IS 'The next free slot of the common lane, database time in microseconds since 1970';
COMMENT ON COLUMN rate_line.renewal_us IS 'The next free slot of the lane reserved for renewals, likewise';

-- Gives the caller the next run of at most p_count slots, p_gap apart. A slot is never older than
-- p_back (the burst) nor further ahead than p_ahead (the queue). A renewal takes the lane that is
-- free earlier. Anybody else takes what the renewals left unused for half the burst, but only when
-- the common lane has nothing at once. A lane further ahead than any queue reaches is the mark of a
-- database clock that was set back: it begins anew.
CREATE FUNCTION rate_lease(p_kind text, p_id bigint, p_renewal boolean, p_count integer,
                           p_common_gap bigint, p_renewal_gap bigint, p_back bigint, p_ahead bigint)
RETURNS TABLE (now_us bigint, first_us bigint, gap_us bigint, granted integer) LANGUAGE plpgsql AS $$
DECLARE
    line muster.rate_line;
    c_at bigint;
    r_at bigint;
    by_renewal boolean;
    last_us bigint;
BEGIN
    SELECT * INTO line FROM muster.rate_line l WHERE l.kind = p_kind AND l.id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO muster.rate_line (kind, id) VALUES (p_kind, p_id) ON CONFLICT DO NOTHING;
        SELECT * INTO line FROM muster.rate_line l WHERE l.kind = p_kind AND l.id = p_id FOR UPDATE;
    END IF;
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    c_at := greatest(line.common_us, now_us - p_back);
    r_at := greatest(line.renewal_us, now_us - p_back);
    IF c_at > now_us + p_ahead + p_common_gap + 60000000 THEN
        c_at := now_us;
    END IF;
    IF r_at > now_us + p_ahead + p_renewal_gap + 60000000 THEN
        r_at := now_us;
    END IF;
    by_renewal := p_renewal_gap > 0
        AND CASE WHEN p_renewal THEN r_at <= c_at ELSE c_at > now_us AND r_at <= now_us - p_back / 2 END;
    first_us := CASE WHEN by_renewal THEN r_at ELSE c_at END;
    gap_us := CASE WHEN by_renewal THEN p_renewal_gap ELSE p_common_gap END;
    last_us := CASE WHEN by_renewal AND NOT p_renewal THEN now_us - p_back / 2 ELSE now_us + p_ahead END;
    granted := 0;
    IF first_us <= last_us THEN
        granted := least(p_count, (last_us - first_us) / gap_us + 1);
    END IF;
    IF granted > 0 AND by_renewal THEN
        UPDATE muster.rate_line l SET renewal_us = first_us + granted * gap_us WHERE l.kind = p_kind AND l.id = p_id;
    ELSIF granted > 0 THEN
        UPDATE muster.rate_line l SET common_us = first_us + granted * gap_us WHERE l.kind = p_kind AND l.id = p_id;
    END IF;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION rate_lease IS 'Gives a replica the next slots of a rate limit';
