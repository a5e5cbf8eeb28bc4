-- migration: 6
-- name: hotpath
-- oldest-binary: 1
-- transaction: yes

SET LOCAL search_path = muster;
