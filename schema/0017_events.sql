-- migration: 17
-- name: events
-- oldest-binary: 1
-- transaction: yes
--
-- Lifecycle events: from the outbox to topics and webhooks.

SET LOCAL search_path = muster;
