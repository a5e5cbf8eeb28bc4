-- migration: 25
-- name: asked
-- oldest-binary: 1
-- transaction: yes
--
-- A request says when it was asked by the registry's clock, not how old it was when it left the server: an age grows
-- while the statement is on its way or waits for a lock, and a request from before a power cut that was held up there
-- passed for one after it and took the place of what the device had got meanwhile. And one that was held up takes nothing
-- from a device where the template lets another key replace the first either.

SET LOCAL search_path = muster;

ALTER TYPE enrol_request ADD ATTRIBUTE asked_us bigint; -- microseconds since 1970

CREATE FUNCTION asked_at(r enrol_request) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT COALESCE('epoch'::timestamptz + r.asked_us * interval '1 microsecond',
        clock_timestamp() - make_interval(secs => r.age_us / 1e6)) -- of a server that still says its age
$$;
COMMENT ON FUNCTION asked_at IS 'The earliest time at which the device can have sent the request';

CREATE OR REPLACE FUNCTION enrol_takeover(r enrol_request, d device, v token_verdict, pend certificate, cur certificate)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    bound boolean := r.credential IN ('factory', 'jit') OR COALESCE(v.bound, false);
    in_grace boolean;
BEGIN
    IF d.reset_at IS NOT NULL THEN
        RETURN;
    END IF;
    IF pend.id IS NULL AND cur.id IS NULL THEN
        -- its certificates were revoked or have gone; who once was verified is not taken over
        IF NOT bound AND EXISTS (SELECT 1 FROM muster.certificate c WHERE c.device_id = d.id
                                 AND c.purpose = 'operational' AND c.verified_at IS NOT NULL) THEN
            PERFORM muster.refuse('device.already_provisioned', 'a shared credential never takes over a device that was verified; muster device reset allows it once');
        END IF;
        RETURN;
    END IF;
    IF cur.id IS NOT NULL THEN
        IF NOT bound THEN
            PERFORM muster.refuse('device.already_provisioned', 'a shared credential never replaces a verified certificate; muster device reset allows it once');
        ELSIF NOT r.replace THEN
            PERFORM muster.refuse('device.already_provisioned', 'the template says Reprovision: refuse');
        ELSIF COALESCE(v.comeback, false) AND NOT EXISTS (SELECT 1 FROM muster.token_use u
                WHERE u.token_id = v.token_id AND u.device_id = d.id AND u.certificate_id = pend.id) THEN
            PERFORM muster.refuse('token.consumed', 'the grace of a token ends when the certificate it gave has been used');
        END IF;
    ELSIF NOT r.replace THEN
        in_grace := COALESCE(v.comeback, false)
            OR (r.credential = 'token' AND bound AND NOT v.comeback)
            OR (r.credential IN ('factory', 'jit') AND clock_timestamp() <= pend.issued_at + make_interval(secs => r.grace_s));
        IF NOT (bound AND in_grace) THEN
            PERFORM muster.refuse('device.key_conflict', format('another key was enrolled at %s and the template says Reprovision: refuse', pend.issued_at));
        END IF;
    END IF;
    IF muster.asked_at(r) < pend.issued_at THEN
        PERFORM muster.refuse('device.busy', 'another key was enrolled for this device while this request was under way');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION enrol_renew(r enrol_request) RETURNS enrol_result LANGUAGE plpgsql AS $$
DECLARE
    d muster.device;
    own muster.certificate;
    pend muster.certificate;
    made bigint;
    res muster.enrol_result;
BEGIN
    SELECT * INTO own FROM muster.certificate WHERE fingerprint = r.peer_fingerprint;
    SELECT * INTO d FROM muster.device WHERE id = own.device_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM muster.refuse('cert.unknown', 'our CA signed the certificate, the registry does not have it');
    END IF;
    -- what it is now, with the device locked
    SELECT * INTO own FROM muster.certificate WHERE id = own.id;
    IF own.status = 'revoked' THEN
        PERFORM muster.refuse('cert.revoked', format('revoked (%s) at %s', own.revoke_reason, own.ended_at));
    ELSIF own.purpose <> 'operational' THEN
        PERFORM muster.refuse('cert.wrong_purpose', 'the certificate is for bootstrap only');
    END IF;
    PERFORM muster.enrol_device_check(d);
    IF own.status = 'superseded' THEN
        PERFORM muster.refuse('cert.superseded', format('superseded at %s', own.ended_at));
    END IF;
    IF EXISTS (SELECT 1 FROM muster.key_owner k WHERE k.spki_sha256 = own.spki_sha256 AND k.dead_at IS NOT NULL) THEN
        PERFORM muster.refuse('key.reused', 'the key of the certificate was revoked with another certificate');
    END IF;
    PERFORM muster.enrol_allowlist_block(r);
    PERFORM muster.certificate_used(own.id);
    r.inactive := NOT own.active;
    SELECT * INTO d FROM muster.device WHERE id = d.id;
    pend := muster.certificate_of(d.id, 'operational', 'pending');
    IF pend.id IS NOT NULL AND pend.supersedes_id = own.id AND pend.spki_sha256 = r.spki
       AND pend.issued_at + make_interval(secs => r.replay_s) >= clock_timestamp() THEN
        RETURN muster.enrol_replay(r, d, pend, true);
    END IF;
    PERFORM muster.enrol_key(r, d.id);
    IF pend.id IS NOT NULL THEN
        IF pend.spki_sha256 <> r.spki AND muster.asked_at(r) < pend.issued_at THEN
            PERFORM muster.refuse('device.busy', 'another key was enrolled for this device while this request was under way');
        END IF;
        IF pend.spki_sha256 IN (r.spki, own.spki_sha256) THEN
            UPDATE muster.certificate SET status = 'superseded', ended_at = clock_timestamp() WHERE id = pend.id;
        ELSE
            PERFORM muster.certificate_revoke(pend.id, 'superseded');
        END IF;
    END IF;
    made := muster.enrol_certificate(r, d.id, own.id);
    INSERT INTO muster.certificate_policy SELECT made, policy_id FROM muster.certificate_policy WHERE certificate_id = own.id;
    SELECT r.ord, 'ok', '', true, NULL::bytea, r.fingerprint, muster.enrol_finish(r, d, true) INTO res;
    RETURN res;
END $$;
