-- migration: 19
-- name: watch
-- oldest-binary: 1
-- transaction: yes
--
-- Devices that stand in a state for too long; certificates an operator registers ahead of their device.

SET LOCAL search_path = muster;
