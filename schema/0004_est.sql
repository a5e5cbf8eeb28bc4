-- migration: 4
-- name: est
-- oldest-binary: 1
-- transaction: yes

SET LOCAL search_path = muster;
