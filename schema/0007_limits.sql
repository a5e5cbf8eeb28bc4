-- migration: 7
-- name: limits
-- oldest-binary: 1
-- transaction: yes

SET LOCAL search_path = muster;
