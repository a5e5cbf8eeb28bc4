-- migration: 18
-- name: ca_desk
-- oldest-binary: 1
-- transaction: yes
--
-- Registering CAs: proof of possession, bundles, issuers seen but not registered.

SET LOCAL search_path = muster;
