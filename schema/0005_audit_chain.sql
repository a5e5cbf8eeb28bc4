-- migration: 5
-- name: audit_chain
-- oldest-binary: 1
-- transaction: yes

SET LOCAL search_path = muster;
