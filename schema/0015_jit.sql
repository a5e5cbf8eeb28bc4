-- migration: 15
-- name: jit
-- oldest-binary: 1
-- transaction: yes
--
-- Devices that come with a certificate of a registered CA: what their first contact does.

SET LOCAL search_path = muster;

ALTER TABLE ca ADD COLUMN auto_registration boolean NOT NULL DEFAULT false;
ALTER TABLE ca ADD COLUMN jit text NOT NULL DEFAULT 'jitp' CHECK (jit IN ('jitp', 'jitr'));
ALTER TABLE ca ADD COLUMN proof text CHECK (proof IN ('verified', 'override', 'imported'));
ALTER TABLE ca ADD CHECK (kind = 'registered' OR NOT auto_registration);
ALTER TABLE ca ADD CHECK (NOT auto_registration OR jit = 'jitr' OR template_id IS NOT NULL);
COMMENT ON COLUMN ca.auto_registration IS 'For registered CAs: whether the first contact of a certificate of its registers the device';
COMMENT ON COLUMN ca.jit IS 'How: jitp runs the template at once, jitr records the certificate as pending and tells it';
COMMENT ON COLUMN ca.proof IS 'verified: its holder signed a certificate with our registration code; override: an operator vouched; imported: from another region''s bundle; NULL: our own, or registered before proofs were';
