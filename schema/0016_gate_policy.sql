-- migration: 16
-- name: gate_policy
-- oldest-binary: 1
-- transaction: yes
--
-- What the broker's table says of a device's policies, and of the CAs it is to trust.

SET LOCAL search_path = muster;
